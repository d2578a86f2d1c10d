"""Servers on a socket that follow a script: their replies may be malformed, late, incomplete or missing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

__all__ = ["PAGE", "RIGHT", "Answer", "Peer", "Server", "answering", "ending", "reset", "right", "scripted", "silent"]

PAGE = b'{"events":[],"has_more":false,"entity_version":0}'
RIGHT = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(PAGE), PAGE)

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A running server, with the requests that it has received."""

    def __init__(self, scheme: str, port: int) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.requests: list[str] = []
        """The heads of the requests."""
        self.received: list[bytes] = []
        """The requests, byte for byte."""
        self.connections = 0

    @property
    def methods(self) -> list[str]:
        return [request.split()[0] for request in self.requests]


class Peer:
    """The server's side of a connection. ``number`` counts the connections from 1."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        self.number = server.connections
        self.reader, self.writer = reader, writer
        self._server = server

    async def request(self) -> bytes:
        """Receive a request. Raises `asyncio.IncompleteReadError` if the client closes the connection."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        body = b""
        for line in head.lower().splitlines():
            if line.startswith(b"content-length:"):
                body = await self.reader.readexactly(int(line.partition(b":")[2]))
        self._server.requests.append(head.decode("latin-1"))
        self._server.received.append(head + body)
        return head + body

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionError  # uvloop raises a RuntimeError for a write then
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> bytes:
        """Wait until the client closes the connection; return what it has sent before."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def shut_down(self, how: int = socket.SHUT_RDWR) -> None:
        """Close the connection at once, before the event loop runs anything else."""
        with self.writer.get_extra_info("socket").dup() as sock:
            sock.shutdown(how)

    async def reset(self) -> None:
        """Close the connection with a TCP reset. Does not return."""
        await reset(self.writer)


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server that calls ``script`` for each connection, then closes it. An error of a connection ends the script."""
    tasks: set[asyncio.Task[None]] = set()
    failures: list[Exception] = []

    async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Peer(found, reader, writer))
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass
        except Exception as failure:
            failures.append(failure)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(closed(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context, backlog=512)
    found = Server("https" if context else "http", server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        server.close()
        for task in (left := list(tasks)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await server.wait_closed()
    if failures:
        raise failures[0]


def answering(
    answer: Answer, *, context: ssl.SSLContext | None = None
) -> contextlib.AbstractAsyncContextManager[Server]:
    """Run a server that calls ``answer`` after each complete request. The connection is closed if ``answer`` raises."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await answer(peer.writer)
            await peer.writer.drain()

    return scripted(script, context=context)


async def right(writer: asyncio.StreamWriter) -> None:
    writer.write(RIGHT)


def ending(*parts: bytes) -> Answer:
    """Send ``parts``, if any, then close the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        raise ConnectionError

    return answer


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionError


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()
