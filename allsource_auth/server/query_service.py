"""The routes of the Query Service, as far as the library uses it: queries and health.

``docs/reference/allsource-api.md``, "Query Service", lists how its replies differ from Core's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from allsource_auth.ids import operation_id
from allsource_auth.server.credentials import Credentials
from allsource_auth.server.events import WireEvent
from allsource_auth.server.query import parse_query
from allsource_auth.server.reading import Reader
from allsource_auth.server.replies import Rejected, Reply, error_reply, instant_text, json_reply

__all__ = ["QueryServiceRoutes"]

DEFAULT_PAGE: Final = 100


class QueryServiceRoutes:
    """The endpoints of one Query Service.

    Args:
        reader: answers the queries.
        credentials: the known keys. Without any, the tenant is the one that the request names.
        envelope: ``"events"`` returns Core's reply to a query, as the newest version does. ``"data"`` is the shape of
            older versions, without ``has_more`` and ``entity_version``.
        clock_ns: the time for error messages.
        health: the body of the reply to a health check.
    """

    def __init__(
        self,
        reader: Reader,
        credentials: Credentials,
        envelope: Literal["events", "data"],
        clock_ns: Callable[[], int],
        health: dict[str, object],
    ) -> None:
        self._reader = reader
        self._credentials = credentials
        self._envelope = envelope
        self._clock_ns = clock_ns
        self._health = json_reply(health)

    def routes(self) -> list[BaseRoute]:
        return [Route("/api/v1/events/query", self.query), Route("/health", self.health)]

    async def query(self, request: Request) -> Reply:
        tenant = self._tenant(request)
        try:
            query = parse_query(request.scope["query_string"], newer=False)
            query.tenant = tenant or query.tenant
            query.limit = DEFAULT_PAGE if query.limit is None else query.limit
            page = await self._reader.page(query)
            reply = self._reader.reply(page)
        except Rejected as error:
            raise error_reply(400, error.reason) from None
        if self._envelope == "events":
            return Reply(200, reply.body, reply.content_type)
        data = [_linked(event) for event in page.events]
        return json_reply({"data": data, "count": len(data), "_links": {"self": request.scope["path"]}})

    async def health(self, request: Request) -> Reply:
        return self._health

    def _tenant(self, request: Request) -> str | None:
        """The tenant of the credential; ``None`` in development mode. Raises `Rejected` (401) for an unknown one."""
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
            raise Rejected(json_reply({"error": error}, 401), "unauthorized")
        return tenant


def _linked(event: WireEvent) -> dict[str, Any]:
    members = {name: getattr(event, name) for name in event.__struct_fields__}
    return members | {"_links": {"self": f"/api/v1/events/{event.id}"}}
