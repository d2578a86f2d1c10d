"""The model of users and sessions, in plain dictionaries."""

from __future__ import annotations

import unicodedata
from typing import Any

import msgspec

from allsource_auth import Session, User

__all__ = ["Ledger"]


def _compared(email: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).lower())


class Ledger:
    """The state of the model.

    ``stories`` has all states of every user, ``None`` for a deletion. ``sessions`` has the living sessions.
    """

    def __init__(self) -> None:
        self.stories: dict[str, list[User | None]] = {}
        self.sessions: dict[str, Session] = {}
        self.tokens: set[str] = set()
        """Every token that ever was."""

    def user(self, user_id: str) -> User | None:
        story = self.stories.get(user_id)
        return story[-1] if story else None

    def users(self) -> list[User]:
        return [story[-1] for story in self.stories.values() if story[-1] is not None]

    def by_email(self, email: str) -> User | None:
        found = [user for user in self.users() if user.email is not None and _compared(user.email) == _compared(email)]
        assert len(found) <= 1
        return found[0] if found else None

    def by_username(self, username: str) -> User | None:
        found = [user for user in self.users() if user.username == username]
        assert len(found) <= 1
        return found[0] if found else None

    def taken(self, user_id: str | None, email: str | None, username: str | None) -> bool:
        """Return whether another user than ``user_id`` has one of the values."""
        holders = [
            None if email is None else self.by_email(email),
            None if username is None else self.by_username(username),
        ]
        return any(holder is not None and holder.id != user_id for holder in holders)

    def record(self, user_id: str, state: User | None) -> None:
        self.stories.setdefault(user_id, []).append(state)

    def changed(self, user: User, changes: dict[str, Any]) -> User:
        if changes.get("banned") is False:
            changes = changes | {"ban_reason": None, "ban_expires": None}
        return msgspec.structs.replace(user, **changes)

    def last_life(self, user_id: str) -> User | None:
        """Return the last state that was not a deletion."""
        return next((state for state in reversed(self.stories.get(user_id, [])) if state is not None), None)

    def sign_in(self, session: Session) -> None:
        self.sessions[session.token] = session
        self.tokens.add(session.token)

    def sessions_of(self, user_id: str) -> list[Session]:
        found = [session for session in self.sessions.values() if session.user_id == user_id]
        return sorted(found, key=lambda session: (session.created_at, session.id), reverse=True)

    def sign_out(self, user_id: str) -> int:
        gone = self.sessions_of(user_id)
        for session in gone:
            del self.sessions[session.token]
        return len(gone)
