"""Requests to an Allsource server: queueing, retries, failover.

* At most ``max_in_flight`` requests are in flight, because Core 0.27 works on 16 at a time; up to ``max_queued`` callers wait
  in `RequestQueue`. A request keeps its slot while it waits for a retry, so a server in trouble receives fewer requests.
* A request that was certainly not carried out is retried for a limited time: no connection could be made, 429, a full queue.
  A read is retried after every transient failure. An append whose outcome is ambiguous is never repeated here, because the
  event could be stored twice; the mutation reads the stream and settles the outcome.
* A plain read that fails at one read URL tries each of the others once, without a pause (`ReadRouter`). Pauses come after
  that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic

from allsource_auth.config import Connection
from allsource_auth.errors import AllsourceAuthError, Api, Http, RateLimited, StoreClosed
from allsource_auth.store.allsource.http import Engine, Reply, connect
from allsource_auth.store.allsource.read_routing import ReadRouter
from allsource_auth.store.allsource.request_queue import RequestQueue
from allsource_auth.store.allsource.responses import DEFAULT_PAUSE, classify

__all__ = ["Client"]

RECONNECT_PAUSES = (0.0, 0.02, 0.08, 0.3)
"""Seconds before each retry after a failed connection. The first is immediate: a keep-alive connection that the server has
closed fails only when it is used."""

MAX_RETRY_TIME = 10.0
"""Seconds for which a request is retried while the server rejects it temporarily."""

MAX_PAUSE = 1.0
"""Maximum seconds between two attempts, unless the server asks for more."""

Prepare = Callable[[], Awaitable[None]]
"""Runs before each attempt of an append, in the same slot."""


class Client:
    """Sends the requests of one store. Every method raises `StoreClosed` after `close`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._engine: Engine | None = None
        self._router = ReadRouter(connection.query_urls, connection.core_url) if connection.query_urls else None
        self._queue = RequestQueue[Reply](connection.max_in_flight, connection.max_queued)
        self._closed = False
        self.core_failures: int = 0
        """How many requests to ``core_url`` failed without a reply so far."""

    @property
    def engine(self) -> Engine:
        """The HTTP engine, created on first use."""
        if self._closed:
            raise StoreClosed
        if self._engine is None:
            self._engine = connect(self.connection)
        return self._engine

    async def query(self, path: str, *, require_leader: bool) -> Reply:
        """The successful reply to a query, from Core if ``require_leader``, else from a read URL.

        Equal queries that wait in the queue are coalesced.
        """
        request = partial(self._send, "GET", path, None, require_leader=require_leader, prepare=None)
        return await self._queue.run(request, (path, require_leader))

    async def append(self, path: str, body: bytes, prepare: Prepare | None) -> Reply:
        """The successful reply to an append. ``prepare`` runs directly before each attempt."""
        return await self._queue.run(partial(self._send, "POST", path, body, require_leader=True, prepare=prepare))

    async def query_in_slot(self, path: str, *, once: bool = False) -> Reply:
        """A query of Core from within a `Prepare` callback, whose append already has a slot. ``once``: without retries."""
        return await self._send("GET", path, None, require_leader=True, prepare=None, once=once)

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        require_leader: bool,
        prepare: Prepare | None,
        once: bool = False,
    ) -> Reply:
        connection = self.connection
        router = None if require_leader else self._router
        base = connection.core_url if router is None else router.next_url()
        failed_urls: tuple[str, ...] = ()  # with repetitions; only of plain reads
        consistency = None if require_leader else connection.consistency
        writes = body is not None
        reconnects = error_replies = 0
        partly_stored = False  # a 503 to a batch names the event that failed; the events before it may be stored
        deadline: float | None = None
        try:
            while True:
                if prepare is not None:
                    await prepare()
                try:
                    reply = await self.engine.request(method, base + path, body, consistency)
                except Http as error:
                    if base == connection.core_url:
                        self.core_failures += 1
                    error.ambiguous = writes and error.ambiguous
                    if router is not None:
                        failed_urls += (base,)
                        if (other := router.fail_over(failed_urls, error)) is not None:
                            base = other
                            continue
                    if once or error.ambiguous or error.timeout or reconnects == len(RECONNECT_PAUSES):
                        raise
                    wait = RECONNECT_PAUSES[reconnects]
                    reconnects += 1
                else:
                    if reply.status in (200, 201):
                        if router is not None and router.open_circuits:
                            router.succeeded(base)
                        return reply
                    failure, retry_in = classify(reply, writes=writes)
                    if router is not None and (retry_in is not None or isinstance(failure, RateLimited)):
                        failed_urls += (base,)
                        if (other := router.fail_over(failed_urls, failure, retry_in)) is not None:
                            base = other
                            continue
                    now = monotonic()
                    deadline = now + MAX_RETRY_TIME if deadline is None else deadline
                    if once or retry_in is None or now + retry_in > deadline:
                        raise failure
                    partly_stored = partly_stored or (writes and reply.status == 503)
                    pause = max(retry_in, min(max(retry_in, DEFAULT_PAUSE) * 2**error_replies, MAX_PAUSE))
                    error_replies += 1
                    wait = pause * random.uniform(1.0, 1.5)  # noqa: S311 - spreads the retries of many clients
                await asyncio.sleep(wait)
                if router is not None:
                    base = router.next_url()
        except AllsourceAuthError as error:
            error.ambiguous = error.ambiguous or partly_stored
            if len(urls := dict.fromkeys(failed_urls)) > 1:
                _extend_message(error, f"; the read failed at {', '.join(urls)}")
            raise

    async def close(self) -> None:
        """Reject queued requests, wait for those in flight, then close the connection pool."""
        self._closed = True
        await self._queue.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()


def _extend_message(error: AllsourceAuthError, addition: str) -> None:
    if isinstance(error, Http | Api):
        error.args = (f"{error}{addition}",)
    if isinstance(error, Api):
        error.message += addition
