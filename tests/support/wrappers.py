"""Stores that wrap a store: to count calls, fail, contend, expire grace periods, crash, lose replies, or delay an append."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from allsource_auth import Acknowledged, Event, EventStore, Http, Info, Latest, NewEvent, StoreClosed
from allsource_auth.store.base import is_newer_by_time

__all__ = [
    "ContendedStore",
    "CountingStore",
    "CrashingStore",
    "CutStore",
    "DelayedStore",
    "FailingStore",
    "PatientStore",
    "WrappedStore",
]

HOUR = 3600 * 1_000_000_000


class WrappedStore:
    """Delegates every call to another store."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    @property
    def tenant(self) -> str:
        return self._store.tenant

    @property
    def atomic_batches(self) -> bool:
        return self._store.atomic_batches

    @property
    def time_skew(self) -> int:
        return self._store.time_skew

    @property
    def loses_versions_on_restart(self) -> bool:
        return self._store.loses_versions_on_restart

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        return await self._store.append(events)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        return await self._store.latest(stream, require_leader=require_leader)

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
        return await self._store.read(
            stream, until=until, newest_first=newest_first, offset=offset, limit=limit, require_leader=require_leader
        )

    def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        return self._store.scan(type_prefix, since=since, until=until)

    def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        return self._store.heads(stream_prefix, type_prefix, newer=newer)

    def server_time(self) -> int:
        return self._store.server_time()

    async def info(self) -> Info:
        return await self._store.info()

    async def close(self) -> None:
        await self._store.close()


class PatientStore(WrappedStore):
    """A store whose clock is an hour ahead: every grace period is over, so that claims are fenced at once."""

    def server_time(self) -> int:
        return super().server_time() + HOUR


class CountingStore(WrappedStore):
    """Records the streams read, the batches appended and the prefixes scanned, and counts the scanned events."""

    def __init__(self, store: EventStore) -> None:
        super().__init__(store)
        self.reads: list[str] = []
        self.appends: list[list[NewEvent]] = []
        self.scans: list[str] = []
        self.scanned = 0

    def forget(self) -> None:
        """Clear the records."""
        self.reads.clear()
        self.appends.clear()
        self.scans.clear()
        self.scanned = 0

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        self.appends.append(list(events))
        return await super().append(events)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        self.reads.append(stream)
        return await super().latest(stream, require_leader=require_leader)

    async def read(self, stream: str, **options: Any) -> list[Event]:
        self.reads.append(stream)
        return await super().read(stream, **options)

    async def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        self.scans.append(type_prefix)
        async for page in super().scan(type_prefix, since=since, until=until):
            self.scanned += len(page)
            yield page

    def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        self.scans.append(stream_prefix)
        return super().heads(stream_prefix, type_prefix, newer=newer)


class FailingStore(CountingStore):
    """Raises ``failure``, if it is set, on every read of the newest event."""

    failure: Exception | None = None

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        if self.failure is not None:
            raise self.failure
        return await super().latest(stream, require_leader=require_leader)


class ContendedStore(WrappedStore):
    """Appends the newest event of ``stream`` again before every guarded append to it, so that the guard fails."""

    def __init__(self, store: EventStore, stream: str) -> None:
        super().__init__(store)
        self._stream = stream
        self.lost = 0

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if any(event.stream == self._stream and event.guard is not None for event in events):
            newest = (await self.latest(self._stream)).event
            assert newest is not None
            again = NewEvent(
                type=newest.type, stream=self._stream, payload=bytes(newest.payload), metadata=bytes(newest.metadata)
            )
            await super().append([again])
            self.lost += 1
        return await super().append(events)


class CrashingStore(WrappedStore):
    """Stores the first ``kept`` events of the first batch with several entities, then fails: the process has crashed."""

    @property
    def atomic_batches(self) -> bool:
        return False

    def __init__(self, store: EventStore, kept: int) -> None:
        super().__init__(store)
        self._kept = kept
        self._crashed = False

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if self._crashed:
            raise Http("the process has crashed")
        if sum(not event.type.startswith("auth.index.") for event in events) < 2:
            return await super().append(events)
        self._crashed = True
        for event in events[: self._kept]:
            await super().append([event])
        raise Http("the process has crashed", ambiguous=True)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        if self._crashed:
            raise StoreClosed
        return await super().latest(stream, require_leader=require_leader)


Cut = tuple[int, Callable[[], Awaitable[object]] | None]
"""How many events of an append are stored, and what runs before its caller gets the error."""


class CutStore(WrappedStore):
    """Not atomic. Its first appends get no reply, one for each of ``cuts``. After these, ``failing_reads`` reads fail."""

    @property
    def atomic_batches(self) -> bool:
        return False

    def __init__(self, store: EventStore, *cuts: Cut, failing_reads: int = 0) -> None:
        super().__init__(store)
        self._cuts = list(cuts)
        self.failing_reads = failing_reads

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if not self._cuts:
            return await super().append(events)
        kept, meanwhile = self._cuts.pop(0)
        for event in events[:kept]:
            await super().append([event])
        if meanwhile is not None:
            await meanwhile()
        raise Http("no reply to an append", ambiguous=True)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        if not self._cuts and self.failing_reads:
            self.failing_reads -= 1
            raise Http("no reply to a read")
        return await super().latest(stream, require_leader=require_leader)


class DelayedStore(WrappedStore):
    """Append ``number`` gets no reply, and is stored right before the first later call that ``due`` selects.

    ``due`` takes the name of the call, ``"append"`` or ``"latest"``, and the stream.
    """

    def __init__(self, store: EventStore, due: Callable[[str, str], bool], *, number: int = 1) -> None:
        super().__init__(store)
        self._due = due
        self._before = number
        self._late: Sequence[NewEvent] | None = None

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        self._before -= 1
        if self._before == 0:
            self._late = events
            raise Http("no reply to an append", ambiguous=True)
        await self._store_what_is_due("append", events[-1].stream)
        return await super().append(events)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        await self._store_what_is_due("latest", stream)
        return await super().latest(stream, require_leader=require_leader)

    async def _store_what_is_due(self, call: str, stream: str) -> None:
        if self._late is not None and self._due(call, stream):
            late, self._late = self._late, None
            await super().append(late)
