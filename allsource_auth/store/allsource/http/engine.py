"""The library's own HTTP engine: a pool for each event loop and origin, on asyncio."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from allsource_auth.config import Connection as Options
from allsource_auth.errors import Http, StoreClosed
from allsource_auth.per_loop import PerLoop
from allsource_auth.store.allsource.http.errors import error_of
from allsource_auth.store.allsource.http.failures import Broken, Failure, TimedOut
from allsource_auth.store.allsource.http.origin import Origin
from allsource_auth.store.allsource.http.parsing import Headers, parser_class
from allsource_auth.store.allsource.http.pool import Pool
from allsource_auth.store.allsource.http.reply import QueueOf, Reply
from allsource_auth.version import __version__

if TYPE_CHECKING:
    import httpx

__all__ = ["HEADERS", "AsyncioEngine", "Engine"]

HEADERS = {"accept": "application/json", "user-agent": f"allsource_auth/{__version__}"}


class Engine(Protocol):
    """Sends a request and reads the whole reply."""

    name: str

    @property
    def http(self) -> httpx.AsyncClient:
        """The connection pool as an ``httpx.AsyncClient``."""
        ...

    async def request(
        self, method: str, base_url: str, path: str, body: bytes | None, consistency: str | None
    ) -> Reply:
        """Send JSON ``body`` to ``base_url + path``, with the header ``X-Consistency`` if ``consistency`` is given.

        Raises `Http`, and `StoreClosed` after `close`.
        """
        ...

    async def close_http(self) -> None:
        """Close `http` and end its requests, unless it belongs to the caller."""
        ...

    async def close(self) -> None: ...


class _Target:
    """The parts of requests to a base URL that do not change: what is before the path, and what follows it."""

    def __init__(self, base_url: str, options: Options) -> None:
        self.origin = Origin.of(base_url)
        prefix = base_url.partition("://")[2].partition("/")[2]
        self.prefix = f"/{prefix}" if prefix else ""
        headers = {"host": self.origin.netloc, **HEADERS, **options.credentials}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.heads: dict[str | None, str] = {
            None: f" HTTP/1.1\r\n{lines}",
            options.consistency: f" HTTP/1.1\r\n{lines}x-consistency: {options.consistency}\r\n",
        }


class _Loop:
    """What belongs to one event loop: its pools, and the lock of the TLS settings.

    ``others`` has the pools of servers that only the application uses, while they have connections: there may be very many.
    """

    def __init__(self) -> None:
        self.pools: dict[Origin, Pool] = {}
        self.others: WeakValueDictionary[Origin, Pool] = WeakValueDictionary()
        self.tls_lock = asyncio.Lock()

    @property
    def all_pools(self) -> list[Pool]:
        return [*self.pools.values(), *self.others.values()]

    def close(self) -> None:
        for pool in self.all_pools:
            pool.close()

    def discard(self) -> None:
        for pool in self.all_pools:
            pool.discard()


class AsyncioEngine:
    """Sends requests through its own connection pools, which are also available as an ``httpx.AsyncClient``."""

    name = "asyncio"

    def __init__(self, options: Options, queue_of: QueueOf) -> None:
        self._options = options
        self._queue_of = queue_of
        self._targets = {url: _Target(url, options) for url in (options.core_url, *options.query_urls)}
        self._origins = {target.origin for target in self._targets.values()}
        self._loops = PerLoop(_Loop, _Loop.discard)
        self._tls: ssl.SSLContext | None = None
        self._closed = False
        self._http: httpx.AsyncClient | None = None

    @property
    def http(self) -> httpx.AsyncClient:
        if self._http is None:
            import httpx

            from allsource_auth.store.allsource.http.transport import PoolTransport

            timeouts = self._options.timeouts
            self._http = httpx.AsyncClient(
                transport=PoolTransport(self.pool, self._queue_of),
                base_url=self._options.core_url,
                timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=timeouts.total),
            )
        return self._http

    def pool(self, origin: Origin) -> Pool:
        """The pool of ``origin`` in the running event loop. Raises `StoreClosed` after `close`."""
        part = self._loops.get()
        pool = part.pools.get(origin) or part.others.get(origin)
        if pool is None:
            if self._closed:
                raise StoreClosed
            pool = Pool(origin, parser_class(), partial(self._tls_context, part))
            pools = part.pools if origin in self._origins else part.others
            pools[origin] = pool
        return pool

    async def _tls_context(self, part: _Loop) -> ssl.SSLContext:
        """The TLS settings, loaded by the first connection that needs them, in a thread."""
        if self._tls is None:
            async with part.tls_lock:
                if self._tls is None:
                    self._tls = await asyncio.to_thread(self._options.tls.context)
        return self._tls

    async def request(
        self, method: str, base_url: str, path: str, body: bytes | None, consistency: str | None
    ) -> Reply:
        target = self._targets[base_url]
        head = f"{method} {target.prefix}{path}{target.heads[consistency]}"
        if body is None:
            message = f"{head}\r\n".encode("ascii")
        else:
            lines = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            message = lines.encode("ascii") + body
        began = monotonic()
        try:
            status, content, headers = await self._exchange(self.pool(target.origin), method.encode(), message)
        except Failure as error:
            failure = error
        else:
            fields = {name.lower(): value for name, value in headers}
            if fields.get(b"content-encoding", b"identity") == b"identity":
                return Reply(status, content, partial(_field, fields), began)
            reason = "its body is compressed, which was not requested"
            raise Http(f"the answer of {target.origin} cannot be used: {reason}", ambiguous=True)
        # Outside the handler, so that the failure is not chained: its text is not meant for users.
        raise error_of(failure, str(target.origin))

    async def _exchange(self, pool: Pool, method: bytes, message: bytes) -> tuple[int, bytes, Headers]:
        """Send ``message`` and receive the whole reply: its status, body and headers. Raises `Failure`."""
        timeouts = self._options.timeouts
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeouts.total
        repeatable = method == b"GET"
        connection = pool.reuse()
        while True:
            if connection is None:
                left = ends_at - loop.time()
                if left <= 0:
                    raise TimedOut("total", timeouts.total, unsent=True)
                try:
                    connection = await pool.connect(min(timeouts.connect, left))
                except TimedOut:
                    if left > timeouts.connect:
                        raise
                    raise TimedOut("total", timeouts.total, unsent=True) from None
            try:
                await connection.send(method, message, read=timeouts.read, total=timeouts.total, ends_at=ends_at)
            except Broken as failure:
                if repeatable and failure.unanswered and connection.used:
                    # The server has closed an idle connection in the same moment.
                    connection = None
                    continue
                raise
            except BaseException:
                connection.abort()
                raise
            parser = connection.parser
            status, content, headers = parser.status, connection.take(), parser.headers
            pool.release(connection)
            return status, content, headers

    async def close_http(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def close(self) -> None:
        self._closed = True
        for loop, part in self._loops.others():
            try:
                loop.call_soon_threadsafe(part.close)
            except RuntimeError:  # the loop was closed meanwhile
                part.discard()
        mine = self._loops.peek()
        if mine is not None:
            await asyncio.gather(*[pool.aclose() for pool in mine.all_pools])


def _field(fields: dict[bytes, bytes], name: str) -> str | None:
    value = fields.get(name.encode())
    return None if value is None else value.decode("latin-1")
