"""A proxy on the loopback interface that loses, truncates, replaces or delays replies.

It parses as much of HTTP/1.1 as is needed to find the end of a message. Other messages are forwarded byte for byte, each
request on a new connection, so that the server can be restarted at any time.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, Self
from urllib.parse import urlsplit

__all__ = ["FaultProxy"]

HELD_SECONDS = 30.0

BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


@dataclass(frozen=True)
class _Message:
    """A request or a reply, byte for byte."""

    head: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    @property
    def is_last(self) -> bool:
        """Whether the connection is closed after it."""
        return "close" in _header(self.head, "connection")


@dataclass
class _Fault:
    """A fault for the next ``count`` requests of a method, or for each ``every``-th of them."""

    kind: Literal["reset", "lose", "truncate", "answer"]
    count: int
    method: str | None = None
    every: int = 1
    reply: bytes = b""
    forward: bool = True
    _matched: int = 0

    def takes(self, method: str) -> bool:
        if self.count <= 0 or self.method not in (None, method):
            return False
        self._matched += 1
        if self._matched % self.every:
            return False
        self.count -= 1
        return True


class FaultProxy:
    """A proxy in front of ``upstream_url``. Clients connect to ``url`` while the proxy is open (``async with``).

    Each arming method adds a fault. The first fault that applies to a request acts on it, in the order of arming; without
    one the request is forwarded. The exit closes all connections and raises an error of the proxy itself.
    """

    def __init__(self, upstream_url: str) -> None:
        upstream = urlsplit(upstream_url)
        assert upstream.scheme == "http"
        assert upstream.hostname is not None
        self._upstream = (upstream.hostname, upstream.port or 80)
        self._faults: list[_Fault] = []
        self._gate: asyncio.Event | None = None
        self._holding = 0
        self._holds = asyncio.Condition()
        self._closes_after_reply = False
        self._closes_next = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server
        self.url: str
        self.requests: list[tuple[str, str]] = []
        """Method and target of every request that was read completely, whether or not a fault acted on it."""
        self.connections = 0
        """Number of connections that clients have opened."""
        self.in_flight = 0
        """Number of requests whose first byte was received and whose reply is not complete."""
        self.most_in_flight = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = "http://127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for end in ends:
            if isinstance(end, Exception) and error is None:
                raise end

    def lose_reply(self, count: int, method: str | None = "POST") -> None:
        """Forward the request, and close the connection instead of sending the reply."""
        self._faults.append(_Fault("lose", count, method))

    def reset_before(self, count: int) -> None:
        """Reset the connection after the request was read. It is not forwarded."""
        self._faults.append(_Fault("reset", count))

    def truncate(self, count: int) -> None:
        """Send the first half of the reply, then close the connection."""
        self._faults.append(_Fault("truncate", count))

    def answer(
        self, status: int, headers: Mapping[str, str], body: bytes, *, count: int, every: int = 1, forward: bool = False
    ) -> None:
        """Answer ``count`` requests, each ``every``-th one, with this reply. ``Content-Length`` is added to the headers.

        ``forward``: forward the request first, and drop the server's reply.
        """
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        if status not in BODILESS:
            lines.append(f"Content-Length: {len(body)}")
        reply = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        self._faults.append(_Fault("answer", count, every=every, reply=reply, forward=forward))

    def delay(self, gate: asyncio.Event | None) -> None:
        """Hold replies, including lost and truncated ones, until ``gate`` is set. ``None``: hold no further replies."""
        self._gate = gate

    async def held(self, count: int) -> None:
        """Wait until ``count`` replies are held at the same time. Raises `TimeoutError` after 30 seconds."""
        async with asyncio.timeout(HELD_SECONDS), self._holds:
            await self._holds.wait_for(lambda: self._holding >= count)

    def close_after_reply(self, on: bool = True) -> None:
        """Close the connection after every reply, without ``Connection: close``."""
        self._closes_after_reply = on

    def close_idle(self) -> int:
        """Close all connections without a request in progress. Returns their number."""
        idle = [writer for writer in self._idle if not writer.is_closing()]
        for writer in idle:
            writer.close()
        return len(idle)

    def close_idle_on_next_request(self, count: int) -> None:
        """Close the next ``count`` connections when the first byte of a further request arrives.

        The request is not read and not forwarded. The first request of a connection is not affected.
        """
        self._closes_next += count

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.append(asyncio.create_task(self._connection(reader, writer)))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                used = False
                while byte := await self._first_byte(reader, writer):
                    if used and self._closes_next > 0:
                        self._closes_next -= 1
                        break
                    used = True
                    if not await self._request(byte, reader, writer):
                        break
        finally:
            await _closed(writer)
            self._open.discard(writer)

    async def _first_byte(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The first byte of the next request; empty if the connection was closed."""
        self._idle.add(writer)
        try:
            byte = await reader.read(1)
            return b"" if writer.is_closing() else byte
        finally:
            self._idle.discard(writer)

    async def _request(self, byte: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Process one request. Returns whether the connection stays open."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            request = await _read(reader, byte)
            method, target, _ = _words(request.head)
            self.requests.append((method, target))
            fault = next((fault for fault in self._faults if fault.takes(method)), None)
            return await self._exchange(request, fault, writer)
        finally:
            self.in_flight -= 1

    async def _exchange(self, request: _Message, fault: _Fault | None, writer: asyncio.StreamWriter) -> bool:
        kind = fault.kind if fault else None
        if kind == "reset":
            _reset(writer)
            return False
        reply, is_last = b"", request.is_last
        if fault is None or fault.forward:
            answered = await self._forward(request)
            reply, is_last = answered.raw, is_last or answered.is_last
        await self._hold()
        if kind == "lose":
            return False
        if kind == "truncate":
            reply = reply[: len(reply) // 2]
        elif fault is not None:
            reply = fault.reply
        writer.write(reply)
        await writer.drain()
        return not (kind == "truncate" or is_last or self._closes_after_reply)

    async def _forward(self, request: _Message) -> _Message:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.raw)
            await writer.drain()
            return await _read(reader, asked=_words(request.head)[0])
        finally:
            writer.transport.abort()
            await _closed(writer)

    async def _hold(self) -> None:
        if self._gate is None:
            return
        gate = self._gate
        self._holding += 1
        try:
            async with self._holds:
                self._holds.notify_all()
            await gate.wait()
        finally:
            self._holding -= 1


async def _read(reader: asyncio.StreamReader, begun: bytes = b"", *, asked: str | None = None) -> _Message:
    """Read a complete message. With ``asked`` it is the reply to a request of that method."""
    head = begun + await reader.readuntil(b"\r\n\r\n")
    length = _header(head, "content-length")
    if asked is not None and (asked == "HEAD" or int(_words(head)[1]) in BODILESS):
        body = b""
    elif "chunked" in _header(head, "transfer-encoding"):
        body = await _read_chunks(reader)
    elif length:
        body = await reader.readexactly(int(length))
    else:
        body = b"" if asked is None else await reader.read()
    return _Message(head, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    read = bytearray()
    size = -1
    while size != 0:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        read += line
        if size:
            read += await reader.readexactly(size + 2)
    while not read.endswith(b"\r\n\r\n"):
        read += await reader.readuntil(b"\r\n")
    return bytes(read)


def _words(head: bytes) -> list[str]:
    """The first line, split into at most three words."""
    return head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)


def _header(head: bytes, name: str) -> str:
    """The value of a header in lower case; empty without the header."""
    found = re.search(rf"(?im)^{name}:[ \t]*(.*?)[ \t]*\r$", head.decode("latin-1"))
    return found[1].lower() if found else ""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
