"""Invariants of a store while no mutation runs: unique values have one owner, and lists are complete."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

from allsource_auth import AllsourceAuthAdapter, Session

__all__ = ["assert_sound"]


def _normalized(email: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).lower())


async def assert_sound(adapter: AllsourceAuthAdapter) -> None:
    """Check that every value has one owner that is found by it, and that lists equal the entities of a scan."""
    users = [user async for user in adapter.users.scan()]
    emails = Counter(_normalized(user.email) for user in users if user.email is not None)
    usernames = Counter(user.username for user in users if user.username is not None)
    assert max(emails.values(), default=1) == 1, "an email has two owners"
    assert max(usernames.values(), default=1) == 1, "a username has two owners"
    for user in users:
        if user.email is not None:
            assert await adapter.users.get_by_email(user.email) == user
        if user.username is not None:
            assert await adapter.users.get_by_username(user.username) == user
    of_user: dict[str, list[Session]] = defaultdict(list)
    async for session in adapter.sessions.scan():
        of_user[session.user_id].append(session)
    for owner, sessions in of_user.items():
        sessions.sort(key=lambda session: (session.created_at, session.id), reverse=True)
        assert await adapter.sessions.list_for_user(owner) == sessions
    for user in users:
        if user.id not in of_user:
            assert await adapter.sessions.list_for_user(user.id) == []
