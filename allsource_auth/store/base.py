"""The `EventStore` protocol and the structs that its methods take and return.

A store appends and reads the events of one tenant. It knows nothing about users or sessions; payloads and metadata are raw
JSON. Allsource and SQLite give different guarantees, which four attributes describe:

* ``tenant``: the tenant whose events the store appends and reads.
* ``atomic_batches``: a batch is stored completely or not at all. Core keeps the events before the first one that fails.
* ``time_skew``: the maximum difference between stored order and time order, in nanoseconds; 0 if they are the same.
* ``loses_versions_on_restart``: after a restart the store may accept a guard that it should refuse (Core 0.23 and 0.24).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

__all__ = ["Acknowledged", "Event", "EventStore", "Info", "Latest", "Link", "LinkedReads", "ManyReads", "NewEvent"]


class OpaqueStruct(msgspec.Struct, frozen=True):
    """A struct whose ``repr`` shows the class but no field, because stream ids of sessions contain tokens."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored event."""

    id: str
    type: str
    stream: str
    payload: msgspec.Raw
    metadata: msgspec.Raw
    """Raw JSON; ``null`` if the event was appended without metadata."""
    time: int
    """The time that the store assigned, in nanoseconds since the epoch."""
    version: int
    """The version of the stream after this event. On Core 0.23 and 0.24 it is 1 for every event."""

    def __repr__(self) -> str:
        return f"Event(type={self.type!r}, version={self.version}, time={self.time})"


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event to append.

    ``guard`` is the version that the stream must have; ``None`` appends unconditionally. Empty ``metadata`` is read back as
    ``null``.
    """

    type: str
    stream: str
    payload: bytes
    metadata: bytes
    guard: int | None = None

    def __repr__(self) -> str:
        return f"NewEvent(type={self.type!r}, guard={self.guard})"


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The store's reply for an appended event: its id, its time in nanoseconds, and the version of the stream after it."""

    id: str
    time: int
    version: int


class Latest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The newest event of a stream (``None`` if the tenant has none) and the version of the stream.

    The version counts the events of every tenant that uses the same stream id. Core looks it up after the event, so it may
    count an event that was stored in between.
    """

    event: Event | None
    version: int

    def __repr__(self) -> str:
        return f"Latest(event={self.event!r}, version={self.version})"


class Link(msgspec.Struct, frozen=True):
    """A reference between streams: ``prefix`` and the string ``member`` of the newest payload form the id of the target."""

    member: str
    prefix: str

    def target(self, event: Event) -> str | None:
        """The id of the stream that ``event`` refers to, or ``None``."""
        try:
            value = msgspec.json.decode(_members(event.payload)[self.member], type=str)
        except (msgspec.MsgspecError, KeyError):
            return None
        return self.prefix + value


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """A description of a store for people. A field that does not apply, or is unknown, is ``None``.

    ``where``: the URL or the path; ``None`` in memory. ``reads_from``: the read URLs, joined with ``", "``. ``engine``: the
    HTTP engine. ``server`` and ``server_version``: the name and version that the server reports. ``strict_reads``: the server
    can prove that an answer is complete; servers that cannot (Core 0.23 and 0.24) lose versions on a restart. ``durable``:
    acknowledged events survive a restart of the server.
    """

    store: str
    tenant: str
    where: str | None = None
    reads_from: str | None = None
    engine: str | None = None
    server: str | None = None
    server_version: str | None = None
    strict_reads: bool | None = None
    durable: bool | None = None


def is_newer_by_time(event: Event, other: Event) -> bool:
    """Whether the store's time of ``event`` is equal to or later than that of ``other``."""
    return event.time >= other.time


class EventStore(Protocol):
    """Appends and reads the events of one tenant. The module's docstring describes the attributes."""

    @property
    def tenant(self) -> str: ...

    @property
    def atomic_batches(self) -> bool: ...

    @property
    def time_skew(self) -> int: ...

    @property
    def loses_versions_on_restart(self) -> bool: ...

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        """Append ``events`` in order, in one round trip.

        Raises `VersionConflict` if a guard fails; its ``actual`` counts earlier events of the same batch. Without
        ``atomic_batches`` the events before the failing one stay stored. After an error whose ``ambiguous`` is true any
        part of the batch may be stored. A cancelled call stores all of the batch, nothing, or (without
        ``atomic_batches``) a prefix.
        """
        ...

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        """The newest event of ``stream``. ``require_leader`` reads from the server that accepts writes."""
        ...

    async def read(
        self,
        stream: str,
        *,
        until: int | None = None,
        newest_first: bool = False,
        offset: int = 0,
        limit: int = 1000,
        require_leader: bool = False,
    ) -> list[Event]:
        """A page of at most ``limit`` (up to 1,000) events of ``stream`` in time order, after skipping ``offset`` events.

        ``until``: only events up to and including this time, in nanoseconds.
        """
        ...

    def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Pages of the events whose type starts with ``type_prefix``, in time order. ``since`` and ``until`` are inclusive."""
        ...

    def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        """Pages of the newest event of every stream whose id starts with ``stream_prefix``, ordered by stream id.

        ``type_prefix``: the prefix of the event types of these streams, for stores that can only search by type.
        ``newer(event, known)``: whether ``event``, which follows ``known`` in time order, is the newer one; for stores
        whose time order is not the order of versions.
        """
        ...

    def server_time(self) -> int:
        """An estimate of the store's current time in nanoseconds, to compute the age of events."""
        ...

    async def info(self) -> Info:
        """Describe this store and its server."""
        ...

    async def close(self) -> None:
        """Complete accepted appends, then release files and connections. Further calls do nothing."""
        ...


@runtime_checkable
class LinkedReads(Protocol):
    """An `EventStore` that reads a stream and the stream that it refers to faster than two reads in sequence."""

    async def latest_linked(self, stream: str, link: Link) -> tuple[Latest, Latest | None]:
        """`EventStore.latest` of ``stream`` and of the stream that its newest event refers to.

        The second result is a guess or ``None``: the caller must check that it belongs to the right stream.
        """
        ...


@runtime_checkable
class ManyReads(Protocol):
    """An `EventStore` that reads several streams faster than separate reads, concurrent or in sequence."""

    async def latest_many(self, streams: Sequence[str]) -> list[Latest]:
        """`EventStore.latest` of each of ``streams``, in their order, with ``require_leader``."""
        ...
