"""Make searchable what another writer stored, and check the store."""

from __future__ import annotations

import asyncio
import json

from allsource_auth import AllsourceAuthAdapter, NewEvent, SqliteLog, SqliteStore


def as_others_write(user_id: str, email: str, created_at: str) -> NewEvent:
    """A user as the Rust crate stores it: its state, and nothing that makes it findable by email."""
    user = {
        "id": user_id,
        "email": email,
        "name": None,
        "emailVerified": True,
        "twoFactorEnabled": False,
        "banned": False,
        "createdAt": created_at,
        "updatedAt": created_at,
    }
    payload = json.dumps(user).encode()
    return NewEvent(type="auth.user.created", stream=f"auth-user:{user_id}", payload=payload, metadata=b"")


async def main() -> None:
    store = SqliteStore(SqliteLog(None))
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        await store.append([as_others_write("u-1", "ada@example.org", "2026-01-01T00:00:00Z")])
        await store.append([as_others_write("u-2", "grace@example.org", "2026-01-02T00:00:00Z")])
        await store.append([as_others_write("u-3", "ADA@example.org", "2026-01-03T00:00:00Z")])
        assert await adapter.users.get_by_email("grace@example.org") is None

        done = await adapter.reindex(progress=lambda kind, count: print(f"{kind}: {count} done"))
        print(f"{done.claims} claims and {done.entries} list entries written")
        for finding in done.duplicates:
            print(f"{finding.kind}.{finding.field} is shared by {', '.join(finding.keys)}; the first one keeps it")
        found = await adapter.users.get_by_email("Ada@example.org")
        assert found is not None
        assert found.id == "u-1"

        await adapter.users.update("u-3", email="other@example.org")  # what a person decided
        checked = await adapter.check(repair=True)
        print(checked)
        assert checked.remaining == ()


if __name__ == "__main__":
    asyncio.run(main())
