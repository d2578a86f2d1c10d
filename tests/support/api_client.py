"""``ApiClient``: raw requests to a Core, local or real, without the library's store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource

__all__ = ["EVENTS", "FEED", "QUERY", "TENANT", "ApiClient", "local_api"]

EVENTS = "/api/v1/events"
QUERY = "/api/v1/events/query"
FEED = "/api/v1/event-feed"
TENANT = "acme"


class ApiClient:
    """A client of one Core.

    Args:
        client: sends the requests; its base URL is that of Core.
        newer: whether the Core is of 0.27.
        key: an API key of tenant ``system``, if the Core requires one.
    """

    def __init__(self, client: httpx.AsyncClient, *, newer: bool, key: str = "") -> None:
        self.client = client
        self.newer = newer
        self.key = key

    async def append(
        self, stream: str = "user:1", payload: Any = None, *, kind: str = "auth.user.updated", **members: Any
    ) -> httpx.Response:
        """Append an event of ``TENANT``."""
        body: dict[str, Any] = {"event_type": kind, "entity_id": stream, "tenant_id": TENANT}
        body["payload"] = {"n": 1} if payload is None else payload
        return await self.client.post(EVENTS, json=body | members)

    async def appended(self, stream: str = "user:1", payload: Any = None, **members: Any) -> dict[str, Any]:
        """Append an event that must be accepted. Returns its acknowledgement."""
        response = await self.append(stream, payload, **members)
        assert response.status_code == 200, response.text
        acknowledgement: dict[str, Any] = response.json()
        return acknowledgement

    async def query(self, **parameters: Any) -> httpx.Response:
        """Query ``TENANT``."""
        return await self.client.get(QUERY, params={"tenant_id": TENANT} | parameters)

    async def page(self, **parameters: Any) -> dict[str, Any]:
        """The reply to a query that must succeed."""
        response = await self.query(**parameters)
        assert response.status_code == 200, response.text
        page: dict[str, Any] = response.json()
        return page

    async def payloads(self, **parameters: Any) -> list[Any]:
        """The payloads of a page."""
        return [event["payload"] for event in (await self.page(**parameters))["events"]]

    async def feed(self, **parameters: Any) -> httpx.Response:
        """Request a page of the feed of ``TENANT``."""
        headers = {"X-API-Key": self.key}
        return await self.client.get(FEED, params={"tenant_id": TENANT} | parameters, headers=headers)


@asynccontextmanager
async def local_api(generation: Literal["0.23", "0.27"], log: SqliteLog, **options: Any) -> AsyncIterator[ApiClient]:
    """A client of a local Core in this process, without a socket. ``options`` are those of `LocalAllsource`."""
    local = LocalAllsource(log, generation=generation, **options)
    transport = httpx.ASGITransport(local.core)
    async with httpx.AsyncClient(transport=transport, base_url="http://local") as client:
        yield ApiClient(client, newer=generation == "0.27", key=next(iter(options.get("api_keys", [""]))))
