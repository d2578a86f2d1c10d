"""Reindex users that another program stored, and check the store: ``python examples/maintenance.py``."""

from __future__ import annotations

import asyncio
import json

from allsource_auth import AllsourceAuthAdapter, NewEvent, SqliteLog, SqliteStore


def stored_by_rust_crate(user_id: str, email: str, created_at: str) -> NewEvent:
    """A user as the Rust crate stores it: without the claim that a look-up by email needs."""
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
        await store.append([stored_by_rust_crate("u-1", "ada@example.org", "2026-01-01T00:00:00Z")])
        await store.append([stored_by_rust_crate("u-2", "grace@example.org", "2026-01-02T00:00:00Z")])
        await store.append([stored_by_rust_crate("u-3", "ADA@example.org", "2026-01-03T00:00:00Z")])
        assert await adapter.users.get_by_email("grace@example.org") is None

        done = await adapter.reindex(progress=lambda kind, count: print(f"{kind}: {count} done"))
        print(f"{done.claims} claims and {done.entries} index entries written")
        for finding in done.duplicates:
            print(f"{finding.kind}.{finding.field} is shared by {', '.join(finding.keys)}; the first one has the claim")
        found = await adapter.users.get_by_email("Ada@example.org")
        assert found is not None
        assert found.id == "u-1"

        await adapter.users.update("u-3", email="other@example.org")  # the decision of an operator
        checked = await adapter.check(repair=True)
        print(checked)
        assert checked.remaining == ()


if __name__ == "__main__":
    asyncio.run(main())
