"""Access to the event streams of a store. All reads and writes of the engine go through here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from functools import partial

import anyio.to_thread

from allsource_auth.audit import metadata_of
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.newest import Newest
from allsource_auth.engine.ordering import Head, agrees, in_order, is_newer, may_be_outdated, newest_of
from allsource_auth.engine.settling import MAX_ENTRIES, Settling
from allsource_auth.engine.store_settings import Settings, StoreSettings
from allsource_auth.errors import Http, InvalidInput, VersionConflict
from allsource_auth.logs import timed
from allsource_auth.per_loop import shared_lock
from allsource_auth.store.base import Acknowledged, Event, EventStore, Latest, Link, LinkedReads, ManyReads, NewEvent
from allsource_auth.values import MAX_REQUEST_BYTES

__all__ = ["PAGE", "PENDING_PREFIX", "SECOND", "Streams"]

PAGE = 1000
"""Events per page."""

PENDING_PREFIX = "pending-"
"""Prefix of the ids of events that a transaction has written and that are not stored yet."""

SECOND = 1_000_000_000
"""A second in nanoseconds, the unit of event times."""


class Streams:
    """The event streams of a store.

    ``settings`` are the settings of this process. They are compared with those of the store, see `StoreSettings`.
    """

    def __init__(self, store: EventStore, settings: Settings | None = None) -> None:
        self.store = store
        self._linked = store if isinstance(store, LinkedReads) else None
        self._many = store if isinstance(store, ManyReads) else None
        self._append_times: deque[float] = deque(maxlen=100)
        self.settings: StoreSettings | None = (
            None if settings is None else StoreSettings(settings, store, Streams(store).head)
        )
        self._settling = Settling(self)
        # By stream: (expected, actual) of the last version conflict, and of one that was repeated.
        self._refused: dict[str, tuple[int, int]] = {}
        self._corrected: dict[str, tuple[int, int]] = {}

    @property
    def slowest_append(self) -> float:
        """Duration in seconds of the slowest of the last 100 appends."""
        with shared_lock:
            return max(self._append_times, default=0.0)

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        """Append events in one request. Raises `InvalidInput` without sending it if it would be too large."""
        size = sum(len(event.payload) + len(event.metadata) + len(event.stream) + 200 for event in events)
        if size > MAX_REQUEST_BYTES:
            raise InvalidInput(
                "payload", f"the events take {size} bytes, at most {MAX_REQUEST_BYTES} are allowed in one append"
            )
        settings = self.settings
        if settings is None:
            return await self._append(events)
        await settings.before_append()
        if not settings.due:
            return await self._append(events)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(settings.recheck())
                return await self._append(events)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        began = time.perf_counter()
        try:
            stored = await timed("append", events[-1].stream, self.store.append(events))
        except VersionConflict as conflict:
            self._learn_version(events, conflict)
            raise
        except Http:
            if self.settings is not None:
                self.settings.expire()
            raise
        finally:
            with shared_lock:
                self._append_times.append(time.perf_counter() - began)
        if self._refused or self._corrected:
            with shared_lock:
                for event in events:
                    self._refused.pop(event.stream, None)
                    self._corrected.pop(event.stream, None)
        return stored

    def _learn_version(self, events: Sequence[NewEvent], conflict: VersionConflict) -> None:
        """Remember the version in a conflict if the same guard was refused with the same version before.

        The version that a query reports can differ from the version that guards are checked against: after an upgrade, and for
        a stream id that several tenants use. Then the conflict has the right one. See "Guards" in
        `docs/reference/allsource-api.md`.
        """
        candidates = [event.stream for event in events if event.guard == conflict.expected]
        if len(candidates) != 1:
            return  # it is unknown which guard was refused
        stream, refusal = candidates[0], (conflict.expected, conflict.actual)
        with shared_lock:
            if self._corrected.pop(stream, None) is None and self._refused.get(stream) == refusal:
                self._corrected[stream] = refusal
            if len(self._refused) >= MAX_ENTRIES:
                oldest = next(iter(self._refused))
                del self._refused[oldest]
                self._corrected.pop(oldest, None)
            self._refused[stream] = refusal

    async def newest(self, stream: str, *, require_leader: bool = False) -> Event | None:
        """Return the newest event of a stream. One read; with ``require_leader`` from the side that accepts writes."""
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        latest = await timed("latest", stream, self.store.latest(stream, require_leader=require_leader))
        if latest.version > 1 and may_be_outdated(latest, ordered=not self.store.time_skew):
            return newest_of(await self.newest_until_seq(stream, latest.version, require_leader=require_leader))
        return latest.event

    async def newest_many(self, streams: Iterable[str], *, require_leader: bool = False) -> dict[str, Event | None]:
        """Return the newest event of each of ``streams``. One read if the store supports it, else one for each stream."""
        wanted = list(dict.fromkeys(streams))
        if self._many is None or len(wanted) < 2:
            return await concurrently(wanted, partial(self.newest, require_leader=require_leader))
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        found = await timed("latest_many", wanted[0], self._many.latest_many(wanted))
        events: dict[str, Event | None] = {}
        for stream, latest in zip(wanted, found, strict=True):
            doubtful = latest.version > 1 and may_be_outdated(latest, ordered=not self.store.time_skew)
            events[stream] = await self.newest(stream, require_leader=require_leader) if doubtful else latest.event
        return events

    async def newest_linked(self, stream: str, link: Link) -> tuple[Event | None, Event | None]:
        """Return the newest event, and the newest event of the stream it links to if the store can return both in one read.

        The caller must verify that the second event is of the stream it expects.
        """
        if self._linked is None:
            return await self.newest(stream), None
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        first, second = await timed("latest", stream, self._linked.latest_linked(stream, link))
        if first.version > 1 and may_be_outdated(first, ordered=not self.store.time_skew):
            return newest_of(await self.newest_until_seq(stream, first.version, require_leader=False)), None
        if second is None or (second.version > 1 and may_be_outdated(second, ordered=not self.store.time_skew)):
            return first.event, None
        return first.event, second.event

    async def head(self, stream: str) -> Head:
        """Return the head of a stream for a decision, read from the side that accepts writes."""
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        # A correction that is learned during the read does not apply to its result.
        corrected = self._corrected.get(stream)
        latest = await self.latest_from_leader(stream)
        version = latest.version
        if self.store.atomic_batches or agrees(latest):
            events = await self.newest_events(stream, latest)
        else:
            events = await self._settling.events(stream, version)
        event = newest_of(events)
        seq = 0
        if event is not None:
            known = metadata_of(event).seq
            seq = known if known is not None else await self.count(stream)
        guard = max([version, *(other.version for other in events)])
        if corrected is not None and corrected == self._corrected.get(stream) and corrected[0] == guard:
            guard = corrected[1]
        return Head(stream=stream, event=event, guard=guard, seq=seq)

    async def newest_events(self, stream: str, latest: Latest) -> list[Event]:
        """Return the newest event by time, with further events if one of them may have been decided later."""
        if may_be_outdated(latest, ordered=not self.store.time_skew):
            return await self.newest_until_seq(stream, latest.version, require_leader=True)
        return [] if latest.event is None else [latest.event]

    async def latest_from_leader(self, stream: str) -> Latest:
        """Return the newest event and the version of a stream, from the server that accepts writes."""
        return await timed("latest", stream, self.store.latest(stream, require_leader=True))

    async def newest_until_seq(self, stream: str, version: int, *, require_leader: bool) -> list[Event]:
        """Return the events of a stream, newest first by time, in pages until one has a ``seq`` of ``version`` or more."""
        found: list[Event] = []
        while True:
            page = await self.page(stream, newest_first=True, offset=len(found), require_leader=require_leader)
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
        require_leader: bool = False,
    ) -> list[Event]:
        """Return a page of a stream in stored order."""
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        call = self.store.read(
            stream, until=until, newest_first=newest_first, offset=offset, limit=limit, require_leader=require_leader
        )
        return await timed("read", stream, call)

    async def scan(self, type_prefix: str, *, since: int | None = None) -> AsyncGenerator[list[Event]]:
        """Iterate over pages of the events whose type has the prefix, in time order."""
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        async with aclosing(self.store.scan(type_prefix, since=since)) as pages:
            async for events in pages:
                yield events

    async def newest_of_each(self, stream_prefix: str, type_prefix: str) -> AsyncGenerator[list[Event]]:
        """Iterate over pages of the newest event of each stream whose id has the prefix, in any order.

        Takes a few bytes of memory per stream. If stored order may differ from time order, and there is more than one page, all
        events are read twice: which ones are the newest is known after the first pass.
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
        """Iterate over pages of the newest event of each stream whose id has the prefix, ordered by stream."""
        if self.settings is not None and self.settings.unread:
            await self.settings.before_read()
        async with aclosing(self.store.heads(stream_prefix, type_prefix, newer=is_newer)) as pages:
            async for events in pages:
                yield events

    async def read_all(self, stream: str, *, until: int | None = None, require_leader: bool = False) -> list[Event]:
        """Return all events of a stream, oldest first, in the order in which they were decided."""
        found: list[Event] = []
        while True:
            page = await self.page(stream, offset=len(found), until=until, require_leader=require_leader)
            found += page
            if len(page) < PAGE:
                return in_order(found) if self.store.time_skew else found

    async def read_since(self, stream: str, event_id: str | None) -> tuple[Event | None, list[Event]]:
        """Return the event with this id, and the events that were decided after it; else ``None`` and all events."""
        events = await self.read_all(stream, require_leader=True)
        for place, event in enumerate(events):
            if event.id == event_id:
                return event, events[place + 1 :]
        return None, events

    async def count(self, stream: str) -> int:
        """Return the number of events of a stream."""
        count = 0
        while True:
            page = await self.page(stream, offset=count, require_leader=True)
            count += len(page)
            if len(page) < PAGE:
                return count

    async def written_since(self, head: Head, op: str, *, since: Event | None) -> Event | None:
        """Return an event that operation ``op`` wrote to a stream after ``since``, or ``None`` if there is none.

        With ``since=None`` the whole stream is searched. ``head`` is the head of the stream, read just before.
        """
        if head.event is None or (since is not None and head.event.id == since.id):
            return None
        if head.op == op:
            return head.event
        seen = 0
        while True:
            page = await self.page(head.stream, newest_first=True, offset=seen, require_leader=True)
            for event in page:
                if metadata_of(event).op == op:
                    return event
                if since is not None and event.id == since.id and not self.store.time_skew:
                    return None
            seen += len(page)
            if len(page) < PAGE:
                return None
