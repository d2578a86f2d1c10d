"""The raw HTTP protocol accepts only complete, correct replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from benchmarks.raw_http import RawHttp

TIMEOUT = 10.0
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ndate: now\r\n\r\nhello"


class Scripted:
    """Sends the next pieces as the reply to each request, and counts connections. ``None`` closes the connection."""

    def __init__(self, replies: Sequence[Sequence[bytes | None]]) -> None:
        self.replies = iter(replies)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if head.startswith(b"POST"):
                    length = int(head.partition(b"content-length: ")[2].split()[0])
                    self.bodies.append(await reader.readexactly(length))
                for piece in next(self.replies):
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def connected(*replies: Sequence[bytes | None]) -> AsyncIterator[tuple[Scripted, RawHttp]]:
    scripted = Scripted(replies)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    async with asyncio.timeout(TIMEOUT), server:
        port = server.sockets[0].getsockname()[1]
        raw = RawHttp(f"http://127.0.0.1:{port}", {"x-api-key": "a key"})
        yield scripted, raw
        await raw.close()


async def test_request_has_target_host_and_headers() -> None:
    async with connected([REPLY]) as (scripted, raw):
        assert await raw.get("/events?a=b%3Ac") == b"hello"
    lines = scripted.heads[0].split(b"\r\n")
    assert lines[0] == b"GET /events?a=b%3Ac HTTP/1.1"
    assert b"x-api-key: a key" in lines
    assert any(line.startswith(b"host: 127.0.0.1:") for line in lines)


async def test_post_sends_its_body_as_json_and_accepts_201() -> None:
    async with connected([REPLY.replace(b"200 OK", b"201 Created")], [REPLY]) as (scripted, raw):
        assert await raw.post("/events", b'{"a": 1}') == b"hello"
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 1
    lines = scripted.heads[0].split(b"\r\n")
    assert lines[0] == b"POST /events HTTP/1.1"
    assert {b"x-api-key: a key", b"content-type: application/json"} <= set(lines)
    assert scripted.bodies == [b'{"a": 1}']


@pytest.mark.parametrize("cut", range(1, len(REPLY)))
async def test_reply_in_two_pieces_is_complete_and_its_connection_is_reused(cut: int) -> None:
    async with connected([REPLY[:cut], REPLY[cut:]], [REPLY]) as (scripted, raw):
        assert await raw.get("/") == b"hello"
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 1


async def test_concurrent_requests_use_different_connections() -> None:
    async with connected(*[[REPLY]] * 6) as (scripted, raw):
        assert await asyncio.gather(*(raw.get("/") for _ in range(3))) == [b"hello"] * 3
        assert await asyncio.gather(*(raw.get("/") for _ in range(3))) == [b"hello"] * 3
        assert scripted.connections == 3


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([REPLY.replace(b"200 OK", b"404 Not Found")], id="status"),
        pytest.param([REPLY.replace(b"Content-Length: 5", b"transfer-encoding: chunked")], id="no length"),
        pytest.param([REPLY + b"HTTP/1.1"], id="more"),
        pytest.param([REPLY[:-1], None], id="cut off"),
        pytest.param([REPLY[:20], None], id="cut off in the head"),
        pytest.param([None], id="nothing"),
    ],
)
async def test_incomplete_or_wrong_reply_is_an_error_and_closes_its_connection(pieces: list[bytes | None]) -> None:
    async with connected(pieces, [REPLY]) as (scripted, raw):
        with pytest.raises(ConnectionError):
            await raw.get("/")
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 2


async def test_connection_closed_while_idle_is_not_reused() -> None:
    async with connected([REPLY, None], [REPLY]) as (scripted, raw):
        assert await raw.get("/") == b"hello"
        while raw._idle[0].open:
            await asyncio.sleep(0.001)
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 2


async def test_connection_of_a_cancelled_request_is_not_reused() -> None:
    async with connected([REPLY[:-1]], [REPLY]) as (scripted, raw):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await raw.get("/")
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 2
