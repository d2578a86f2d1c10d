"""Limits on the size of a reply and on the time until it is complete."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from allsource_auth import Http, Timeouts
from allsource_auth.store.allsource.http import connection
from tests.store.allsource.http.clients import client_of, get, pool_of, post, reply
from tests.store.allsource.raw_server import Peer, answering, ending, scripted, silent

pytestmark = pytest.mark.usefixtures("parser")

MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"

MAX_BUFFERED = 16 * MIB
"""What the sockets of both sides, the event loop and the server's writer may hold beyond what the client accepts."""


# Size

TOO_LONG_HEAD = f"its head has more than {connection.MAX_HEAD} bytes"


async def failure_of_endless(start: bytes, part: bytes) -> tuple[str, int]:
    """The reason why a reply without end fails, and how many bytes were sent until then."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(start)
        while True:
            await peer.send(part)
            sent += len(part)

    async with scripted(script) as server, client_of(server.url, timeout=Timeouts(read=60, total=60)) as client:
        with pytest.raises(Http) as caught:
            await get(client)
        assert caught.value.ambiguous
        assert pool_of(client).idle == 0
        return str(caught.value).removeprefix(f"the answer of {server.url} cannot be used: "), sent


ENDLESS_HEADS: dict[str, tuple[bytes, bytes]] = {
    "status-line": (b"HTTP/1.1 200 ", b"O" * 8000),
    "header": (HEAD + b"x-name: ", b"x" * 8000),
    "header-name": (HEAD, b"x" * 8000),
    "headers": (HEAD, b"x-name: value\r\n" * 500),
    "interim-replies": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 300),
    "interim-headers": (b"HTTP/1.1 103 Early Hints\r\n", b"link: <x>\r\n" * 500),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-name: value\r\n" * 500),
    "chunk-extension": (CHUNKED + b"2;", b"x" * 8000),
}


@pytest.mark.parametrize("case", ENDLESS_HEADS)
async def test_endless_head_is_an_error(case: str) -> None:
    reason, sent = await failure_of_endless(*ENDLESS_HEADS[case])
    # The parser itself may have a limit for a part of the head.
    assert reason in (TOO_LONG_HEAD, "it is not valid HTTP/1.1")
    assert sent < MAX_BUFFERED


ENDLESS_BODIES: dict[str, tuple[bytes, bytes]] = {
    "length": (HEAD + b"content-length: 999999999999\r\n\r\n", b"x" * 250_000),
    "chunks": (CHUNKED, b"3d090\r\n%b\r\n" % (b"x" * 250_000)),
    "until-the-end-of-the-connection": (HEAD + b"\r\n", b"x" * 250_000),
}


@pytest.mark.parametrize("case", ENDLESS_BODIES)
async def test_endless_body_is_an_error(case: str) -> None:
    reason, sent = await failure_of_endless(*ENDLESS_BODIES[case])
    assert reason == f"its body has more than {connection.MAX_BODY} bytes"
    assert sent < connection.MAX_BODY + MAX_BUFFERED


async def test_core_may_send_as_much_as_it_is_able_to() -> None:
    """Core limits its replies to 16 MiB."""
    body = b"x" * (16 * MIB)
    async with answering(ending(reply(body))) as server, client_of(server.url) as client:
        assert len((await get(client)).body) == len(body)


@pytest.mark.parametrize("excess", [0, 1])
async def test_limit_of_the_body_is_exact(monkeypatch: pytest.MonkeyPatch, excess: int) -> None:
    monkeypatch.setattr(connection, "MAX_BODY", 1000)
    body = b"x" * (1000 + excess)
    async with answering(ending(reply(body))) as server, client_of(server.url) as client:
        if not excess:
            assert (await get(client)).body == body
            return
        with pytest.raises(Http) as caught:
            await get(client)
        assert str(caught.value) == f"the answer of {server.url} cannot be used: its body has more than 1000 bytes"


@pytest.mark.parametrize("excess", [0, 1])
async def test_limit_of_the_head_is_exact(excess: int) -> None:
    """Also for a reply that arrives at once."""
    padding = connection.MAX_HEAD - len(reply(b"", b"x-padding: ")) + excess
    raw = reply(b"", b"x-padding: " + b"x" * padding)
    async with answering(ending(raw)) as server, client_of(server.url) as client:
        if not excess:
            assert (await get(client)).status == 200
            return
        with pytest.raises(Http) as caught:
            await get(client)
        assert str(caught.value) == f"the answer of {server.url} cannot be used: {TOO_LONG_HEAD}"


async def test_body_of_an_application_request_may_be_of_any_size() -> None:
    """The limit is that of replies which the store holds in memory."""
    size, part = connection.MAX_BODY + MIB, b"x" * MIB

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // len(part)):
            await peer.send(part)

    async with (
        scripted(script) as server,
        client_of(server.url) as client,
        client.engine.http.stream("GET", "/path") as response,
    ):
        assert sum([len(part) async for part in response.aiter_bytes()]) == size


# Time


def pieces(case: str) -> Iterator[bytes]:
    start, part = {
        "head": (HEAD + b"x-name: ", b"x"),
        "headers": (HEAD, b"a: b\r\n"),
        "interim-replies": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "body": (HEAD + b"content-length: 999999\r\n\r\n", b"x"),
        "chunks": (CHUNKED, b"1\r\nx\r\n"),
        "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    }[case]
    return itertools.chain([start], itertools.repeat(part))


@pytest.mark.parametrize("case", ["head", "headers", "interim-replies", "body", "chunks", "trailers"])
async def test_endless_trickle_fails_at_the_total_limit(case: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in pieces(case):
            await peer.send(piece)
            await asyncio.sleep(0.002)

    limits = Timeouts(connect=30, read=30, total=0.1)
    async with scripted(script) as server, client_of(server.url, timeout=limits) as client:
        with pytest.raises(Http) as caught:
            await get(client)
        assert str(caught.value) == f"no complete answer from {server.url} within 0.1 s (total timeout)"
        assert (caught.value.timeout, caught.value.ambiguous) == ("total", True)


@pytest.mark.parametrize(
    ("limits", "name"),
    [(Timeouts(connect=30, read=0.05, total=30), "read"), (Timeouts(connect=30, read=30, total=0.05), "total")],
    ids=["read", "total"],
)
async def test_server_that_never_answers_has_a_limit(limits: Timeouts, name: str) -> None:
    async with answering(silent) as server, client_of(server.url, timeout=limits) as client:
        for call in (get, post):
            with pytest.raises(Http) as caught:
                await call(client)
            assert caught.value.timeout == name
            assert caught.value.ambiguous
        assert pool_of(client).idle == 0


@pytest.mark.parametrize(
    ("limits", "name"),
    [(Timeouts(connect=30, read=0.1, total=30), "read"), (Timeouts(connect=30, read=30, total=0.1), "total")],
    ids=["read", "total"],
)
async def test_server_that_never_reads_has_a_limit(limits: Timeouts, name: str) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with scripted(script) as server, client_of(server.url, timeout=limits) as client:
        with pytest.raises(Http) as caught:
            await post(client, b"x" * (20 * MIB))
        assert (caught.value.timeout, caught.value.ambiguous) == (name, True)


async def test_read_limit_is_one_of_silence() -> None:
    """A reply may take longer than the limit as long as its bytes arrive."""
    raw = reply(b"x" * 40)

    async def script(peer: Peer) -> None:
        await peer.request()
        for position in range(len(raw)):
            await peer.send(raw[position : position + 1])
            await asyncio.sleep(0.01)

    limits = Timeouts(connect=30, read=0.5, total=30)
    assert len(raw) * 0.01 > 0.5
    async with scripted(script) as server, client_of(server.url, timeout=limits) as client:
        assert (await get(client)).body == b"x" * 40


@contextmanager
def unresponsive() -> Iterator[str]:
    """The URL of a server whose queue of connections is full."""
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("limits", "name", "message"),
    [
        (Timeouts(connect=0.05, read=30, total=30), "connect", "no connection to {} within 0.05 s (connect timeout)"),
        (
            Timeouts(connect=30, read=30, total=0.05),
            "total",
            "no complete answer from {} within 0.05 s (total timeout)",
        ),
    ],
    ids=["connect", "total"],
)
async def test_connection_that_is_not_accepted_has_a_limit(limits: Timeouts, name: str, message: str) -> None:
    """Nothing was sent, so that a failed append is not ambiguous."""
    with unresponsive() as url:
        async with client_of(url, timeout=limits) as client:
            for call in (get, post):
                with pytest.raises(Http) as caught:
                    await call(client)
                assert str(caught.value) == message.format(url)
                assert (caught.value.timeout, caught.value.ambiguous) == (name, False)
            assert pool_of(client).open == 0


# Timers


async def test_no_timer_is_left_after_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of requests nor of idle connections, after successes, failures and cancellations."""
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def recorded(name: str) -> Callable[..., asyncio.TimerHandle]:
        original = getattr(loop, name)

        def call(*args: Any, **named: Any) -> asyncio.TimerHandle:
            timer: asyncio.TimerHandle = original(*args, **named)
            timers.append(timer)
            return timer

        return call

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(reply())
        await peer.request()
        await peer.send(b"malformed\r\n\r\n")
        await peer.ended()

    async with scripted(script) as server:
        # `call_later` of asyncio calls `call_at`.
        monkeypatch.setattr(loop, "call_at", recorded("call_at"))
        async with client_of(server.url) as client:
            for _ in range(2):
                await get(client)
                await post(client)
                with pytest.raises(Http):
                    await get(client)
                cancelled = asyncio.ensure_future(get(client))
                await asyncio.sleep(0)
                cancelled.cancel()
                await asyncio.wait([cancelled])
            with pytest.raises(httpx.ConnectError):
                await client.engine.http.get("http://127.0.0.1:1/")
            await get(client)
            assert any(timer.when() > loop.time() + 25 and not timer.cancelled() for timer in timers)
        monkeypatch.undo()
        now = loop.time()
        assert [timer for timer in timers if timer.when() > now and not timer.cancelled()] == []


async def test_requests_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request in time neither sets nor cancels a timer."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(reply())

    async with scripted(script) as server, client_of(server.url) as client:
        await get(client)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_at", None)
        for _ in range(20):
            await get(client)
        monkeypatch.undo()
