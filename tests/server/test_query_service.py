"""The Query Service's wire (section 14)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import Faults, LocalAllsource
from tests.server.wire import TENANT

EVENT = {"event_type": "auth.user.created", "entity_id": "user:1", "payload": {"n": 1}}


@asynccontextmanager
async def query_service(log: SqliteLog, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(LocalAllsource(log, **options).query_service)
    async with httpx.AsyncClient(transport=transport, base_url="http://local") as client:
        yield client


@pytest.fixture
async def client(log: SqliteLog) -> AsyncIterator[httpx.AsyncClient]:
    """One in dev mode."""
    async with query_service(log) as opened:
        yield opened


@pytest.fixture(params=["/api", "/api/v1"])
def prefix(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


async def test_an_append_is_201_in_an_envelope(client: httpx.AsyncClient, prefix: str) -> None:
    answer = await client.post(f"{prefix}/events", json=EVENT | {"tenant_id": TENANT})
    assert answer.status_code == 201
    data = answer.json()["data"]
    assert data["version"] == 1
    assert data["_links"] == {"self": f"/api/v1/events/{data['event_id']}"}


async def test_metadata_and_guards_are_dropped(client: httpx.AsyncClient, prefix: str) -> None:
    guarded = EVENT | {"tenant_id": TENANT, "metadata": {"op": "x"}, "expected_version": 7}
    assert (await client.post(f"{prefix}/events", json=guarded)).status_code == 201
    assert (await client.post(f"{prefix}/events/batch", json={"events": [guarded]})).status_code == 201
    page = (await client.get(f"{prefix}/events/query", params={"tenant_id": TENANT})).json()
    assert [(event["metadata"], event["version"]) for event in page["events"]] == [(None, 1), (None, 2)]


async def test_a_batch_is_a_list(client: httpx.AsyncClient, prefix: str) -> None:
    answer = await client.post(f"{prefix}/events/batch", json={"events": [EVENT, EVENT]})
    assert answer.status_code == 201
    found = answer.json()
    assert ([event["version"] for event in found["data"]], found["count"]) == ([1, 2], 2)
    assert found["_links"] == {"self": f"{prefix}/events/batch"}


async def test_refusals_of_core_are_flattened(client: httpx.AsyncClient, prefix: str) -> None:
    said = "Core returned 400: Invalid input: Entity ID cannot be empty"
    for path, body in (
        ("events", EVENT | {"entity_id": ""}),
        ("events/batch", {"events": [EVENT | {"entity_id": ""}]}),
    ):
        answer = await client.post(f"{prefix}/{path}", json=body)
        assert (answer.status_code, answer.json()) == (422, {"error": said})
    answer = await client.get(f"{prefix}/events/query", params={"order": "up"})
    assert answer.status_code == 400
    assert answer.json() == {"error": "Invalid input: invalid 'order' value 'up': expected 'asc' or 'desc'"}


async def test_the_newest_passes_the_envelope_of_core_on(client: httpx.AsyncClient, prefix: str) -> None:
    for _ in range(3):
        await client.post(f"{prefix}/events", json=EVENT | {"tenant_id": TENANT})
    asked = {"tenant_id": TENANT, "entity_id": "user:1", "order": "desc", "limit": "1"}
    answer = await client.get(f"{prefix}/events/query", params=asked, headers={"X-Consistency": "strong"})
    page = answer.json()
    assert list(page) == ["events", "count", "total_count", "has_more", "entity_version"]
    assert (page["events"][0]["version"], page["count"], page["total_count"], page["has_more"]) == (3, 1, 3, True)
    assert page["entity_version"] == 3
    assert "etag" not in answer.headers


async def test_older_ones_answer_with_data(log: SqliteLog, prefix: str) -> None:
    async with query_service(log, envelope="data") as client:
        for _ in range(2):
            await client.post(f"{prefix}/events", json=EVENT | {"tenant_id": TENANT})
        asked = {"tenant_id": TENANT, "entity_id": "user:1", "limit": "1"}
        page = (await client.get(f"{prefix}/events/query", params=asked)).json()
    assert page.keys() == {"data", "count", "_links"}
    (event,) = page["data"]
    assert (event["payload"], event["entity_id"], event["tenant_id"]) == ({"n": 1}, "user:1", TENANT)
    assert event["_links"] == {"self": f"/api/v1/events/{event['id']}"}


async def test_a_page_has_100_events_unless_more_are_asked_for(client: httpx.AsyncClient, prefix: str) -> None:
    await client.post(f"{prefix}/events/batch", json={"events": [EVENT | {"tenant_id": TENANT}] * 101})
    for limit, count in ((None, 100), (101, 101), (0, 0)):
        asked = {"tenant_id": TENANT} | ({} if limit is None else {"limit": str(limit)})
        page = (await client.get(f"{prefix}/events/query", params=asked)).json()
        assert (page["count"], page["total_count"]) == (count, 101)


async def test_dev_mode_has_no_tenant_of_its_own(client: httpx.AsyncClient, prefix: str) -> None:
    await client.post(f"{prefix}/events", json=EVENT)
    assert (await client.get(f"{prefix}/events/query")).json()["count"] == 0
    asked = {"tenant_id": "default"}
    assert (await client.get(f"{prefix}/events/query", params=asked)).json()["count"] == 1


async def test_a_key_forces_its_tenant(log: SqliteLog, prefix: str) -> None:
    async with query_service(log, api_keys={"ask_a": TENANT, "a.b.c": "other"}) as client:
        mine = {"X-API-Key": "ask_a"}
        await client.post(f"{prefix}/events", json=EVENT | {"tenant_id": "other"}, headers=mine)
        asked = {"tenant_id": "other", "entity_id": "user:1"}
        page = (await client.get(f"{prefix}/events/query", params=asked, headers=mine)).json()
        assert [event["tenant_id"] for event in page["events"]] == [TENANT]
        theirs = {"Authorization": "Bearer a.b.c"}
        page = (await client.get(f"{prefix}/events/query", params={"tenant_id": TENANT}, headers=theirs)).json()
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
async def test_without_a_known_key_it_is_401_everywhere(log: SqliteLog, prefix: str, headers: dict[str, Any]) -> None:
    async with query_service(log, api_keys={"ask_a": TENANT}) as client:
        for answer in (
            await client.get(f"{prefix}/events/query", headers=headers),
            await client.post(f"{prefix}/events", json=EVENT, headers=headers),
            await client.post(f"{prefix}/events/batch", json={"events": [EVENT]}, headers=headers),
        ):
            assert answer.status_code == 401
            error = answer.json()["error"]
            assert error["code"] == "unauthorized"
            assert error.keys() == {"code", "message", "correlation_id", "timestamp"}
            assert "ask_" not in answer.text
        asked = {"tenant_id": TENANT}
        found = await client.get(f"{prefix}/events/query", params=asked, headers={"X-API-Key": "ask_a"})
        assert found.json()["count"] == 0


@pytest.mark.parametrize("path", ["/health", "/api/health", "/api/v1/health"])
async def test_health_needs_no_key(log: SqliteLog, path: str) -> None:
    async with query_service(log, api_keys={"ask_a": TENANT}) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert answer.json()["service"] == "allsource-auth-local"


async def test_what_only_core_has_is_not_there(client: httpx.AsyncClient) -> None:
    for path in ("/api/v1/entities/user:1/state", "/api/v1/event-feed", "/nope"):
        assert (await client.get(path)).status_code == 404


async def test_it_reads_what_core_reads(log: SqliteLog) -> None:
    faults = Faults()
    async with query_service(log, faults=faults) as client:
        await client.post("/api/v1/events", json=EVENT | {"tenant_id": TENANT})
        faults.stale("user:1")
        await client.post("/api/v1/events", json=EVENT | {"tenant_id": TENANT})
        asked = {"tenant_id": TENANT, "entity_id": "user:1"}
        page = (await client.get("/api/v1/events/query", params=asked)).json()
        assert (page["count"], page["entity_version"]) == (1, 2)
