"""The routes of Core: append, batch, query, event feed, WebSocket, health."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from allsource_auth.errors import AllsourceAuthError
from allsource_auth.server.appending import Appender
from allsource_auth.server.credentials import Credentials
from allsource_auth.server.events import NewBatch, NewEvent
from allsource_auth.server.feed import Feed
from allsource_auth.server.live_events import LiveEvents
from allsource_auth.server.parsing import read_body
from allsource_auth.server.reading import Reader
from allsource_auth.server.replies import Rejected, Reply, error_reply, json_reply

__all__ = ["CoreRoutes", "empty_reply", "rejected_reply", "storage_reply"]

_one_event = msgspec.json.Decoder(NewEvent)
_many_events = msgspec.json.Decoder(NewBatch)

DEV_TENANT: Final = "dev-tenant"
ANY_TENANT: Final = "system"
"""The tenant whose keys may read the feed of every tenant."""


class CoreRoutes:
    """The endpoints of one Core. ``feed`` is ``None`` before 0.27."""

    def __init__(
        self,
        appender: Appender,
        reader: Reader,
        live_events: LiveEvents,
        feed: Feed | None,
        credentials: Credentials,
        health: dict[str, object],
    ) -> None:
        self._appender = appender
        self._reader = reader
        self._live_events = live_events
        self._feed = feed
        self._credentials = credentials
        self._health = json_reply(health)

    def routes(self) -> list[BaseRoute]:
        """The routes in the order in which they are tried: frequent ones first."""
        routes: list[BaseRoute] = [
            Route("/api/v1/events/query", self.query),
            Route("/api/v1/events", self.append, methods=["POST"]),
            Route("/api/v1/events/batch", self.append_batch, methods=["POST"]),
            WebSocketRoute("/api/v1/events/stream", self.stream),
            Route("/health", self.health),
        ]
        if self._feed is not None:
            routes.append(Route("/api/v1/event-feed", self.feed))
        return routes

    async def append(self, request: Request) -> Reply:
        return json_reply(await self._appender.append(await read_body(request, _one_event)))

    async def append_batch(self, request: Request) -> Reply:
        batch = await read_body(request, _many_events)
        stored = await self._appender.append_all(batch.events)
        return json_reply({"total": len(stored), "ingested": len(stored), "events": stored})

    async def query(self, request: Request) -> Reply:
        return self._reader.reply(await self._reader.query(request.scope["query_string"]))

    async def feed(self, request: Request) -> Reply:
        assert self._feed is not None
        own = self._credentials.of_core(request.headers) or DEV_TENANT
        asked = self._feed.tenant(request.scope["query_string"])
        if asked not in (None, own) and own != ANY_TENANT:
            raise error_reply(403, "tenant_forbidden")
        return await self._feed.reply(request.scope["query_string"], asked or own)

    async def stream(self, socket: WebSocket) -> None:
        await self._live_events.serve(socket)

    async def health(self, request: Request) -> Reply:
        return self._health


async def rejected_reply(request: Request, error: Rejected) -> Reply:
    return error.reply


async def storage_reply(request: Request, error: AllsourceAuthError) -> Reply:
    """The reply if the log cannot be used. The error names the file and none of its content."""
    return error_reply(500, f"Storage error: {error}").reply


async def empty_reply(request: Request, error: HTTPException) -> Response:
    """The reply to an unknown path or method: no body."""
    return Response(status_code=error.status_code, headers=error.headers)
