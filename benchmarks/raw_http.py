"""The least that asyncio needs for a GET: kept connections of HTTP/1.1 on ``asyncio.Protocol``, and answers with a length.

It is what the clients are held against, and no client: one server, no TLS, no time limits, nothing is sent again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

__all__ = ["RawHttp"]

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+) *\r\n", re.IGNORECASE)


class RawHttp:
    """GETs from one origin, ``http://host:port``, each on a connection of its own while it lasts."""

    def __init__(self, origin: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(origin)
        self._host, self._port = parts.hostname or "", parts.port or 80
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": parts.netloc, **headers}.items())
        self._rest = f" HTTP/1.1\r\n{lines}\r\n".encode()
        self._idle: list[_Connection] = []

    async def get(self, target: str) -> bytes:
        """The body of the answer to ``GET target``. Raises ``ConnectionError`` where that is not a whole 200 with a length."""
        connection = self._kept() or await self._connected()
        try:
            body = await connection.ask(b"GET " + target.encode() + self._rest)
        except BaseException:
            connection.abort()
            raise
        self._idle.append(connection)
        return body

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def _connected(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection

    async def close(self) -> None:
        """End the idle connections, and let the loop see it."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[bytes] | None = None
        self._got = b""
        self._begins = self._ends = 0
        """Where the body of the answer begins and ends in what came; 0 until its head is complete."""

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def abort(self) -> None:
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self.open = True

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data if self._got else data
        if not self._ends:
            head = got.find(_END)
            if head < 0:
                return
            length = _LENGTH.search(got, 0, head + 2)
            if length is None or not got.startswith(b"HTTP/1.1 200 "):
                self._fail(f"the server answered {got[:12].decode(errors='replace')!r}, or without a length")
                return
            self._begins = head + len(_END)
            self._ends = self._begins + int(length[1])
        if len(got) < self._ends:
            return
        answer = self._answer
        if len(got) > self._ends or answer is None:
            self._fail("the server sent more than an answer")
            return
        body, self._answer, self._got, self._ends = got[self._begins :], None, b"", 0
        if not answer.done():
            answer.set_result(body)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the connection ended before the answer was complete")

    def _fail(self, words: str) -> None:
        self.abort()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionError(words))
