"""API keys (sections A.9, B.9 and D.5 of the model)."""

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
"""How often the use of a key without limits is written down: a stream that grows with every use would become slow."""

MAX_INTERVAL = timedelta(days=366 * 10_000)
"""An interval that does not end in the years that a time can have."""

RESOLUTION = timedelta(microseconds=1)
"""An interval is over only after its end (section D.5)."""


class ApiKeys(RestorableRepository[ApiKey]):
    """The API keys of one tenant. Their key is the id. Deleting the user deletes its keys."""

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
        """Keep a key by its hash, never the key itself. The user is not looked at.

        ``refill_interval`` and ``rate_limit_time_window`` are milliseconds; a refill needs interval and amount. ``remaining``
        ``None``: unlimited. ``permissions`` and ``metadata`` are JSON text.
        Raises `Conflict` if a living key has this hash; `InvalidInput`.
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
        _paired(given)
        return await self._collection.create(given, key=id)

    async def get_by_hash(self, key_hash: str) -> ApiKey | None:
        """The key with this hash, also one that is disabled or expired; at most two reads. `use` is what authenticates."""
        return await self._collection.find_by_unique(self._hash, (key_hash,))

    async def list_for_user(self, user_id: str) -> list[ApiKey]:
        """The keys of a user, newest first."""
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
        """Change the given fields; ``None`` clears one. ``updated_at`` moves even if none is given (section B.9).

        Raises `ApiKeyNotFound`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
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
        return await self._collection.update(id, given, rule=_still_paired, empty_counts=True)

    async def use(self, key_hash: str, *, now: datetime | None = None) -> ApiKeyUse:
        """Use the key with this hash once, if it may be used now; else say why not (section D.5).

        Asked in this order: is it there (and its user not deleted), enabled, unexpired, is a use left (refilling first where
        a refill is due), is there room in the rate window. What is counted is counted in one guarded step: of any number of
        concurrent callers, in any number of processes, exactly as many are allowed as there are uses. A refusal changes
        nothing. A key without limits has its last use written down once a minute at most.

        ``now``: the present, by default by the adapter's clock. Raises `InvalidInput`; `VersionConflict` if others were faster
        for ten seconds.
        """
        present = self._collection.context.now() if now is None else values.instant("now", now)
        found = await self._collection.authenticate_by_unique(self._hash, (key_hash,), require_leader=True)
        if found is None:
            return ApiKeyUse(allowed=False, reason="not_found")
        refused: ApiKeyUse | None = None

        def wish(before: ApiKey) -> Mapping[str, Any] | None:
            nonlocal refused
            changes = _used(before, present)
            refused = changes if isinstance(changes, ApiKeyUse) else None
            return None if isinstance(changes, ApiKeyUse) else changes

        if isinstance(early := _used(found, present), ApiKeyUse):
            # A state that was current when it was read refuses; nothing has to be written.
            return early
        if early is None:
            return ApiKeyUse(allowed=True, api_key=found, remaining=found.remaining)
        try:
            after = await self._collection.change(found.id, wish)
        except ApiKeyNotFound:
            return ApiKeyUse(allowed=False, reason="not_found")
        return refused or ApiKeyUse(allowed=True, api_key=after, remaining=after.remaining)

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Remove a key. A missing one stays missing."""
        await self._collection.delete(id)

    async def delete_expired(self, *, limit: int | None = None) -> int:
        """Remove expired keys, at most ``limit``; how many this call removed. One without an expiry stays.

        Reads the events since the oldest key with an expiry that was alive at the last sweep, in pages. Can run in several
        processes at once, and can be interrupted.
        """
        return await sweep(self._collection, limit=limit)


def _used(key: ApiKey, now: datetime) -> dict[str, Any] | ApiKeyUse | None:
    """What one use changes, or why there is none; ``None`` where it is allowed and nothing has to be written."""
    if not key.enabled:
        return _refused(key, "disabled")
    if key.expires_at is not None and key.expires_at <= now:
        return _refused(key, "expired")
    changes: dict[str, Any] = {"last_request": now}
    obstacles: dict[
        Denial, timedelta | None
    ] = {}  # in the order of the answer, with how long each stands; None: for good
    if key.remaining is not None:
        remaining, refill_in = key.remaining, None
        if key.refill_interval is not None and key.refill_amount is not None and key.refill_amount > 0:
            refill_in = _left(key.refill_interval, key.last_refill_at or key.created_at, now)
            if not refill_in:
                remaining = key.refill_amount
                changes["last_refill_at"] = now
        if remaining <= 0:
            obstacles["usage_exceeded"] = refill_in
        changes["remaining"] = remaining - 1
    if key.rate_limit_enabled and key.rate_limit_max is not None and key.rate_limit_time_window is not None:
        ends_in = None if key.last_request is None else _left(key.rate_limit_time_window, key.last_request, now)
        count = (key.request_count or 0) if ends_in else 0
        if count >= key.rate_limit_max:
            obstacles["rate_limited"] = ends_in if key.rate_limit_max > 0 else None
        changes["request_count"] = count + 1
    elif key.remaining is None and key.last_request is not None and now - key.last_request < LAST_REQUEST_INTERVAL:
        return None
    if obstacles:
        return _refused(key, next(iter(obstacles)), _over_in(list(obstacles.values()), key, now))
    return changes


def _refused(key: ApiKey, reason: Denial, try_again_in: timedelta | None = None) -> ApiKeyUse:
    remaining = None if key.remaining is None else max(key.remaining, 0)
    return ApiKeyUse(allowed=False, reason=reason, api_key=key, remaining=remaining, try_again_in=try_again_in)


def _over_in(obstacles: Sequence[timedelta | None], key: ApiKey, now: datetime) -> timedelta | None:
    """When the last of the obstacles is over; ``None`` if one is not, or the key has expired by then."""
    waits = [wait for wait in obstacles if wait is not None]
    if len(waits) < len(obstacles) or (key.expires_at is not None and key.expires_at - now <= max(waits)):
        return None
    return max(waits)


def _left(interval: int, since: datetime, now: datetime) -> timedelta:
    """How long an interval in milliseconds still lasts; nothing when it is over."""
    return max(_milliseconds(interval) + RESOLUTION - (now - since), timedelta())


def _milliseconds(number: int) -> timedelta:
    """So many milliseconds, or as many as fit a time."""
    try:
        return min(timedelta(milliseconds=number), MAX_INTERVAL)
    except OverflowError:
        return MAX_INTERVAL


def _paired(key: Mapping[str, Any]) -> None:
    if (key["refill_interval"] is None) != (key["refill_amount"] is None):
        raise InvalidInput("refill_interval", "a refill needs both refill_interval and refill_amount")


REFILL = ("refill_interval", "refill_amount")


def _still_paired(changes: dict[str, Any], before: ApiKey) -> None:
    if any(name in changes for name in REFILL):
        _paired({name: changes.get(name, getattr(before, name)) for name in REFILL})
