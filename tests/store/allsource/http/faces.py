"""`AllsourceAuthAdapter.http` on a scripted server, with a check that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from logging.handlers import BufferingHandler
from typing import NamedTuple, Unpack

import httpx

from allsource_auth import config
from allsource_auth.store.allsource.client import Client
from allsource_auth.store.allsource.http import Origin
from allsource_auth.store.allsource.http.pool import Pool
from tests.store.allsource.http.clients import client_of, pool_of, reply
from tests.store.allsource.raw_server import Peer

__all__ = ["Face", "body_parts", "echo", "endless", "face_of", "generated", "until"]


class Face(NamedTuple):
    """The client of httpx, and the client of the store that it shares connections and slots with."""

    http: httpx.AsyncClient
    client: Client

    @property
    def used_slots(self) -> int:
        queue = self.client.queue_of(Origin.of(self.client.connection.core_url))
        return self.client.connection.max_in_flight - queue._free_slots

    @property
    def pool(self) -> Pool:
        return pool_of(self.client)

    @property
    def leaves_nothing(self) -> bool:
        """Whether all slots are free and all connections closed or idle."""
        return self.used_slots == 0 and self.pool.open == self.pool.idle


@asynccontextmanager
async def face_of(url: str, **options: Unpack[config.ConnectionOptions]) -> AsyncIterator[Face]:
    """A client for the server at ``url``, in debug mode of the event loop. It must leave no slot, connection or warning."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60
    with _warnings() as warnings:
        async with client_of(url, **options) as client:
            face = Face(client.engine.http, client)
            yield face
            if not face.http.is_closed:
                await until(lambda: face.leaves_nothing)
        gc.collect()
        await asyncio.sleep(0)
    messages = [warning.getMessage() for warning in warnings]
    assert [message for message in messages if "incoming connection" not in message] == []  # that one is of the server


@contextmanager
def _warnings() -> Iterator[list[logging.LogRecord]]:
    """The warnings of asyncio, such as exceptions that nobody retrieves."""
    handler = BufferingHandler(1000)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` is true; fail if it does not become true while the event loop has something to do."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition has not become true")


async def body_parts(peer: Peer) -> AsyncIterator[bytes]:
    """The chunks of a request that are received."""
    while size := int(await peer.reader.readuntil(b"\r\n"), 16):
        yield await peer.reader.readexactly(size)
        await peer.reader.readexactly(2)
    await peer.reader.readexactly(2)


async def echo(peer: Peer) -> None:
    """Answer each request with its body; without one, with its request line."""
    while True:
        request = await peer.request()
        head, _, body = request.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            body = b"".join([part async for part in body_parts(peer)])
        elif head.startswith(b"HEAD"):
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
            continue
        await peer.send(reply(body or head.splitlines()[0]))


async def generated(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 65536
