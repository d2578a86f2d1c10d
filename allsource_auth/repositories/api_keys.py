"""API keys, and the rules of their use: expiry, quota, refill, rate limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth import values
from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.expiry import sweep
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import ApiKey, ApiKeyUse, Denial
from allsource_auth.errors import ApiKeyNotFound, InvalidInput
from allsource_auth.kinds import API_KEY

__all__ = ["ApiKeys"]

LAST_REQUEST_INTERVAL = timedelta(minutes=1)
"""Minimum time between two recorded uses of a key without limits. An event for each use would slow down reads of the key."""

MAX_INTERVAL = timedelta(days=366 * 10_000)
"""Longer than any interval between two datetimes."""

RESOLUTION = timedelta(microseconds=1)
"""An interval is over one microsecond after its end."""


class ApiKeys(RestorableRepository[ApiKey]):
    """The API keys of a tenant, by id. Deleting a user deletes its keys."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, API_KEY))
        (self._hash,) = API_KEY.unique

    async def create(
        self,
        *,
        user_id: str,
        key_hash: str,
        name: str | None = None,
        start: str | None = None,
        prefix: str | None = None,
        refill_interval: int | None = None,
        refill_amount: int | None = None,
        enabled: bool = True,
        rate_limit_enabled: bool = False,
        rate_limit_time_window: int | None = None,
        rate_limit_max: int | None = None,
        remaining: int | None = None,
        expires_at: datetime | None = None,
        permissions: str | None = None,
        metadata: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> ApiKey:
        """Create an API key from its hash. It is not checked that the user exists.

        Args:
            user_id: id of the user.
            key_hash: a hash of the key, such as its SHA-256. The key itself is not stored.
            name: a name for users.
            start: the first characters of the key, to recognize it in a list.
            prefix: the prefix of the key.
            refill_interval: milliseconds after which ``remaining`` is set to ``refill_amount``. Give both or neither.
            refill_amount: number of uses after a refill.
            enabled: whether the key can be used.
            rate_limit_enabled: whether the rate limit applies. It needs ``rate_limit_time_window`` and ``rate_limit_max``.
            rate_limit_time_window: length of the time window in milliseconds. It restarts with each use.
            rate_limit_max: maximum number of uses in a time window.
            remaining: number of uses; ``None`` for no limit.
            expires_at: a timezone-aware time; ``None`` if the key never expires.
            permissions: permissions as JSON text.
            metadata: JSON text.
            id: the id; by default a random one.

        Raises:
            Conflict: a key with this hash or id exists.
            InvalidInput: a value is invalid, or only one of ``refill_interval`` and ``refill_amount`` is given.
        """
        given = {
            "user_id": user_id,
            "key_hash": key_hash,
            "name": name,
            "start": start,
            "prefix": prefix,
            "refill_interval": refill_interval,
            "refill_amount": refill_amount,
            "enabled": enabled,
            "rate_limit_enabled": rate_limit_enabled,
            "rate_limit_time_window": rate_limit_time_window,
            "rate_limit_max": rate_limit_max,
            "request_count": 0,
            "remaining": remaining,
            "expires_at": expires_at,
            "permissions": permissions,
            "metadata": metadata,
        }
        _check_refill(given)
        return await self._collection.create(given, key=id)

    async def get_by_hash(self, key_hash: str) -> ApiKey | None:
        """Return the key with this hash, or ``None``. At most two reads.

        It may be disabled, expired or exhausted, and its user may have been deleted: authenticate with `use`.
        """
        return await self._collection.find_by_unique(self._hash, (key_hash,))

    async def list_for_user(self, user_id: str, /) -> list[ApiKey]:
        """Return the API keys of a user, newest first. One read, and one for each key."""
        return await self._collection.list_by_index("user", user_id)

    async def update(
        self,
        id: str,  # noqa: A002
        /,
        *,
        name: str | UnsetType | None = UNSET,
        enabled: bool | UnsetType = UNSET,
        remaining: int | UnsetType | None = UNSET,
        rate_limit_enabled: bool | UnsetType = UNSET,
        rate_limit_time_window: int | UnsetType | None = UNSET,
        rate_limit_max: int | UnsetType | None = UNSET,
        refill_interval: int | UnsetType | None = UNSET,
        refill_amount: int | UnsetType | None = UNSET,
        permissions: str | UnsetType | None = UNSET,
        metadata: str | UnsetType | None = UNSET,
        request_count: int | UnsetType | None = UNSET,
        expires_at: datetime | UnsetType | None = UNSET,
        last_request: datetime | UnsetType | None = UNSET,
        last_refill_at: datetime | UnsetType | None = UNSET,
    ) -> ApiKey:
        """Change fields of an API key, and set ``updated_at`` even if no field is given.

        Updates are partial: omitted fields are unchanged, ``None`` clears a field. `create` and `ApiKey` describe the fields.

        Raises:
            ApiKeyNotFound: the key does not exist.
            InvalidInput: a value is invalid, or only one of ``refill_interval`` and ``refill_amount`` would be set.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        given = {
            "name": name,
            "enabled": enabled,
            "remaining": remaining,
            "rate_limit_enabled": rate_limit_enabled,
            "rate_limit_time_window": rate_limit_time_window,
            "rate_limit_max": rate_limit_max,
            "refill_interval": refill_interval,
            "refill_amount": refill_amount,
            "permissions": permissions,
            "metadata": metadata,
            "request_count": request_count,
            "expires_at": expires_at,
            "last_request": last_request,
            "last_refill_at": last_refill_at,
        }
        return await self._collection.update(id, given, rule=_check_changed_refill, empty_counts=True)

    async def use(self, key_hash: str, *, now: datetime | None = None) -> ApiKeyUse:
        """Use the key with this hash once, if it can be used now.

        The checks, in this order: the key and its user exist; the key is enabled; it is not expired; a use is left (after a
        refill, if one is due); the rate limit is not exceeded. A use is counted by one guarded event, so that of any number of
        concurrent callers, in any number of processes, exactly as many are allowed as there are uses. A denied use writes
        nothing. Uses of a key without limits are recorded at most once a minute.

        Args:
            key_hash: the hash of the key.
            now: the current time, timezone-aware; by default from the clock of the adapter.

        Returns:
            Whether the key can be used, and if not, why.

        Raises:
            InvalidInput: ``key_hash`` is not text, or ``now`` is naive.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        present = self._collection.context.now() if now is None else values.instant("now", now)
        found = await self._collection.authenticate_by_unique(self._hash, (key_hash,), require_leader=True)
        if found is None:
            return ApiKeyUse(allowed=False, reason="not_found")
        denied: ApiKeyUse | None = None

        def decide(before: ApiKey) -> Mapping[str, Any] | None:
            nonlocal denied
            changes = _changes_of_use(before, present)
            denied = changes if isinstance(changes, ApiKeyUse) else None
            return None if isinstance(changes, ApiKeyUse) else changes

        if isinstance(early := _changes_of_use(found, present), ApiKeyUse):
            # The state that was read is current, so the denial needs no write.
            return early
        if early is None:
            return ApiKeyUse(allowed=True, api_key=found, remaining=found.remaining)
        try:
            after = await self._collection.change(found.id, decide)
        except ApiKeyNotFound:
            return ApiKeyUse(allowed=False, reason="not_found")
        return denied or ApiKeyUse(allowed=True, api_key=after, remaining=after.remaining)

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete an API key. Does nothing if it does not exist."""
        await self._collection.delete(id)

    async def delete_expired(self, *, limit: int | None = None) -> int:
        """Delete expired API keys. Keys without an expiry are not deleted.

        It reads the events since the oldest key with an expiry that was alive in the previous call, in pages. It can run in
        several processes at the same time, and can be interrupted.

        Args:
            limit: the maximum number of API keys to delete; by default all.

        Returns:
            The number of API keys that this call deleted.

        Raises:
            InvalidInput: ``limit`` is negative or not an integer.
        """
        return await sweep(self._collection, limit=limit)


def _changes_of_use(key: ApiKey, now: datetime) -> dict[str, Any] | ApiKeyUse | None:
    """Return the changes of one use, or its denial, or ``None`` if it is allowed and nothing has to be written."""
    if not key.enabled:
        return _denied(key, "disabled")
    if key.expires_at is not None and key.expires_at <= now:
        return _denied(key, "expired")
    changes: dict[str, Any] = {"last_request": now}
    # The reasons for a denial, in the order of precedence, with the time until each ends, or None if it does not end.
    denials: dict[Denial, timedelta | None] = {}
    if key.remaining is not None:
        remaining, refill_in = key.remaining, None
        if key.refill_interval is not None and key.refill_amount is not None and key.refill_amount > 0:
            refill_in = _time_left(key.refill_interval, key.last_refill_at or key.created_at, now)
            if not refill_in:
                remaining = key.refill_amount
                changes["last_refill_at"] = now
        if remaining <= 0:
            denials["usage_exceeded"] = refill_in
        changes["remaining"] = remaining - 1
    if key.rate_limit_enabled and key.rate_limit_max is not None and key.rate_limit_time_window is not None:
        ends_in = None if key.last_request is None else _time_left(key.rate_limit_time_window, key.last_request, now)
        count = (key.request_count or 0) if ends_in else 0
        if count >= key.rate_limit_max:
            denials["rate_limited"] = ends_in if key.rate_limit_max > 0 else None
        changes["request_count"] = count + 1
    elif key.remaining is None and key.last_request is not None and now - key.last_request < LAST_REQUEST_INTERVAL:
        return None
    if denials:
        return _denied(key, next(iter(denials)), _usable_in(list(denials.values()), key, now))
    return changes


def _denied(key: ApiKey, reason: Denial, try_again_in: timedelta | None = None) -> ApiKeyUse:
    remaining = None if key.remaining is None else max(key.remaining, 0)
    return ApiKeyUse(allowed=False, reason=reason, api_key=key, remaining=remaining, try_again_in=try_again_in)


def _usable_in(denials: Sequence[timedelta | None], key: ApiKey, now: datetime) -> timedelta | None:
    """Return the time until all denials have ended, or ``None`` if one does not end or the key expires before."""
    waits = [wait for wait in denials if wait is not None]
    if len(waits) < len(denials) or (key.expires_at is not None and key.expires_at - now <= max(waits)):
        return None
    return max(waits)


def _time_left(interval: int, since: datetime, now: datetime) -> timedelta:
    """Return the remaining time of an interval of ``interval`` milliseconds that began at ``since``; 0 if it is over."""
    return max(_milliseconds(interval) + RESOLUTION - (now - since), timedelta())


def _milliseconds(number: int) -> timedelta:
    """Convert milliseconds to a timedelta, at most `MAX_INTERVAL`."""
    try:
        return min(timedelta(milliseconds=number), MAX_INTERVAL)
    except OverflowError:
        return MAX_INTERVAL


def _check_refill(key: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` if only one of the attributes of a refill is set."""
    if (key["refill_interval"] is None) != (key["refill_amount"] is None):
        raise InvalidInput("refill_interval", "set both refill_interval and refill_amount, or neither")


REFILL = ("refill_interval", "refill_amount")


def _check_changed_refill(changes: dict[str, Any], before: ApiKey) -> None:
    if any(name in changes for name in REFILL):
        _check_refill({name: changes.get(name, getattr(before, name)) for name in REFILL})
