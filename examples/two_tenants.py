"""Two tenants in one file, with the same ids and emails: ``python examples/two_tenants.py``."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from allsource_auth import UNSET, AllsourceAuthAdapter, SqliteLog, SqliteStore


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "auth.db")
        async with (
            AllsourceAuthAdapter.with_store(SqliteStore(log, "north")) as north,
            AllsourceAuthAdapter.with_store(SqliteStore(log, "south", owns_log=False)) as south,
        ):
            await north.users.create(id="ada", email="ada@example.org", name="Ada", role="member")
            await south.users.create(id="ada", email="ada@example.org", name="Another Ada")
            await north.users.update("ada", name=None, role=UNSET)  # None clears a field, UNSET leaves it unchanged

            here, there = await north.users.get("ada"), await south.users.get_by_email("ada@example.org")
            assert here is not None
            assert there is not None
            assert (here.name, here.role, there.name) == (None, "member", "Another Ada")

            await north.users.delete("ada")
            assert await south.users.get("ada") == there
            print("changes and deletions of one tenant do not affect the other")


if __name__ == "__main__":
    asyncio.run(main())
