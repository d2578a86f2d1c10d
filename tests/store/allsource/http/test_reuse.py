"""Which connection carries a request, and what happens if the server closes a connection that is idle."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from allsource_auth import Http, Timeouts
from allsource_auth.store.allsource.http import Reply, connecting, pool
from allsource_auth.store.allsource.http.connection import Connection
from tests.store.allsource.http.clients import client_of, get, pool_of, post, reply
from tests.store.allsource.raw_server import Peer, answering, ending, scripted
from tests.support.exploring import size

pytestmark = pytest.mark.usefixtures("parser")

ATTEMPTS = size(40, 1000)


def path_of(request: bytes) -> bytes:
    return request.split(b" ")[1]


async def echo(peer: Peer) -> None:
    """Answer each request with its path."""
    while True:
        await peer.send(reply(path_of(await peer.request())))


async def test_requests_in_sequence_share_a_connection() -> None:
    async with scripted(echo) as server, client_of(server.url) as client:
        for number in range(10):
            call = get if number % 2 else post
            assert (await call(client, path=f"/{number}")).body == b"/%d" % number
        assert server.connections == 1


async def test_last_used_connection_is_used_first() -> None:
    """The connections answer in the order 2, 3, 1."""
    order = (2, 3, 1)
    turns = [asyncio.Event() for _ in order]
    arrived = asyncio.Barrier(3)

    async def script(peer: Peer) -> None:
        await peer.request()
        await arrived.wait()
        turn = order.index(peer.number)
        if turn:
            await turns[turn - 1].wait()
        await peer.send(reply())
        await peer.request()
        await peer.send(reply(b"%d" % peer.number))
        await peer.ended()

    async with scripted(script) as server, client_of(server.url) as client:
        first = [asyncio.ensure_future(get(client)) for _ in order]
        for turn, _ in enumerate(order):
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            first = [each for each in first if not each.done()]
            turns[turn].set()
        assert pool_of(client).idle == 3
        second = [asyncio.ensure_future(get(client)) for _ in order]
        assert [(await each).body for each in second] == [b"1", b"3", b"2"]
        assert server.connections == 3


async def test_at_most_max_in_flight_connections_are_open() -> None:
    async with scripted(echo) as server, client_of(server.url, max_in_flight=5) as client:
        calls = [client.query(f"/{number}", require_leader=True) for number in range(100)]
        assert [each.body for each in await asyncio.gather(*calls)] == [b"/%d" % number for number in range(100)]
        assert server.connections == pool_of(client).open == 5


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.05)
    both = asyncio.Barrier(2)
    closed: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await both.wait()
        await peer.send(reply())
        await peer.ended()
        closed.append(peer.number)

    async with scripted(script) as server, client_of(server.url) as client:
        await asyncio.gather(get(client), get(client))
        assert (pool_of(client).idle, pool_of(client).open) == (2, 2)
        while len(closed) < 2 or pool_of(client).open:
            await asyncio.sleep(0.005)
        assert pool_of(client).idle == 0
        assert server.connections == 2


async def test_connection_in_use_is_not_closed_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.02)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.03 * (len(server.requests) % 2 == 0))
            await peer.send(reply())

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(3):
            await get(client)
            await get(client)
        assert len(server.requests) == 6, "no request was repeated"


@pytest.mark.parametrize("announced", [False, True])
async def test_server_may_close_after_each_reply(announced: bool) -> None:
    answer = ending(reply(b"{}", *([b"connection: close"] if announced else [])))
    async with answering(answer) as server, client_of(server.url) as client:
        for _ in range(20):
            assert (await get(client)).body == b"{}"
            await asyncio.sleep(0.001)
        assert pool_of(client).open == 0
        assert server.connections == 20


async def test_close_of_an_idle_connection_is_noticed_when_it_happens() -> None:
    for close in (Peer.shut_down, Peer.reset):

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(reply())
            await asyncio.sleep(0.001)
            if (ending := close(peer)) is not None:  # noqa: B023
                await ending

        async with scripted(script) as server, client_of(server.url) as client:
            await get(client)
            while pool_of(client).open:
                await asyncio.sleep(0)
            assert pool_of(client).idle == 0
            assert server.connections == 1


async def test_read_on_a_stale_connection_is_sent_again_at_once() -> None:
    """The server closes without an answer the connection that it has used before."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"%d" % peer.number))
        await peer.request()

    async with scripted(script) as server, client_of(server.url) as client:
        assert [(await get(client)).body for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
        assert len(server.requests) == 9


async def test_read_is_sent_again_only_once() -> None:
    """A new connection that closes without an answer is an error."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(reply())
            await peer.request()

    async with scripted(script) as server, client_of(server.url) as client:
        await get(client)
        with pytest.raises(Http):
            await get(client)
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_read_is_not_sent_again_after_the_first_byte() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.request()
        await peer.send(b"H")

    async with scripted(script) as server, client_of(server.url) as client:
        await get(client)
        with pytest.raises(Http):
            await get(client)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_append_on_a_stale_connection_is_ambiguous_and_sent_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.request()

    async with scripted(script) as server, client_of(server.url) as client:
        await get(client)
        with pytest.raises(Http) as caught:
            await post(client)
        assert caught.value.ambiguous
        assert server.methods == ["GET", "POST"]


@pytest.mark.parametrize("how", [socket.SHUT_RDWR, socket.SHUT_WR], ids=["both-ways", "half"])
async def test_connection_closed_in_the_same_moment_fails_no_request(how: int) -> None:
    """The connection is closed after the event loop has looked at it for the last time."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await echo(peer)

    async with scripted(script) as server, client_of(server.url) as client:
        await get(client)
        for number in range(ATTEMPTS):
            peers[-1].shut_down(how)
            call = get if number % 2 else post
            assert (await call(client, path=f"/{number}")).body == b"/%d" % number
        sent = [request for request in server.requests if request.startswith("POST")]
        assert len(sent) == ATTEMPTS // 2


async def test_connection_closed_at_a_random_moment_fails_no_read() -> None:
    """An append may fail, but is then ambiguous; none is sent twice."""
    moments = random.Random(15)

    async def script(peer: Peer) -> None:
        await peer.send(reply(path_of(await peer.request())))
        for _ in range(moments.randrange(6)):
            await asyncio.sleep(0)
        if moments.random() < 0.5:
            await peer.reset()

    async with scripted(script) as server, client_of(server.url) as client:
        stored = 0
        for number in range(ATTEMPTS):
            assert (await get(client, path=f"/{number}")).body == b"/%d" % number
            for _ in range(moments.randrange(6)):
                await asyncio.sleep(0)
            try:
                assert (await post(client, path=f"/w{number}")).body == b"/w%d" % number
                stored += 1
            except Http as error:
                if not error.ambiguous:
                    raise
            writes = [request for request in server.received if path_of(request) == b"/w%d" % number]
            assert len(writes) <= 1
        assert stored > ATTEMPTS / 4


async def test_connection_closed_before_it_is_used_is_a_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent: a failed append is not ambiguous."""
    original = connecting.open_connection

    async def slow(*args: Any, **named: Any) -> Connection:
        connection = await original(*args, **named)
        while connection.open:
            await asyncio.sleep(0)
        return connection

    async def script(peer: Peer) -> None:
        peer.shut_down()

    monkeypatch.setattr(pool, "open_connection", slow)
    async with scripted(script) as server, client_of(server.url) as client:
        for call in (get, post):
            with pytest.raises(Http) as caught:
                await call(client)
            assert str(caught.value) == f"cannot connect to {server.url}: the server closed the connection at once"
            assert not caught.value.ambiguous
        assert pool_of(client).open == 0


# Bytes that nobody has asked for


@pytest.mark.parametrize("call", [get, post])
async def test_second_reply_in_the_same_segment_reaches_no_caller(call: Callable[..., Awaitable[Reply]]) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.send(reply(path_of(await peer.request())) + reply(b"stolen"))

    async with scripted(script) as server, client_of(server.url, max_in_flight=1) as client:
        for number in range(10):
            assert (await call(client, path=f"/{number}")).body == b"/%d" % number
        calls = [client.query(f"/{number}", require_leader=True) for number in range(10)]
        assert [each.body for each in await asyncio.gather(*calls)] == [b"/%d" % number for number in range(10)]
        assert server.connections == 20


@pytest.mark.parametrize("call", [get, post])
async def test_second_reply_on_an_idle_connection_reaches_no_caller(call: Callable[..., Awaitable[Reply]]) -> None:
    """Also if it arrives after the event loop has looked at the connection for the last time."""
    sockets: list[socket.socket] = []

    async def script(peer: Peer) -> None:
        sockets.append(peer.writer.get_extra_info("socket").dup())
        await echo(peer)

    async with scripted(script) as server, client_of(server.url) as client:
        for number in range(10):
            assert (await call(client, path=f"/{number}")).body == b"/%d" % number
            sockets[-1].send(reply(b"stolen"))
            if number % 2:
                await asyncio.sleep(0.002)
        assert server.connections == 10
        for sock in sockets:
            sock.close()


async def test_half_open_connection_is_an_error_after_the_read_limit() -> None:
    """A server that has vanished without a word; later requests use a new connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"%d" % peer.number))
        if peer.number == 1:
            await peer.ended()
        await peer.request()
        await peer.send(reply(b"%d" % peer.number))

    limits = Timeouts(connect=30, read=0.1, total=30)
    async with scripted(script) as server, client_of(server.url, timeout=limits) as client:
        assert (await get(client)).body == b"1"
        with pytest.raises(Http) as caught:
            await post(client)
        assert (caught.value.timeout, caught.value.ambiguous) == ("read", True)
        assert pool_of(client).idle == 0
        for _ in range(2):
            assert (await get(client)).body == b"2"
        assert server.connections == 2


async def test_connections_are_kept_alive_by_the_system() -> None:
    async with scripted(echo) as server, client_of(server.url) as client:
        await get(client)
        connection = pool_of(client).reuse()
        assert connection is not None
        assert connection.sock is not None
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.abort()
