"""`AllsourceStore`: the events of one tenant on an Allsource server, over HTTP.

`allsource_auth.store.allsource.client` sends the requests, `allsource_auth.store.allsource.wire` encodes and decodes them. This
module compensates for differences between server versions; docs/reference/allsource-api.md describes them.

* **Incomplete answers.** A 0.27 server that is short of memory may omit acknowledged events. If the version of the stream is
  higher than that of its newest event, the stream is read again with a strict read, whose result is used. Core 0.23 and 0.24
  have no strict reads; there the difference may be another tenant's events, and the first answer is used.
* **Versions lost on restart.** 0.23 and 0.24 lose the versions of archived streams on a restart until the tenant is read.
  On such a server a guarded append is sent only directly after a read, and the engine reads first events of a stream back.
* **Slow guards.** On 0.27 the first guarded append to each stream is slow unless the event feed was called since the server
  started. The store calls the feed at intervals, if the credential permits it.
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
from allsource_auth.per_loop import shared_lock
from allsource_auth.store.allsource.client import Client
from allsource_auth.store.allsource.http import Reply, engine_name
from allsource_auth.store.allsource.wire import Page, WireFormat
from allsource_auth.store.base import Acknowledged, Event, Info, Latest, Link, NewEvent, is_newer_by_time

if TYPE_CHECKING:
    import httpx

__all__ = ["AllsourceStore"]

PAGE: Final = 1000

SECOND: Final = 1_000_000_000

TENANT_LOADED_FOR: Final = 0.01
"""Seconds after sending a read for which its answer proves that the server has the tenant's versions loaded.

