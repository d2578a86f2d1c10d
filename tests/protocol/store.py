"""`SimStore`: the `EventStore` of one client, and its requests.

A request is passive: the owner of the `Network` executes it step by step and delivers the reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, cast

from allsource_auth.errors import AllsourceAuthError, Http, StoreClosed, VersionConflict
from allsource_auth.store.base import Acknowledged, Event, Info, Latest, NewEvent, is_newer_by_time
from tests.protocol.core import Answer, Interner, SimCore

__all__ = ["Append", "Network", "Read", "SimStore"]


class Append:
    """An append in flight: one step for each event, or one for all of them on a store with atomic batches.

    On a ``lagging`` store each event takes two steps: it is counted, then it becomes visible.
    """

    reads = False

    def __init__(self, store: SimStore, events: Sequence[NewEvent], ids: Interner) -> None:
        self.store = store
        self.events = events
        self.future: asyncio.Future[object] | None = None
        self.finished = False
        self.error: AllsourceAuthError | None = None
        self.acknowledged: list[Acknowledged] = []
        self.since = 0
        self.trail = ids[tuple([(new.type, new.stream, new.payload, new.metadata, new.guard) for new in events])]
        self._ids = ids
        self._next = 0
        self._counted: tuple[Acknowledged, int] | None = None
        self._await()

    def _await(self) -> None:
        """Record when the time of the next event may first be taken.

        Only events without a guard may get an earlier time: only indexes depend on it, and their entries have no guard.
        """
        new = self.events[self._next]
        self._early = self.store.stamps and new.guard is None
        self.since = self.store.core.moment(new.stream) if self._early else 0

    def stamps(self) -> list[int | None]:
        """Return the possible times of the next event. ``None`` is the time at which it is stored."""
        if not self._early or self.hides:
            return [None]
        return [None, *self.store.core.stamps(self.events[self._next], self.since, self.store.time_skew)]

    def execute(self, stamp: int | None) -> None:
        """Execute the next step on the server."""
        core, tenant = self.store.core, self.store.tenant
        new = self.events[self._next]
        try:
            if self.store.atomic_batches:
                stored = core.append_all(tenant, self.events)
            elif self._counted is not None:
                stored, self._counted = [self._counted], None
                core.reveal(stored[0][1])
            else:
                if new.guard is not None and self.store.warm:
                    core.load(tenant)
                stored = [core.append(tenant, new, stamp, hidden=self.store.lagging)]
                if self.store.lagging:
                    self._counted = stored[0]
                    self.trail = self._ids[self.trail, "counted", stored[0][1]]
                    return
        except VersionConflict as error:
            self.error = error
            self.finished = True
            self.trail = self._ids[self.trail, "conflict", error.expected, error.actual]
            return
        for acknowledged, key in stored:
            self.acknowledged.append(acknowledged)
            self.trail = self._ids[self.trail, key, acknowledged.version]
        self._next += len(stored)
        self.finished = self._next == len(self.events)
        if not self.finished:
            self._await()

    @property
    def begun(self) -> bool:
        """Whether the server has executed a step of it."""
        return self._next > 0 or self.finished or self.hides

    @property
    def hides(self) -> bool:
        """Whether an event of it is counted, but not visible."""
        return self._counted is not None

    def reply(self) -> object:
        """Return the reply to a successful append."""
        for acknowledged in self.acknowledged:
            self.store.observe(acknowledged.time)
        return self.acknowledged

    def lost(self) -> Http:
        """Return the error that the client gets if there is no reply."""
        return Http("no reply to an append", ambiguous=True)

    def title(self) -> str:
        """Describe the next step."""
        if self._counted is not None:
            return f"{_name(self.events[self._next])} becomes visible"
        if self.store.atomic_batches:
            return "append " + " + ".join(_name(new) for new in self.events)
        return f"append {self._next + 1}/{len(self.events)} {_name(self.events[self._next])}"

    def result(self) -> str:
        """Describe the result of the last step."""
        if isinstance(self.error, VersionConflict):
            return f"refused, the stream is at version {self.error.actual}"
        if self._counted is not None:
            return f"counted as version {self._counted[0].version}"
        versions = [acknowledged.version for acknowledged in self.acknowledged]
        last = versions if self.store.atomic_batches else versions[-1:]
        return "stored as version " + " and ".join(map(str, last))


class Read:
    """A read in flight: one step, which executes it and delivers the reply.

    With ``count`` there are two steps: the first takes the page, the second adds the result of ``count``. A half-done read
    depends on its page alone and changes nothing on the server, so it can be dropped like one that was not begun.
    """

    reads = True
    begun = hides = False
    error = None

    def __init__(
        self,
        store: SimStore,
        words: str,
        ask: Callable[[], Answer],
        ids: Interner,
        count: Callable[[Answer], Answer] | None = None,
    ) -> None:
        self.store = store
        self.future: asyncio.Future[object] | None = None
        self.finished = False
        self.trail = ids["read", words]
        self.since = 0
        self._ids = ids
        self._words = words
        self._ask = ask
        self._count = count
        self._answer: Answer | None = None

    def stamps(self) -> list[int | None]:
        """Return one possibility: a read stores no event, so it has no time."""
        return [None]

    def execute(self, stamp: int | None) -> None:
        """Execute the read, or the next of its two steps."""
        if self._count is not None and self._answer is None:
            self._answer = self._ask()
            self.trail = self._ids[self.trail, self._answer.key]
            return
        self._answer = self._ask() if self._answer is None or self._count is None else self._count(self._answer)
        self.trail = self._answer.key
        self.finished = True

    def reply(self) -> object:
        """Return the answer."""
        value = cast(Answer, self._answer).value
        for event in value if isinstance(value, list) else [value.event]:
            if event is not None:
                self.store.observe(event.time)
        return value

    def lost(self) -> Http:
        """Return the error that the client gets if there is no reply."""
        return Http("no reply to a read")

    def title(self) -> str:
        """Describe the next step."""
        return self._words if self._answer is None else f"{self._words}, then its version"

    def result(self) -> str:
        """Describe the result of the last step."""
        value = cast(Answer, self._answer).value
        if isinstance(value, list):
            return f"{len(value)} events" + "".join(f", {event.type}" for event in value[:4])
        found = "nothing" if value.event is None else value.event.type
        return f"{found}, version {value.version}" if self.finished else found


class Network(Protocol):
    """The transport of a store's requests."""

    def submit(self, request: Append | Read) -> asyncio.Future[object]:
        """Send a request; return a future for its reply."""
        ...

    def abandon(self, request: Append | Read) -> None:
        """Stop waiting for the reply to a request."""
        ...


