"""``FaultProxy``: each fault as observed by a client on a plain socket and by the server."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import httpx
import pytest

from tests.support.proxy import FaultProxy

POST = b"POST /things?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /things HTTP/1.1\r\nHost: x\r\n\r\n"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4;name=value\r\nabcd\r\n6\r\nefghij\r\n0\r\nTrailer: 1\r\n\r\n"

PATIENCE = 20.0
"""Seconds after which a missing reply is a failure."""


class Server:
    """Answers every request with ``reply`` and keeps the connection open. ``seen``: the requests, byte for byte."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.reply = REPLY
        self.ends = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read = b""
        with suppress(ConnectionResetError):
            while part := await reader.read(65536):
                read += part
                if is_complete(read):
                    self.seen.append(read)
                    read = b""
                    writer.write(self.reply)
                    if self.ends:
                        break
        writer.close()


def is_complete(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    if b"chunked" in head:
        return body.endswith((b"0\r\n\r\n", b"Trailer: 1\r\n\r\n"))
    return bool(end) and len(body) == (int(head.split(b"Content-Length: ")[1].split()[0]) if b"Length" in head else 0)


class Client:
    """A connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes, reply: bytes = REPLY) -> bytes:
        """Send a request and read as many bytes as ``reply`` has, or fewer if the connection is closed before."""
        self.send(request)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._reader.readexactly(len(reply))
        except asyncio.IncompleteReadError as short:
            return short.partial

    def send(self, request: bytes) -> None:
        self._writer.write(request)

    async def read_to_end(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield served
    listening.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as opened:
        yield opened


Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def connecting(proxy: FaultProxy) -> AsyncIterator[Connect]:
    writers: list[asyncio.StreamWriter] = []

    async def connected() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(proxy.url).port)
        writers.append(writer)
        return Client(reader, writer)

    try:
        yield connected
    finally:
        for writer in writers:
            writer.transport.abort()


@pytest.fixture
async def connect(proxy: FaultProxy) -> AsyncIterator[Connect]:
    async with connecting(proxy) as connected:
        yield connected


async def test_requests_and_replies_are_forwarded_byte_for_byte(
    server: Server, proxy: FaultProxy, connect: Connect
) -> None:
    client = await connect()
    for request in (POST, GET, POST):
        assert await client.ask(request) == REPLY
    assert server.seen == [POST, GET, POST]
    assert proxy.requests == [("POST", "/things?n=1"), ("GET", "/things"), ("POST", "/things?n=1")]
    assert (proxy.connections, proxy.in_flight, proxy.most_in_flight) == (1, 0, 1)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (b"PUT / HTTP/1.1\r\n" + CHUNKED, b"HTTP/1.1 200 OK\r\n" + CHUNKED),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)),
    ],
    ids=["chunked", "HEAD", "304", "204", "empty", "large"],
)
async def test_every_kind_of_message_is_forwarded(
    server: Server, connect: Connect, request_: bytes, reply: bytes
) -> None:
    server.reply = reply
    client = await connect()
    assert await client.ask(request_, reply) == reply
    assert await client.ask(request_, reply) == reply
    assert server.seen == [request_, request_]


async def test_reply_without_length_ends_with_the_connection(server: Server, connect: Connect) -> None:
    server.reply, server.ends = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nas much as there is", True
    client = await connect()
    client.send(GET)
    assert await client.read_to_end() == server.reply


async def test_connection_close_in_a_request_is_followed(connect: Connect) -> None:
    client = await connect()
    client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert await client.read_to_end() == REPLY


async def test_request_with_a_lost_reply_is_forwarded(server: Server, proxy: FaultProxy, connect: Connect) -> None:
    proxy.lose_reply(2)
    assert await (await connect()).ask(GET) == REPLY
    for _ in range(2):
        client = await connect()
        client.send(POST)
        assert await client.read_to_end() == b""
    assert await (await connect()).ask(POST) == REPLY
    assert server.seen == [GET, POST, POST, POST]
    proxy.lose_reply(1, method=None)
    assert await (await connect()).ask(GET) == b""


async def test_reset_request_is_not_forwarded(server: Server, proxy: FaultProxy, connect: Connect) -> None:
    proxy.reset_before(1)
    client = await connect()
    client.send(POST)
    with pytest.raises(ConnectionResetError):
        await client.read_to_end()
    assert server.seen == []
    assert proxy.requests == [("POST", "/things?n=1")]
    assert await (await connect()).ask(POST) == REPLY


async def test_truncated_reply_has_its_first_half(server: Server, proxy: FaultProxy, connect: Connect) -> None:
    proxy.truncate(1)
    client = await connect()
    client.send(GET)
    assert await client.read_to_end() == REPLY[: len(REPLY) // 2]
    assert server.seen == [GET]
    assert await (await connect()).ask(GET) == REPLY


async def test_delayed_replies_are_held_until_the_gate_is_set(
    server: Server, proxy: FaultProxy, connect: Connect
) -> None:
    gate = asyncio.Event()
    proxy.delay(gate)
    asked = [asyncio.create_task((await connect()).ask(POST)) for _ in range(3)]
    await proxy.held(3)
    assert len(server.seen) == 3
    assert (proxy.in_flight, proxy.most_in_flight) == (3, 3)
    assert not any(task.done() for task in asked)
    proxy.delay(None)
    assert await (await connect()).ask(GET) == REPLY
    assert not any(task.done() for task in asked)
    gate.set()
    assert await asyncio.gather(*asked) == [REPLY] * 3
    assert (proxy.in_flight, proxy.most_in_flight, proxy.connections) == (0, 4, 4)


async def test_connection_is_closed_after_a_reply_without_notice(proxy: FaultProxy, connect: Connect) -> None:
    proxy.close_after_reply()
    client = await connect()
    client.send(GET)
    assert await client.read_to_end() == REPLY
    proxy.close_after_reply(False)
    client = await connect()
    assert [await client.ask(GET), await client.ask(GET)] == [REPLY, REPLY]


async def test_close_idle_keeps_connections_with_a_request(proxy: FaultProxy, connect: Connect) -> None:
    fresh, used, busy = await connect(), await connect(), await connect()
    assert await used.ask(GET) == REPLY
    gate = asyncio.Event()
    proxy.delay(gate)
    asked = asyncio.create_task(busy.ask(GET))
    await proxy.held(1)
    assert proxy.close_idle() == 2
    assert proxy.close_idle() == 0
    assert [await fresh.read_to_end(), await used.read_to_end()] == [b"", b""]
    gate.set()
    assert await asked == REPLY
    assert await busy.ask(GET) == REPLY


@pytest.mark.parametrize("moment", range(8))
async def test_request_during_close_idle_is_answered_or_not_forwarded(
    server: Server, proxy: FaultProxy, connect: Connect, moment: int
) -> None:
    client = await connect()
    assert await client.ask(GET) == REPLY
    asked = asyncio.create_task(client.ask(POST))
    for _ in range(moment):
        await asyncio.sleep(0)
    closed = proxy.close_idle()
    try:
        reply = await asked
    except ConnectionResetError:
        reply = b""
    assert reply == (b"" if closed else REPLY)
    assert [method for method, _ in proxy.requests] == (["GET"] if closed else ["GET", "POST"])
    assert server.seen == ([GET] if closed else [GET, POST])


async def test_used_connection_is_closed_when_the_next_request_arrives(
    server: Server, proxy: FaultProxy, connect: Connect
) -> None:
    proxy.close_idle_on_next_request(1)
    first, second = await connect(), await connect()
    assert [await first.ask(GET), await second.ask(GET)] == [REPLY, REPLY]
    assert await first.ask(POST) == b""
    assert await second.ask(POST) == REPLY
    assert server.seen == [GET, GET, POST]
    assert len(proxy.requests) == 3


async def test_proxy_answers_instead_of_the_server(server: Server, proxy: FaultProxy, connect: Connect) -> None:
    proxy.answer(429, {"Retry-After": "1"}, b"", count=1)
    proxy.answer(503, {}, b"stored", count=1, forward=True)
    proxy.answer(304, {"ETag": "1"}, b"", count=1)
    client = await connect()
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    assert await client.ask(POST, busy) == busy
    assert server.seen == []
    failed = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\nstored"
    assert await client.ask(POST, failed) == failed
    assert server.seen == [POST]
    same = b"HTTP/1.1 304 Not Modified\r\nETag: 1\r\n\r\n"
    assert await client.ask(GET, same) == same
    assert await client.ask(GET) == REPLY


async def test_proxy_answers_each_third_request(server: Server, proxy: FaultProxy) -> None:
    proxy.answer(503, {}, b"", count=2, every=3)
    async with httpx.AsyncClient(base_url=proxy.url) as client:
        statuses = [(await client.get("/")).status_code for _ in range(10)]
    assert statuses == [200, 200, 503, 200, 200, 503, 200, 200, 200, 200]
    assert len(server.seen) == 8


async def test_faults_act_in_the_order_of_arming(server: Server, proxy: FaultProxy) -> None:
    proxy.answer(503, {}, b"", count=1)
    proxy.lose_reply(1)
    proxy.reset_before(1)
    ends: list[object] = []
    async with httpx.AsyncClient(base_url=proxy.url) as client:
        for _ in range(4):
            try:
                ends.append((await client.post("/", content=b"hello")).status_code)
            except httpx.TransportError as error:
                ends.append(type(error))
    assert ends == [503, httpx.RemoteProtocolError, httpx.ReadError, 200]
    assert len(server.seen) == 2


async def test_incomplete_reply_of_the_server_is_not_delivered(connect: Connect, server: Server) -> None:
    server.ends, server.reply = True, REPLY[:30]
    assert await (await connect()).ask(GET) == b""


async def test_connection_is_closed_if_the_server_is_down() -> None:
    async with FaultProxy("http://127.0.0.1:1") as proxy, connecting(proxy) as connect:
        assert await (await connect()).ask(GET) == b""
        assert proxy.requests == [("GET", "/things")]


async def test_request_of_a_disconnected_client_is_forwarded(server: Server, proxy: FaultProxy) -> None:
    gate = asyncio.Event()
    proxy.delay(gate)
    async with connecting(proxy) as connect:
        (await connect()).send(POST)
        await proxy.held(1)
    gate.set()
    async with connecting(proxy) as connect:
        assert await (await connect()).ask(GET) == REPLY
    assert server.seen == [POST, GET]
    assert proxy.in_flight == 0


async def test_exit_closes_every_connection_and_ends_every_task(server: Server) -> None:
    before = asyncio.all_tasks()
    server.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000)
    proxy = FaultProxy(server.url)
    async with connecting(proxy) as connect:
        async with asyncio.timeout(PATIENCE), proxy:
            idle, unread, held, half = [await connect() for _ in range(4)]
            half.send(POST[:20])
            assert await unread.ask(GET, b"H") == b"H"
            proxy.delay(asyncio.Event())
            held.send(GET)
            await proxy.held(1)
            assert proxy.in_flight == 3
        assert await idle.read_to_end() == b""
        with pytest.raises(ConnectionRefusedError):
            await connect()
    left = [task for task in asyncio.all_tasks() - before if "Server.serve" not in repr(task)]
    assert left == []
    # A socket that is still open causes a ResourceWarning when it is collected.
    gc.collect()


async def test_exit_does_not_wait_for_a_server_that_does_not_read() -> None:
    large = b"POST / HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as deaf, ExitStack() as accepted:
        deaf.setblocking(False)
        proxy = FaultProxy("http://{}:{}".format(*deaf.getsockname()))
        async with connecting(proxy) as connect, asyncio.timeout(PATIENCE), proxy:
            (await connect()).send(large)
            upstream, _ = await loop.sock_accept(deaf)
            accepted.enter_context(upstream)
            assert await loop.sock_recv(upstream, 1) == b"P"


async def test_invalid_http_is_raised_on_exit(server: Server) -> None:
    async def send_nonsense() -> None:
        async with FaultProxy(server.url) as proxy, connecting(proxy) as connect:
            client = await connect()
            client.send(b"nonsense\r\n\r\n")
            assert await client.read_to_end() == b""

    with pytest.raises(ValueError, match="not enough values"):
        await send_nonsense()
