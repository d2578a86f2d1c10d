"""Bulk reads, pages of users, and the life of a session: ``python examples/operations.py``."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from allsource_auth import AllsourceAuthAdapter, EventLabel


async def many_users(adapter: AllsourceAuthAdapter) -> None:
    """Read users by id, iterate over all users, and list a page."""
    users = adapter.users
    made = [await users.create(email=f"person{number}@example.org", role="member") for number in range(5)]
    found = await users.get_many([made[0].id, made[1].id, "unknown"])
    assert list(found) == [made[0].id, made[1].id]
    assert await users.exists(made[0].id)
    assert {user.id async for user in users.scan()} >= {user.id for user in made}

    page = await users.list(search_value="PERSON", filter_field="role", filter_value="member", sort_by="email", limit=2)
    print(f"{page.total} match; the first two: {[user.email for user in page.items]}")
    assert page.total == 5


async def sessions_over_time(adapter: AllsourceAuthAdapter) -> None:
    """Sign in on two devices, extend a session, select an organization, sign out everywhere, delete expired sessions."""
    sessions, now = adapter.sessions, datetime.now(UTC)
    user = await adapter.users.create(username="grace")
    phone = await sessions.create(user_id=user.id, expires_at=now + timedelta(hours=1), user_agent="phone")
    laptop = await sessions.create(user_id=user.id, expires_at=now + timedelta(hours=1), user_agent="laptop")
    await sessions.update_expiry(phone.token, now + timedelta(days=7))
    await sessions.set_active_organization(laptop.token, "org-1")
    async for change in sessions.iter_history(laptop.token):
        print(f"{change.at:%H:%M:%S} {change.event} {', '.join(change.diff) if change.before else ''}")
    assert [change.event for change in await sessions.history(phone.token)][-1] == EventLabel.SESSION_EXPIRY_UPDATED

    assert {session.token for session in await sessions.list_for_user(user.id)} == {phone.token, laptop.token}
    assert await sessions.delete_for_user(user.id) == 2
    await sessions.create(user_id=user.id, expires_at=now - timedelta(seconds=1))
    print(f"{await sessions.delete_expired()} expired session removed")


async def main() -> None:
    logging.getLogger("allsource_auth").setLevel(logging.INFO)  # DEBUG logs each call of the store
    with tempfile.TemporaryDirectory() as folder:
        settings = {"ALLSOURCE_EMBEDDED_PATH": str(Path(folder) / "auth.db"), "ALLSOURCE_TENANT": "shop"}
        async with AllsourceAuthAdapter.from_env(settings) as adapter:
            await many_users(adapter)
            await sessions_over_time(adapter)


if __name__ == "__main__":
    asyncio.run(main())
