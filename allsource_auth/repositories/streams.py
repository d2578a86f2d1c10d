"""Streams: which event of a stream is its newest, and what a write that follows must be guarded with.

Core orders a stream by time, and its clock may step back; so every guarded event of ours carries a sequence of its own
(``seq``), and where two events have one, it decides (section 4 of the design). Everything that the repositories ask a store
for goes through here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import anyio.to_thread
import msgspec

from ..audit import metadata_of
from ..errors import InvalidInput, Json, VersionConflict
from ..kinds import INDEX
from ..logs import observed
from ..store.base import Acknowledged, Event, EventStore, Latest, Link, LinkedReads, ManyReads, NewEvent, Quiet
from ..values import MAX_REQUEST_BYTES
from .concurrency import concurrently
from .newest import Newest
from .settings import Settings

__all__ = ["Head", "Streams"]

PAGE = 1000

MOST_KEPT = 1000
"""Streams whose last refusal is remembered, or what they count and nobody can read."""

PATIENCE = 0.5
PATIENCE_APPENDS = 10
LONGEST_PATIENCE = 10.0
"""At least so many seconds, and so many of the slowest appends, an event that was counted has time to be seen; but no longer
than a mutation tries at all."""

SHARED_PATIENCE = 0.01
"""At least so many seconds, where another tenant is known to use the id; never more than `LONGEST_PAUSE`."""

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two looks for it."""

PENDING = "pending-"
"""What the ids of events begin with that a transaction has written and that are not stored yet."""

SECOND = 1_000_000_000


class Head(Quiet, frozen=True, kw_only=True):
    """The newest event of a stream, as a decision sees it.

    ``guard`` is what the next append must expect: the larger of the store's counter and the highest version in the events,
    because either can be too low after a crash or an upgrade. ``seq`` is the sequence of the newest event; the number of
    events for a stream that others began.
    """

    stream: str
    event: Event | None
    guard: int
    seq: int

    @property
    def op(self) -> str | None:
        """The operation that wrote the newest event."""
        return metadata_of(self.event).op if self.event else None


def in_order(events: Iterable[Event]) -> list[Event]:
    """The events of one stream, given by time, in the order in which they were decided: by ``seq`` where they have one."""
    found = list(events)
    places = [place for place, event in enumerate(found) if metadata_of(event).seq is not None]
    sequenced = sorted((found[place] for place in places), key=lambda event: metadata_of(event).seq or 0)
    for place, event in zip(places, sequenced, strict=True):
        found[place] = event
    return found


S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


def content(event: Event, type: type[S]) -> S:  # noqa: A002
    """The payload of one of our index events. Raises `Json` naming the event."""
    try:
        return msgspec.json.decode(event.payload, type=type)
    except msgspec.MsgspecError:
        pass
    message = f"event {event.id} ({event.type}): the payload is not what such an event has"
    raise Json(message, stream=event.stream, event_id=event.id)


