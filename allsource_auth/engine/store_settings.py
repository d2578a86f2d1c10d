"""The settings of a store, on which all processes that write to one tenant must agree.

The first writer stores them. Every process compares them with its own before its first read and its first write, and again
at least every minute while it writes (`RECHECK_SECONDS`) and after a lost connection. A process that finds a newer event format
or a setting that it does not know stops writing. See docs/reference/stored-format.md, "How stored data may change".
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from allsource_auth.audit import encode_metadata
from allsource_auth.engine.ordering import Head
from allsource_auth.errors import AllsourceAuthError, InvalidInput, Json, VersionConflict
from allsource_auth.ids import operation_id
from allsource_auth.kind import CONFIGURED, INDEX_PREFIX, digest
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event, EventStore, NewEvent

__all__ = ["EVENT_FORMAT", "RECHECK_SECONDS", "Settings", "StoreSettings"]

EVENT_FORMAT = 1
"""The newest event format that this version reads and writes. It writes the format that the store's settings name."""

ATTEMPTS = 5
"""Appends of the settings whose replies may be lost before the first mutation fails."""

RECHECK_SECONDS = 60.0
"""The longest time between two comparisons of a process that writes."""

AGREED = ("hash_key", "session_tokens", "encryption")
"""The settings that must be equal in all processes."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The payload of the settings event. The store keeps ``event_format`` under the key ``format``."""

    v: int = 1
    event_format: int = msgspec.field(name="format", default=1)
    hash_key: str | None = None
    session_tokens: str = "plain"
    encryption: str | None = None


KNOWN_KEYS = frozenset(field.encode_name for field in msgspec.structs.fields(Settings))

HeadOf = Callable[[str], Awaitable[Head]]
"""Reads the head of a stream from the server that accepts writes."""


class StoreSettings:
    """The settings of one process, compared with those of its store.

    ``unread`` and ``unwritten`` are true until the first comparison, and until the settings are known to be stored. ``now``
    returns seconds of a monotonic clock.
    """

    def __init__(
        self, settings: Settings, store: EventStore, head_of: HeadOf, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.unread: bool = True
        self.unwritten: bool = True
        self._settings = settings
        self._store = store
        self._head_of = head_of
        self._now = now
        self._stream = f"{INDEX_PREFIX}store:{digest(store.tenant)}"
        self._checked_at = float("-inf")
        self._refused: Event | None = None  # the settings with which this process cannot write

    @property
    def due(self) -> bool:
        """Whether the last comparison is too old, or the connection was lost since."""
        return self._now() - self._checked_at >= RECHECK_SECONDS

    def expire(self) -> None:
        """Make the next write compare the settings again: the server may be another one after a lost connection."""
        self._checked_at = float("-inf")

    async def before_read(self) -> None:
        """Compare the settings, while they are ``unread``. Raises `InvalidInput`, naming the setting that differs."""
        if self._compare((await self._store.latest(self._stream, require_leader=True)).event) is not None:
            self.unwritten = False
        self.unread = False
        self._checked_at = self._now()

    async def before_append(self) -> None:
        """Store the settings if the store has none. Raises `InvalidInput` if it has others."""
        if self._refused is not None:
            self._compare(self._refused)
        if self.unwritten:
            await self._write()
            self.unread = self.unwritten = False
            self._checked_at = self._now()

    async def recheck(self) -> None:
        """Compare the settings again, during a write. If they differ now, later writes raise; this one is not affected."""
        try:
            event = (await self._head_of(self._stream)).event
        except AllsourceAuthError as error:
            log_suppressed("the store's settings could not be read again", error)
            return
        self._checked_at = self._now()
        try:
            self._compare(event)
        except (InvalidInput, Json):
            self._refused = event

    async def upgrade(self, *, dry_run: bool = False) -> tuple[int, int]:
        """Raise the event format of the store to `EVENT_FORMAT`; return the format before and after.

        With ``dry_run`` nothing is written. A store without settings counts as one of the newest format.

        Raises `InvalidInput` for settings that differ or are unknown, and for a format that is newer than this version.
        """
        if not dry_run:
            await self.before_append()
        while True:
            head = await self._head_of(self._stream)
            stored = self._compare(head.event)
            if stored is None or stored.event_format == EVENT_FORMAT or dry_run:
                return EVENT_FORMAT if stored is None else stored.event_format, EVENT_FORMAT
            raised = msgspec.structs.replace(stored, event_format=EVENT_FORMAT)
            metadata = encode_metadata(op=operation_id(), seq=head.seq + 1)
            try:
                await self._store.append([self._event(raised, metadata, head.guard)])
            except VersionConflict:
                continue
            return stored.event_format, EVENT_FORMAT

    def _compare(self, event: Event | None) -> Settings | None:
        """Return the stored settings if this process can write with them; ``None`` if the store has none."""
        if event is None:
            return None
        try:
            stored = msgspec.json.decode(event.payload, type=Settings)
            keys: dict[str, Any] = msgspec.json.decode(event.payload, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise Json("the settings of this store cannot be decoded", event_id=event.id) from None
        if stored.event_format > EVENT_FORMAT:
            raise InvalidInput(
                "event_format",
                f"this store has format {stored.event_format}, and this version supports formats up to {EVENT_FORMAT}; "
                "use a newer version of allsource_auth",
            )
        for key in sorted(keys.keys() - KNOWN_KEYS):
            raise InvalidInput(
                key,
                "this store has this setting, and this version does not know it; use a newer version of allsource_auth",
            )
        for name in AGREED:
            if getattr(stored, name) != getattr(self._settings, name):
                raise InvalidInput(name, "this store was written with another value; open it with the same one")
        return stored

    async def _write(self) -> None:
        metadata = encode_metadata(op=operation_id(), seq=1)
        settings = msgspec.structs.replace(self._settings, event_format=EVENT_FORMAT)
        for attempt in range(ATTEMPTS):
            head = await self._head_of(self._stream)
            if self._compare(head.event) is not None:
                return
            try:
                await self._store.append([self._event(settings, metadata, head.guard)])
            except AllsourceAuthError as error:
                if not (isinstance(error, VersionConflict) or error.ambiguous):
                    raise
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def _event(self, settings: Settings, metadata: bytes, guard: int) -> NewEvent:
        payload = msgspec.json.encode(settings)
        return NewEvent(type=CONFIGURED, stream=self._stream, payload=payload, metadata=metadata, guard=guard)
