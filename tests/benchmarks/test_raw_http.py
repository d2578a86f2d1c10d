"""The raw protocol that clients are held against: it must take right answers only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from benchmarks.raw_http import RawHttp

PATIENCE = 10.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ndate: now\r\n\r\nhello"


class Scripted:
    """Answers each request with the next pieces, and notes which connection it came on. ``None``: the server hangs up."""

    def __init__(self, answers: Sequence[Sequence[bytes | None]]) -> None:
        self.answers = iter(answers)
        self.heads: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                for piece in next(self.answers):
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
async def against(*answers: Sequence[bytes | None]) -> AsyncIterator[tuple[Scripted, RawHttp]]:
    scripted = Scripted(answers)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    async with asyncio.timeout(PATIENCE), server:
        port = server.sockets[0].getsockname()[1]
        raw = RawHttp(f"http://127.0.0.1:{port}", {"x-api-key": "a key"})
        yield scripted, raw
        await raw.close()


async def test_request_has_target_host_and_headers() -> None:
    async with against([ANSWER]) as (scripted, raw):
        assert await raw.get("/events?a=b%3Ac") == b"hello"
    lines = scripted.heads[0].split(b"\r\n")
    assert lines[0] == b"GET /events?a=b%3Ac HTTP/1.1"
    assert b"x-api-key: a key" in lines
    assert any(line.startswith(b"host: 127.0.0.1:") for line in lines)


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
async def test_answer_in_two_pieces_is_whole_and_its_connection_is_used_again(cut: int) -> None:
    async with against([ANSWER[:cut], ANSWER[cut:]], [ANSWER]) as (scripted, raw):
        assert await raw.get("/") == b"hello"
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 1


async def test_requests_at_the_same_time_have_a_connection_each() -> None:
    async with against(*[[ANSWER]] * 6) as (scripted, raw):
        assert await asyncio.gather(*(raw.get("/") for _ in range(3))) == [b"hello"] * 3
        assert await asyncio.gather(*(raw.get("/") for _ in range(3))) == [b"hello"] * 3
        assert scripted.connections == 3


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([ANSWER.replace(b"200 OK", b"404 Not Found")], id="status"),
        pytest.param([ANSWER.replace(b"Content-Length: 5", b"transfer-encoding: chunked")], id="no length"),
        pytest.param([ANSWER + b"HTTP/1.1"], id="more"),
        pytest.param([ANSWER[:-1], None], id="cut off"),
        pytest.param([ANSWER[:20], None], id="cut off in the head"),
        pytest.param([None], id="nothing"),
    ],
)
async def test_anything_but_a_whole_answer_is_an_error_and_its_connection_is_left(pieces: list[bytes | None]) -> None:
    async with against(pieces, [ANSWER]) as (scripted, raw):
        with pytest.raises(ConnectionError):
            await raw.get("/")
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 2


async def test_connection_that_was_closed_while_idle_is_not_used() -> None:
    async with against([ANSWER, None], [ANSWER]) as (scripted, raw):
        assert await raw.get("/") == b"hello"
        while raw._idle[0].open:
            await asyncio.sleep(0.001)
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 2


async def test_connection_of_a_cancelled_request_is_not_used_again() -> None:
    async with against([ANSWER[:-1]], [ANSWER]) as (scripted, raw):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await raw.get("/")
        assert await raw.get("/") == b"hello"
        assert scripted.connections == 2
