"""The Query Service: envelopes, default page, tenants of keys, rejected credentials, health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource
from tests.support.api_client import EVENTS, QUERY, TENANT
from tests.support.faults import Faults

EVENT = {"event_type": "auth.user.created", "entity_id": "user:1", "tenant_id": TENANT, "payload": {"n": 1}}


class QueryServiceClient:
    """A client of a local Query Service, and of the Core behind it to store events."""

    def __init__(self, core: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
        self._core = core
        self.client = client

    async def append(self, *events: dict[str, Any]) -> None:
        response = await self._core.post(f"{EVENTS}/batch", json={"events": list(events)})
        assert response.status_code == 200, response.text

    async def query(self, *, headers: dict[str, Any] | None = None, **parameters: Any) -> httpx.Response:
        return await self.client.get(QUERY, params={"tenant_id": TENANT} | parameters, headers=headers)


@asynccontextmanager
async def query_service(log: SqliteLog, **options: Any) -> AsyncIterator[QueryServiceClient]:
    local = LocalAllsource(log, **options)
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(local.core), base_url="http://local") as core,
        httpx.AsyncClient(transport=httpx.ASGITransport(local.query_service), base_url="http://local") as client,
    ):
        yield QueryServiceClient(core, client)


@pytest.fixture
async def service(log: SqliteLog) -> AsyncIterator[QueryServiceClient]:
    """A Query Service in development mode."""
    async with query_service(log) as client:
        yield client


async def test_error_of_a_query_is_400_with_the_reason(service: QueryServiceClient) -> None:
    response = await service.query(order="up")
    assert response.status_code == 400
    assert response.json() == {"error": "Invalid input: invalid 'order' value 'up': expected 'asc' or 'desc'"}


async def test_newest_version_returns_the_envelope_of_core(service: QueryServiceClient) -> None:
    await service.append(EVENT, EVENT, EVENT)
    strong = {"X-Consistency": "strong"}
    response = await service.query(entity_id="user:1", order="desc", limit="1", headers=strong)
    page = response.json()
    assert list(page) == ["events", "count", "total_count", "has_more", "entity_version"]
    assert (page["events"][0]["version"], page["count"], page["total_count"], page["has_more"]) == (3, 1, 3, True)
    assert page["entity_version"] == 3
    assert "etag" not in response.headers


async def test_older_versions_return_the_envelope_data(log: SqliteLog) -> None:
    async with query_service(log, envelope="data") as service:
        await service.append(EVENT, EVENT)
        page = (await service.query(entity_id="user:1", limit="1")).json()
    assert page.keys() == {"data", "count", "_links"}
    (event,) = page["data"]
    assert (event["payload"], event["entity_id"], event["tenant_id"]) == ({"n": 1}, "user:1", TENANT)
    assert event["_links"] == {"self": f"/api/v1/events/{event['id']}"}


async def test_page_has_100_events_by_default(service: QueryServiceClient) -> None:
    await service.append(*[EVENT] * 101)
    cases: list[tuple[dict[str, Any], int]] = [({}, 100), ({"limit": "101"}, 101), ({"limit": "0"}, 0)]
    for parameters, count in cases:
        page = (await service.query(**parameters)).json()
        assert (page["count"], page["total_count"]) == (count, 101)


async def test_development_mode_uses_the_tenant_of_the_request(service: QueryServiceClient) -> None:
    await service.append(EVENT)
    assert (await service.client.get(QUERY)).json()["count"] == 0
    assert (await service.query(tenant_id="other")).json()["count"] == 0
    assert (await service.query()).json()["count"] == 1


async def test_tenant_of_the_key_replaces_the_tenant_of_the_request(log: SqliteLog) -> None:
    async with query_service(log, api_keys={"ask_a": TENANT, "a.b.c": "other"}) as service:
        await service.append(EVENT)
        page = (await service.query(tenant_id="other", headers={"X-API-Key": "ask_a"})).json()
        assert [event["tenant_id"] for event in page["events"]] == [TENANT]
        page = (await service.query(headers={"Authorization": "Bearer a.b.c"})).json()
        assert page["count"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "ask_b"},
        {"X-API-Key": "é".encode()},
        {"Authorization": "Bearer ask_a"},
        {"Authorization": "ask_a"},
        {"Authorization": "Basic ask_a"},
        {"Authorization": "Bearer x.y.z"},
    ],
)
async def test_query_without_a_known_key_is_401(log: SqliteLog, headers: dict[str, Any]) -> None:
    async with query_service(log, api_keys={"ask_a": TENANT}) as service:
        response = await service.query(headers=headers)
        assert response.status_code == 401
        error = response.json()["error"]
        assert error["code"] == "unauthorized"
        assert error.keys() == {"code", "message", "correlation_id", "timestamp"}
        assert "ask_" not in response.text
        assert (await service.query(headers={"X-API-Key": "ask_a"})).json()["count"] == 0


async def test_health_check_needs_no_key(log: SqliteLog) -> None:
    async with query_service(log, api_keys={"ask_a": TENANT}) as service:
        response = await service.client.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "healthy")
    assert response.json()["service"] == "allsource-auth-local"


async def test_appends_and_the_feed_are_not_served(service: QueryServiceClient) -> None:
    assert (await service.client.post(EVENTS, json=EVENT)).status_code == 404
    assert (await service.client.get("/api/v1/event-feed")).status_code == 404


async def test_query_service_is_as_stale_as_core(log: SqliteLog) -> None:
    faults = Faults()
    async with query_service(log, middleware=faults) as service:
        await service.append(EVENT)
        faults.stale("user:1")
        await service.append(EVENT)
        page = (await service.query(entity_id="user:1")).json()
        assert (page["count"], page["entity_version"]) == (1, 2)
