"""``LocalAllsource``: Core and the Query Service over one embedded log, as two ASGI applications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from allsource_auth.errors import AllsourceAuthError, InvalidInput
from allsource_auth.server.admission import Admission
from allsource_auth.server.answers import Refused
from allsource_auth.server.core import Core, empty_answer, refused_answer, store_answer
from allsource_auth.server.credentials import Credentials
from allsource_auth.server.events import Appender
from allsource_auth.server.faults import Faults
from allsource_auth.server.feed import Feed
from allsource_auth.server.memory import Memory
from allsource_auth.server.query_service import QueryService
from allsource_auth.server.reading import Reader
from allsource_auth.server.stream import Hub
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["LocalAllsource"]

SERVICE: Final = "allsource-auth-local"


class LocalAllsource:
    """A stand-in for an Allsource on one machine: its wire over a `SqliteLog`, for development and tests.

    Args:
        log: where the events are. Whoever made it closes it; other stores may use it at the same time.
        generation: which Core it answers like. ``"0.23"`` says version 1 in every event that is read, and has no
            entity tags, strict reads, page cap, feed or limit on requests.
        api_keys: the keys that are known, each with its tenant. Without any it runs in dev mode. As on Core, a key
            matters for the event feed only; the Query Service asks for one everywhere.
        envelope: how the Query Service answers queries: ``"events"`` as its newest version does, ``"data"`` as older ones.
        max_requests: how many requests 0.27 works on at a time, over both ports.
        max_waiting: how many more may wait; others are answered with 429.
        patience: for how long one may wait, in seconds.
        faults: what shall go wrong, for tests.

    Raises `InvalidInput` for a value that cannot be meant.
    """

    core: ASGIApp
    """What Core serves on port 3900."""
    query_service: ASGIApp
    """What the Query Service serves on port 3902."""

    def __init__(
        self,
        log: SqliteLog,
        *,
        generation: Literal["0.23", "0.27"] = "0.27",
        api_keys: Mapping[str, str] | None = None,
        envelope: Literal["events", "data"] = "events",
        max_requests: int = 16,
        max_waiting: int = 64,
        patience: float = 2.0,
        faults: Faults | None = None,
    ) -> None:
        if generation not in ("0.23", "0.27"):
            raise InvalidInput("generation", 'must be "0.23" or "0.27"')
        if envelope not in ("events", "data"):
            raise InvalidInput("envelope", 'must be "events" or "data"')
        if max_requests < 1 or max_waiting < 0 or patience < 0:
            raise InvalidInput("max_requests", "needs at least one place, and no negative number waiting or waited")
        if "" in (api_keys or {}):
            raise InvalidInput("api_keys", "a key must not be empty")
        self._log = log
        self._generation = generation
        newer = generation == "0.27"
        hub = Hub()
        memory = Memory(log, forgets=not newer)
        feed = Feed(log) if newer else None
        if faults is not None:
            faults.attach(memory, hub.close_all, *([feed.restart] if feed is not None else []))
        appender = Appender(memory, hub, newer=newer)
        reader = Reader(log, memory, newer=newer)
        credentials = Credentials(api_keys or {})
        core = Core(appender, reader, hub, feed, credentials, self._health())
        query_service = QueryService(appender, reader, credentials, envelope, log.clock_ns, self._health())
        admission = Admission(max_requests, max_waiting, patience) if newer else None
        self.core = _Port(core.routes(), admission, faults)
        self.query_service = _Port(query_service.routes(), admission, faults)

    def __repr__(self) -> str:
        return f"LocalAllsource(log={self._log!r}, generation={self._generation!r})"

    def _health(self) -> dict[str, object]:
        return {
            "replication": {"edition": "local", "status": "not_available"},
            "role": "leader",
            "service": SERVICE,
            "status": "healthy",
            "system_streams": {"mode": "in-memory", "status": "disabled"},
            "version": f"{self._generation}.0",
        }


class _Port:
    """What stands before the routes: the count of requests, the places, the faults. WebSockets pass."""

    def __init__(self, routes: list[BaseRoute], admission: Admission | None, faults: Faults | None) -> None:
        self._admission = admission
        self._faults = faults
        # Starlette's type of a handler has room for one of any exception only.
        handlers: dict[Any, Any] = {
            Refused: refused_answer,
            AllsourceAuthError: store_answer,
            HTTPException: empty_answer,
        }
        self._app = Starlette(routes=routes, exception_handlers=handlers)
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        faults = self._faults
        if faults is None:
            await self._admit(self._app, scope, receive, send)
            return
        faults.arrived(scope)
        try:
            await self._admit(self._with_faults, scope, receive, send)
        finally:
            faults.left()

    async def _admit(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admission is None:
            await app(scope, receive, send)
            return
        try:
            async with self._admission.place():
                await app(scope, receive, send)
        except Refused as error:
            await error.answer(scope, receive, send)

    async def _with_faults(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._faults is not None
        await self._faults.carry_out(self._app, scope, receive, send)
