"""Sign a user up and in, in memory: ``python examples/quickstart.py``."""

import asyncio
from datetime import UTC, datetime, timedelta

from allsource_auth import AllsourceAuthAdapter


async def main() -> None:
    # With a path, embedded("auth.db"), the same store is one SQLite file.
    async with AllsourceAuthAdapter.embedded() as adapter:
        user = await adapter.users.create(email="Ada@example.org", username="ada", name="Ada")
        session = await adapter.sessions.create(user_id=user.id, expires_at=datetime.now(UTC) + timedelta(days=7))
        print("signed up and in:", session)  # the repr hides what is personal or secret

        # What a web application does for every request:
        found = await adapter.load_session(session.token)
        assert found is not None
        assert found.user == user
        print("the token belongs to the user", found.user.id)

        # An email is found in any capitals; what is not there is None.
        assert await adapter.users.get_by_email("ADA@EXAMPLE.ORG") == user
        assert await adapter.users.get_by_email("grace@example.org") is None
        print("found by email, in other capitals")

        await adapter.sessions.delete(session.token)
        assert await adapter.load_session(session.token) is None
        print("signed out: the token signs nobody in")


if __name__ == "__main__":
    asyncio.run(main())
