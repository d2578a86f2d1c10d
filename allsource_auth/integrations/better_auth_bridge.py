"""A session store for ``fastapi-better-auth-bridge``, which verifies sessions of a TypeScript better-auth.

The bridge checks the signature of the cookie, the expiry and bans. The session store returns what is stored and never writes.
Requires the extra ``better-auth-bridge``.
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
        "this module requires fastapi-better-auth-bridge: pip install 'allsource-auth[better-auth-bridge]'"
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

_decode_members = msgspec.json.Decoder(dict[str, Any]).decode


class AllsourceSessionStore:
    """The ``SessionStore`` of the bridge on an adapter: ``CookieVerifier(store=AllsourceSessionStore(adapter), ...)``.

    A session is read together with its user. In SQLite this is one statement. On an Allsource these are two requests; they are
    concurrent once the adapter has read the session before.

    Expired sessions and banned users are returned as they are stored, because the verifier checks them. Revoked sessions,
    sessions of a deleted user, and stored data that cannot be decoded are a miss.

    Errors of the store (`Http`, `Unavailable`, `Overloaded`, ...) reach the verifier. It rejects the request and logs the class
    of the error. No error of the library contains a token.

    Args:
        adapter: the adapter to read from. The application closes it.
        stored_as: converts a token to its stored form, if digests of tokens are stored.

    Raises `InvalidInput` if ``adapter`` is not an `AllsourceAuthAdapter`.
    """

    def __init__(self, adapter: AllsourceAuthAdapter, *, stored_as: Callable[[str], str] | None = None) -> None:
        if not isinstance(adapter, AllsourceAuthAdapter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("adapter", f"must be an AllsourceAuthAdapter, not {type(adapter).__name__}")
        self._adapter = adapter
        self._stored_as = stored_as

    async def fetch_session_by_token(self, token: str) -> StoredSession | None:
        """Return the session with this raw token and its user, or ``None``.

        Invalid tokens (blank, or not valid Unicode) are not looked up.
        """
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
            payload=_decode_members(found.event.payload),
            user=user,
            impersonated_by=found.session.impersonated_by or None,
        )

    async def fetch_user_by_id(self, user_id: str) -> StoredUser | None:
        """Return the user with this id, or ``None`` if it is missing or deleted. One read.

        The verifier does not need this method, because sessions include their user.
        """
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
    """Return a user in the type of the bridge, with all stored fields, also those of plugins. ``None`` if it is deleted."""
    user: User | None = USER.codec.decode(event)
    if user is None:
        return None
    return StoredUser(
        id=user.id, payload=_decode_members(event.payload), banned=user.banned, ban_expires=user.ban_expires
    )
