"""``ExpectedState``: the acknowledged mutations, and a check that the store still has their results."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from allsource_auth import AllsourceAuthAdapter, Session, User
from tests.support.ownership import assert_sound

__all__ = ["ExpectedState"]


class ExpectedState:
    """Every state of every user in order (``None``: deleted), the existing sessions, and the revoked tokens."""

    def __init__(self) -> None:
        self.histories: dict[str, list[User | None]] = {}
        self.sessions: dict[str, Session] = {}
        self.revoked: set[str] = set()

    @property
    def users(self) -> dict[str, User]:
        return {user.id: user for history in self.histories.values() if (user := history[-1]) is not None}

    async def record(self, call: Coroutine[Any, Any, User]) -> User:
        """Await a mutation of a user and record its result."""
        user = await call
        self.histories.setdefault(user.id, []).append(user)
        return user

    async def delete(self, adapter: AllsourceAuthAdapter, user_id: str) -> None:
        await adapter.users.delete(user_id)
        self.histories[user_id].append(None)
        for session in [session for session in self.sessions.values() if session.user_id == user_id]:
            self._revoke(session.token)

    async def sign_in(
        self, adapter: AllsourceAuthAdapter, user_id: str, expires_at: datetime, *, token: str | None = None
    ) -> Session:
        session = await adapter.sessions.create(user_id=user_id, expires_at=expires_at, token=token)
        self.sessions[session.token] = session
        return session

    async def record_session(self, call: Coroutine[Any, Any, Session]) -> None:
        """Await a mutation of a session and record its result."""
        session = await call
        self.sessions[session.token] = session

    async def extend(self, adapter: AllsourceAuthAdapter, token: str, expires_at: datetime) -> None:
        await self.record_session(adapter.sessions.update_expiry(token, expires_at))

    async def sign_out(self, adapter: AllsourceAuthAdapter, token: str) -> None:
        await adapter.sessions.delete(token)
        self._revoke(token)

    def _revoke(self, token: str) -> None:
        del self.sessions[token]
        self.revoked.add(token)

    async def assert_stored(self, adapter: AllsourceAuthAdapter) -> None:
        """Check that users and sessions have their last acknowledged state, lookups find them, and histories are complete."""
        assert {user.id: user async for user in adapter.users.scan()} == self.users
        for user in self.users.values():
            assert await adapter.users.get(user.id) == user
            if user.email is not None:
                assert await adapter.users.get_by_email(user.email.swapcase()) == user
            if user.username is not None:
                assert await adapter.users.get_by_username(user.username) == user
        for user_id, history in self.histories.items():
            assert [change.state for change in await adapter.users.history(user_id)] == history
        assert {session.token: session async for session in adapter.sessions.scan()} == self.sessions
        for token, session in self.sessions.items():
            assert await adapter.sessions.get(token) == session
        assert await adapter.sessions.get_many(self.revoked) == {}
        await assert_sound(adapter)