class Streams:
    """A store's streams. ``settings`` are held against the store's own before the first read and the first write."""

    def __init__(self, store: EventStore, settings: Settings | None = None) -> None:
        self.store = store
        self._linked = store if isinstance(store, LinkedReads) else None
        self._many = store if isinstance(store, ManyReads) else None
        self._recent: deque[float] = deque(maxlen=100)
        self._unread = self._unwritten = settings
        self._missing: dict[str, tuple[str, int]] = {}
        self._refused: dict[str, tuple[int, int]] = {}
        self._told: dict[str, tuple[int, int]] = {}

    def _patience(self, stream: str) -> float:
        """Seconds in which an event that was counted can be read as well: many times what an append takes.

        Less for a stream of which something was never seen before: another tenant uses its id, and goes on doing so. Ids of
        index streams are the tenant's own.
        """
        if stream in self._missing and not stream.startswith(INDEX):
            return min(max(SHARED_PATIENCE, self.slowest_append), LONGEST_PAUSE)
        return min(max(PATIENCE, PATIENCE_APPENDS * self.slowest_append), LONGEST_PATIENCE)

    @property
    def slowest_append(self) -> float:
        """About the 99th percentile of the last appends, in seconds."""
        return max(self._recent, default=0.0)

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        """Append in one round trip. Raises `InvalidInput` for more than one request may carry; nothing is sent then."""
        size = sum(len(event.payload) + len(event.metadata) + len(event.stream) + 200 for event in events)
        if size > MAX_REQUEST_BYTES:
            raise InvalidInput(
                "payload", f"this takes {size} bytes, at most {MAX_REQUEST_BYTES} can be written at once"
            )
        if self._unwritten is not None:
            await self._unwritten.write(Streams(self.store))
            self._unread = self._unwritten = None
        began = time.perf_counter()
        try:
            stored = await observed("append", events[-1].stream, self.store.append(events))
        except VersionConflict as conflict:
            self._learn(events, conflict)
            raise
        finally:
            self._recent.append(time.perf_counter() - began)
        for event in events if self._refused or self._told else ():
            self._refused.pop(event.stream, None)
            self._told.pop(event.stream, None)
        return stored

    def _learn(self, events: Sequence[NewEvent], conflict: VersionConflict) -> None:
        """Remember the version that a refusal named, where the same guard was refused in the same way before.

        What a server reads out as a stream's version can differ from what it holds guards against: after an upgrade, and on
        a stream id that several tenants use (section 3 of the contract of 0.27). Then the refusal tells the truth.
        """
        candidates = [event.stream for event in events if event.guard == conflict.expected]
        if len(candidates) != 1:
            return  # nobody knows which of them was refused
        stream, said = candidates[0], (conflict.expected, conflict.actual)
        if self._told.pop(stream, None) is None and self._refused.get(stream) == said:
            self._told[stream] = said
        if len(self._refused) >= MOST_KEPT:
            gone = next(iter(self._refused))
            del self._refused[gone]
            self._told.pop(gone, None)
        self._refused[stream] = said

    async def newest(self, stream: str, *, decisive: bool = False) -> Event | None:
        """The newest event, for a reader: one read. ``decisive`` asks the side that accepts writes."""
        if self._unread is not None:
            await self._read_settings()
        latest = await observed("latest", stream, self.store.latest(stream, decisive=decisive))
        if latest.version > 1 and _doubtful(latest, ordered=not self.store.time_skew):
            return newest_of(await self._numbered_highest(stream, latest.version, decisive=decisive))
        return latest.event

    async def newest_many(self, streams: Iterable[str], *, decisive: bool = False) -> dict[str, Event | None]:
        """The newest event of each of ``streams``, for a reader: one read for all where the store can, else one for each."""
        wanted = list(dict.fromkeys(streams))
        if self._many is None or len(wanted) < 2:
            return await concurrently(wanted, partial(self.newest, decisive=decisive))
        if self._unread is not None:
            await self._read_settings()
        found = await observed("latest_many", wanted[0], self._many.latest_many(wanted))
        events: dict[str, Event | None] = {}
        for stream, latest in zip(wanted, found, strict=True):
            doubtful = latest.version > 1 and _doubtful(latest, ordered=not self.store.time_skew)
            events[stream] = await self.newest(stream, decisive=decisive) if doubtful else latest.event
        return events

    async def newest_linked(self, stream: str, link: Link) -> tuple[Event | None, Event | None]:
        """The newest event, and if the store can tell it at the same time, that of the stream it leads to.

        Whoever gets the second one has to look whether it is of the right stream.
        """
        if self._linked is None:
            return await self.newest(stream), None
        if self._unread is not None:
            await self._read_settings()
        first, second = await observed("latest", stream, self._linked.latest_linked(stream, link))
        if first.version > 1 and _doubtful(first, ordered=not self.store.time_skew):
            return newest_of(await self._numbered_highest(stream, first.version, decisive=False)), None
        if second is None or (second.version > 1 and _doubtful(second, ordered=not self.store.time_skew)):
            return first.event, None
        return first.event, second.event

    async def head(self, stream: str) -> Head:
        """The newest event, for a decision: asked of the side that accepts writes."""
        if self._unread is not None:
            await self._read_settings()
        told = self._told.get(stream)  # what is learnt while the read is on its way says nothing about its answer
        latest = await observed("latest", stream, self.store.latest(stream, decisive=True))
        version = latest.version
        if self.store.atomic or _agrees(latest):
            events = await self._newest_events(stream, latest)
        else:
            events = await self._settled(stream, version)
        event = newest_of(events)
        seq = 0
        if event is not None:
            known = metadata_of(event).seq
            seq = known if known is not None else await self._count(stream)
        guard = max([version, *(other.version for other in events)])
        if told is not None and told == self._told.get(stream) and told[0] == guard:
            guard = told[1]
        return Head(stream=stream, event=event, guard=guard, seq=seq)

    async def _newest_events(self, stream: str, latest: Latest) -> list[Event]:
        """The newest event, and others where one of them may have been decided later."""
        if _doubtful(latest, ordered=not self.store.time_skew):
            return await self._numbered_highest(stream, latest.version, decisive=True)
        return [] if latest.event is None else [latest.event]

    async def _settled(self, stream: str, version: int) -> list[Event]:
        """The newest events of a stream, once they are all that ``version`` counts, which was read before.

        Core counts an event before it can be read, and looks the version up after the event. So what the version counts and
        nobody can read is either about to be seen, and then it must be waited for: whoever decided without it would overwrite
        it. Or it is never seen: it is another tenant's, or its server failed after counting it. Only time tells which;
        after `_patience` the rest is taken for missing, as long as neither the version nor the newest event changes.
        """
        if found := await self._seen(
            stream, version
        ):  # an event may just have come between the two looks of one answer
            return found
        # By time the event that is numbered highest need not be the newest.
        events, missing = await self._all_seen(stream, version)
        if missing is not None and self._missing.get(stream) != missing:
            waited, pause, patience = 0.0, FIRST_PAUSE, self._patience(stream)
            while waited < patience:
                await asyncio.sleep(pause)
                waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)
                if found := await self._seen(stream, version):
                    return found
            events, missing = await self._all_seen(stream, version)
        if missing is not None:
            self._keep(self._missing, stream, missing)
        return events

    async def _seen(self, stream: str, version: int) -> list[Event]:
        """The newest events, if they are what ``version`` counts; else none.

        An older version with a newer event is safe: the guard fails if anything has happened since it was read.
        """
        again = await observed("latest", stream, self.store.latest(stream, decisive=True))
        latest = Latest(event=again.event, version=version)
        return await self._newest_events(stream, latest) if _agrees(latest) else []

    async def _all_seen(self, stream: str, version: int) -> tuple[list[Event], tuple[str, int] | None]:
        """The newest events, as far back as needed, and a mark of what ``version`` counts beyond them, ``None`` for nothing."""
        events = await self._numbered_highest(stream, version, decisive=True)
        unseen = version - max((_number(event) for event in events), default=0)
        if unseen > 0 and events and all(metadata_of(event).seq is None for event in events):
            unseen = version - await self._count(stream)  # by others, on a server that does not number events
        if unseen <= 0:
            return events, None
        newest = newest_of(events)
        if newest is not None and newest.version < _number(newest):
            return events, ("", unseen)  # events say no version, so what another tenant adds stays the same number
        return events, (newest.id if newest else "", version)

    @staticmethod
    def _keep(kept: dict[str, T], stream: str, what: T) -> None:
        kept.pop(stream, None)
        if len(kept) >= MOST_KEPT:
            del kept[next(iter(kept))]
        kept[stream] = what

    async def _numbered_highest(self, stream: str, version: int, *, decisive: bool) -> list[Event]:
        """The events of a stream, newest first by time, as far back as the one that is numbered highest may stand."""
        found: list[Event] = []
        while True:
            page = await self.page(stream, newest_first=True, offset=len(found), decisive=decisive)
            found += page
            if len(page) < PAGE or max((metadata_of(event).seq or 0 for event in found), default=0) >= version:
                return found

    async def page(
        self,
        stream: str,
        *,
        newest_first: bool = False,
        offset: int = 0,
        limit: int = PAGE,
        until: int | None = None,
        decisive: bool = False,
    ) -> list[Event]:
        """A page of a stream as the store orders it."""
        if self._unread is not None:
            await self._read_settings()
        call = self.store.read(
            stream, until=until, newest_first=newest_first, offset=offset, limit=limit, decisive=decisive
        )
        return await observed("read", stream, call)

    async def scan(self, type_prefix: str, *, since: int | None = None) -> AsyncGenerator[list[Event]]:
        """The events whose type starts so, in time order, in pages."""
        if self._unread is not None:
            await self._read_settings()
        async with aclosing(self.store.scan(type_prefix, since=since)) as pages:
            async for events in pages:
                yield events

    async def newest_of_each(self, stream_prefix: str, type_prefix: str) -> AsyncGenerator[list[Event]]:
        """The newest event of every stream that starts so, in any order, in pages; in few bytes for each stream.

        A store in which stored order is not time order is read twice, where it holds more than a page: only its end tells
        which events are the newest.
        """
        if not self.store.time_skew:
            async with aclosing(self.heads(stream_prefix, type_prefix)) as pages:
                async for events in pages:
                    yield events
            return
        newest = Newest()
        first: list[Event] = []
        count = 0
        async with aclosing(self.scan(type_prefix)) as pages:
            async for events in pages:
                first, count = (events if not count else first), count + 1
                await anyio.to_thread.run_sync(
                    newest.add, [one for one in events if one.stream.startswith(stream_prefix)]
                )
        if count <= 1:
            yield [*filter(newest.has, first)]
            return
        del first
        async with aclosing(self.scan(type_prefix)) as pages:
            async for events in pages:
                found = await anyio.to_thread.run_sync(lambda page: [*filter(newest.has, page)], events)
                if found:
                    yield found

    async def heads(self, stream_prefix: str, type_prefix: str) -> AsyncGenerator[list[Event]]:
        """The newest event of every stream that starts so, in pages."""
        if self._unread is not None:
            await self._read_settings()
        async with aclosing(self.store.heads(stream_prefix, type_prefix, newer=_newer)) as pages:
            async for events in pages:
                yield events

    async def _read_settings(self) -> None:
        if self._unread is not None and await self._unread.check(self.store):
            self._unwritten = None
        self._unread = None

    async def whole(self, stream: str, *, until: int | None = None, decisive: bool = False) -> list[Event]:
        """All events of a stream, oldest first, in the order in which they were decided."""
        found: list[Event] = []
        while True:
            page = await self.page(stream, offset=len(found), until=until, decisive=decisive)
            found += page
            if len(page) < PAGE:
                return in_order(found) if self.store.time_skew else found

    async def _count(self, stream: str) -> int:
        count = 0
        while True:
            page = await self.page(stream, offset=count, decisive=True)
            count += len(page)
            if len(page) < PAGE:
                return count

    async def written_since(self, head: Head, op: str, *, since: Event | None) -> Event | None:
        """The event that operation ``op`` wrote to a stream after ``since`` (``None``: ever), or ``None``.

        ``head`` is the stream as it was just read.
        """
        if head.event is None or (since is not None and head.event.id == since.id):
            return None
        if head.op == op:
            return head.event
        seen = 0
        while True:
            page = await self.page(head.stream, newest_first=True, offset=seen, decisive=True)
            for event in page:
                if metadata_of(event).op == op:
                    return event
                if since is not None and event.id == since.id and not self.store.time_skew:
                    return None
            seen += len(page)
            if len(page) < PAGE:
                return None


