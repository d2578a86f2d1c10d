"""The pool as a transport of httpx, for `AllsourceAuthAdapter.http`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterable
from math import inf
from typing import Any, cast
from weakref import WeakSet

import httpx

from allsource_auth.errors import Overloaded, StoreClosed
from allsource_auth.per_loop import PerLoop
from allsource_auth.store.allsource.http.connection import Connection
from allsource_auth.store.allsource.http.failures import BadReply, Broken, ConnectFailed, Failure, PoolClosed, TimedOut
from allsource_auth.store.allsource.http.origin import DEFAULT_PORTS, Origin
from allsource_auth.store.allsource.http.pool import Pool
from allsource_auth.store.allsource.http.reply import QueueOf
from allsource_auth.store.allsource.request_queue import RequestQueue

__all__ = ["PoolTransport"]

NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
TARGET = re.compile(rb"[\x21-\x7e]+")
LENGTH = re.compile(r"[0-9]{1,18}")

REPEATABLE = ("GET", "HEAD", "OPTIONS")
"""Methods of requests without a body that are sent again if the server closes an idle connection at the same time."""

CLOSED = "the adapter or its HTTP client is closed"


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends requests of an ``httpx.AsyncClient`` through the pools of an engine.

    A request to any origin takes a slot of that origin's request queue until its response is closed. The time limits of httpx
    apply to their phases: ``pool`` to the wait for a slot, ``connect``, ``write`` to each part of the request, and ``read`` to
    the silence of the server.
    """

    def __init__(self, pool_of: Callable[[Origin], Pool], queue_of: QueueOf) -> None:
        self._pool_of = pool_of
        self._queue_of = queue_of
        self._exchanges = PerLoop[WeakSet[_Exchange]](WeakSet)
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        message = _Message(request)
        limits = _Limits(request)
        try:
            queue, pool = self._queue_of(message.origin), self._pool_of(message.origin)
            await _take_slot(queue, limits.pool)
        except StoreClosed:
            raise RuntimeError(CLOSED) from None
        exchange = _Exchange(queue, pool, limits)
        self._exchanges.get().add(exchange)
        try:
            if self._closed:
                raise PoolClosed
            return await exchange.run(message)
        except Failure as failure:
            error = exchange.translate(failure)
            exchange.close()
            raise error from None
        except BaseException:
            exchange.close()
            raise

    async def aclose(self) -> None:
        """End all requests and responses of the client. Those of the store continue."""
        self._closed = True
        for loop, exchanges in self._exchanges.others():
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_close_all, exchanges)
        _close_all(self._exchanges.peek() or ())


class _Limits:
    """The time limits of a request, in seconds."""

    def __init__(self, request: httpx.Request) -> None:
        given: dict[str, float | None] = request.extensions.get("timeout", {})
        found = {name: inf if seconds is None else seconds for name, seconds in given.items()}
        self.pool = found.get("pool", inf)
        self.connect = found.get("connect", inf)
        self.write = found.get("write", inf)
        self.read = found.get("read", inf)


class _Message:
    """A request as it is sent. Raises ``UnsupportedProtocol`` and ``LocalProtocolError``."""

    def __init__(self, request: httpx.Request) -> None:
        self.origin = _origin(request.url)
        self.body = cast(httpx.AsyncByteStream, request.stream)
        headers = request.headers
        self.closes = "close" in headers.get("connection", "").lower()
        self._chunked = "transfer-encoding" in headers
        if self._chunked and headers["transfer-encoding"].lower() != "chunked":
            raise httpx.LocalProtocolError("the only Transfer-Encoding of a request that is supported is chunked")
        length = headers.get("content-length", "0")
        if not LENGTH.fullmatch(length):
            raise httpx.LocalProtocolError("the Content-Length of the request is not a number")
        self._left = int(length)
        self.method, self.head = _head(request, chunked=self._chunked)
        self.repeatable = (
            request.method in REPEATABLE
            and isinstance(self.body, httpx.ByteStream)
            and not self._chunked
            and not self._left
        )

    def frame(self, part: bytes) -> bytes:
        """A part of the body as it is sent."""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(part), part)
        self._left -= len(part)
        if self._left < 0:
            raise httpx.LocalProtocolError("the body of the request is longer than its Content-Length")
        return part

    def end(self) -> bytes:
        """What is sent after the body."""
        if self._chunked:
            return b"0\r\n\r\n"
        if self._left:
            raise httpx.LocalProtocolError("the body of the request is shorter than its Content-Length")
        return b""


