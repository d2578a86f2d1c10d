"""The access-token database of fastapi-users, which stores access tokens as sessions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fastapi_users.authentication.strategy.db import AccessTokenDatabase

from allsource_auth import entities, values
from allsource_auth.adapter import AllsourceAuthAdapter
from allsource_auth.errors import InvalidInput
from allsource_auth.integrations.fastapi_users.models import DATES, AllsourceBaseAccessToken, convert, names
from allsource_auth.kinds import SESSION

__all__ = ["AllsourceAccessTokenDatabase"]

AT = TypeVar("AT", bound=AllsourceBaseAccessToken[Any])

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""The ``expires_at`` of a session that does not expire."""

SESSION_FIELDS = frozenset(entities.Session.__struct_fields__) - {"id", *DATES}
SESSION_CHANGES = SESSION_FIELDS - {"token", "user_id"} | {"created_at"}


class AllsourceAccessTokenDatabase(AccessTokenDatabase[AT]):
    """An access-token database for ``fastapi_users.authentication.strategy.DatabaseStrategy``.

    Args:
        adapter: the adapter that stores the sessions.
        access_token_type: `AllsourceBaseAccessTokenUUID`, or a subclass of it or of ``AllsourceBaseAccessToken[str]``.
        lifetime_seconds: the lifetime of new sessions in seconds; ``None`` means that they do not expire. Other readers of the
            store and ``sessions.delete_expired`` use it. Pass the same value to the strategy.

    Raises `InvalidInput` for an invalid lifetime, and for a type with fields that a session does not have.
    """

    def __init__(
        self, adapter: AllsourceAuthAdapter, access_token_type: type[AT], *, lifetime_seconds: int | None
    ) -> None:
        if lifetime_seconds is not None and values.count("lifetime_seconds", lifetime_seconds) == 0:
            raise InvalidInput("lifetime_seconds", "must be at least 1, or None for sessions that do not expire")
        self._adapter = adapter
        self._type = access_token_type
        self._lifetime = None if lifetime_seconds is None else timedelta(seconds=lifetime_seconds)
        unknown = set(access_token_type.__struct_fields__) - set(entities.Session.__struct_fields__)
        if unknown:
            raise InvalidInput("access_token_type", f"has fields that a session does not have: {names(unknown)}")

    async def get_by_token(self, token: str, max_age: datetime | None = None) -> AT | None:
        """Return the session with this token, or ``None``. One read.

        A session that has expired, or was created before ``max_age``, is not returned.
        """
        session = await self._adapter.sessions.get(token)
        if session is None or session.expires_at <= self._adapter.context.now():
            return None
        if max_age is not None and session.created_at < values.instant("max_age", max_age):
            return None
        return self._read(session)

    async def create(self, create_dict: dict[str, Any]) -> AT:
        """Create a session from ``user_id`` and optionally ``token``, ``expires_at`` and other fields of a session.

        Raises `Conflict` if a session with this token exists or existed, `InvalidInput` for an invalid or unknown field.
        """
        if "user_id" not in create_dict:
            raise InvalidInput("user_id", "is missing")
        given: dict[str, Any] = {**create_dict, "user_id": str(create_dict["user_id"])}
        given.setdefault("expires_at", self._expiry(self._adapter.context.now()))
        self._reject_unknown(given, SESSION_FIELDS)
        return self._read(await self._adapter.sessions.create(**given))

    async def update(self, access_token: AT, update_dict: dict[str, Any]) -> AT:
        """Update a session in the store, and the object ``access_token`` with it. A new ``created_at`` also moves the expiry.

        Raises `SessionNotFound` if the session is missing, `InvalidInput` for an invalid or unknown field.
        """
        self._reject_unknown(update_dict, SESSION_CHANGES)
        changes = dict(update_dict)
        if "created_at" in changes:
            changes["created_at"] = values.instant("created_at", changes["created_at"])
            changes.setdefault("expires_at", self._expiry(changes["created_at"]))
        checked = SESSION.checked({name: value for name, value in changes.items() if name != "created_at"})
        checked |= {"created_at": changes["created_at"]} if "created_at" in changes else {}
        verb = "expiry_updated" if "expires_at" in checked else "updated"
        session = await self._adapter.context.collections[SESSION.name].change(
            access_token.token, lambda _: checked, verb=verb, state_dependent=False
        )
        fresh = self._read(session)
        for name in fresh.__struct_fields__:
            setattr(access_token, name, getattr(fresh, name))
        return access_token

    async def delete(self, access_token: AT) -> None:
        """Revoke a session. It cannot be restored. Does nothing if the session is missing."""
        await self._adapter.sessions.delete(access_token.token)

    def _expiry(self, begin: datetime) -> datetime:
        return NEVER if self._lifetime is None else begin + self._lifetime

    def _read(self, session: entities.Session) -> AT:
        found = {name: getattr(session, name) for name in self._type.__struct_fields__}
        return convert("session", found, self._type)

    def _reject_unknown(self, given: Mapping[str, Any], allowed: frozenset[str]) -> None:
        if unknown := set(given) - allowed:
            raise InvalidInput(min(unknown), "is not a field of a session that can be written here")
