"""``adapter.http``: the errors of httpx, its time limits, and closing."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.store.allsource.http.clients import reply
from tests.store.allsource.http.faces import body_parts, echo, endless, face_of
from tests.store.allsource.raw_server import Peer, Script, right, scripted

pytestmark = pytest.mark.usefixtures("parser")


# Errors


def scripts(**replies: bytes) -> dict[str, Script]:
    def script(raw: bytes) -> Script:
        async def send(peer: Peer) -> None:
            await peer.request()
            await peer.send(raw)

        return send

    return {name: script(raw) for name, raw in replies.items()}


async def reset_at_once(peer: Peer) -> None:
    await peer.request()
    await peer.reset()


async def reset_in_the_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await asyncio.sleep(0.05)
    await peer.reset()


BROKEN: dict[str, tuple[Script, type[httpx.TransportError]]] = {
    **{
        name: (script, httpx.RemoteProtocolError)
        for name, script in scripts(
            closed=b"",
            half_of_the_head=b"HTTP/1.1 200 O",
            half_of_the_body=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
            half_of_the_chunks=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf",
            other_protocol=b"220 smtp.example.com ESMTP\r\n",
            bad_chunk=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            two_lengths=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            large_head=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70000,
            upgrade=b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        ).items()
    },
    "reset": (reset_at_once, httpx.ReadError),
    "reset_in_the_body": (reset_in_the_body, httpx.ReadError),
}


@pytest.mark.parametrize(("script", "expected"), BROKEN.values(), ids=BROKEN)
async def test_broken_response_raises_the_error_of_httpx(script: Script, expected: type[httpx.TransportError]) -> None:
    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        for call in (face.http.get, face.http.post):
            with pytest.raises(httpx.TransportError) as caught:
                await call("/path?token=secret")
            assert type(caught.value) is expected
            assert caught.value.request.url.path == "/path"
            assert "secret" not in str(caught.value)
            assert caught.value.__suppress_context__ or caught.value.__cause__ is None
        assert server.methods == ["GET", "POST"]


async def test_reset_while_the_request_is_sent_is_a_write_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await anext(body_parts(peer))
        await peer.reset()

    async with scripted(script) as server, face_of(server.url) as face:
        with pytest.raises(httpx.WriteError) as caught:
            await face.http.post("/", content=endless())
        assert caught.value.request.method == "POST"


async def test_end_while_the_request_is_sent_is_a_protocol_error() -> None:
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await sent.wait()
        await asyncio.sleep(0.05)
        yield b"second"

    async def script(peer: Peer) -> None:
        await peer.request()
        await anext(body_parts(peer))
        sent.set()

    async with scripted(script) as server, face_of(server.url) as face:
        with pytest.raises(httpx.RemoteProtocolError):
            await face.http.post("/", content=body())


async def test_server_that_cannot_be_reached_is_a_connect_error(unused_tcp_port: int) -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        for url in (f"http://127.0.0.1:{unused_tcp_port}", "http://nowhere.invalid"):
            with pytest.raises(httpx.ConnectError) as caught:
                await face.http.get(url)
            assert caught.value.request.url == url


# Time limits


async def test_connect_limit_covers_the_handshake_of_tls() -> None:
    async def script(peer: Peer) -> None:
        await peer.ended()

    async with scripted(script) as server, face_of(server.url) as face:
        with pytest.raises(httpx.ConnectTimeout) as caught:
            await face.http.get(f"https{server.url[4:]}", timeout=httpx.Timeout(None, connect=0.05))
        assert caught.value.request.url.scheme == "https"
        assert server.connections == 1


SILENT = {
    "at once": b"",
    "in the head": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    "in the body": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
}


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
async def test_read_limit_is_the_silence_of_the_server(sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.ended()

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout) as caught:
                await face.http.get("/", timeout=httpx.Timeout(None, read=0.05))
            assert caught.value.request.method == "GET"
        assert server.connections == 2


async def test_read_limit_starts_anew_with_each_part() -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        for _ in range(9):
            await peer.send(b"x")
            await read.wait()
            read.clear()

    async with scripted(script) as server, face_of(server.url) as face:
        ends: list[float] = []
        async with face.http.stream("GET", "/", timeout=httpx.Timeout(None, read=60)) as response:
            (connection,) = face.pool._open
            async for _ in response.aiter_raw():
                ends.append(connection._silent_at)
                read.set()
        assert len(ends) == 9
        assert ends == sorted(set(ends))


async def test_read_limit_does_not_apply_to_a_slow_caller() -> None:
    """Neither to one that makes the request slowly, nor to one that reads the response slowly."""
    answered = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await answered.wait()
        await asyncio.sleep(0.1)
        yield b"second"

    async def script(peer: Peer) -> None:
        await peer.request()
        parts = body_parts(peer)
        await anext(parts)
        await peer.send(reply(b"x" * 100))
        answered.set()
        await anext(parts)
        await peer.ended()

    async with scripted(script) as server, face_of(server.url) as face:
        limits = httpx.Timeout(None, read=0.001)  # the reply is there when it is waited for
        async with face.http.stream("POST", "/", content=body(), timeout=limits) as response:
            await asyncio.sleep(0.1)
            assert await response.aread() == b"x" * 100


@pytest.mark.parametrize("generate", [False, True])
async def test_write_limit_is_for_each_part_of_the_request(generate: bool) -> None:
    async with scripted(unread) as server, face_of(server.url, max_in_flight=1) as face:
        for _ in range(2):
            content = endless() if generate else b"x" * (32 << 20)
            with pytest.raises(httpx.WriteTimeout) as caught:
                await face.http.post("/", content=content, timeout=httpx.Timeout(None, write=0.05))
            assert caught.value.request.method == "POST"
        assert server.connections == 2


async def unread(peer: Peer) -> None:
    """Read the head of a request, but no body."""
    await peer.reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


async def test_pool_limit_is_the_wait_for_a_slot() -> None:
    async with scripted(echo) as server, face_of(server.url, max_in_flight=1, max_queued=1) as face:
        async with face.http.stream("GET", "/"):
            with pytest.raises(httpx.PoolTimeout, match="in time") as caught:
                await face.http.get("/", timeout=httpx.Timeout(None, pool=0.02))
            assert caught.value.request.method == "GET"
            waiting = asyncio.ensure_future(face.http.get("/", timeout=None))
            await asyncio.sleep(0)
            with pytest.raises(httpx.PoolTimeout, match="full"):
                await face.http.get("/", timeout=None)
        assert (await waiting).status_code == 200
        assert len(server.requests) == 2


async def test_no_limit_is_no_limit() -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        assert (await face.http.post("/", content=b"body", timeout=None)).content == b"body"
        response = await face.http._transport.handle_async_request(httpx.Request("GET", server.url))
        assert response.status_code == 200
        await response.aclose()


# Closing


@pytest.mark.parametrize("adapter_first", [False, True])
async def test_client_and_adapter_may_be_closed_in_either_order_and_twice(adapter_first: bool) -> None:
    async with scripted(store_or_echo) as server:
        adapter = AllsourceAuthAdapter(server.url, api_key="ask_for_tests")
        http = adapter.http
        assert (await http.get("/")).status_code == 200
        closing = [adapter.aclose, http.aclose] if adapter_first else [http.aclose, adapter.aclose]
        for close in closing + closing:
            await close()
            with pytest.raises(RuntimeError, match="closed"):
                await http.get("/")
        assert http.is_closed


async def store_or_echo(peer: Peer) -> None:
    while True:
        await peer.request()
        await right(peer.writer)


async def test_store_continues_when_the_client_is_closed() -> None:
    async with scripted(store_or_echo) as server:
        adapter = AllsourceAuthAdapter(server.url, api_key="ask_for_tests")
        async with adapter.http as http:
            assert (await http.get("/")).status_code == 200
        assert await adapter.users.get("ada") is None
        assert adapter.http is http
        assert server.connections == 1
        await adapter.aclose()


@pytest.mark.parametrize("close", ["adapter", "http"])
async def test_closing_ends_a_response_that_is_never_closed(close: str) -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await peer.ended()
        ended.set()

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        response = await face.http.send(face.http.build_request("GET", "/"), stream=True)
        parts = response.aiter_raw()
        assert await anext(parts) == b"half"
        waiting = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)
        await (face.http.aclose() if close == "http" else face.client.close())
        await ended.wait()
        with pytest.raises(httpx.ReadError, match="closed") as caught:
            await waiting
        assert caught.value.request is response.request
        await response.aclose()
        assert close == "adapter" or face.leaves_nothing


async def test_response_that_has_arrived_cannot_be_read_after_closing() -> None:
    """A body of which a part is missing must not look complete."""
    async with scripted(echo) as server, face_of(server.url) as face:
        response = await face.http.send(face.http.build_request("GET", "/"), stream=True)
        await face.http.aclose()
        with pytest.raises(httpx.ReadError, match="closed"):
            await response.aread()
        assert face.leaves_nothing


@pytest.mark.parametrize("close", ["adapter", "http"])
async def test_closing_fails_requests_in_every_phase(close: str) -> None:
    async def script(peer: Peer) -> None:
        if await peer.reader.read(1) != b"\x16":  # the first byte of a TLS handshake
            await peer.reader.readuntil(b"\r\n\r\n")
        arrived.release()
        await asyncio.Event().wait()

    arrived = asyncio.Semaphore(0)
    async with scripted(script) as server, face_of(server.url, max_in_flight=2) as face:
        secure = f"https{server.url[4:]}"
        head = asyncio.ensure_future(face.http.get("/", timeout=None))
        upload = asyncio.ensure_future(face.http.post("/", content=endless(), timeout=None))
        connect = asyncio.ensure_future(face.http.get(secure, timeout=None))
        for _ in range(3):
            await arrived.acquire()
        slot = asyncio.ensure_future(face.http.get("/", timeout=None))
        await asyncio.sleep(0)
        await (face.http.aclose() if close == "http" else face.client.close())
        for sent in (head, upload):
            with pytest.raises(httpx.ReadError, match="closed"):
                await sent
        for unsent in (connect, slot):
            with pytest.raises(RuntimeError, match="closed"):
                await unsent
        assert close == "adapter" or face.leaves_nothing
        assert server.connections == 3


async def test_response_that_is_dropped_returns_its_slot() -> None:
    async with scripted(echo) as server, face_of(server.url, max_in_flight=1) as face:
        response = await face.http.send(face.http.build_request("GET", "/"), stream=True)
        assert face.used_slots == 1
        del response
        with pytest.warns(ResourceWarning, match="never closed"):
            gc.collect()
        assert (await face.http.get("/")).status_code == 200


async def test_response_of_another_thread_ends_with_the_adapter() -> None:
    ended = asyncio.Event()
    opened = threading.Event()
    failures: list[Exception] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await peer.ended()
        ended.set()

    async with scripted(script) as server, face_of(server.url) as face:

        async def read() -> None:
            try:
                async with face.http.stream("GET", "/", timeout=None) as response:
                    opened.set()
                    await response.aread()
            except httpx.ReadError as failure:
                failures.append(failure)

        thread = threading.Thread(target=asyncio.run, args=(read(),))
        thread.start()
        await asyncio.to_thread(opened.wait)
        await face.client.close()
        await ended.wait()
        await asyncio.to_thread(thread.join)
        assert [str(failure) for failure in failures] == ["the adapter or its HTTP client is closed"]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_response_of_an_event_loop_that_has_ended_can_be_closed() -> None:
    async def respond() -> tuple[httpx.Response, socket.socket]:
        request = adapter.http.build_request("GET", "/")
        pending = asyncio.ensure_future(adapter.http.send(request, stream=True))
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(listening)
        await loop.sock_sendall(peer, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        return await pending, peer

    async def close(response: httpx.Response) -> None:
        await response.aclose()
        await adapter.aclose()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        adapter = AllsourceAuthAdapter(f"http://127.0.0.1:{listening.getsockname()[1]}")
        response, peer = asyncio.run(respond())
        asyncio.run(close(response))
        with peer:
            peer.setblocking(True)
            while peer.recv(1000):
                pass
        del response
        gc.collect()  # the transport of asyncio, which was not closed in its event loop
