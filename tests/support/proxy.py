"""A proxy on loopback that loses, breaks and delays what goes through it, request by request.

It knows as much of HTTP/1.1 as it needs for that: where a message ends. What it does not spoil it passes on byte for byte,
each request over a connection of its own, so that the server behind it may be restarted at any time.
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
    """A request or a reply, as it came."""

    head: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    @property
    def is_last(self) -> bool:
        """Whether the connection ends after it."""
        return "close" in _header(self.head, "connection")


@dataclass
class _Fault:
    """What happens to the next ``count`` requests of a method, or to every ``every``-th of them."""

    kind: Literal["reset", "lose", "truncate", "answer"]
    count: int
    method: str | None = None
    every: int = 1
    reply: bytes = b""
    forward: bool = True
    _seen: int = 0

    def takes(self, method: str) -> bool:
        if self.count <= 0 or self.method not in (None, method):
            return False
        self._seen += 1
        if self._seen % self.every:
            return False
        self.count -= 1
        return True


class FaultProxy:
    """A proxy in front of ``upstream_url``; clients connect to ``url``, while the proxy is open (``async with``).

    Every arming method adds a fault. A request meets the first armed one that is meant for it, in the order of arming, and
    that one only; without any it passes. Leaving closes every connection; an error in the proxy itself is raised then.
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
        """Method and target of every request that was read to its end, whatever then happened to it."""
        self.connections = 0
        """How many connections clients have opened."""
        self.in_flight = 0
        """Requests between their first byte and the end of their reply."""
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
        """The server gets the request and answers; the client gets nothing but the end of the connection."""
        self._faults.append(_Fault("lose", count, method))

    def reset_before(self, count: int) -> None:
        """The connection is reset once the request was read; the server does not get it."""
        self._faults.append(_Fault("reset", count))

    def truncate(self, count: int) -> None:
        """The client gets the first half of the reply's bytes, then the end of the connection."""
        self._faults.append(_Fault("truncate", count))

    def answer(
        self, status: int, headers: Mapping[str, str], body: bytes, *, count: int, every: int = 1, forward: bool = False
    ) -> None:
        """The proxy replies by itself, ``count`` times, to every ``every``-th request; with ``forward`` to requests that the
        server gets all the same. ``Content-Length`` is added to the headers.
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
        """Hold replies, also those that are then lost or broken, until the gate is set; ``None``: hold no further ones."""
        self._gate = gate

    async def held(self, count: int) -> None:
        """Wait until ``count`` replies are held at once. Raises ``TimeoutError`` after 30 seconds."""
        async with asyncio.timeout(HELD_SECONDS), self._holds:
            await self._holds.wait_for(lambda: self._holding >= count)

    def close_after_reply(self, on: bool = True) -> None:
        """Close the connection after every reply, without having said so in its headers."""
        self._closes_after_reply = on

    def close_idle(self) -> int:
        """Close every connection that no request is under way on, now. Returns how many there were."""
        idle = [writer for writer in self._idle if not writer.is_closing()]
        for writer in idle:
            writer.close()
        return len(idle)

    def close_idle_on_next_request(self, count: int) -> None:
        """Close ``count`` connections when the first byte of a further request arrives, at the worst moment for a client.

        The request is not read and the server does not get it. A connection's first request is not touched.
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
        """What a further request begins with; nothing when the connection has ended."""
        self._idle.add(writer)
        try:
            byte = await reader.read(1)
            return b"" if writer.is_closing() else byte
        finally:
            self._idle.discard(writer)

    async def _request(self, byte: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request; whether the connection stays open."""
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
    """Read a whole message; with ``asked`` it is the reply to a request of that method."""
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
    """The words of the first line, three at most."""
    return head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)


def _header(head: bytes, name: str) -> str:
    """A header in lower case; empty if it is not there."""
    found = re.search(rf"(?im)^{name}:[ \t]*(.*?)[ \t]*\r$", head.decode("latin-1"))
    return found[1].lower() if found else ""


def _reset(writer: asyncio.StreamWriter) -> None:
    """The other side is told that the connection was reset, not that it has ended."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
