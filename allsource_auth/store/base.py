"""``EventStore``: what a place must be able to do to keep events, and the structs that travel.

A store appends and reads the events of one tenant. It knows nothing of users or sessions; payloads and metadata stay
raw JSON. Four attributes say what it promises beyond that, because Allsource and SQLite differ (section 3 of the design):

* ``atomic``: a batch is stored whole or not at all. Core keeps the events before the first failing one.
* ``time_skew``: how far, in nanoseconds, stored order and time order may differ. 0 where they are the same.
* ``forgetful``: a restart may make the store accept a guard that it should refuse (Core 0.23 and 0.24).
* ``tenant``: the tenant whose events this store sees.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

__all__ = ["Acknowledged", "Event", "EventStore", "Info", "Latest", "Link", "LinkedReads", "ManyReads", "NewEvent"]


class OpaqueStruct(msgspec.Struct, frozen=True):
    """A struct whose ``repr`` tells nothing but its class: streams of sessions hold tokens."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One immutable record, as the store keeps it."""

    id: str
    type: str
    stream: str
    payload: msgspec.Raw
    metadata: msgspec.Raw
    """Raw JSON; ``null`` where the writer gave none."""
    time: int
    """The server's time, nanoseconds since the epoch."""
    version: int
    """The stream's version right after this event; 1 for every event on Core 0.23 and 0.24."""

    def __repr__(self) -> str:
        return f"Event(type={self.type!r}, version={self.version}, time={self.time})"


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event to append.

    ``guard`` is the version that the stream must be at; ``None`` appends in any case. Empty ``metadata`` reads as ``null``.
    """

    type: str
    stream: str
    payload: bytes
    metadata: bytes
    guard: int | None = None

    def __repr__(self) -> str:
        return f"NewEvent(type={self.type!r}, guard={self.guard})"


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the store says of a stored event: its id, its time (nanoseconds), the stream's version after it."""

    id: str
    time: int
    version: int


class Latest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The newest event of a stream (``None``: the tenant has none) and the version of the stream.

    The version counts the events of every tenant that uses the same stream id, and Core looks it up after the event: it may
    count one that came between (section 6 of the contract).
    """

    event: Event | None
    version: int

    def __repr__(self) -> str:
        return f"Latest(event={self.event!r}, version={self.version})"


class Link(msgspec.Struct, frozen=True):
    """From a stream to another one: ``prefix`` and the text that is ``member`` of the payload of its newest event."""

    member: str
    prefix: str

    def target(self, event: Event) -> str | None:
        """The stream that ``event`` leads to, or ``None``."""
        try:
            value = msgspec.json.decode(_members(event.payload)[self.member], type=str)
        except (msgspec.MsgspecError, KeyError):
            return None
        return self.prefix + value


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a store is, for people.

    ``where``: the URL or the path; ``None`` in memory. ``reads_from``: the URL of plain reads, or several, separated by a
    comma and a blank. ``engine``: what sends the requests. ``server`` and ``server_version``: what the server says of
    itself. ``strict_reads``: whether it can prove that an answer is complete; servers that cannot (Core 0.23 and 0.24) are
    the ones that forget versions when they restart. ``durable``: whether what is acknowledged outlives the server; ``None``
    where it does not say so.
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
    """Whether ``event`` is not older than ``other`` by the store's time."""
    return event.time >= other.time


class EventStore(Protocol):
    """Something that appends and reads the events of one tenant."""

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

        Raises `VersionConflict` when a guard fails (its ``actual`` counts earlier events of the same batch); the events
        before the failing one are kept unless the store is ``atomic``. An error whose ``ambiguous`` is true leaves open
        what was stored. A caller that is cancelled leaves either all of the batch, none of it, or, on a store that is not
        atomic, a prefix.
        """
        ...

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        """The newest event of ``stream``. ``decisive`` asks the side that accepts writes."""
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
        """A page of at most ``limit`` (up to 1,000) events of ``stream``, by time, skipping ``offset``.

        ``until``: only events whose time is at most this, in nanoseconds.
        """
        ...

    def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """The events whose type starts with ``type_prefix``, in time order, in pages; both times inclusive."""
        ...

    def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        """The newest event of every stream that starts with ``stream_prefix``, in pages, ordered by stream, each once.

        ``type_prefix`` is that of the streams' own types, for stores that can only search by type. ``newer``: whether the
        first of two events of a stream, met later, is the newer one; for stores whose order in time does not say it.
        """
        ...

    def server_time(self) -> int:
        """The newest time of the store that is known here, in nanoseconds: what the age of an event is held against."""
        ...

    async def info(self) -> Info:
        """What this store is."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then release files and connections. Closing twice does nothing."""
        ...


@runtime_checkable
class LinkedReads(Protocol):
    """An `EventStore` that can read a stream, and the one that it leads to, in less time than one after the other."""

    async def latest_linked(self, stream: str, link: Link) -> tuple[Latest, Latest | None]:
        """`EventStore.latest` of ``stream``, and of the stream that its newest event leads to.

        The second is the store's best guess: the caller looks whether it is of the right stream. ``None`` if there is none.
        """
        ...


@runtime_checkable
class ManyReads(Protocol):
    """An `EventStore` that can read several streams in less time than one after the other, or all at once."""

    async def latest_many(self, streams: Sequence[str]) -> list[Latest]:
        """`EventStore.latest` of each of ``streams``, in their order. Every answer is as if it were decisive."""
        ...
