"""``AllsourceStore``: the events of one tenant in an Allsource, over HTTP.

How a request travels is in `allsource_auth.store.allsource.client`, what is on the wire in `allsource_wire`. Here is what the
store promises on servers of different age (sections 4 and 5 of the design):

* **Stale answers.** A 0.27 server short of memory answers with less than it has acknowledged. What is suspicious (the counter
  says more than the events do) is asked again as a strict read, which is believed. Where there are no strict reads (0.23,
  0.24) the counter may be another tenant's, and the answer stands.
* **Cold counters.** 0.23 and 0.24 forget the versions of archived streams when they restart, until the tenant is read. There a
  guarded append is only sent right after a read, and what was to be the first event of a stream is read back.
* **Slow guards.** 0.27 pays for the first guarded append to a stream, unless its feed has been called since it started;
  so that is done now and then where the credential may.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from time import monotonic, monotonic_ns, time_ns
from typing import TYPE_CHECKING, Final, NamedTuple, Unpack

import anyio.to_thread

from allsource_auth import config
from allsource_auth.errors import AllsourceAuthError, Api, Overloaded, VersionConflict
from allsource_auth.store.allsource.client import Client
from allsource_auth.store.allsource.http import Reply, engine_name
from allsource_auth.store.allsource.wire import Page, Wire
from allsource_auth.store.base import Acknowledged, Event, Info, Latest, Link, NewEvent, is_newer_by_time

if TYPE_CHECKING:
    import httpx

__all__ = ["AllsourceStore"]

PAGE: Final = 1000

SECOND: Final = 1_000_000_000

WARM_FOR: Final = 0.01
"""Seconds after a read was sent in which its answer says that the server has the tenant loaded.

