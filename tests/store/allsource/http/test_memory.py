"""Memory of a pool that is used for a long time."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from tests.store.allsource.http.clients import client_of, reply
from tests.store.allsource.raw_server import Peer, scripted
from tests.support.exploring import ALL, size

pytestmark = pytest.mark.usefixtures("parser")

CALLERS = 32
REQUESTS = size(2_000, 2_000_000)
"""At full size about ten minutes."""
BODY = b"x" * 700


def resident() -> int:
    """Bytes of memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_pool_that_serves_32_callers_does_not_grow() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(reply(BODY))

    async with scripted(script) as server, client_of(server.url) as client:

        async def callers(requests: int) -> None:
            async def caller(number: int) -> None:
                for call in range(requests // CALLERS):
                    received = await client.query(f"/{number}/{call}", require_leader=True)
                    assert received.body == BODY

            await asyncio.gather(*(caller(number) for number in range(CALLERS)))

        await callers(REQUESTS // 10)
        gc.collect()
        objects, memory = len(gc.get_objects()), resident()
        await callers(REQUESTS)
        gc.collect()
        assert len(gc.get_objects()) < objects + 100
        assert not ALL or resident() < memory + 8 * 2**20
