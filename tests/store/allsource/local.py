"""A local Allsource server with faults on real sockets, and the stores and adapters that a test opens on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Event, NewEvent, SqliteLog, SqliteStore
from allsource_auth.server import LocalAllsource, Running, serving
from tests.support.canaries import CANARY
from tests.support.events import whole_log
from tests.support.faults import Faults

__all__ = ["KEY", "Arrived", "Local", "Pauses", "running_local"]

KEY = f"ask_{CANARY}"


class Arrived(NamedTuple):
    """A received request. ``port`` is ``core`` or ``query``."""

    port: str
    method: str
    path: str
    parameters: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


class Local:
    """A running local Allsource server. It closes the stores that were opened on it."""

    def __init__(
        self,
        running: Running,
        log: SqliteLog,
        faults: Faults,
        arrived: list[Arrived],
        stores: AsyncExitStack,
    ) -> None:
        self.core_url, self.query_url = running.core_url, running.query_url
        self.log = log
        self.faults = faults
        self.arrived = arrived
        """All requests to both ports, in order."""
        self._stores = stores

    def store(self, **options: Any) -> AllsourceStore:
        """A store with its own connection pool."""
        usual: dict[str, Any] = {"core_url": self.core_url, "query_url": self.query_url, "api_key": KEY}
        opened = AllsourceStore(**(usual | options))
        self._stores.push_async_callback(opened.close)
        return opened

    def adapter(self, *, store: AllsourceStore | None = None, **options: Any) -> AllsourceAuthAdapter:
        return AllsourceAuthAdapter.with_store(store or self.store(**options))

    async def append(self, *events: NewEvent, tenant: str = "default") -> None:
        """Store events without an HTTP request."""
        await SqliteStore(self.log, tenant, owns_log=False).append(events)

    async def events(self, prefix: str = "", *, tenant: str = "default") -> list[Event]:
        """The stored events of the streams that start with ``prefix``, read without the server."""
        found = await whole_log(SqliteStore(self.log, tenant, owns_log=False))
        return [event for event in found if event.stream.startswith(prefix)]

    async def types(self, prefix: str = "") -> list[str]:
        return [event.type for event in await self.events(prefix)]

    def requests(self) -> list[str]:
        """Return the requests so far as ``"METHOD port"``, and clear the list."""
        found = [f"{request.method} {request.port}" for request in self.arrived]
        self.arrived.clear()
        return found


def _recording(port: str, app: ASGIApp, arrived: list[Arrived]) -> ASGIApp:
    """Wrap ``app`` to record every request before it is processed."""

    async def record(scope: Scope, receive: Receive, send: Send) -> None:
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parameters = parse_qs(scope["query_string"].decode())
        body = b"".join(message.get("body", b"") for message in messages)
        arrived.append(Arrived(port, scope["method"], scope["path"], parameters, headers, body))

        async def replayed() -> Message:
            return messages.pop(0) if messages else await receive()

        await app(scope, replayed, send)

    return record


@asynccontextmanager
async def running_local(generation: Literal["0.23", "0.27"], **options: Any) -> AsyncIterator[Local]:
    """Serve an empty log. ``options``: see `LocalAllsource`."""
    log, faults = SqliteLog(None), Faults()
    arrived: list[Arrived] = []
    server = LocalAllsource(log, generation=generation, middleware=faults, **options)
    server.core = _recording("core", server.core, arrived)
    server.query_service = _recording("query", server.query_service, arrived)
    try:
        async with serving(server) as running, AsyncExitStack() as stores:
            yield Local(running, log, faults, arrived, stores)
    finally:
        await log.close()


class Pauses:
    """Replaces `asyncio` and the clock in the client: pauses between attempts are recorded and take no time."""

    def __init__(self) -> None:
        self.made: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.made.append(seconds)
        await asyncio.sleep(0)

    def monotonic(self) -> float:
        """A clock that only pauses advance."""
        return sum(self.made)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)
