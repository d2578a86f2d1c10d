"""The minimum that asyncio needs for a request: persistent HTTP/1.1 connections on ``asyncio.Protocol``.

A baseline for HTTP clients, not a client: one server, no timeouts, no retries, only replies with a content length.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

__all__ = ["RawHttp"]

_END = b"\r\n\r\n"
_SUCCESSFUL = (b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+) *\r\n", re.IGNORECASE)


class RawHttp:
    """GET and POST requests to one origin, such as ``http://host:port``. Concurrent requests use different connections.

    ``tls``: the context for an ``https`` origin.
    """

    def __init__(self, origin: str, headers: Mapping[str, str], tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(origin)
        self._host, self._port, self._tls = parts.hostname or "", parts.port or 80, tls
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": parts.netloc, **headers}.items())
        self._rest = f" HTTP/1.1\r\n{lines}\r\n".encode()
        self._rest_of_post = f" HTTP/1.1\r\n{lines}content-type: application/json\r\ncontent-length: ".encode()
        self._idle: list[_Connection] = []

    async def get(self, target: str) -> bytes:
        """The body of the reply. Raises ``ConnectionError`` unless that is a complete 200 or 201 with a content length."""
        return await self._send(b"GET " + target.encode() + self._rest)

    async def post(self, target: str, body: bytes) -> bytes:
        """Send ``body`` as JSON; returns and raises like `get`."""
        return await self._send(b"POST %b%b%d\r\n\r\n%b" % (target.encode(), self._rest_of_post, len(body), body))

    async def _send(self, request: bytes) -> bytes:
        connection = self._idle_connection() or await self._connect()
        try:
            body = await connection.send(request)
        except BaseException:
            connection.abort()
            raise
        self._idle.append(connection)
        return body

    def _idle_connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection

    async def close(self) -> None:
        """Close the idle connections, and let the event loop process it."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport
        self._reply: asyncio.Future[bytes] | None = None
        self._received = b""
        self._begins = self._ends = 0
        """The offsets of the body in the received bytes; 0 until the head is complete."""

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._reply

    def abort(self) -> None:
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # the transports of uvloop are no subclass
        self.open = True

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        if not self._ends:
            head = received.find(_END)
            if head < 0:
                return
            length = _LENGTH.search(received, 0, head + 2)
            if length is None or not received.startswith(_SUCCESSFUL):
                self._fail(f"the server sent {received[:12].decode(errors='replace')!r}, or no content length")
                return
            self._begins = head + len(_END)
            self._ends = self._begins + int(length[1])
        if len(received) < self._ends:
            return
        reply = self._reply
        if len(received) > self._ends or reply is None:
            self._fail("the server sent more than one reply")
            return
        body, self._reply, self._received, self._ends = received[self._begins :], None, b"", 0
        if not reply.done():
            reply.set_result(body)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the connection was closed before the reply was complete")

    def _fail(self, message: str) -> None:
        self.abort()
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            reply.set_exception(ConnectionError(message))
