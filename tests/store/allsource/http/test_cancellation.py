"""Cancelled requests: a slot is never lost, and a reply never reaches another caller."""

from __future__ import annotations

import asyncio
import random

import pytest

from allsource_auth import Timeouts
from allsource_auth.store.allsource.http.pool import Pool
from tests.store.allsource.http.clients import client_of, get, pool_of, post, reply
from tests.store.allsource.raw_server import Peer, scripted
from tests.support.exploring import size

pytestmark = pytest.mark.usefixtures("parser")

SLOTS = 10


def path_of(request: bytes) -> bytes:
    return request.split(b" ")[1]


async def settled(pool: Pool) -> None:
    """Wait until the connections of cancelled requests are closed, which takes a few steps of the event loop."""
    for _ in range(200):
        if pool.idle == pool.open:
            return
        await asyncio.sleep(0.001)


async def test_random_cancellations_lose_no_slot_and_mix_up_no_replies() -> None:
    moments = random.Random(1000)
    cancellations = size(150, 1000)
    together = asyncio.Barrier(SLOTS)

    async def script(peer: Peer) -> None:
        while True:
            path = path_of(await peer.request())
            if path.startswith(b"/together"):
                await together.wait()
            raw = reply(path)
            cut = moments.randrange(len(raw))
            await asyncio.sleep(moments.choice([0, 0, 0.0005, 0.001]))
            await peer.send(raw[:cut])
            await asyncio.sleep(moments.choice([0, 0, 0.0005]))
            await peer.send(raw[cut:])

    async with scripted(script) as server, client_of(server.url, max_in_flight=SLOTS) as client:

        async def call(number: int) -> None:
            if number % 3 == 0:
                received = await client.append(f"/{number}", b"{}", None)
            else:
                received = await client.query(f"/{number}", require_leader=True)
            assert received.body == b"/%d" % number

        async def cancel_later(task: asyncio.Task[None]) -> None:
            for _ in range(moments.randrange(8)):
                await asyncio.sleep(0)
            await asyncio.sleep(moments.choice([0, 0, 0.0005, 0.001, 0.002]))
            task.cancel()

        cancelled = number = 0
        while cancelled < cancellations:
            calls = [asyncio.ensure_future(call(number + each)) for each in range(25)]
            number += 25
            await asyncio.gather(*[cancel_later(each) for each in moments.sample(calls, 15)])
            await asyncio.wait(calls)
            cancelled += sum(each.cancelled() for each in calls)
            for each in calls:
                if not each.cancelled():
                    each.result()
            await settled(pool_of(client))
            assert pool_of(client).idle == pool_of(client).open <= SLOTS
        # Each of these is answered when all of them are in flight.
        last = [client.query(f"/together/{number}", require_leader=True) for number in range(SLOTS)]
        received = await asyncio.wait_for(asyncio.gather(*last), 30)
        assert [each.body for each in received] == [b"/together/%d" % number for number in range(SLOTS)]
        assert pool_of(client).open == pool_of(client).idle == SLOTS


@pytest.mark.parametrize("steps", range(12))
async def test_request_cancelled_at_any_step_leaves_nothing_open(steps: int) -> None:
    """While connecting, while sending, while waiting, or just as the reply arrives."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.send(reply(path_of(await peer.request())))

    async with scripted(script) as server, client_of(server.url) as client:
        for call in (get, post):
            for used_before in (False, True):
                if used_before:
                    await get(client)
                task = asyncio.ensure_future(call(client, path="/cancelled"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert (await get(client, path="/next")).body == b"/next"
                await settled(pool_of(client))
                assert pool_of(client).open == pool_of(client).idle == 1
                connection = pool_of(client).reuse()
                assert connection is not None
                connection.abort()
                await asyncio.sleep(0.001)


async def test_cancellation_closes_the_connection_of_that_request_alone() -> None:
    released = asyncio.Event()

    async def script(peer: Peer) -> None:
        path = path_of(await peer.request())
        if path == b"/cancelled":
            assert await peer.ended() == b""
            released.set()
        else:
            await released.wait()
            await peer.send(reply(path))
            await peer.ended()

    limits = Timeouts(connect=30, read=30, total=30)
    async with scripted(script) as server, client_of(server.url, timeout=limits) as client:
        others = [asyncio.ensure_future(get(client, path=f"/{number}")) for number in range(3)]
        cancelled = asyncio.ensure_future(get(client, path="/cancelled"))
        while len(server.requests) < 4:
            await asyncio.sleep(0.001)
        cancelled.cancel()
        assert [each.body for each in await asyncio.gather(*others)] == [b"/0", b"/1", b"/2"]
        assert cancelled.cancelled()
        await settled(pool_of(client))
        assert pool_of(client).open == 3


async def test_cancelled_connection_attempt_is_closed() -> None:
    """Of https as well, in the handshake, which this server never answers."""

    async def script(peer: Peer) -> None:
        await peer.ended()

    async with scripted(script) as server, client_of(server.url.replace("http:", "https:")) as client:
        task = asyncio.ensure_future(get(client))
        while not server.connections:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert pool_of(client).open == 0
