"""``Book``: what was acknowledged, and the proof that it is still so."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from allsource_auth import AllsourceAuthAdapter, Session, User
from tests.support.ownership import assert_sound

__all__ = ["Book"]


class Book:
    """Every state of every user in order (``None``: deleted), the sessions that live, the tokens that were revoked."""

    def __init__(self) -> None:
        self.stories: dict[str, list[User | None]] = {}
        self.sessions: dict[str, Session] = {}
        self.revoked: set[str] = set()

    @property
    def users(self) -> dict[str, User]:
        return {user.id: user for story in self.stories.values() if (user := story[-1]) is not None}

    async def enter(self, call: Coroutine[Any, Any, User]) -> User:
        """Carry out a mutation of a user and write down what came of it."""
        user = await call
        self.stories.setdefault(user.id, []).append(user)
        return user

    async def delete(self, adapter: AllsourceAuthAdapter, user_id: str) -> None:
        await adapter.users.delete(user_id)
        self.stories[user_id].append(None)
        for session in [session for session in self.sessions.values() if session.user_id == user_id]:
            self._strike(session.token)

    async def sign_in(
        self, adapter: AllsourceAuthAdapter, user_id: str, expires_at: datetime, *, token: str | None = None
    ) -> Session:
        session = await adapter.sessions.create(user_id=user_id, expires_at=expires_at, token=token)
        self.sessions[session.token] = session
        return session

    async def change(self, call: Coroutine[Any, Any, Session]) -> None:
        session = await call
        self.sessions[session.token] = session

    async def extend(self, adapter: AllsourceAuthAdapter, token: str, expires_at: datetime) -> None:
        await self.change(adapter.sessions.update_expiry(token, expires_at))

    async def sign_out(self, adapter: AllsourceAuthAdapter, token: str) -> None:
        await adapter.sessions.delete(token)
        self._strike(token)

    def _strike(self, token: str) -> None:
        del self.sessions[token]
        self.revoked.add(token)

    async def assert_kept(self, adapter: AllsourceAuthAdapter) -> None:
        """Every user is found by its values as it was acknowledged last, tells all that happened; every session likewise."""
        assert {user.id: user async for user in adapter.users.scan()} == self.users
        for user in self.users.values():
            assert await adapter.users.get(user.id) == user
            if user.email is not None:
                assert await adapter.users.get_by_email(user.email.swapcase()) == user
            if user.username is not None:
                assert await adapter.users.get_by_username(user.username) == user
        for user_id, story in self.stories.items():
            assert [change.state for change in await adapter.users.history(user_id)] == story
        assert {session.token: session async for session in adapter.sessions.scan()} == self.sessions
        for token, session in self.sessions.items():
            assert await adapter.sessions.get(token) == session
        assert await adapter.sessions.get_many(self.revoked) == {}
        await assert_sound(adapter)
