"""Concurrent callers: an email has one owner, and no update is lost: ``python examples/uniqueness.py``."""

import asyncio

from allsource_auth import AllsourceAuthAdapter, Conflict, User


async def main() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:

        async def sign_up(email: str) -> User | Conflict:
            try:
                return await adapter.users.create(email=email)
            except Conflict as conflict:
                return conflict

        # A hundred concurrent sign-ups with one email, in two spellings.
        emails = ["ada@example.org", "ADA@example.org"] * 50
        outcomes = await asyncio.gather(*(sign_up(email) for email in emails))
        winners = [outcome for outcome in outcomes if isinstance(outcome, User)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert (len(winners), len(losers)) == (1, 99)
        assert all((conflict.kind, conflict.field) == ("user", "email") for conflict in losers)
        print("one sign-up succeeded, 99 failed:", losers[0])

        # Concurrent updates of different fields of one user.
        ada = winners[0]
        await asyncio.gather(
            adapter.users.update(ada.id, name="Ada"),
            adapter.users.update(ada.id, role="editor"),
            adapter.users.update(ada.id, email_verified=True),
        )
        now = await adapter.users.get(ada.id)
        assert now is not None
        assert (now.name, now.role, now.email_verified) == ("Ada", "editor", True)
        print("three concurrent updates, none of them lost")

        # A value that is no longer used is free at once.
        await adapter.users.update(ada.id, email="lovelace@example.org")
        other = await adapter.users.create(email="ada@example.org")
        assert await adapter.users.get_by_email("Ada@Example.org") == other
        print("the former email has a new owner")


if __name__ == "__main__":
    asyncio.run(main())
