"""The Query Service's routes: a gateway in front of Core with other envelopes (section 14 of the contract)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from allsource_auth.ids import operation_id
from allsource_auth.server.answers import Answer, Refused, instant_text, json_answer, refusal
from allsource_auth.server.core import many_events, one_event
from allsource_auth.server.credentials import Credentials
from allsource_auth.server.events import Acknowledgement, Appender, NewEvent, WireEvent
from allsource_auth.server.parsing import read_body
from allsource_auth.server.query import parse_query
from allsource_auth.server.reading import Reader

__all__ = ["QueryService"]

USUAL_PAGE: Final = 100
_PREFIXES: Final = ("/api", "/api/v1")


class QueryService:
    """The endpoints of one Query Service.

    Args:
        appender: where accepted events go.
        reader: what queries are answered from.
        credentials: without keys, the tenant is the one that the client names.
        envelope: ``"events"`` passes Core's envelope of a query on, as the newest version does; ``"data"`` is the
            older one, without ``has_more`` and ``entity_version``.
        clock_ns: the time of error messages.
        health: the body of the health routes.
    """

    def __init__(
        self,
        appender: Appender,
        reader: Reader,
        credentials: Credentials,
        envelope: Literal["events", "data"],
        clock_ns: Callable[[], int],
        health: dict[str, object],
    ) -> None:
        self._appender = appender
        self._reader = reader
        self._credentials = credentials
        self._envelope = envelope
        self._clock_ns = clock_ns
        self._health = json_answer(health)

    def routes(self) -> list[BaseRoute]:
        """The same under both prefixes, and the health routes."""
        routes: list[BaseRoute] = []
        for prefix in _PREFIXES:
            routes += [
                Route(f"{prefix}/events/query", self.query),
                Route(f"{prefix}/events", self.append, methods=["POST"]),
                Route(f"{prefix}/events/batch", self.append_batch, methods=["POST"]),
            ]
        return routes + [Route(path, self.health) for path in ("/health", "/api/health", "/api/v1/health")]

    async def append(self, request: Request) -> Answer:
        tenant = self._tenant(request)
        event = _forwarded(await read_body(request, one_event), tenant)
        try:
            stored = await self._appender.append(event)
        except Refused as error:
            raise _flattened(error) from None
        return json_answer({"data": _linked(stored)}, 201)

    async def append_batch(self, request: Request) -> Answer:
        tenant = self._tenant(request)
        batch = await read_body(request, many_events)
        try:
            stored = await self._appender.append_all([_forwarded(event, tenant) for event in batch.events])
        except Refused as error:
            raise _flattened(error) from None
        return _listed([_linked(one) for one in stored], request, 201)

    async def query(self, request: Request) -> Answer:
        tenant = self._tenant(request)
        try:
            query = parse_query(request.scope["query_string"], newer=False)
            query.tenant = tenant or query.tenant
            query.limit = USUAL_PAGE if query.limit is None else query.limit
            page = await self._reader.page(query)
            answer = self._reader.answer(page, None)
        except Refused as error:
            raise refusal(400, error.reason) from None
        if self._envelope == "events":
            return Answer(200, answer.body, answer.content_type)
        return _listed([_linked(event) for event in page.events], request, 200)

    async def health(self, request: Request) -> Answer:
        return self._health

    def _tenant(self, request: Request) -> str | None:
        """The tenant that the credential forces; ``None`` in dev mode. Raises `Refused` (401)."""
        if self._credentials.dev_mode:
            return None
        tenant = self._credentials.of_query_service(request.headers)
        if tenant is None:
            error = {
                "code": "unauthorized",
                "message": "Missing or invalid credentials",
                "correlation_id": operation_id(),
                "timestamp": instant_text(self._clock_ns()),
            }
            raise Refused(json_answer({"error": error}, 401), "unauthorized")
        return tenant


def _forwarded(event: NewEvent, tenant: str | None) -> NewEvent:
    """What is passed on to Core: metadata and the guard are not (section 14.2 of the contract)."""
    return NewEvent(event.event_type, event.entity_id, event.payload, tenant or event.tenant_id)


def _flattened(error: Refused) -> Refused:
    return refusal(422, f"Core returned {error.answer.status}: {error.reason}")


def _linked(item: Acknowledgement | WireEvent) -> dict[str, Any]:
    members = {name: getattr(item, name) for name in item.__struct_fields__}
    event_id = members.get("event_id", members.get("id"))
    return members | {"_links": {"self": f"/api/v1/events/{event_id}"}}


def _listed(items: list[dict[str, Any]], request: Request, status: int) -> Answer:
    return json_answer({"data": items, "count": len(items), "_links": {"self": request.scope["path"]}}, status)
