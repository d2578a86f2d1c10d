"""``adapter.http``: which connection carries a request, how many there are, and what cancellation leaves behind."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import httpx
import pytest

from allsource_auth.store.allsource.http import pool
from allsource_auth.store.allsource.http.engine import AsyncioEngine
from tests.store.allsource.http.clients import get, post, reply
from tests.store.allsource.http.faces import Face, echo, endless, face_of, until
from tests.store.allsource.raw_server import Peer, scripted
from tests.support.exploring import size

pytestmark = pytest.mark.usefixtures("parser")

NO_LIMIT = httpx.Timeout(None)
ATTEMPTS = size(30, 1000)
CANCELLATIONS = size(100, 1000)


# Reuse


async def test_requests_in_sequence_share_a_connection_with_the_store() -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        for number in range(3):
            assert (await face.http.get(f"/{number}")).text == f"GET /{number} HTTP/1.1"
            assert (await get(face.client, f"/{number}")).body == b"GET /%d HTTP/1.1" % number
            assert (await face.http.post("/", content=b"face")).content == b"face"
            assert (await post(face.client, b"store")).body == b"store"
        assert server.connections == 1


async def test_connection_is_idle_once_the_response_is_read() -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        async with face.http.stream("GET", "/") as response:
            assert (face.pool.open, face.pool.idle, face.used_slots) == (1, 0, 1)
            await response.aread()
            assert (face.pool.open, face.pool.idle, face.used_slots) == (1, 1, 0)
        async with face.http.stream("GET", "/") as response:
            other = await face.http.get("/other")
            assert other.text == "GET /other HTTP/1.1"
            assert await response.aread() == b"GET / HTTP/1.1"
        assert server.connections == 2


async def test_response_closed_before_its_end_closes_the_connection() -> None:
    ended: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await peer.ended()
        ended.append(peer.number)

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        for _ in range(3):
            async with face.http.stream("GET", "/") as response:
                async for part in response.aiter_bytes():
                    assert part == b"half"
                    break
            await response.aclose()
        await until(lambda: ended == [1, 2, 3])
        assert face.pool.open == 0


async def test_response_closed_after_all_has_arrived_keeps_the_connection() -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        for _ in range(3):
            async with face.http.stream("GET", "/") as response:
                assert response.status_code == 200
        assert (server.connections, face.pool.idle) == (1, 1)


@pytest.mark.parametrize("by", ["request", "response", "old-version"])
async def test_connection_that_shall_be_closed_is_not_used_again(by: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            version = b"1.0" if by == "old-version" else b"1.1"
            header = b"connection: close\r\n" if by == "response" else b""
            await peer.send(b"HTTP/%b 200 OK\r\n%bcontent-length: 2\r\n\r\n{}" % (version, header))

    headers = {"Connection": "close"} if by == "request" else {}
    async with scripted(script) as server, face_of(server.url) as face:
        for _ in range(2):
            assert (await face.http.get("/", headers=headers)).text == "{}"
            assert face.pool.idle == 0
        assert server.connections == 2


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.01)
    async with scripted(echo) as server, face_of(server.url) as face:
        await face.http.get("/")
        await until(lambda: face.pool.open == 0)
        await face.http.get("/")
        assert server.connections == 2


async def test_other_servers_are_forgotten_with_their_last_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"{}", b"connection: close"))

    async with scripted(echo) as server, scripted(script) as other, face_of(server.url) as face:
        engine = face.client.engine
        assert isinstance(engine, AsyncioEngine)
        part, queues = engine._loops.get(), face.client._queues.get()
        async with face.http.stream("GET", other.url):
            assert len(part.others) == len(queues.others) == 1
        await face.http.get("/")
        del other
        for _ in range(3):
            await asyncio.sleep(0.01)
            gc.collect()
        assert len(part.others) == len(queues.others) == 0
        assert len(part.pools) == len(queues.own) == 1


async def test_connections_to_other_servers_are_closed_with_the_adapter() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.ended()
        ended.set()

    async with scripted(echo) as server, scripted(script) as other:
        async with face_of(server.url) as face:
            await face.http.get(other.url)
        await ended.wait()


# Limits


async def test_at_most_max_in_flight_connections_carry_all_requests() -> None:
    async with scripted(echo) as server, face_of(server.url, max_in_flight=3) as face:
        calls = [face.http.get(f"/{number}") for number in range(20)]
        calls += [face.http.post("/", content=b"%d" % number) for number in range(20)]
        texts = [response.text for response in await asyncio.gather(*calls)]
        assert texts == [f"GET /{number} HTTP/1.1" for number in range(20)] + [str(number) for number in range(20)]
        await asyncio.gather(*[get(face.client, f"/{number}") for number in range(3)])
        assert server.connections == 3


async def test_slots_are_given_in_the_order_of_arrival() -> None:
    async with scripted(echo) as server, face_of(server.url, max_in_flight=1) as face:
        async with face.http.stream("GET", "/"):
            waiting = [asyncio.ensure_future(face.http.get(f"/{number}")) for number in range(10)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        paths = [request.split()[1] for request in server.requests]
        assert paths == ["/", *[f"/{number}" for number in range(10)]]
        assert server.connections == 1


async def test_slots_are_shared_with_the_store() -> None:
    async with scripted(echo) as server, face_of(server.url, max_in_flight=1) as face:
        async with face.http.stream("GET", "/"):
            read = asyncio.ensure_future(face.client.query("/store", require_leader=True))
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(server.requests) == 1
        assert (await read).body == b"GET /store HTTP/1.1"
        read = asyncio.ensure_future(face.client.query("/store", require_leader=True))
        await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await face.http.get("/", timeout=httpx.Timeout(None, pool=0))
        await read
        assert server.connections == 1


async def test_each_server_has_slots_of_its_own() -> None:
    async with scripted(echo) as server, scripted(echo) as other, face_of(server.url, max_in_flight=1) as face:
        async with face.http.stream("GET", "/"), face.http.stream("GET", other.url):
            for url in (server.url, other.url):
                with pytest.raises(httpx.PoolTimeout):
                    await face.http.get(url, timeout=httpx.Timeout(None, pool=0))
        assert (server.connections, other.connections) == (1, 1)


# Connections that the server closes while they are idle


async def test_idle_connection_that_was_closed_is_not_used() -> None:
    """Also if the event loop has not processed the end of it yet."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(reply(request.split(b" ")[0]))
            peer.shut_down()

    async with scripted(script) as server, face_of(server.url) as face:
        for _ in range(ATTEMPTS):
            assert (await face.http.get("/")).text == "GET"
            assert (await face.http.post("/", content=b"body")).text == "POST"
        assert server.methods == ["GET", "POST"] * ATTEMPTS


