"""Core's routes (sections 4 to 10 of the contract; the feed is of 0.27)."""

from __future__ import annotations

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from allsource_auth.errors import AllsourceAuthError
from allsource_auth.server.answers import Answer, Refused, json_answer, refusal
from allsource_auth.server.credentials import Credentials
from allsource_auth.server.events import Appender, NewBatch, NewEvent
from allsource_auth.server.feed import Feed
from allsource_auth.server.parsing import read_body
from allsource_auth.server.reading import Reader
from allsource_auth.server.stream import Hub

__all__ = ["Core", "empty_answer", "refused_answer", "store_answer"]

one_event = msgspec.json.Decoder(NewEvent)
many_events = msgspec.json.Decoder(NewBatch)

DEV_TENANT = "dev-tenant"
ANY_TENANT = "system"
"""The tenant whose keys may read every tenant's feed (the contract of 0.27, section 5)."""


class Core:
    """The endpoints of one Core. ``feed`` is ``None`` before 0.27."""

    def __init__(
        self,
        appender: Appender,
        reader: Reader,
        hub: Hub,
        feed: Feed | None,
        credentials: Credentials,
        health: dict[str, object],
    ) -> None:
        self._appender = appender
        self._reader = reader
        self._hub = hub
        self._feed = feed
        self._credentials = credentials
        self._health = json_answer(health)

    def routes(self) -> list[BaseRoute]:
        """The busy ones first."""
        routes: list[BaseRoute] = [
            Route("/api/v1/events/query", self.query),
            Route("/api/v1/events", self.append, methods=["POST"]),
            Route("/api/v1/events/batch", self.append_batch, methods=["POST"]),
            WebSocketRoute("/api/v1/events/stream", self.stream),
            Route("/api/v1/events/{event_id}", self.event),
            Route("/api/v1/entities/{entity_id:path}/state", self.state),
            Route("/health", self.health),
        ]
        if self._feed is not None:
            routes.append(Route("/api/v1/event-feed", self.feed))
        return routes

    async def append(self, request: Request) -> Answer:
        return json_answer(await self._appender.append(await read_body(request, one_event)))

    async def append_batch(self, request: Request) -> Answer:
        batch = await read_body(request, many_events)
        stored = await self._appender.append_all(batch.events)
        return json_answer({"total": len(stored), "ingested": len(stored), "events": stored})

    async def query(self, request: Request) -> Answer:
        page = await self._reader.query(request.scope["query_string"])
        return self._reader.answer(page, request.headers.get("if-none-match"))

    async def event(self, request: Request) -> Answer:
        return await self._reader.event(request.path_params["event_id"])

    async def state(self, request: Request) -> Answer:
        entity, tag = request.path_params["entity_id"], request.headers.get("if-none-match")
        return await self._reader.state(entity, request.scope["query_string"], tag)

    async def feed(self, request: Request) -> Answer:
        assert self._feed is not None
        own = self._credentials.of_core(request.headers) or DEV_TENANT
        asked = self._feed.tenant(request.scope["query_string"])
        if asked not in (None, own) and own != ANY_TENANT:
            raise refusal(403, "tenant_forbidden")
        return await self._feed.answer(request.scope["query_string"], asked or own)

    async def stream(self, socket: WebSocket) -> None:
        await self._hub.serve(socket)

    async def health(self, request: Request) -> Answer:
        return self._health


async def refused_answer(request: Request, error: Refused) -> Answer:
    return error.answer


async def store_answer(request: Request, error: AllsourceAuthError) -> Answer:
    """The log cannot be used; its errors name the file and none of its content."""
    return refusal(500, f"Storage error: {error}").answer


async def empty_answer(request: Request, error: HTTPException) -> Response:
    """Unknown routes and methods: no body."""
    return Response(status_code=error.status_code, headers=error.headers)
