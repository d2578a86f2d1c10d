"""A session with its user: what signs a request in (section B.2 of the model)."""

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
    """A living session, the event that holds it, and the newest event of its user: ``None`` if there is no such stream."""

    session: Session
    event: Event
    owner: Event | None


async def read_session(
    context: EngineContext, token: str, *, only_if: Callable[[Session], bool] | None = None
) -> StoredSession | None:
    """The living session with this token, and what its user's stream holds; nothing is judged. One wait where the store can.

    ``only_if`` spares the user's read for a session that does not pass. Raises `Json` for one that cannot be decoded.
    """
    stream = SESSION.find_stream(token)
    if stream is None:
        return None
    event, owner = await context.streams.newest_linked(stream, OWNER)
    session = None if event is None else SESSION.codec.decode(event)
    if event is None or session is None or (only_if is not None and not only_if(session)):
        return None
    lives_in = USER.find_stream(session.user_id)
    if lives_in is None:
        return StoredSession(session, event, None)
    if owner is None or owner.stream != lives_in:
        owner = await context.streams.newest(lives_in)
    return StoredSession(session, event, owner)


async def load_session(context: EngineContext, token: str) -> SessionWithUser | None:
    """The session with this token and its user, if the session authenticates now; see the adapter's method."""
    found = await read_session(context, token, only_if=lambda session: session.expires_at > context.now())
    user = None if found is None or found.owner is None else USER.codec.decode(found.owner)
    if found is None or user is None or is_banned(context, user):
        return None
    return SessionWithUser(session=found.session, user=user)


def is_banned(context: EngineContext, user: User) -> bool:
    """Whether a user is banned now: for ever, or until a time that has not come."""
    return user.banned and (user.ban_expires is None or user.ban_expires > context.now())
