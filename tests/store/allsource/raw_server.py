"""Servers on a socket that give every request the same reply, which may be malformed or missing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

__all__ = ["PAGE", "RIGHT", "Answer", "Server", "answering", "ending", "reset", "right", "silent"]

PAGE = b'{"events":[],"has_more":false,"entity_version":0}'
RIGHT = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(PAGE), PAGE)

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A running server, with the requests that it has received."""

    def __init__(self, scheme: str, port: int) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.connections = 0

    @property
    def methods(self) -> list[str]:
        return [request.split()[0] for request in self.requests]


@asynccontextmanager
async def answering(answer: Answer, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server that calls ``answer`` after each complete request. The connection is closed if ``answer`` raises."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                for line in head.lower().splitlines():
                    if line.startswith("content-length:"):
                        await reader.readexactly(int(line.partition(":")[2]))
                found.requests.append(head)
                await answer(writer)
                await writer.drain()

    async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(closed(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    found = Server("https" if context else "http", server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        server.close()
        for task in (left := list(tasks)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await server.wait_closed()


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
