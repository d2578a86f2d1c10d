"""The WebSocket of live events, over sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, serving
from allsource_auth.server.live_events import BUFFER, LiveEvents
from tests.support import cores
from tests.support.api_client import ApiClient
from tests.support.faults import Faults

LAST = "the.last"
"""The type of the last event of a test. Its arrival shows that no other event will come, without a timeout."""


class Streaming:
    """A WebSocket and an `ApiClient` on one server."""

    def __init__(self, api: ApiClient, socket: ClientConnection) -> None:
        self.api = api
        self._socket = socket

    async def send(self, message: str | bytes) -> None:
        """Send a message and wait until the server has read it: a message has no reply, but a ping after it has."""
        await self._socket.send(message)
        await (await self._socket.ping())

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            frame: dict[str, Any] = json.loads(await self._socket.recv())
        return frame

    async def delivered(self, *kinds: str) -> list[str]:
        """Append an event of each type and return the types that are delivered. The last one must be."""
        for kind in kinds:
            await self.api.appended(kind=kind)
        types = [(await self.receive())["event_type"]]
        while types[-1] != kinds[-1]:
            types.append((await self.receive())["event_type"])
        return types


@asynccontextmanager
async def local_core(log: SqliteLog, faults: Faults) -> AsyncIterator[tuple[str, bool]]:
    async with serving(LocalAllsource(log, middleware=faults)) as running:
        yield running.core_url, True


@asynccontextmanager
async def real_core(version: str) -> AsyncIterator[tuple[str, bool]]:
    async with cores.running(version) as core:
        yield core.url, version == cores.NEWEST


@pytest.fixture(
    params=["local", *(pytest.param(each, marks=pytest.mark.core) for each in (cores.OLDEST, cores.NEWEST))]
)
async def streaming(request: pytest.FixtureRequest, log: SqliteLog, faults: Faults) -> AsyncIterator[Streaming]:
    started = local_core(log, faults) if request.param == "local" else real_core(request.param)
    async with started as (url, newer), httpx.AsyncClient(base_url=url) as client:
        address = f"{url.replace('http', 'ws')}/api/v1/events/stream"
        async with connect(address, close_timeout=0.2) as socket:
            await (await socket.ping())
            yield Streaming(ApiClient(client, newer=newer), socket)


async def test_events_of_all_tenants_are_delivered_as_in_a_query(streaming: Streaming) -> None:
    await streaming.api.appended(metadata={"op": "x"})
    await streaming.api.appended(tenant_id="other")
    first, second = await streaming.receive(), await streaming.receive()
    assert first == (await streaming.api.page())["events"][0]
    assert (second["tenant_id"], second["version"]) == ("other", 2 if streaming.api.newer else 1)


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        ({"type": "subscribe", "filters": ["auth.*", LAST]}, ["auth.x", LAST]),
        ({"type": "subscribe", "filters": ["auth", LAST]}, ["auth", LAST]),
        ({"type": "subscribe", "filters": []}, ["auth", "auth.x", "authx", LAST]),
        ({"type": "subscribe"}, ["auth", "auth.x", "authx", LAST]),
        ({"type": "other"}, ["auth", "auth.x", "authx", LAST]),
        ({}, ["auth", "auth.x", "authx", LAST]),
        ({"event_type": LAST}, [LAST]),
        ({"event_type_prefixes": ["auth", LAST]}, ["auth", LAST]),
        ({"event_type_prefixes": ["auth.*", "the.*"]}, ["auth.x", LAST]),
        ({"entity_id": "user:1"}, ["auth", "auth.x", "authx", LAST]),
        ({"entity_id": "user:1", "event_type": LAST}, [LAST]),
    ],
)
async def test_subscription_selects_events(streaming: Streaming, message: dict[str, Any], kinds: list[str]) -> None:
    await streaming.send(json.dumps(message))
    if "entity_id" in message:
        await streaming.api.appended("user:2", kind=LAST)
    assert await streaming.delivered("auth", "auth.x", "authx", LAST) == kinds


async def test_subscription_replaces_the_previous_and_other_messages_do_not(streaming: Streaming) -> None:
    await streaming.send('{"type":"subscribe","filters":["auth.*"]}')
    await streaming.send(f'{{"type":"subscribe","filters":["{LAST}"]}}')
    for message in ("nonsense", "[]", b'{"type":"subscribe","filters":["auth.x"]}'):
        await streaming.send(message)
    assert await streaming.delivered("auth.x", LAST) == [LAST]


async def test_older_versions_deliver_version_one(log: SqliteLog) -> None:
    async with serving(LocalAllsource(log, generation="0.23")) as running:
        address = f"{running.core_url.replace('http', 'ws')}/api/v1/events/stream"
        async with (
            httpx.AsyncClient(base_url=running.core_url) as client,
            connect(address, close_timeout=0.2) as socket,
        ):
            await (await socket.ping())
            streaming = Streaming(ApiClient(client, newer=False), socket)
            assert [(await streaming.api.appended())["version"] for _ in range(2)] == [1, 2]
            assert [(await streaming.receive())["version"] for _ in range(2)] == [1, 1]


async def test_restart_and_stop_close_the_websockets(log: SqliteLog, faults: Faults) -> None:
    async with serving(LocalAllsource(log, middleware=faults)) as running:
        address = f"{running.core_url.replace('http', 'ws')}/api/v1/events/stream"
        for restarts in (True, False):
            async with connect(address, close_timeout=0.2) as socket:
                await (await socket.ping())
                if restarts:
                    faults.restart(cold=False)
                else:
                    await running.stop()
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012


class Stalled:
    """A WebSocket whose client does not read after the first event until `reads` is set."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.reads = asyncio.Event()
        self.leaves = asyncio.Event()
        self.stalled = asyncio.Event()

    async def accept(self) -> None:
        """Accept the handshake."""

    async def close(self, code: int) -> None:
        """Nothing to close."""

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "websocket.disconnect"}

    async def send_text(self, frame: str) -> None:
        self.sent.append(frame)
        self.stalled.set()
        await self.reads.wait()


async def test_slow_client_loses_events_and_gets_their_number() -> None:
    live_events = LiveEvents()
    socket = Stalled()
    serve = asyncio.create_task(live_events.serve(socket))  # type: ignore[arg-type]
    while not live_events.subscribers:
        await asyncio.sleep(0)
    live_events.publish("a.b", "e", "first")
    await socket.stalled.wait()
    for n in range(BUFFER + 25):
        live_events.publish("a.b", "e", str(n))
    socket.reads.set()
    while len(socket.sent) < BUFFER + 2:
        await asyncio.sleep(0)
    assert socket.sent[-1] == '{"type":"lagged","missed":25}'
    assert socket.sent[1:-1] == [str(n) for n in range(BUFFER)]
    socket.leaves.set()
    await serve
    assert not live_events.subscribers