A Core 0.23 was seen to answer 10 to 74 ms after it was killed. A restart within this time is detected when first events are
read back (see `EventStore.loses_versions_on_restart`).
"""

FEED_INTERVAL: Final = 60.0
"""Seconds between two calls of the event feed. The calls are repeated because the server may have restarted."""

MAX_STRICT_EVENTS: Final = 1001
"""Maximum ``limit`` of a strict read."""

MAX_LINKS: Final = 10_000
"""Maximum number of remembered links between streams (a few megabytes)."""

UNUSED_STREAM: Final = "auth-idx:nobody"
"""A stream that is never written. A strict read of it shows which features the server has."""

RESPONSE_TOO_LARGE: Final = "response_too_large"

DECODE_IN_THREAD_BYTES: Final = 128 * 1024
"""A reply of this size or more is decoded in a worker thread, so that it does not block the event loop."""

Query = Callable[[str], Awaitable[Reply]]


class _Features(NamedTuple):
    """Features of the server at ``core_url``. ``sends_etags``: true for 0.27, false for 0.23 and 0.24."""

    strict_reads: bool
    sends_etags: bool


class AllsourceStore:
    """An `EventStore` for one tenant on Allsource Core, with plain reads from Query Services if there are any.

    Args:
        core_url: URL of Core, which gets all writes and the reads on which writes depend.
        query_url: URL of plain reads, by default ``core_url``. Reads are spread round-robin over several (distinct) URLs;
            a URL that fails is skipped for 1 to 30 seconds, and Core answers plain reads if all of them fail.
        api_key: sent as ``X-API-Key`` with each request.
        tenant_id: the tenant whose events are appended and read. All tenants share one version counter per stream id.
        options: see `ConnectionOptions`.

    A batch is not atomic, and stored order may differ from time order by up to ``time_skew`` nanoseconds. The first call
    opens the first connection. Raises `InvalidInput`, which names the option, for an invalid option.
    """

    atomic_batches: bool = False
    time_skew: int = 60 * SECOND

    def __init__(
        self,
        core_url: str,
        query_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        *,
        tenant_id: str = "default",
        **options: Unpack[config.ConnectionOptions],
    ) -> None:
        self._wire = WireFormat(config.tenant_id(tenant_id))
        self._client = Client(config.connection(core_url, query_url, api_key, **options))
        self._links: dict[str, str] = {}
        self._known_features: _Features | None = None
        self._seen_failures = 0
        self._leader_read_at = float("-inf")
        self._feed_called_at = float("-inf")
        self._feed_available: bool | None = None
        self._clock_offset: int | None = None  # nanoseconds: the server's clock minus `monotonic_ns`
        self._last_date = ""

    @property
    def tenant(self) -> str:
        """The tenant whose events this store appends and reads."""
        return self._wire.tenant

    @property
    def http(self) -> httpx.AsyncClient:
        """The connection pool as an `httpx.AsyncClient`. Relative URLs are relative to Core; the API key is not added."""
        return self._client.engine.http

    @property
    def loses_versions_on_restart(self) -> bool:
        """Whether the server may accept a wrong guard after a restart (0.23, 0.24); true until the server is known."""
        features = self._known_features
        return features is None or not features.strict_reads

    def __repr__(self) -> str:
        connection = self._client.connection
        return f"AllsourceStore({connection!r}, tenant={self.tenant!r}, engine={engine_name(connection)!r})"

    # Writing

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        """Append ``events`` in order, in one request; see `EventStore.append`.

        Raises:
            VersionConflict: a guard failed; the events before it were stored.
            Http, Unavailable, Json: events may be stored if ``ambiguous`` is true.
            Overloaded, RateLimited: nothing was stored, unless ``ambiguous`` is true.
            Api: the server refused an event; the events before it were stored.
            StoreClosed: after `close`.
        """
        if not events:
            return []
        path, body = self._wire.append(events)
        guarded = next((event.stream for event in reversed(events) if event.guard is not None), None)

        async def prepare() -> None:
            if guarded is not None:
                await self._prepare_guarded_append(guarded)

        try:
            reply = await self._client.append(path, body, prepare if guarded is not None else None)
        except VersionConflict as conflict:
            candidates = {event.stream for event in events if event.guard == conflict.expected}
            conflict.stream = candidates.pop() if len(candidates) == 1 else None
            raise
        stored = self._wire.acknowledged(reply.body, len(events))
        self._adjust_clock(stored[-1].time)
        return stored

    async def _prepare_guarded_append(self, stream: str) -> None:
        """Make the server load the tenant's versions (0.23, 0.24), or certify the tenant with the event feed (0.27)."""
        features = await self._features(self._client.query_in_slot)
        if not features.strict_reads:
            if monotonic() - self._leader_read_at > TENANT_LOADED_FOR:
                self._leader_answered(await self._client.query_in_slot(self._wire.latest(stream)))
        elif self._feed_available is not False and monotonic() - self._feed_called_at > FEED_INTERVAL:
            await self._call_feed()

    async def _features(self, query: Query) -> _Features:
        """The features of Core, detected with ``query`` on the first call and again after a request to Core has failed.

        After a failure another server may have taken its place. Failures of read URLs do not count, because guards depend
        on Core alone.
        """
        if self._client.core_failures != self._seen_failures:
            with shared_lock:
                self._seen_failures = self._client.core_failures
                self._known_features = self._feed_available = None
                self._leader_read_at = self._feed_called_at = float("-inf")
        features = self._known_features
        if features is None:
            try:
                reply = await query(self._wire.strict(UNUSED_STREAM, 1))
            except Api as error:
                if error.status != 400:
                    raise
                # The server has strict reads with another protocol, which the library does not use.
                self._known_features = features = _Features(strict_reads=False, sends_etags=False)
                return features
            page = self._wire.page(reply.body, limit=1, stream=UNUSED_STREAM)
            self._known_features = features = _Features(page.strict, sends_etags=reply.header("etag") is not None)
        return features

    async def _call_feed(self) -> None:
        """Call the event feed once. It certifies the tenant on servers configured for that. Errors are ignored."""
        self._feed_called_at = monotonic()
        try:
            await self._client.query_in_slot(self._wire.feed(), once=True)
        except AllsourceAuthError as error:
            # A failure of this call does not count as one of Core: it could repeat at every call.
            self._seen_failures = self._client.core_failures
            # Missing, or forbidden to this credential: do not call it again before Core fails.
            self._feed_available = not (isinstance(error, Api) and error.status in (400, 401, 403, 404))

    # Reading

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        """The newest event of ``stream`` and its version; see `EventStore.latest`.

        Raises `Http`, `Api` and its subclasses, `Json` and `Overloaded`; `StoreClosed` after `close`.
        """
        page = await self._query(self._wire.latest(stream), 1, stream=stream, require_leader=require_leader)
        event = page.events[0] if page.events else None
        if page.version > (0 if event is None else event.version):
            all_events = await self._read_strictly(stream)
            if all_events is not None:
                event = all_events[-1] if all_events else None
        return Latest(event=event, version=page.version)

    async def latest_linked(self, stream: str, link: Link) -> tuple[Latest, Latest | None]:
        """Two concurrent reads if the link of ``stream`` is remembered, else two in sequence; see `LinkedReads.latest_linked`.

        Raises the errors of `latest`.
        """
        known = self._links.get(stream)
        if known is not None:
            return await self._latest_both(stream, known)
        latest = await self.latest(stream)
        target = None if latest.event is None else link.target(latest.event)
        if target is None:
            return latest, None
        with shared_lock:
            if len(self._links) >= MAX_LINKS:
                del self._links[next(iter(self._links))]
            self._links[stream] = target
        return latest, await self.latest(target)

    async def _latest_both(self, stream: str, other: str) -> tuple[Latest, Latest | None]:
        linked = asyncio.ensure_future(self.latest(other))
        try:
            latest = await self.latest(stream)
            if latest.event is None or latest.event.type.endswith(".deleted"):
                with shared_lock:
                    self._links.pop(stream, None)
                return latest, None
            try:
                return latest, await linked
            except Overloaded:
                return latest, None  # the caller then reads the second stream separately
        finally:
            if not linked.done():
                linked.cancel()
                await asyncio.wait([linked])
            if not linked.cancelled():
                linked.exception()  # mark it as retrieved

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
        """A page of the events of ``stream``; see `EventStore.read`. Raises the errors of `latest`."""
        limit, size = min(limit, PAGE), PAGE
        found: list[Event] = []
        version, ended = 0, False
        while len(found) < limit and not ended:
            size = min(size, limit - len(found))
            path = self._wire.read(
                stream, until=until, newest_first=newest_first, offset=offset + len(found), limit=size
            )
            try:
                page = await self._query(path, size, stream=stream, require_leader=require_leader)
            except Api as error:
                size = _smaller_page(error, size)
                continue
            found += page.events
            version, ended = page.version, _is_last_page(page, size)
        newest_seen = offset == 0 if newest_first else ended
        if newest_seen and until is not None and version > _highest_version(found):
            # `until` excludes later events, so only a read without it shows whether the answer is complete.
            latest = await self._query(self._wire.latest(stream), 1, stream=stream, require_leader=require_leader)
            newest_seen = latest.version > _highest_version(latest.events)
        if newest_seen and version > _highest_version(found):
            all_events = await self._read_strictly(stream)
            if all_events is not None:
                matching = [event for event in all_events if until is None or event.time <= until]
                return (matching[::-1] if newest_first else matching)[offset : offset + limit]
        return found

    async def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """The events whose type starts with ``type_prefix``; see `EventStore.scan`. Raises the errors of `latest`.

        The server looks at all events of these types for each page. A page starts at the time of the previous page's last
        event, because the cost of an offset grows with every page. Repeated events are dropped by id.
        """
        offset, size = 0, PAGE
        seen: dict[str, int] = {}
        while True:
            path = self._wire.scan(type_prefix, since=since, until=until, offset=offset, limit=size)
            try:
                page = await self._query(path, size, type_prefix=type_prefix, require_leader=False)
            except Api as error:
                size = _smaller_page(error, size)
                continue
            fresh = [event for event in page.events if event.id not in seen]
            if fresh:
                yield fresh
            if not page.events or _is_last_page(page, size):
                return
            # Archiving cuts times to microseconds, so a page that starts within one could miss events.
            last = page.events[-1].time // 1000 * 1000
            offset = offset + len(page.events) if last == since else 0
            since = last
            seen |= {event.id: event.time for event in fresh}
            seen = {event_id: time for event_id, time in seen.items() if time >= last}

    async def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        """The newest event of every stream whose id starts with ``stream_prefix``; see `EventStore.heads`.

        Reads all events of these types and keeps the newest of each stream. Raises the errors of `latest`.
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

    async def _query(
        self, path: str, limit: int, *, require_leader: bool, stream: str | None = None, type_prefix: str = ""
    ) -> Page:
        reply = await self._client.query(path, require_leader=require_leader)
        connection = self._client.connection
        if require_leader or not connection.query_urls:
            self._leader_answered(reply)
        body = reply.body
        if len(body) < DECODE_IN_THREAD_BYTES:
            page = self._wire.page(body, limit=limit, stream=stream, type_prefix=type_prefix)
        else:
            decode = partial(self._wire.page, body, limit=limit, stream=stream, type_prefix=type_prefix)
            page = await anyio.to_thread.run_sync(decode)
        if page.events:
            self._adjust_clock(max(page.events[0].time, page.events[-1].time))
        return page

    async def _read_strictly(self, stream: str) -> list[Event] | None:
        """All events of ``stream``, oldest first, from a strict read; ``None`` if the ordinary answer must be used.

        That is the case if the server has no strict reads, and for a stream that is too long for one if the server has the
        tenant loaded. Raises `Unavailable` if the stream is too long and the tenant is not loaded.
        """
        query = partial(self._client.query, require_leader=True)
        if not (await self._features(query)).strict_reads:
            return None
        try:
            reply = await query(self._wire.strict(stream, MAX_STRICT_EVENTS))
        except Api as error:
            if error.status != 500:
                raise
            # Too long for a strict read. A query without a stream succeeds only if the tenant is loaded.
            await query(self._wire.scan("auth.index.configured", since=None, until=None, offset=0, limit=1))
            return None
        page = self._wire.page(reply.body, limit=MAX_STRICT_EVENTS, stream=stream)
        return page.events if page.strict and page.more is not True else None

    # Facts derived from replies

    def server_time(self) -> int:
        """The server's time in nanoseconds, estimated from its replies; the local clock before the first reply."""
        return time_ns() if self._clock_offset is None else monotonic_ns() + self._clock_offset

    def _leader_answered(self, reply: Reply) -> None:
        """Evaluate Core's reply to a read of the tenant: when it was sent, its ETag, its date."""
        self._leader_read_at = max(self._leader_read_at, reply.sent)
        features = self._known_features
        if features is not None and features.sends_etags != (reply.header("etag") is not None):
            self._known_features = None  # another server answers now
        date = reply.header("date") or ""
        if date != self._last_date:
            self._last_date = date
            from email.utils import parsedate_to_datetime

            try:
                self._adjust_clock(int(parsedate_to_datetime(date).timestamp()) * SECOND)
            except (ValueError, TypeError, OverflowError):
                return

    def _adjust_clock(self, time: int) -> None:
        """Set the estimated clock forward if ``time``, which the server has reported, is ahead of it."""
        offset = time - monotonic_ns()
        if self._clock_offset is None or offset > self._clock_offset:
            with shared_lock:
                self._clock_offset = offset if self._clock_offset is None else max(offset, self._clock_offset)

    async def info(self) -> Info:
        """Describe this store and the server that answers at ``core_url``. Raises the errors of `latest`."""
        connection = self._client.connection
        reply = await self._client.query("/health", require_leader=True)
        features = await self._features(partial(self._client.query, require_leader=True))
        health = self._wire.health(reply.body)
        return Info(
            store="Allsource",
            where=connection.core_url,
            reads_from=", ".join(connection.query_urls) or connection.core_url,
            tenant=self.tenant,
            engine=self._client.engine.name,
            server=health.service,
            server_version=health.version,
            strict_reads=features.strict_reads,
            durable=health.durable,
        )

    async def close(self) -> None:
        """Reject queued requests, wait for those in flight, close the connections. Further calls do nothing."""
        await self._client.close()


def _highest_version(events: Sequence[Event]) -> int:
    return max((event.version for event in events), default=0)


def _is_last_page(page: Page, limit: int) -> bool:
    """Whether no events follow ``page``. Without ``has_more`` a page with fewer than ``limit`` events is the last."""
    return not page.events or (len(page.events) < limit if page.more is None else not page.more)


def _smaller_page(error: Api, size: int) -> int:
    """Half of ``size`` if ``error`` says that the reply was too large; raises ``error`` otherwise.

    Core answers 413 if a reply would exceed 16 MiB. A Query Service turns that into 400.
    """
    if size == 1 or not (error.status == 413 or (error.status == 400 and RESPONSE_TOO_LARGE in error.message)):
        raise error
    return size // 2