@pytest.mark.parametrize("how", [socket.SHUT_RDWR, None], ids=["end", "reset"])
async def test_request_on_a_connection_closed_meanwhile_is_repeated_if_it_is_safe(how: int | None) -> None:
    """The server closes the connection after it has received the second request on it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b""))
        await peer.request()
        if how is None:
            await peer.reset()

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        for method in ("GET", "OPTIONS", "HEAD"):
            await face.http.get("/")
            before = server.connections
            assert (await face.http.request(method, "/again")).status_code == 200
            assert server.connections == before + 1
            assert server.methods[-2:] == [method, method]
            face.pool._idle[-1].abort()
        chunked = {"Transfer-Encoding": "chunked"}
        for method, content, headers in (
            ("POST", b"", {}),
            ("DELETE", b"", {}),
            ("GET", b"1", {}),
            ("GET", b"1", chunked),
        ):
            await face.http.get("/")
            before = server.connections
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await face.http.request(method, "/again", content=content, headers=headers)
            assert server.connections == before
            assert server.methods[-2:] == ["GET", method]


async def test_request_on_a_new_connection_is_not_repeated() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with scripted(script) as server, face_of(server.url) as face:
        with pytest.raises(httpx.RemoteProtocolError):
            await face.http.get("/")
        assert server.methods == ["GET"]


async def test_request_is_not_repeated_after_the_first_byte_of_its_response() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.request()
        await peer.send(b"H")

    async with scripted(script) as server, face_of(server.url) as face:
        await face.http.get("/")
        with pytest.raises(httpx.RemoteProtocolError):
            await face.http.get("/")
        assert server.methods == ["GET", "GET"]


# Cancellation


async def holding_slot(face: Face, server_url: str) -> None:
    await face.http.get("/", timeout=NO_LIMIT)


async def connecting(face: Face, server_url: str) -> None:
    await face.http.get(f"https{server_url[4:]}", timeout=NO_LIMIT)


async def generating(face: Face, server_url: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    await face.http.post("/", content=body(), timeout=NO_LIMIT)


async def uploading(face: Face, server_url: str) -> None:
    await face.http.post("/", content=endless(), timeout=NO_LIMIT)


async def uploading_bytes(face: Face, server_url: str) -> None:
    await face.http.post("/", content=b"x" * (32 << 20), timeout=NO_LIMIT)


async def waiting_for_the_head(face: Face, server_url: str) -> None:
    await face.http.get("/", timeout=NO_LIMIT)


async def reading(face: Face, server_url: str) -> None:
    await face.http.get("/half", timeout=NO_LIMIT)


async def streaming(face: Face, server_url: str) -> None:
    async with face.http.stream("GET", "/half", timeout=NO_LIMIT) as response:
        await response.aread()


async def handling(face: Face, server_url: str) -> None:
    async with face.http.stream("GET", "/half", timeout=NO_LIMIT):
        await asyncio.Event().wait()


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


PHASES = (connecting, generating, uploading, uploading_bytes, waiting_for_the_head, reading, streaming, handling)


@pytest.mark.parametrize("call", PHASES)
async def test_cancelled_request_returns_slot_and_connection(call: Callable[[Face, str], Awaitable[None]]) -> None:
    arrived = asyncio.Semaphore(0)
    ended = asyncio.Semaphore(0)

    async def script(peer: Peer) -> None:
        if await peer.reader.read(1) != b"\x16":  # the first byte of a TLS handshake
            path = (await peer.reader.readuntil(b"\r\n\r\n")).split()[1]
            if path == b"/next":
                await peer.send(reply())
            elif path == b"/half":
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        arrived.release()
        if call not in (uploading, uploading_bytes):
            await peer.ended()
            ended.release()
        await asyncio.Event().wait()

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        for _ in range(3):
            task = asyncio.ensure_future(call(face, server.url))
            await arrived.acquire()
            await asyncio.sleep(0.02)
            await cancel(task)
            if call not in (uploading, uploading_bytes):
                await ended.acquire()
            await until(lambda: face.leaves_nothing)
            queues = face.client._queues.get()
            assert all(queue._free_slots == 1 for queue in queues.all)
            assert face.pool.open == 0
        assert (await face.http.get("/next")).status_code == 200


async def test_cancelled_wait_for_a_slot_leaves_the_queue() -> None:
    async with scripted(echo) as server, face_of(server.url, max_in_flight=1) as face:
        async with face.http.stream("GET", "/"):
            waiting = [asyncio.ensure_future(holding_slot(face, server.url)) for _ in range(3)]
            await asyncio.sleep(0)
            await cancel(waiting[0])
        await cancel(waiting[1])  # it has the slot already, but has not run yet
        await waiting[2]
        assert len(server.requests) == 2


@pytest.mark.parametrize("limit", [asyncio.timeout, anyio.fail_after])
async def test_time_limit_around_a_request_works(limit: Callable[[float], object]) -> None:
    async def script(peer: Peer) -> None:
        path = (await peer.request()).split()[1]
        if path == b"/next":
            await peer.send(reply())
        await peer.ended()

    async def limited(face: Face) -> None:
        if limit is anyio.fail_after:
            with anyio.fail_after(0.02):
                await face.http.get("/", timeout=NO_LIMIT)
        else:
            async with asyncio.timeout(0.02):
                await face.http.get("/", timeout=NO_LIMIT)

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await limited(face)
        assert (await face.http.get("/next")).status_code == 200


async def test_cancellation_at_random_moments_mixes_up_no_responses() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            head, _, body = request.partition(b"\r\n\r\n")
            await asyncio.sleep(random.random() * 0.002)
            raw = reply(head.split()[1] + b" " + body)
            cut = random.randrange(len(raw))
            await peer.send(raw[:cut])
            await asyncio.sleep(0)
            await peer.send(raw[cut:])

    async def exchange(face: Face, number: int) -> str:
        if number % 3 == 0:
            return (await face.client.query(f"/{number}", require_leader=True)).body.decode()
        if number % 3 == 1:
            return (await face.http.get(f"/{number}")).text
        return (await face.http.post(f"/{number}", content=b"%d" % number)).text

    expected = [f"/{number} {number if number % 3 == 2 else ''}" for number in range(CANCELLATIONS)]
    async with scripted(script) as server, face_of(server.url, max_in_flight=5) as face:
        cancelled = 0
        for start in range(0, CANCELLATIONS, 20):
            numbers = range(start, min(start + 20, CANCELLATIONS))
            tasks = [asyncio.ensure_future(exchange(face, number)) for number in numbers]
            for task in random.sample(tasks, 10):
                await asyncio.sleep(random.random() * 0.003)
                task.cancel()
            for number, outcome in zip(numbers, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
                if isinstance(outcome, asyncio.CancelledError):
                    cancelled += 1
                else:
                    assert outcome == expected[number]
            await until(lambda: face.leaves_nothing)
            assert face.pool.open <= 5
        assert cancelled > 0
        responses = await asyncio.gather(*[exchange(face, number) for number in range(10)])
        assert responses == expected[:10]


async def test_response_closed_while_another_task_reads_it_closes_the_connection() -> None:
    """The end of the response has arrived, but its reader has not run yet: it must not see the next response."""
    half_read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await half_read.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.ended()

    async with scripted(script) as server, face_of(server.url) as face:
        async with face.http.stream("GET", "/") as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"half"
            reader = asyncio.ensure_future(anext(parts))
            await asyncio.sleep(0)
            (connection,) = face.pool._open
            wake = connection._wake
            closed: list[bool] = []

            def wake_and_close() -> None:
                wake()
                response.stream._stream.close()  # type: ignore[union-attr]
                closed.append(connection.parser.complete)

            connection._wake = wake_and_close  # type: ignore[method-assign]
            half_read.set()
            with pytest.raises(StopAsyncIteration):
                await reader
        assert closed[0]
        assert face.pool.idle == 0
