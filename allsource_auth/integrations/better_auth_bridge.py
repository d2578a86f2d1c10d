"""A session store for ``fastapi-better-auth-bridge``: sessions that a TypeScript better-auth issues, verified from Allsource.

The bridge checks the cookie's signature, the expiry and bans; the store answers what is stored, and never writes. Extra:
``better-auth-bridge``.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import msgspec

try:
    from fastapi_better_auth import StoredSession, StoredUser
except ModuleNotFoundError as _missing:
    raise ImportError(
        "this module needs fastapi-better-auth-bridge: pip install 'allsource-auth[better-auth-bridge]'"
    ) from _missing

from allsource_auth.adapter import AllsourceAuthAdapter
from allsource_auth.entities import User
from allsource_auth.errors import InvalidInput, Json
from allsource_auth.kinds import USER
from allsource_auth.logs import log_suppressed
from allsource_auth.repositories.load_session import read_session
from allsource_auth.store.base import Event
from allsource_auth.values import is_unicode

__all__ = ["AllsourceSessionStore"]

_members = msgspec.json.Decoder(dict[str, Any]).decode


class AllsourceSessionStore:
    """The ``SessionStore`` of the bridge on an adapter: ``CookieVerifier(store=AllsourceSessionStore(adapter), ...)``.

    A session comes with its user: one statement of SQLite; on Allsource two reads, at the same time from the second time on
    that the adapter is asked for the session. An expired session and a banned user are answered as they are
    stored, for the verifier judges them; a revoked session, one of a deleted user, and what cannot be decoded are a miss.

    Whatever the store raises (`Http`, `Unavailable`, `Overloaded` and so on) reaches the verifier, which refuses the request
    and logs the class of the error; no error of the library holds a token.

    Args:
        adapter: stays the application's, which closes it.
        stored_as: what a token is stored as, where that is not the token itself but a digest of it.
    """

    def __init__(self, adapter: AllsourceAuthAdapter, *, stored_as: Callable[[str], str] | None = None) -> None:
        if not isinstance(adapter, AllsourceAuthAdapter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("adapter", f"must be an AllsourceAuthAdapter, not {type(adapter).__name__}")
        self._adapter = adapter
        self._stored_as = stored_as

    async def fetch_session_by_token(self, token: str) -> StoredSession | None:
        """The session with this raw token, its user in it, or ``None``. What cannot be a token is not looked up."""
        if not token.strip() or not is_unicode(token):
            return None
        key = token if self._stored_as is None else self._stored_as(token)
        try:
            found = await read_session(self._adapter.context, key)
            user = None if found is None or found.owner is None else _user(found.owner)
        except Json as error:
            log_suppressed("a session or its user cannot be decoded", error)
            return None
        if found is None or user is None or user.id != found.session.user_id:
            return None
        if not hmac.compare_digest(found.session.token.encode(), key.encode()):
            return None
        return StoredSession(
            token=token,
            user_id=user.id,
            expires_at=found.session.expires_at,
            payload=_members(found.event.payload),
            user=user,
            impersonated_by=found.session.impersonated_by or None,
        )

    async def fetch_user_by_id(self, user_id: str) -> StoredUser | None:
        """The living user with this id, or ``None``. One read. The verifier has no need of it: sessions bring their user."""
        stream = USER.find_stream(user_id)
        event = None if stream is None else await self._adapter.context.streams.newest(stream)
        try:
            return None if event is None else _user(event)
        except Json as error:
            log_suppressed("a user cannot be decoded", error)
            return None

    def __repr__(self) -> str:
        return f"AllsourceSessionStore({self._adapter!r})"


def _user(event: Event) -> StoredUser | None:
    """A user as the bridge takes it: all that is stored, fields of plugins too; ``None`` for a deleted one."""
    user: User | None = USER.codec.decode(event)
    if user is None:
        return None
    return StoredUser(id=user.id, payload=_members(event.payload), banned=user.banned, ban_expires=user.ban_expires)