def _agrees(latest: Latest) -> bool:
    """Whether the newest event is certainly the one that the version counts last."""
    return (0 if latest.event is None else _number(latest.event)) >= latest.version


def _number(event: Event) -> int:
    """Which of its stream's events this is, as far as it says so itself."""
    return max(event.version, metadata_of(event).seq or 0)


def _doubtful(latest: Latest, *, ordered: bool) -> bool:
    """Whether the newest event may not be the one that was decided last: something of the stream is numbered higher.

    By time it need not be where stored order and time order differ. And a creation that is stored without a guard (a session
    made here, ``seq`` 1) may arrive after its own tombstone, on any store.
    """
    event = latest.event
    if event is None:
        return False
    late = latest.version > 1 and event.type.endswith(".created")
    if ordered and not late:
        return False
    seq = metadata_of(event).seq
    return seq is not None and seq < latest.version and (event.version < latest.version or (late and seq == 1))


def newest_of(newest_first: list[Event]) -> Event | None:
    """The newest event of a page that came newest first."""
    newest: Event | None = None
    for event in reversed(newest_first):
        if newest is None or _newer(event, newest):
            newest = event
    return newest


def below(newest_first: list[Event], op: str) -> Event | None:
    """The newest of the events that others had stored before operation ``op`` wrote to the stream."""
    ops = [metadata_of(event).op for event in newest_first]
    if op not in ops:
        return None
    last = len(ops) - 1 - ops[::-1].index(op)
    return newest_of(newest_first[last + 1 :])


def _newer(event: Event, known: Event) -> bool:
    """Whether ``event``, which comes later in time, was also decided later than ``known``."""
    its, seq = metadata_of(event).seq, metadata_of(known).seq
    return its is None or seq is None or its >= seq