class _Exchange(httpx.AsyncByteStream):
    """A request and its response, whose body it is. It holds a slot, and then a connection, until it is closed."""

    def __init__(self, queue: RequestQueue[Any], pool: Pool, limits: _Limits) -> None:
        self._queue = queue
        self._pool = pool
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Timeout | None = None
        self._connection: Connection | None = None
        self._sent = self._reusable = self._waiting = self._closed = False

    async def run(self, message: _Message) -> httpx.Response:
        """Send the request and wait for the head of its response. Raises `Failure`."""
        connection = self._pool.reuse()
        while True:
            if connection is None:
                connection = await self._connect()
            self._connection = connection
            try:
                await self._send(connection, message)
                await connection.head(self._limits.read)
            except Broken as failure:
                if message.repeatable and failure.unanswered and connection.used and not self._closed:
                    # The server has closed an idle connection in the same moment.
                    connection = None
                    continue
                raise
            self._reusable = self._sent and not message.closes
            parser = connection.parser
            extensions = {"http_version": f"HTTP/{parser.version}".encode("ascii"), "reason_phrase": parser.reason}
            return httpx.Response(parser.status, headers=parser.headers, stream=self, extensions=extensions)

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(None) as self._connecting:
                connection = await self._pool.connect(self._limits.connect)
        except TimeoutError:
            raise PoolClosed from None
        finally:
            self._connecting = None
        if self._closed:
            connection.abort()
            raise PoolClosed
        return connection

    async def _send(self, connection: Connection, message: _Message) -> None:
        """Send the request, or as much of it as the server wants."""
        self._sent = False
        connection.start(message.method, message.head)
        async for part in message.body:
            if connection.rejects:
                return
            if part:
                connection.write(message.frame(part))
                await connection.drain(self._limits.write)
        if not connection.rejects:
            connection.write(message.end())
            self._sent = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next part of the body."""
        connection = self._connection
        if connection is None or self._closed:
            raise httpx.ReadError(CLOSED)
        self._waiting = True
        try:
            part = await connection.part(self._limits.read)
        except Failure as failure:
            raise self.translate(failure) from None
        finally:
            self._waiting = False
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Return the slot, and the connection if it can be used again."""
        if self._closed:
            return
        self._closed = True
        connection = self._connection
        if self._loop.is_closed():
            if connection is not None:
                connection.discard()
            return
        if self._connecting is not None:
            self._connecting.reschedule(0)
        if connection is not None:
            if connection.parser.complete and self._reusable and not self._waiting:
                self._pool.release(connection)
            else:
                connection.abort()
        self._queue.release()

    def __del__(self) -> None:
        if self._closed:
            return
        # The garbage collector may run in any thread.
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.close)
        warnings.warn(
            "a streamed response of adapter.http was never closed", ResourceWarning, source=self, stacklevel=1
        )

    def translate(self, failure: Failure) -> Exception:
        """The exception of httpx for a failure."""
        match failure:
            case PoolClosed():
                return RuntimeError(CLOSED)
            case ConnectFailed():
                return httpx.ConnectError(failure.reason)
            case TimedOut(phase="connect"):
                return httpx.ConnectTimeout("the connection could not be made in time")
            case TimedOut(phase="write"):
                return httpx.WriteTimeout("the server has not read the request in time")
            case TimedOut():
                return httpx.ReadTimeout("the server has not answered in time")
            case BadReply():
                return httpx.RemoteProtocolError(f"the response cannot be used: {failure.reason}")
            case _ if self._closed:
                return httpx.ReadError(CLOSED)
            case Broken(by_error=True) if not self._sent:
                return httpx.WriteError("the connection broke before the request was complete")
            case Broken(by_error=True):
                return httpx.ReadError("the connection broke before the response was complete")
            case _:
                return httpx.RemoteProtocolError("the server closed the connection before the response was complete")


def _close_all(exchanges: Iterable[_Exchange]) -> None:
    for exchange in list(exchanges):
        exchange.close()


async def _take_slot(queue: RequestQueue[Any], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds if seconds < inf else None):
            await queue.acquire()
    except TimeoutError:
        raise httpx.PoolTimeout("no request to this server has ended in time") from None
    except Overloaded:
        raise httpx.PoolTimeout("the request queue of this server is full") from None


def _origin(url: httpx.URL) -> Origin:
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise httpx.UnsupportedProtocol(
            f"the URL of a request needs http:// or https:// and a host, not {url.scheme!r}"
        )
    port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    return Origin(url.scheme, url.raw_host.decode("ascii").strip("[]").lower(), port)


def _head(request: httpx.Request, *, chunked: bool) -> tuple[bytes, bytes]:
    """The method, and the request line with the headers. No byte in it ends a line or splits the request."""
    target: bytes = request.extensions.get("target", request.url.raw_path)
    method = request.method.encode("ascii", "replace")
    if method == b"CONNECT" or not NAME.fullmatch(method) or not TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("the method or the target of the request is not supported")
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target)]
    for name, value in request.headers.raw:
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            raise httpx.LocalProtocolError("a header of the request has a byte that is not allowed")
        if not chunked or name.lower() != b"content-length":
            lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return method, b"".join(lines)
