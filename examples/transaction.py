"""Transactions: a sign-up, and a password reset with a single-use token: ``python examples/transaction.py``."""

import asyncio
from datetime import UTC, datetime, timedelta

from allsource_auth import AllsourceAuthAdapter, Conflict, Session


async def sign_up(adapter: AllsourceAuthAdapter, email: str, password_hash: str) -> Session:
    """Create a user, its password and its first session, together or not at all."""
    async with adapter.transaction() as tx:
        user = await tx.users.create(email=email)
        await tx.accounts.create(user_id=user.id, provider_id="credential", account_id=user.id, password=password_hash)
        return await tx.sessions.create(user_id=user.id, expires_at=datetime.now(UTC) + timedelta(days=7))


async def reset(adapter: AllsourceAuthAdapter, email: str, token: str, password_hash: str) -> bool:
    """Consume the token and set the password in one transaction. Of concurrent callers with one token, one succeeds."""
    user = await adapter.users.get_by_email(email)
    if user is None:
        return False
    async with adapter.transaction() as tx:
        if await tx.verifications.consume(email, token) is None:
            return False
        (account,) = await tx.accounts.list_for_user(user.id)
        await tx.accounts.update(account.id, password=password_hash)
    await adapter.sessions.delete_for_user(user.id)
    return True


async def main() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        session = await sign_up(adapter, "ada@example.org", "hash-1")
        found = await adapter.load_session(session.token)
        assert found is not None
        print(f"{found.user.id} is signed in")

        try:
            await sign_up(adapter, "ADA@example.org", "hash-2")
        except Conflict as conflict:
            print(f"a second sign-up fails ({conflict}) and stores nothing")
        assert (await adapter.users.list()).total == 1

        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        await adapter.verifications.create(identifier="ada@example.org", value="reset_1", expires_at=in_an_hour)
        print("first use of the token:", await reset(adapter, "ada@example.org", "reset_1", "hash-3"))
        print("second use of the token:", await reset(adapter, "ada@example.org", "reset_1", "hash-4"))
        (account,) = await adapter.accounts.list_for_user(found.user.id)
        assert account.password == "hash-3"  # noqa: S105


asyncio.run(main())
