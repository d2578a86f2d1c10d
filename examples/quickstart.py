"""Create a user and a session in memory, and validate the session: ``python examples/quickstart.py``."""

import asyncio
from datetime import UTC, datetime, timedelta

from allsource_auth import AllsourceAuthAdapter


async def main() -> None:
    # embedded("auth.db") stores the data in a SQLite file.
    async with AllsourceAuthAdapter.embedded() as adapter:
        user = await adapter.users.create(email="Ada@example.org", username="ada", name="Ada")
        session = await adapter.sessions.create(user_id=user.id, expires_at=datetime.now(UTC) + timedelta(days=7))
        print("signed up and in:", session)  # the repr hides personal data and secrets

        # A web application does this for every request.
        found = await adapter.load_session(session.token)
        assert found is not None
        assert found.user == user
        print("the token belongs to the user", found.user.id)

        # Emails are compared ignoring case. A look-up without a result returns None.
        assert await adapter.users.get_by_email("ADA@EXAMPLE.ORG") == user
        assert await adapter.users.get_by_email("grace@example.org") is None
        print("found by email, ignoring case")

        await adapter.sessions.delete(session.token)
        assert await adapter.load_session(session.token) is None
        print("signed out: the token is not valid any more")


if __name__ == "__main__":
    asyncio.run(main())
