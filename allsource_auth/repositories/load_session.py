"""Loading a session with its user, to authenticate a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from allsource_auth.engine.collection import EngineContext
from allsource_auth.entities import Session, SessionWithUser, User
from allsource_auth.kinds import SESSION, USER
from allsource_auth.store.base import Event, Link

__all__ = ["StoredSession", "is_banned", "load_session", "read_session"]

OWNER = Link(member=SESSION.codec.names["user_id"], prefix=USER.prefix)


class StoredSession(NamedTuple):
    """A living session, its newest event, and the newest event of its user, or ``None`` if the user never existed."""

    session: Session
    event: Event
    owner: Event | None


async def read_session(
    context: EngineContext, token: str, *, only_if: Callable[[Session], bool] | None = None
) -> StoredSession | None:
    """Return the living session with this token, with the newest event of its user.

    Expiry, deletion of the user and bans are not checked. Both reads are made at the same time, if the store can.

    Args:
        context: the engine.
        token: the token of the session.
        only_if: a test of the session. If it fails, the result is ``None`` and the user is not read.

    Raises:
        Json: the state of the session cannot be decoded.
    """
    stream = SESSION.find_stream(token)
    if stream is None:
        return None
    event, owner = await context.streams.newest_linked(stream, OWNER)
    session = None if event is None else SESSION.codec.decode(event)
    if event is None or session is None or (only_if is not None and not only_if(session)):
        return None
    owner_stream = USER.find_stream(session.user_id)
    if owner_stream is None:
        return StoredSession(session, event, None)
    if owner is None or owner.stream != owner_stream:
        owner = await context.streams.newest(owner_stream)
    return StoredSession(session, event, owner)


async def load_session(context: EngineContext, token: str) -> SessionWithUser | None:
    """Implements `AllsourceAuthAdapter.load_session`."""
    found = await read_session(context, token, only_if=lambda session: session.expires_at > context.now())
    user = None if found is None or found.owner is None else USER.codec.decode(found.owner)
    if found is None or user is None or is_banned(context, user):
        return None
    return SessionWithUser(session=found.session, user=user)


def is_banned(context: EngineContext, user: User) -> bool:
    """Return whether a user is banned now: permanently, or until a time in the future."""
    return user.banned and (user.ban_expires is None or user.ban_expires > context.now())
