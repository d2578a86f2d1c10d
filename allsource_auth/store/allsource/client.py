"""Requests to an Allsource server: queueing, retries, failover.

* Each server (scheme, host and port) has a `RequestQueue`, in each event loop: at most ``max_in_flight`` requests are in
  flight, because Core 0.27 works on 16 at a time; up to ``max_queued`` callers wait. A request keeps its slot while it waits
  for a retry, so a server in trouble receives fewer requests.
* A request that was certainly not carried out is retried for a limited time: no connection could be made, 429, a full queue.
  A read is retried after every transient failure. An append whose outcome is ambiguous is never repeated here, because the
  event could be stored twice; the mutation reads the stream and settles the outcome.
* A plain read that fails at one read URL tries each of the others once, without a pause (`ReadRouter`), each in a slot of its
  server. Pauses come after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from weakref import WeakValueDictionary

from allsource_auth.config import Connection
from allsource_auth.errors import AllsourceAuthError, Api, Http, RateLimited, StoreClosed
from allsource_auth.per_loop import PerLoop, shared_lock
from allsource_auth.store.allsource.http import Engine, Origin, Reply, connect
from allsource_auth.store.allsource.read_routing import ReadRouter
from allsource_auth.store.allsource.request_queue import RequestQueue
from allsource_auth.store.allsource.responses import DEFAULT_PAUSE, classify

__all__ = ["Client"]

RECONNECT_PAUSES = (0.0, 0.02, 0.08, 0.3)
"""Seconds before each retry after a failed connection. The first is immediate: the server may just have been restarted."""

MAX_RETRY_TIME = 10.0
"""Seconds for which a request is retried while the server rejects it temporarily."""

MAX_PAUSE = 1.0
"""Maximum seconds between two attempts, unless the server asks for more."""

Prepare = Callable[[], Awaitable[None]]
"""Runs before each attempt of an append, in the same slot."""


class _Moved(Exception):
    """A plain read continues at another URL, which belongs to another server."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url = base_url


class _Retries:
    """The failures of one request so far, and what to do after each."""

    def __init__(self, client: Client, router: ReadRouter | None, *, writes: bool, once: bool) -> None:
        self._client = client
        self._router = router
        self._writes = writes
        self._once = once
        self._failed_urls: tuple[str, ...] = ()  # with repetitions; only of plain reads
        self._reconnects = self._error_replies = 0
        self._partly_stored = False  # a 503 to a batch names the event that failed; the events before it may be stored
        self._deadline: float | None = None

    def after_failure(self, base_url: str, error: Http) -> tuple[float, str | None]:
        """Seconds to wait, and the URL to fail over to, if any. Raises ``error`` if the request must not be sent again."""
        if base_url == self._client.connection.core_url:
            self._client.count_core_failure()
        error.ambiguous = self._writes and error.ambiguous
        if (other := self._fail_over(base_url, error)) is not None:
            return 0.0, other
        if self._once or error.ambiguous or error.timeout or self._reconnects == len(RECONNECT_PAUSES):
            raise self.complete(error)
        self._reconnects += 1
        return RECONNECT_PAUSES[self._reconnects - 1], None

    def after_reply(self, base_url: str, reply: Reply) -> tuple[float, str | None]:
        """Like `after_failure`, for a reply other than 200 and 201."""
        failure, retry_in = classify(reply, writes=self._writes)
        if retry_in is not None or isinstance(failure, RateLimited):
            other = self._fail_over(base_url, failure, retry_in)
            if other is not None:
                return 0.0, other
        now = monotonic()
        self._deadline = now + MAX_RETRY_TIME if self._deadline is None else self._deadline
        if self._once or retry_in is None or now + retry_in > self._deadline:
            raise self.complete(failure)
        self._partly_stored = self._partly_stored or (self._writes and reply.status == 503)
        pause = max(retry_in, min(max(retry_in, DEFAULT_PAUSE) * 2**self._error_replies, MAX_PAUSE))
        self._error_replies += 1
        return pause * random.uniform(1.0, 1.5), None  # noqa: S311 - spreads the retries of many clients

    def _fail_over(self, base_url: str, error: AllsourceAuthError, retry_in: float | None = None) -> str | None:
        if self._router is None:
            return None
        self._failed_urls += (base_url,)
        return self._router.fail_over(self._failed_urls, error, retry_in)

    def complete(self, error: AllsourceAuthError) -> AllsourceAuthError:
        """Add to ``error`` what earlier attempts mean for it."""
        error.ambiguous = error.ambiguous or self._partly_stored
        if len(urls := dict.fromkeys(self._failed_urls)) > 1:
            _extend_message(error, f"; the read failed at {', '.join(urls)}")
        return error


class _Queues:
    """The request queues of one event loop.

    ``others`` has those of servers that only the application uses, while it uses them: there may be very many.
    """

    def __init__(self) -> None:
        self.own: dict[Origin, RequestQueue[Reply]] = {}
        self.others: WeakValueDictionary[Origin, RequestQueue[Reply]] = WeakValueDictionary()

    @property
    def all(self) -> list[RequestQueue[Reply]]:
        return [*self.own.values(), *self.others.values()]


