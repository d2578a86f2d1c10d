"""A sign-up as a transaction: a user, an account with a password, a session; and a check that each is complete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from allsource_auth import AllsourceAuthAdapter, Transaction, User
from tests.support.ownership import assert_sound

__all__ = ["sign_up", "signed_up"]

WEEK = timedelta(days=7)


def utc_now() -> datetime:
    return datetime.now(UTC)


async def sign_up(tx: Transaction, name: str, address: str, clock: Callable[[], datetime] = utc_now) -> User:
    user = await tx.users.create(email=address, username=name)
    await tx.accounts.create(user_id=user.id, provider_id="credential", account_id=user.id, password="$argon2$x")
    await tx.sessions.create(user_id=user.id, expires_at=clock() + WEEK)
    return user


async def signed_up(adapter: AllsourceAuthAdapter) -> dict[str | None, User]:
    """Return all users by username. Checks that each has one account and one valid session, and that there are no others."""
    users = {user.id: user async for user in adapter.users.scan()}
    accounts = [account async for account in adapter.accounts.scan()]
    sessions = [session async for session in adapter.sessions.scan()]
    assert sorted(account.user_id for account in accounts) == sorted(users), "an account is missing, or one too many"
    assert sorted(session.user_id for session in sessions) == sorted(users), "a session is missing, or one too many"
    for account in accounts:
        assert await adapter.accounts.get_by_provider("credential", account.user_id) == account
        assert await adapter.accounts.list_for_user(account.user_id) == [account]
    for session in sessions:
        found = await adapter.load_session(session.token)
        assert found is not None
        assert found.user == users[session.user_id]
    await assert_sound(adapter)
    return {user.username: user for user in users.values()}