A Core 0.23 was seen answering 10 to 74 ms after it had been killed. What slips through, a restart within this time, is found
when first events are read back (`EventStore.forgetful`).
"""

FEED_EVERY: Final = 60.0
"""Seconds between two calls of the feed, which find out whether the server has restarted."""

STRICT_LIMIT: Final = 1001
"""The most events of a strict read (section 8.5 of the contract)."""

LINKS: Final = 10_000
"""Streams of which it is remembered where they lead to, a few megabytes."""

NOBODY: Final = "auth-idx:nobody"
"""A stream that is never written: what a server can do is asked of it."""


TOO_LARGE: Final = "response_too_large"

LARGE: Final = 128 * 1024
"""Bytes of an answer from which on it is decoded in a worker thread, so as not to hold up the event loop."""

Ask = Callable[[str], Awaitable[Reply]]


class _Server(NamedTuple):
    """What the server behind the write endpoint can do. ``tagged``: its answers carry an ETag; those of 0.23 do not."""

    strict: bool
    tagged: bool


class AllsourceStore:
    """The events of one tenant in an Allsource Core, with reads through a Query Service if there is one: an `EventStore`.

    Args:
        core_url: Core, which accepts the writes and answers what decisions rest on.
        query_url: where plain reads go, by default to Core. Several URLs, which must differ, take turns; one that fails is
            left out for 1 to 30 s, and Core answers when none is left.
        api_key: travels as ``X-API-Key`` to all of them.
        tenant_id: whose events this store appends and reads. Versions count per stream over all tenants.
        options: see `ConnectionOptions`.

    A batch is not atomic, and stored order and time order may differ by up to ``time_skew``. Nothing is sent before the
    first call. Raises `InvalidInput` naming the option.
    """

    atomic_batches: Final = False
    time_skew: Final = 60 * SECOND

    def __init__(
        self,
        core_url: str,
        query_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        *,
        tenant_id: str = "default",
        **options: Unpack[config.ConnectionOptions],
    ) -> None:
        self._wire = Wire(config.tenant_id(tenant_id))
        self._client = Client(config.connection(core_url, query_url, api_key, **options))
        self._links: dict[str, str] = {}
        self._server: _Server | None = None
        self._failures = 0
        self._read_at = float("-inf")
        self._feed_at = float("-inf")
        self._feed: bool | None = None
        self._offset: int | None = None  # of the server's clock against the monotonic one here, in nanoseconds
        self._date = ""

    @property
    def tenant(self) -> str:
        """The tenant whose events this store sees."""
        return self._wire.tenant

    @property
    def http(self) -> httpx.AsyncClient:
        """The pool of connections as httpx users know it; relative URLs go to Core, without the API key."""
        return self._client.engine.http

    @property
    def loses_versions_on_restart(self) -> bool:
        """Whether the server may let a guard pass after a restart that it should refuse (0.23, 0.24)."""
        return self._server is None or not self._server.strict

    def __repr__(self) -> str:
        connection = self._client.connection
        return f"AllsourceStore({connection!r}, tenant={self.tenant!r}, engine={engine_name(connection)!r})"

    # Writing

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        """Append ``events`` in order, in one request; see `EventStore.append`.

        Raises:
            VersionConflict: a guard failed; the events before it were stored.
            Http, Unavailable, Json: ``ambiguous`` says whether events may have been stored.
            Overloaded, RateLimited: nothing was stored.
            Api: the server refused an event; the ones before it were stored.
            StoreClosed: after `close`.
        """
        if not events:
            return []
        path, body = self._wire.append(events)
        guarded = next((event.stream for event in reversed(events) if event.guard is not None), None)

        async def prepare() -> None:
            if guarded is not None:
                await self._make_guards_work(guarded)

        try:
            reply = await self._client.send(path, body, prepare if guarded is not None else None)
        except VersionConflict as conflict:
            candidates = {event.stream for event in events if event.guard == conflict.expected}
            conflict.stream = candidates.pop() if len(candidates) == 1 else None
            raise
        stored = self._wire.acknowledged(reply.body, len(events))
        self._saw_time(stored[-1].time)
        return stored

    async def _make_guards_work(self, stream: str) -> None:
        """Have the tenant loaded where a server forgets versions, and certified where a first guard is slow."""
        server = await self._met(self._client.ask_in_place)
        if not server.strict:
            if monotonic() - self._read_at > WARM_FOR:
                self._was_read(await self._client.ask_in_place(self._wire.latest(stream)))
        elif self._feed is not False and monotonic() - self._feed_at > FEED_EVERY:
            await self._call_feed()

    async def _met(self, ask: Ask) -> _Server:
        """What the server can do; asked again after a connection to it failed, as another may have taken its place.

        A read URL that fails says nothing about the write endpoint, which is what guards depend on.
        """
        if self._client.failures != self._failures:
            self._failures = self._client.failures
            self._server = self._feed = None
            self._read_at = self._feed_at = float("-inf")
        if self._server is None:
            try:
                reply = await ask(self._wire.strict(NOBODY, 1))
            except Api as error:
                if error.status != 400:
                    raise
                return self._knows(_Server(strict=False, tagged=False))  # has strict reads, but not of this kind
            page = self._wire.page(reply.body, limit=1, stream=NOBODY)
            return self._knows(_Server(strict=page.strict, tagged=reply.header("etag") is not None))
        return self._server

    def _knows(self, server: _Server) -> _Server:
        self._server = server
        return server

    async def _call_feed(self) -> None:
        """Call the feed once, which certifies the tenant on servers that are set up so; its failure is of no interest."""
        self._feed_at = monotonic()
        try:
            await self._client.ask_in_place(self._wire.feed(), once=True)
        except AllsourceAuthError as error:
            self._failures = self._client.failures  # a feed that always breaks off is no reconnect
            # Not there, or not for this credential: that stays so as long as the connection does.
            self._feed = not (isinstance(error, Api) and error.status in (400, 401, 403, 404))

    # Reading

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        """The newest event of ``stream`` and its version; see `EventStore.latest`.

        Raises `Http`, `Api` and what is below it, `Json`, `Overloaded`; `StoreClosed` after `close`.
        """
        page = await self._ask(self._wire.latest(stream), 1, stream=stream, require_leader=require_leader)
        events = page.events
        if page.version > _highest(events):
            whole = await self._strictly(stream)
            if whole is not None:
                events = whole[-1:]
        return Latest(event=events[0] if events else None, version=page.version)

    async def latest_linked(self, stream: str, link: Link) -> tuple[Latest, Latest | None]:
        """Both streams at once, where the first one led to the second before; see `LinkedReads.latest_linked`.

        Raises what `latest` raises.
        """
        known = self._links.get(stream)
        if known is not None:
            return await self._both(stream, known)
        latest = await self.latest(stream)
        target = None if latest.event is None else link.target(latest.event)
        if target is None:
            return latest, None
        if len(self._links) >= LINKS:
            del self._links[next(iter(self._links))]
        self._links[stream] = target
        return latest, await self.latest(target)

    async def _both(self, stream: str, other: str) -> tuple[Latest, Latest | None]:
        linked = asyncio.ensure_future(self.latest(other))
        try:
            latest = await self.latest(stream)
            if latest.event is None or latest.event.type.endswith(".deleted"):
                self._links.pop(stream, None)
                return latest, None
            try:
                return latest, await linked
            except Overloaded:
                return latest, None  # the caller may have better luck with one at a time
        finally:
            if not linked.done():
                linked.cancel()
                await asyncio.wait([linked])
            if not linked.cancelled():
                linked.exception()  # seen

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
        """A page of the events of ``stream``; see `EventStore.read`. Raises what `latest` raises."""
        limit, size = min(limit, PAGE), PAGE
        found: list[Event] = []
        version, ended = 0, False
        while len(found) < limit and not ended:
            size = min(size, limit - len(found))
            path = self._wire.read(
                stream, until=until, newest_first=newest_first, offset=offset + len(found), limit=size
            )
            try:
                page = await self._ask(path, size, stream=stream, require_leader=require_leader)
            except Api as error:
                size = _halved(error, size)
                continue
            found += page.events
            version, ended = page.version, _is_last(page, size)
        newest_seen = offset == 0 if newest_first else ended
        if newest_seen and until is not None and version > _highest(found):
            # Later events are left out on purpose; whether they are all there is asked without the limit in time.
            latest = await self._ask(self._wire.latest(stream), 1, stream=stream, require_leader=require_leader)
            newest_seen = latest.version > _highest(latest.events)
        if newest_seen and version > _highest(found):
            whole = await self._strictly(stream)
            if whole is not None:
                known = [event for event in whole if until is None or event.time <= until]
                return (known[::-1] if newest_first else known)[offset : offset + limit]
        return found

    async def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """The events whose type starts with ``type_prefix``; see `EventStore.scan`. Raises what `latest` raises.

        The server looks through all events of these types for each page; a page starts at the time of the last event before
        it, because an offset would cost more with every page.
        """
        offset, size = 0, PAGE
        seen: dict[str, int] = {}
        while True:
            path = self._wire.scan(type_prefix, since=since, until=until, offset=offset, limit=size)
            try:
                page = await self._ask(path, size, type_prefix=type_prefix, require_leader=False)
            except Api as error:
                size = _halved(error, size)
                continue
            fresh = [event for event in page.events if event.id not in seen]
            if fresh:
                yield fresh
            if not page.events or _is_last(page, size):
                return
            # Archived events lose what is below the microsecond, so a page that starts in the middle of one could miss some.
            last = page.events[-1].time // 1000 * 1000
            offset = offset + len(page.events) if last == since else 0
            since = last
            seen |= {event.id: event.time for event in fresh}
            seen = {event_id: time for event_id, time in seen.items() if time >= last}

    async def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        """The newest event of every stream that starts with ``stream_prefix``; see `EventStore.heads`.

        Reads every event of these types, and keeps one for each stream. Raises what `latest` raises.
        """
        newest: dict[str, Event] = {}
        async with aclosing(self.scan(type_prefix)) as pages:
            async for page in pages:
                for event in page:
                    known = newest.get(event.stream)
                    if event.stream.startswith(stream_prefix) and (known is None or newer(event, known)):
                        newest[event.stream] = event
        ordered = await anyio.to_thread.run_sync(sorted, newest)
        for start in range(0, len(ordered), PAGE):
            yield [newest[stream] for stream in ordered[start : start + PAGE]]

    async def _ask(
        self, path: str, limit: int, *, require_leader: bool, stream: str | None = None, type_prefix: str = ""
    ) -> Page:
        reply = await self._client.ask(path, require_leader=require_leader)
        connection = self._client.connection
        if require_leader or not connection.query_urls:
            self._was_read(reply)
        read = partial(self._wire.page, reply.body, limit=limit, stream=stream, type_prefix=type_prefix)
        page = read() if len(reply.body) < LARGE else await anyio.to_thread.run_sync(read)
        if page.events:
            self._saw_time(max(page.events[0].time, page.events[-1].time))
        return page

    async def _strictly(self, stream: str) -> list[Event] | None:
        """All events of a stream whose answer is suspicious, oldest first; ``None`` if the answer stands.

        It stands where there are no strict reads. Streams too long for one are believed if the server has the tenant loaded;
        if it has not, this raises `Unavailable`.
        """
        ask = partial(self._client.ask, require_leader=True)
        if not (await self._met(ask)).strict:
            return None
        try:
            reply = await ask(self._wire.strict(stream, STRICT_LIMIT))
        except Api as error:
            if error.status != 500:
                raise
            await ask(self._wire.scan("auth.index.configured", since=None, until=None, offset=0, limit=1))
            return None
        page = self._wire.page(reply.body, limit=STRICT_LIMIT, stream=stream)
        return page.events if page.strict and page.more is not True else None

    # The server's clock, and what its answers tell in passing

    def server_time(self) -> int:
        """The server's time as its answers tell it, in nanoseconds; the clock here before the first one."""
        return time_ns() if self._offset is None else monotonic_ns() + self._offset

    def _was_read(self, reply: Reply) -> None:
        """The write endpoint has answered a read of the tenant."""
        self._read_at = max(self._read_at, reply.sent)
        if self._server is not None and self._server.tagged != (reply.header("etag") is not None):
            self._server = None  # another server answers now
        date = reply.header("date") or ""
        if date != self._date:
            self._date = date
            from email.utils import parsedate_to_datetime

            try:
                self._saw_time(int(parsedate_to_datetime(date).timestamp()) * SECOND)
            except (ValueError, TypeError):
                return

    def _saw_time(self, time: int) -> None:
        offset = time - monotonic_ns()
        if self._offset is None or offset > self._offset:
            self._offset = offset

    # About itself

    async def info(self) -> Info:
        """What this store is, and which server answers. Raises what `latest` raises."""
        connection = self._client.connection
        reply = await self._client.ask("/health", require_leader=True)
        server = await self._met(partial(self._client.ask, require_leader=True))
        health = self._wire.health(reply.body)
        return Info(
            store="Allsource",
            where=connection.core_url,
            reads_from=", ".join(connection.query_urls) or connection.core_url,
            tenant=self.tenant,
            engine=self._client.engine.name,
            server=health.service,
            server_version=health.version,
            strict_reads=server.strict,
            durable=health.durable,
        )

    async def close(self) -> None:
        """Refuse what waits in line, wait for what is out, and close the connections. May be called again."""
        await self._client.close()


def _highest(events: Sequence[Event]) -> int:
    return max((event.version for event in events), default=0)


def _is_last(page: Page, asked: int) -> bool:
    """Whether nothing comes after a page; a server that does not say so has sent fewer than it was asked for."""
    return not page.events or (len(page.events) < asked if page.more is None else not page.more)


def _halved(error: Api, size: int) -> int:
    """The page size after an answer was too large (section 4 of the contract of 0.27). Raises ``error`` if it cannot help.

    A Query Service makes 400 of what Core refuses to read (section 14.2 of the contract).
    """
    if size == 1 or not (error.status == 413 or (error.status == 400 and TOO_LARGE in error.message)):
        raise error
    return size // 2