class Client:
    """Sends the requests of one store. Every method raises `StoreClosed` after `close`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._engine: Engine | None = None
        self._router = ReadRouter(connection.query_urls, connection.core_url) if connection.query_urls else None
        self._origins = {url: Origin.of(url) for url in (connection.core_url, *connection.query_urls)}
        self._queues = PerLoop(_Queues)
        self._closed = False
        self.core_failures: int = 0
        """How many requests to ``core_url`` failed without a reply so far."""

    @property
    def engine(self) -> Engine:
        """The HTTP engine, created on first use."""
        if self._closed:
            raise StoreClosed
        engine = self._engine
        if engine is None:
            new = connect(self.connection, self.queue_of)
            with shared_lock:
                if self._closed:
                    raise StoreClosed
                engine = self._engine = self._engine or new
        return engine

    def count_core_failure(self) -> None:
        """Count a request to ``core_url`` that failed without a reply."""
        with shared_lock:
            self.core_failures += 1

    def queue_of(self, origin: Origin) -> RequestQueue[Reply]:
        """The request queue of a server, in the running event loop."""
        queues = self._queues.get()
        queue = queues.own.get(origin) or queues.others.get(origin)
        if queue is None:
            if self._closed:
                raise StoreClosed
            queue = RequestQueue[Reply](self.connection.max_in_flight, self.connection.max_queued)
            if origin in self._origins.values():
                queues.own[origin] = queue
            else:
                queues.others[origin] = queue
        return queue

    async def query(self, path: str, *, require_leader: bool) -> Reply:
        """The successful reply to a query, from Core if ``require_leader``, else from a read URL.

        Equal queries that wait in the queue of a server are coalesced.
        """
        if require_leader or self._router is None:
            core_url = self.connection.core_url
            consistency = None if require_leader else self.connection.consistency
            request = partial(self._send, "GET", core_url, path, None, consistency, None)
            return await self.queue_of(self._origins[core_url]).run(request, (path, require_leader))
        return await self._plain_read(path, self._router)

    async def append(self, path: str, body: bytes, prepare: Prepare | None) -> Reply:
        """The successful reply to an append. ``prepare`` runs directly before each attempt."""
        core_url = self.connection.core_url
        request = partial(self._send, "POST", core_url, path, body, None, prepare)
        return await self.queue_of(self._origins[core_url]).run(request, append=True)

    async def query_in_slot(self, path: str, *, once: bool = False) -> Reply:
        """A query of Core from within a `Prepare` callback, whose append already has a slot. ``once``: without retries."""
        return await self._send("GET", self.connection.core_url, path, None, None, None, once=once)

    async def _send(
        self,
        method: str,
        base_url: str,
        path: str,
        body: bytes | None,
        consistency: str | None,
        prepare: Prepare | None,
        *,
        once: bool = False,
    ) -> Reply:
        """Send a request to Core, in a slot, and again if that is safe."""
        retries: _Retries | None = None
        while True:
            try:
                if prepare is not None:
                    await prepare()
                try:
                    reply = await self.engine.request(method, base_url, path, body, consistency)
                except Http as error:
                    retries = retries or _Retries(self, None, writes=body is not None, once=once)
                    pause, _ = retries.after_failure(base_url, error)
                else:
                    if reply.status in (200, 201):
                        return reply
                    retries = retries or _Retries(self, None, writes=body is not None, once=once)
                    pause, _ = retries.after_reply(base_url, reply)
                await asyncio.sleep(pause)
            except AllsourceAuthError as error:
                if retries is not None:
                    retries.complete(error)
                raise

    async def _plain_read(self, path: str, router: ReadRouter) -> Reply:
        """Read from one of the read URLs, failing over to the others."""
        retries = _Retries(self, router, writes=False, once=False)
        base_url = router.next_url()
        while True:
            queue = self.queue_of(self._origins[base_url])
            try:
                return await queue.run(partial(self._read_at, base_url, path, router, retries), path)
            except _Moved as moved:
                base_url = moved.base_url

    async def _read_at(self, base_url: str, path: str, router: ReadRouter, retries: _Retries) -> Reply:
        """Read in a slot of the server of ``base_url``. Raises `_Moved` to continue at another server."""
        origin = self._origins[base_url]
        while True:
            try:
                reply = await self.engine.request("GET", base_url, path, None, self.connection.consistency)
            except Http as error:
                pause, other = retries.after_failure(base_url, error)
            else:
                if reply.status in (200, 201):
                    if router.open_circuits:
                        router.succeeded(base_url)
                    return reply
                pause, other = retries.after_reply(base_url, reply)
            if other is None:
                await asyncio.sleep(pause)
                other = router.next_url()
            base_url = other
            if self._origins[base_url] != origin:
                raise _Moved(base_url)

    async def close(self) -> None:
        """Reject queued requests, end those of the application, wait for those of the store, close the connection pool."""
        with shared_lock:
            self._closed = True
        if self._engine is not None:
            await self._engine.close_http()
        for loop, queues in self._queues.others():
            for queue in queues.all:
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(queue.reject)
        part = self._queues.peek()
        for queue in part.all if part is not None else ():
            await queue.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()


def _extend_message(error: AllsourceAuthError, addition: str) -> None:
    if isinstance(error, Http | Api):
        error.args = (f"{error}{addition}",)
    if isinstance(error, Api):
        error.message += addition
