"""A server under test as an HTTP client sees it."""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["EVENTS", "QUERY", "TENANT", "Wire"]

EVENTS = "/api/v1/events"
QUERY = "/api/v1/events/query"
FEED = "/api/v1/event-feed"
TENANT = "acme"


class Wire:
    """One Core. ``newer``: it is of 0.27. ``key``: one of tenant ``system``, if it asks for any."""

    def __init__(self, client: httpx.AsyncClient, *, newer: bool, key: str = "") -> None:
        self.client = client
        self.newer = newer
        self.key = key

    async def append(
        self, stream: str = "user:1", payload: Any = None, *, kind: str = "auth.user.updated", **more: Any
    ) -> httpx.Response:
        """Append an event of ``TENANT``."""
        body: dict[str, Any] = {"event_type": kind, "entity_id": stream, "tenant_id": TENANT}
        body["payload"] = {"n": 1} if payload is None else payload
        return await self.client.post(EVENTS, json=body | more)

    async def appended(self, stream: str = "user:1", payload: Any = None, **more: Any) -> dict[str, Any]:
        """Append an event that is accepted; its acknowledgement."""
        answer = await self.append(stream, payload, **more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def query(self, **parameters: Any) -> httpx.Response:
        """Query ``TENANT``."""
        return await self.client.get(QUERY, params={"tenant_id": TENANT} | parameters)

    async def page(self, **parameters: Any) -> dict[str, Any]:
        """The envelope of a query that is answered."""
        answer = await self.query(**parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def payloads(self, **parameters: Any) -> list[Any]:
        """The payloads of a page."""
        return [event["payload"] for event in (await self.page(**parameters))["events"]]

    async def feed(self, **parameters: Any) -> httpx.Response:
        """Ask for a page of the feed of ``TENANT``."""
        headers = {"X-API-Key": self.key}
        return await self.client.get(FEED, params={"tenant_id": TENANT} | parameters, headers=headers)