class SimStore:
    """An `EventStore` on a `SimCore`.

    Args:
        network: the transport.
        core: the server.
        ids: assigns numbers to states.
        tenant: the tenant.
        atomic_batches: a batch is one step, stored as a whole or not at all.
        time_skew: nanoseconds, as in `EventStore`.
        stamps: unguarded events may get their time before they are stored.
        split: `latest` takes two steps.
        warm: guarded appends reach only a server that has loaded the tenant, as the store for Core ensures.
        lagging: an event is counted before it is visible.
        loses_versions_on_restart: as in `EventStore`.
        ahead: nanoseconds that `server_time` is after the newest time read.
        page: number of events in a page of `scan` and `heads`.
    """

    def __init__(
        self,
        network: Network,
        core: SimCore,
        ids: Interner,
        *,
        tenant: str,
        atomic_batches: bool,
        time_skew: int,
        stamps: bool,
        split: bool,
        warm: bool,
        lagging: bool,
        loses_versions_on_restart: bool,
        ahead: int,
        page: int,
    ) -> None:
        self.core = core
        self.tenant = tenant
        self.atomic_batches = atomic_batches
        self.time_skew = time_skew
        self.stamps = stamps
        self.split = split
        self.warm = warm
        self.lagging = lagging
        self.loses_versions_on_restart = loses_versions_on_restart
        self._network = network
        self._ids = ids
        self._ahead = ahead
        self._page = page
        self._seen = 0
        self._closed = False

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if not events:
            return []
        return cast("list[Acknowledged]", await self._send(Append(self, list(events), self._ids)))

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        words = f"latest {stream}"
        if not self.split:
            return cast(Latest, await self._ask(words, lambda: self.core.latest(self.tenant, stream)))

        def count(page: Answer) -> Answer:
            return self.core.counted(stream, page)

        halves = Read(self, words, lambda: self.core.newest(self.tenant, stream), self._ids, count)
        return cast(Latest, await self._send(halves))

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
        def ask() -> Answer:
            return self.core.read(
                self.tenant, stream, until=until, newest_first=newest_first, offset=offset, limit=limit
            )

        order = "newest" if newest_first else "oldest"
        return cast("list[Event]", await self._ask(f"read {stream}, {order} {limit} from {offset}, until {until}", ask))

    async def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        cursor, skip = since, frozenset[str]()
        while True:

            def ask(cursor: int | None = cursor, skip: frozenset[str] = skip) -> Answer:
                return self.core.scan(self.tenant, type_prefix, since=cursor, until=until, skip=skip, limit=self._page)

            page = cast("list[Event]", await self._ask(f"scan {type_prefix} from {cursor} until {until}", ask))
            if page:
                yield page
            if len(page) < self._page:
                return
            last = page[-1].time
            repeated = skip if last == cursor else frozenset()
            cursor, skip = last, repeated | {event.id for event in page if event.time == last}

    async def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        types = "" if self.atomic_batches else type_prefix
        after = ""
        while True:

            def ask(after: str = after) -> Answer:
                return self.core.heads(self.tenant, stream_prefix, types, after=after, limit=self._page)

            page = cast("list[Event]", await self._ask(f"heads {stream_prefix} after {after!r}", ask))
            if page:
                yield page
            if len(page) < self._page:
                return
            after = page[-1].stream

    async def info(self) -> Info:
        return Info(store="simulated", tenant=self.tenant)

    def server_time(self) -> int:
        return self._seen + self._ahead

    async def close(self) -> None:
        self._closed = True

    def observe(self, time: int) -> None:
        """Record a time of the server from a reply."""
        self._seen = max(self._seen, time)

    async def _ask(self, words: str, ask: Callable[[], Answer]) -> object:
        return await self._send(Read(self, words, ask, self._ids))

    async def _send(self, request: Append | Read) -> object:
        if self._closed:
            raise StoreClosed
        try:
            return await self._network.submit(request)
        except asyncio.CancelledError:
            self._network.abandon(request)
            raise


def _name(new: NewEvent) -> str:
    guard = "" if new.guard is None else f" guard {new.guard}"
    return f"{new.type} on {new.stream}{guard}"
