"""Requests to an Allsource: in line, a bounded number at a time, and sent again where that is safe.

* At most ``max_in_flight`` requests are out, as Core 0.27 serves 16 at a time; the others wait in a queue, and at
  most ``max_queued`` of them may wait (`request_queue`). Callers that ask the same share one request while it waits.
  A request keeps its place while it waits to be sent again, so that a server in trouble meets fewer requests, not more.
* What was certainly not carried out is sent again for a while: a connection that could not be made, 429, full queues. A read
  is sent again after any passing trouble. An append whose outcome is open is never sent again from here: the mutation that
  it belongs to finds out what became of it.
* A plain read that fails at one of the read URLs goes to the others first, at once, to each of them once; pauses come after
  that (`allsource_auth.store.allsource.read_routing`).
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
from allsource_auth.store.allsource.read_routing import Reads
from allsource_auth.store.allsource.request_queue import RequestQueue
from allsource_auth.store.allsource.responses import SHORT_PAUSE, refusal

__all__ = ["Client"]

RECONNECTS = (0.0, 0.02, 0.08, 0.3)
"""Seconds before each further attempt after a connection failed. The first is at once: a connection that the server closed
while it was idle shows itself only when it is used."""

RETRY_FOR = 10.0
"""Seconds for which a request that the server puts off is sent again."""

LONGEST_PAUSE = 1.0
"""Seconds between two attempts where the server does not ask for more."""

Prepare = Callable[[], Awaitable[None]]
"""What an append needs before each attempt, in the same place in the line."""


class Client:
    """The requests of one store. Raises `StoreClosed` after `close`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._engine: Engine | None = None
        self._reads = Reads(connection.query_urls, connection.core_url) if connection.query_urls else None
        self._line = RequestQueue[Reply](connection.max_in_flight, connection.max_queued)
        self._closed = False
        self.failures = 0
        """Connections to the write endpoint that failed so far."""

    @property
    def engine(self) -> Engine:
        """Opened on first use."""
        if self._closed:
            raise StoreClosed
        if self._engine is None:
            self._engine = connect(self.connection)
        return self._engine

    async def ask(self, path: str, *, require_leader: bool) -> Reply:
        """The successful answer to a query: of the write endpoint if ``decisive``, else of a read endpoint."""
        asked = partial(self._attempts, "GET", path, None, require_leader=require_leader, prepare=None)
        return await self._line.through(asked, (path, require_leader))

    async def send(self, path: str, body: bytes, prepare: Prepare | None) -> Reply:
        """The successful answer to an append. ``prepare`` runs right before it, each time it is sent."""
        return await self._line.through(
            partial(self._attempts, "POST", path, body, require_leader=True, prepare=prepare)
        )

    async def ask_in_place(self, path: str, *, once: bool = False) -> Reply:
        """A query of the write endpoint for `Prepare`: without waiting for a place of its own; with ``once`` not sent again."""
        return await self._attempts("GET", path, None, require_leader=True, prepare=None, once=once)

    async def _attempts(
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
        reads = None if require_leader else self._reads
        base = connection.core_url if reads is None else reads.turn()
        tried: tuple[str, ...] = ()  # where a plain read failed
        consistency = None if require_leader else connection.consistency
        writes = body is not None
        failed = refusals = 0
        begun = False  # of a batch that was put off, what comes before the event that was is stored (section 5.2)
        deadline: float | None = None
        try:
            while True:
                if prepare is not None:
                    await prepare()
                try:
                    reply = await self.engine.request(method, base + path, body, consistency)
                except Http as error:
                    if base == connection.core_url:
                        self.failures += 1
                    error.ambiguous = writes and error.ambiguous
                    if reads is not None:
                        tried += (base,)
                        if (other := reads.instead(tried, error)) is not None:
                            base = other
                            continue
                    if once or error.ambiguous or error.timeout or failed == len(RECONNECTS):
                        raise
                    wait = RECONNECTS[failed]
                    failed += 1
                else:
                    if reply.status in (200, 201):
                        if reads is not None and reads.aside:
                            reads.answered(base)
                        return reply
                    refused, again = refusal(reply, writes=writes)
                    if reads is not None and (again is not None or isinstance(refused, RateLimited)):
                        tried += (base,)
                        if (other := reads.instead(tried, refused, again)) is not None:
                            base = other
                            continue
                    now = monotonic()
                    deadline = now + RETRY_FOR if deadline is None else deadline
                    if once or again is None or now + again > deadline:
                        raise refused
                    begun = begun or (writes and reply.status == 503)
                    pause = max(again, min(max(again, SHORT_PAUSE) * 2**refusals, LONGEST_PAUSE))
                    refusals += 1
                    wait = pause * random.uniform(1.0, 1.5)  # noqa: S311 - so that many do not come back at once
                await asyncio.sleep(wait)
                if reads is not None:
                    base = reads.turn()
        except AllsourceAuthError as error:
            error.ambiguous = error.ambiguous or begun
            if len(places := dict.fromkeys(tried)) > 1:
                _tell(error, f"; the read failed at {', '.join(places)}")
            raise

    async def close(self) -> None:
        """Refuse what waits in line, wait for what is out, and close the pool."""
        self._closed = True
        await self._line.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()


def _tell(error: AllsourceAuthError, more: str) -> None:
    """Add to what an error of a request says."""
    if isinstance(error, Http | Api):
        error.args = (f"{error}{more}",)
    if isinstance(error, Api):
        error.message += more
