"""A session with its user: what signs a request in (section B.2 of the model)."""

from __future__ import annotations

from ..entities import SessionWithUser, User
from ..kinds import SESSION, USER
from ..store.base import Link
from .base import Core

__all__ = ["load_session"]

OWNER = Link(member=SESSION.codec.names["user_id"], prefix=USER.prefix)


async def load_session(core: Core, token: str) -> SessionWithUser | None:
    """The session with this token and its user, if the session authenticates now; see the adapter's method."""
    stream = SESSION.find(token)
    if stream is None:
        return None
    event, owner = await core.streams.newest_linked(stream, OWNER)
    session = None if event is None else SESSION.codec.decode(event)
    if session is None or session.expires_at <= core.now():
        return None
    lives_in = USER.find(session.user_id)
    if lives_in is None:
        return None
    if owner is None or owner.stream != lives_in:
        owner = await core.streams.newest(lives_in)
    user = None if owner is None else USER.codec.decode(owner)
    return None if user is None or _is_banned(core, user) else SessionWithUser(session=session, user=user)


def _is_banned(core: Core, user: User) -> bool:
    return user.banned and (user.ban_expires is None or user.ban_expires > core.now())
