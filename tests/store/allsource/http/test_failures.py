"""Failures of connections, on every engine: error messages, and whether a write is ambiguous."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from allsource_auth import AllsourceStore, Http, Timeouts
from tests.store.allsource.local import KEY, Local
from tests.store.allsource.raw_server import PAGE, RIGHT, Answer, answering, ending, reset, right, silent
from tests.support.canaries import CANARY, token
from tests.support.clocks import START
from tests.support.events import new_event

pytestmark = pytest.mark.usefixtures("watch", "pauses")

STREAM = f"auth-session:{token('a')}"


# Broken connections

CLOSED: dict[str, Answer] = {
    "closed": ending(),
    "reset": reset,
    "half-of-the-head": ending(RIGHT[:30]),
    "half-of-the-body": ending(RIGHT[:-20]),
    "half-of-a-chunk": ending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n31\r\n", PAGE[:20]),
}
MALFORMED: dict[str, Answer] = {
    "not-http": ending(f"{CANARY} {KEY}\r\n\r\n".encode()),
    "bad-chunk": ending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", PAGE),
}
BROKEN = CLOSED | MALFORMED


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_append_on_a_breaking_connection_is_ambiguous_and_sent_once(
    options: dict[str, Any], answer: Answer
) -> None:
    async with answering(answer) as server:
        store = AllsourceStore(server.url, api_key=KEY, **options)
        with pytest.raises(Http) as caught:
            await store.append([new_event(STREAM)])
        assert server.methods == ["POST"]
        message = f"the connection to {server.url} broke before the answer was complete"
        if answer in MALFORMED.values() and "http_client" not in options:
            message = f"the answer of {server.url} cannot be used: it is not valid HTTP/1.1"
        assert str(caught.value) == message
        assert (caught.value.ambiguous, caught.value.timeout) == (True, None)
        assert caught.value.__cause__ is None
        await store.close()


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_read_survives_a_broken_connection(options: dict[str, Any], answer: Answer) -> None:
    turns = iter([answer, answer, answer])

    async def at_first(writer: asyncio.StreamWriter) -> None:
        await next(turns, right)(writer)

    async with answering(at_first) as server:
        store = AllsourceStore(server.url, **options)
        assert (await store.latest(STREAM)).event is None
        assert next(turns, None) is None
        await store.close()


async def test_read_on_breaking_connections_fails_unambiguously(options: dict[str, Any]) -> None:
    async with answering(ending()) as server:
        store = AllsourceStore(server.url, api_key=KEY, **options)
        with pytest.raises(Http) as caught:
            await store.latest(STREAM)
        assert not caught.value.ambiguous
        assert 5 <= len(server.requests) <= 10
        await store.close()


async def test_error_says_that_the_host_does_not_resolve(options: dict[str, Any]) -> None:
    # The resolver of the system may be slow.
    store = AllsourceStore("http://no-such-host.invalid:3900/base", timeout=Timeouts(connect=60), **options)
    for call in (store.latest(STREAM), store.append([new_event(STREAM)])):
        with pytest.raises(Http) as caught:
            await call
        reason = "the host name does not resolve"
        assert str(caught.value) == f"cannot connect to http://no-such-host.invalid:3900: {reason}"
        assert (caught.value.ambiguous, caught.value.timeout) == (False, None)
    await store.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_error_says_that_the_connection_was_refused(options: dict[str, Any], host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://{host}:{taken.getsockname()[1]}"
        store = AllsourceStore(url, api_key=KEY, **options)
        for call in (store.latest(STREAM), store.append([new_event(STREAM)])):
            with pytest.raises(Http) as caught:
                await call
            reason = "the connection was refused; is the server running there?"
            assert str(caught.value) == f"cannot connect to {url}: {reason}"
            assert (caught.value.ambiguous, caught.value.timeout) == (False, None)
        await store.close()


async def test_proxy_of_the_environment_is_not_used(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(right) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        adapter = newer.adapter()
        assert await adapter.users.get("ada") is None
        assert newer.arrived
        assert proxy.requests == []


# Timeouts


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send bytes without end, fast enough for the read timeout."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


LIMITS = [
    pytest.param(silent, Timeouts(connect=30, read=0.2, total=30), "read", "0.2", id="read"),
    pytest.param(silent, Timeouts(connect=30, read=30, total=0.25), "total", "0.25", id="total"),
    pytest.param(drip, Timeouts(connect=30, read=30, total=0.3), "total", "0.3", id="total-of-a-drip"),
    pytest.param(silent, 0.2, "total", "0.2", id="one-number"),
]


@pytest.mark.parametrize(("answer", "timeout", "name", "seconds"), LIMITS)
async def test_error_names_the_timeout_of_a_missing_reply(
    options: dict[str, Any], answer: Answer, timeout: object, name: str, seconds: str
) -> None:
    async with answering(answer) as server:
        store = AllsourceStore(server.url, api_key=KEY, timeout=timeout, **options)  # type: ignore[arg-type]
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "GET": lambda: store.latest(STREAM),
            "POST": lambda: store.append([new_event(STREAM)]),
        }
        for method, call in calls.items():
            server.requests.clear()
            with pytest.raises(Http) as caught:
                await call()
            # On a slow machine the timeout may expire before the request has arrived.
            assert server.methods in ([], [method]), "a retry would take as long"
            named = {caught.value.timeout, str(caught.value).rpartition(" (")[2].removesuffix(" timeout)")}
            if isinstance(timeout, float):
                # All timeouts expire at once; any of them may be reported.
                assert named <= {"read", "total"}
            else:
                assert named == {name}
            assert f"no complete answer from {server.url} within {seconds} s" in str(caught.value)
            assert caught.value.ambiguous == (method == "POST")
        await store.close()


async def test_error_names_the_connect_timeout(options: dict[str, Any]) -> None:
    """A server that accepts the connection but never answers the TLS handshake."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: taken.append(writer), "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = AllsourceStore(url, api_key=KEY, timeout=Timeouts(connect=0.2, read=30, total=30), **options)
    for call in (store.latest(STREAM), store.append([new_event(STREAM)])):
        with pytest.raises(Http) as caught:
            await call
        assert str(caught.value) == f"no connection to {url} within 0.2 s (connect timeout)"
        assert (caught.value.ambiguous, caught.value.timeout) == (False, "connect")
    await store.close()
    server.close()
    for writer in taken:
        writer.close()
    await server.wait_closed()


