"""The pool as a transport of httpx, for `AllsourceAuthAdapter.http`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import httpx

from allsource_auth.errors import Overloaded, StoreClosed
from allsource_auth.store.allsource.http.connection import Connection
from allsource_auth.store.allsource.http.failures import (
    BadReply,
    Broken,
    ConnectFailed,
    Failure,
    PoolClosed,
    TimedOut,
)
from allsource_auth.store.allsource.http.origin import DEFAULT_PORTS, Origin
from allsource_auth.store.allsource.http.pool import Pool
from allsource_auth.store.allsource.http.reply import QueueOf
from allsource_auth.store.allsource.request_queue import RequestQueue

__all__ = ["PoolTransport"]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")

REPEATABLE = (b"GET", b"HEAD", b"OPTIONS")
"""Methods of requests without a body that are sent again if the server has closed an idle connection meanwhile."""


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends requests of an ``httpx.AsyncClient`` through the pools of an engine.

    A request to any origin takes a slot of that origin's request queue until its response is closed. The limits of httpx apply
    to their phases: ``pool`` to the slot, ``connect``, ``write``, and ``read`` to the silence of the server.
    """

    def __init__(self, pool_of: Callable[[Origin], Pool], queue_of: QueueOf, forget: Callable[[Pool], None]) -> None:
        self._pool_of = pool_of
        self._queue_of = queue_of
        self._forget = forget

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = _origin(request)
        head = _head(request)
        limits: dict[str, float | None] = request.extensions.get("timeout", {})
        queue = self._queue_of(origin)
        await _take_slot(queue, limits.get("pool"))
        try:
            pool = self._pool_of(origin)
            connection = await _exchange(pool, request, head, limits)
        except Failure as failure:
            queue.release()
            raise _translate(failure) from None
        except StoreClosed:
            queue.release()
            raise RuntimeError("the adapter of this client is closed") from None
        except BaseException:
            queue.release()
            raise
        parser = connection.parser
        return httpx.Response(
            parser.status,
            headers=list(parser.headers),
            stream=_Body(connection, pool, queue, self._forget),
            extensions={"http_version": b"HTTP/1.1"},
        )


class _Body(httpx.AsyncByteStream):
    """The body of a response. It holds the connection and the slot until it is closed."""

    def __init__(
        self, connection: Connection, pool: Pool, queue: RequestQueue[Any], forget: Callable[[Pool], None]
    ) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._queue = queue
        self._forget = forget

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        complete = False
        while not complete:
            try:
                complete = await connection.more()
            except Failure as failure:
                error = _translate(failure)
            else:
                if part := connection.take():
                    yield part
                continue
            raise error

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.parser.complete:
            self._pool.release(connection)
        else:
            connection.abort()
        self._queue.release()
        self._forget(self._pool)


async def _take_slot(queue: RequestQueue[Any], seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await queue.acquire()
    except TimeoutError:
        reason = "no request to this server has ended in time"
    except Overloaded:
        reason = "the request queue of this server is full"
    except StoreClosed:
        raise RuntimeError("the adapter of this client is closed") from None
    else:
        return
    raise httpx.PoolTimeout(reason)


async def _exchange(pool: Pool, request: httpx.Request, head: bytes, limits: dict[str, float | None]) -> Connection:
    """Send the request and wait for the head of its response."""
    method = request.method.encode("ascii")
    content = b"".join(request.stream) if isinstance(request.stream, httpx.ByteStream) else None
    read = limits.get("read")
    seconds = inf if read is None else read
    connection = pool.reuse()
    while True:
        if connection is None:
            connect = limits.get("connect")
            connection = await pool.connect(inf if connect is None else connect)
        try:
            answered = connection.send(
                method, head + (content or b""), read=seconds, total=inf, ends_at=inf, whole=False
            )
            if content is None:
                await _upload(connection, request, answered, limits.get("write"))
            await answered
        except Broken as failure:
            if content == b"" and method in REPEATABLE and failure.unanswered and connection.used:
                connection = None
                continue
            raise
        except BaseException:
            connection.abort()
            raise
        return connection


async def _upload(
    connection: Connection, request: httpx.Request, answered: asyncio.Future[None], seconds: float | None
) -> None:
    """Write the body in parts, until the server answers."""
    chunked = b"chunked" in request.headers.get("transfer-encoding", "").lower().encode()
    try:
        async for part in request.stream:  # type: ignore[union-attr]
            if answered.done():
                break
            if part:
                connection.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                async with asyncio.timeout(seconds):
                    await connection.drain()
        else:
            if chunked and not answered.done():
                connection.write(b"0\r\n\r\n")
            return
        connection.parser.keep_alive = False
    except TimeoutError:
        if answered.done() and not answered.cancelled():
            answered.exception()
        answered.cancel()
        raise TimedOut("write", seconds or 0) from None
    except BaseException:
        # The future is not awaited then; its exception counts as retrieved.
        if answered.done() and not answered.cancelled():
            answered.exception()
        answered.cancel()
        raise


def _origin(request: httpx.Request) -> Origin:
    url = request.url
    if url.scheme not in DEFAULT_PORTS:
        raise httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol {url.scheme!r}.")
    return Origin(url.scheme, url.raw_host.decode("ascii").strip("[]").lower(), url.port or DEFAULT_PORTS[url.scheme])


def _head(request: httpx.Request) -> bytes:
    """The request line and the headers. Raises ``LocalProtocolError`` for bytes that would end a line or split the request."""
    target: bytes = request.extensions.get("target", request.url.raw_path)
    method = request.method.encode("ascii", "replace")
    if not _NAME.fullmatch(method) or not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("the method or the target of the request has a byte that is not allowed")
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target)]
    for name, value in request.headers.raw:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise httpx.LocalProtocolError("a header of the request has a byte that is not allowed")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"


def _translate(failure: Failure) -> Exception:
    """The exception of httpx for a failure."""
    match failure:
        case ConnectFailed():
            return httpx.ConnectError(failure.reason)
        case TimedOut(phase="connect"):
            return httpx.ConnectTimeout("the connection could not be made in time")
        case TimedOut(phase="write"):
            return httpx.WriteTimeout("the server has not read the request in time")
        case TimedOut():
            return httpx.ReadTimeout("the server has not answered in time")
        case BadReply():
            return httpx.RemoteProtocolError(failure.reason)
        case Broken(by_error=True):
            return httpx.ReadError("the connection broke before the response was complete")
        case Broken():
            return httpx.RemoteProtocolError("the server closed the connection before the response was complete")
        case PoolClosed():
            return RuntimeError("the adapter of this client is closed")
        case _:
            return httpx.TransportError(str(failure))
