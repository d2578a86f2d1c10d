"""The overlay of a transaction: stored events, and on top of them the events that the transaction has written so far.

The overlay is an event store, so the repositories work on it unchanged and read their own writes. It sends nothing. At the
end, `transaction` turns the written events into one append.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from heapq import merge
from typing import Literal

import msgspec

from allsource_auth.engine.ordering import Head
from allsource_auth.engine.streams import PAGE, PENDING_PREFIX, Streams
from allsource_auth.errors import StoreClosed, VersionConflict
from allsource_auth.kind import SNAPSHOT, SWEPT
from allsource_auth.store.base import Acknowledged, Event, Info, Latest, NewEvent, is_newer_by_time

__all__ = ["Overlay"]

CLOSED = "a transaction can be used once, and only inside its block: `async with adapter.transaction() as tx`"

_NULL = msgspec.Raw(b"null")


class Overlay:
    """An `EventStore` for one transaction.

    ``bases`` are the stored heads that its decisions depend on, and ``written`` are its own events, both by stream.
    """

    atomic_batches: bool = True
    loses_versions_on_restart: bool = False

    def __init__(self, streams: Streams) -> None:
        self.bases: dict[str, Head] = {}
        self.written: dict[str, list[Event]] = {}
        self._streams = streams
        self._count = 0
        self._state: Literal["new", "open", "ended"] = "new"

    @property
    def tenant(self) -> str:
        return self._streams.store.tenant

    @property
    def time_skew(self) -> int:
        return self._streams.store.time_skew

    def begin(self) -> None:
        """Open the overlay. Raises `StoreClosed` if it was opened before."""
        if self._state != "new":
            raise StoreClosed(CLOSED)
        self._state = "open"

    def end(self) -> None:
        """Close the overlay. Further calls raise `StoreClosed`."""
        self._state = "ended"

    def _check(self) -> None:
        if self._state != "open":
            raise StoreClosed(CLOSED)

    def base(self, stream: str) -> Head:
        """Return the stored head that the first event written to a stream follows."""
        return self.bases.get(stream) or Head(stream=stream, event=None, guard=0, seq=0)

    def _version(self, stream: str) -> int:
        return self.base(stream).guard + len(self.written.get(stream, ()))

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        self._check()
        earlier: dict[str, int] = {}  # events of this batch, by stream
        for new in events:
            version = self._version(new.stream) + earlier.get(new.stream, 0)
            if new.guard is not None and new.guard != version:
                raise VersionConflict(expected=new.guard, actual=version, stream=new.stream)
            earlier[new.stream] = earlier.get(new.stream, 0) + 1
        return [self._write(new) for new in events]

    def _write(self, new: NewEvent) -> Acknowledged:
        self._count += 1
        events = self.written.get(new.stream, [])
        base = self.base(new.stream).event
        last = events[-1].time if events else base.time if base else 0
        event = Event(
            id=f"{PENDING_PREFIX}{self._count}",
            type=new.type,
            stream=new.stream,
            payload=msgspec.Raw(new.payload),
            metadata=msgspec.Raw(new.metadata) if new.metadata else _NULL,
            time=max(self.server_time(), last + 1),
            version=self._version(new.stream) + 1,
        )
        if new.type not in (SNAPSHOT, SWEPT):  # these would cover events that may never be stored
            self.written.setdefault(new.stream, []).append(event)
        return Acknowledged(id=event.id, time=event.time, version=event.version)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        self._check()
        if stream not in self.written:
            if not require_leader:
                event = await self._streams.newest(stream)
                if stream not in self.written:
                    return Latest(event=event, version=0)
            else:
                head = await self._streams.head(stream)
                if stream not in self.written:
                    self.bases[stream] = head
                    return Latest(event=head.event, version=head.guard)
        return Latest(event=self.written[stream][-1], version=self._version(stream))

    async def read(
        self,
        stream: str,
        *,
        until: int | None = None,
        newest_first: bool = False,
        offset: int = 0,
        limit: int = PAGE,
        require_leader: bool = False,
    ) -> list[Event]:
        self._check()
        ours = [event for event in self.written.get(stream, ()) if until is None or event.time <= until]
        if not ours:
            return await self._streams.page(
                stream,
                newest_first=newest_first,
                offset=offset,
                limit=limit,
                until=until,
                require_leader=require_leader,
            )
        events = await self._streams.read_all(stream, until=until, require_leader=require_leader) + ours
        return (events[::-1] if newest_first else events)[offset : offset + limit]

    async def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        self._check()
        async with aclosing(self._streams.scan(type_prefix, since=since)) as pages:
            async for page in pages:
                yield page if until is None else [event for event in page if event.time <= until]
        ours = sorted(
            (
                event
                for events in self.written.values()
                for event in events
                if event.type.startswith(type_prefix)
                and (since is None or event.time >= since)
                and (until is None or event.time <= until)
            ),
            key=lambda event: event.time,
        )
        if ours:
            yield ours

    async def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        self._check()
        ours = {stream: self.written[stream][-1] for stream in sorted(self.written) if stream.startswith(stream_prefix)}
        async with aclosing(self._streams.heads(stream_prefix, type_prefix)) as pages:
            async for page in pages:
                stored = [event for event in page if event.stream not in ours]
                passed = [stream for stream in ours if stream <= page[-1].stream]
                written = [ours.pop(stream) for stream in passed]
                yield list(merge(stored, written, key=lambda event: event.stream))
        if ours:
            yield list(ours.values())

    def server_time(self) -> int:
        return self._streams.store.server_time()

    async def info(self) -> Info:
        return await self._streams.store.info()

    async def close(self) -> None:
        self.end()