async def test_timeouts_of_the_callers_client_apply_by_default() -> None:
    limits = httpx.Timeout(30, read=0.2)  # so that a slow machine connects in time
    async with answering(silent) as server, httpx.AsyncClient(timeout=limits) as client:
        store = AllsourceStore(server.url, http_client=client)
        with pytest.raises(Http) as caught:
            await store.latest(STREAM)
        assert caught.value.timeout == "read"
        assert str(caught.value) == f"no complete answer from {server.url} (read timeout)"


async def test_read_timeout_restarts_with_each_received_byte(options: dict[str, Any]) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        for part in (RIGHT[:40], RIGHT[40:80], RIGHT[80:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)

    async with answering(slowly) as server:
        store = AllsourceStore(server.url, timeout=Timeouts(connect=30, read=20, total=30), **options)
        assert (await store.latest(STREAM)).event is None
        await store.close()


# Logging of the HTTP libraries


async def test_http_libraries_log_no_token_and_no_key(newer: Local, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("httpx", "httpcore", "asyncio"):
        caplog.set_level("DEBUG", logger=name)
    adapter = newer.adapter()
    user = await adapter.users.create(email=f"{CANARY}@example.org")
    session = await adapter.sessions.create(user_id=user.id, expires_at=START, token=token("a"))
    assert await adapter.sessions.get(session.token) == session
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("http")]
    assert not any(CANARY in line or "auth-session" in line for line in messages)
