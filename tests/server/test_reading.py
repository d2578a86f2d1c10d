"""ETags, limits of replies, strict reads, unknown paths."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.api_client import EVENTS, QUERY, TENANT, ApiClient

STRICT = {"integrity": "retained-entity-v1", "entity_id": "user:1", "limit": 10}


async def test_newer_replies_have_an_etag_that_changes_with_the_events(newer: ApiClient) -> None:
    await newer.appended()
    tag = (await newer.query()).headers["etag"]
    assert re.fullmatch(r'"sha256:[0-9a-f]{32}"', tag)
    assert (await newer.query()).headers["etag"] == tag
    await newer.appended()
    assert (await newer.query()).headers["etag"] != tag


async def test_older_replies_have_no_etag(older: ApiClient) -> None:
    await older.appended()
    assert "etag" not in (await older.query()).headers


async def fill(api: ApiClient, count: int, *, stream: str = "user:1", size: int = 1) -> None:
    event = {"event_type": "auth.filled", "entity_id": stream, "tenant_id": TENANT, "payload": "x" * size}
    while count > 0:
        part = min(count, 5000)
        answer = await api.client.post(f"{EVENTS}/batch", json={"events": [event] * part})
        assert answer.status_code == 200
        count -= part


async def test_newer_page_has_at_most_ten_thousand_events(newer: ApiClient) -> None:
    await fill(newer, 10_001)
    for parameters in ({}, {"limit": 20_000}, {"entity_id": "user:1", "limit": 10_001}):
        page = await newer.page(**parameters)
        assert (page["count"], page["total_count"], page["has_more"]) == (10_000, 10_001, True)
    assert (await newer.page(limit=20_000, offset=9_999))["count"] == 2


async def test_older_page_has_no_limit_of_events(older: ApiClient) -> None:
    await fill(older, 10_001)
    assert (await older.page())["count"] == 10_001


async def test_newer_reply_of_more_than_16_mebibytes_is_rejected(newer: ApiClient) -> None:
    for _ in range(9):
        await fill(newer, 1, size=1_900_000)
    response = await newer.query()
    assert response.status_code == 413
    assert response.json() == {"error": "response_too_large", "message": "Request a smaller bounded page."}
    assert (await newer.page(limit=4))["count"] == 4


async def test_older_reply_has_no_limit_of_bytes(older: ApiClient) -> None:
    for _ in range(9):
        await fill(older, 1, size=1_900_000)
    assert (await older.page())["count"] == 9


async def test_strict_read_is_marked_and_has_microseconds(newer: ApiClient) -> None:
    stored = [await newer.appended(payload=n) for n in (1, 2, 3)]
    page = await newer.page(**STRICT)
    assert page["archive_integrity"] == {
        "protocol": "retained-entity-v1",
        "tenant_id": TENANT,
        "entity_id": "user:1",
    }
    assert [event["payload"] for event in page["events"]] == [1, 2, 3]
    assert [event["timestamp"] for event in page["events"]] == [one["timestamp"][:-4] + "Z" for one in stored]
    assert (page["total_count"], page["has_more"], page["entity_version"]) == (3, False, 3)
    shorter = await newer.page(**STRICT | {"limit": 2})
    assert (shorter["count"], shorter["has_more"], "entity_version" in shorter) == (2, True, False)


async def test_strict_read_reports_the_version_of_the_tenants_events(newer: ApiClient) -> None:
    await newer.appended()
    await newer.appended(tenant_id="other")
    assert (await newer.page(**STRICT))["entity_version"] == 1
    assert (await newer.page(**STRICT | {"entity_id": "nobody"}))["entity_version"] == 0


FILTERED = "Strict retained read requires retained-entity-v1 without filters, offset or descending order"
INCOMPLETE = "Strict retained read requires tenant_id, entity_id and limit 1..1001"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"integrity": "other"}, FILTERED),
        ({"integrity": ""}, FILTERED),
        ({"offset": 1}, FILTERED),
        ({"order": "desc"}, FILTERED),
        ({"event_type_prefix": "a."}, FILTERED),
        ({"since": "2001-01-01T00:00:00Z"}, FILTERED),
        ({"until": "2001-01-01T00:00:00Z"}, FILTERED),
        ({"limit": 0}, INCOMPLETE),
        ({"limit": 1002}, INCOMPLETE),
        ({"tenant_id": ""}, "Tenant ID cannot be empty"),
        ({"entity_id": ""}, "Entity ID cannot be empty"),
    ],
)
async def test_invalid_strict_read_is_rejected(newer: ApiClient, parameters: dict[str, Any], message: str) -> None:
    answer = await newer.query(**STRICT | parameters)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Invalid input: {message}"}


@pytest.mark.parametrize("left_out", ["tenant_id", "entity_id", "limit"])
async def test_strict_read_requires_tenant_entity_and_limit(newer: ApiClient, left_out: str) -> None:
    parameters = {name: value for name, value in {"tenant_id": TENANT, **STRICT}.items() if name != left_out}
    answer = await newer.client.get(QUERY, params={name: str(value) for name, value in parameters.items()})
    assert (answer.status_code, answer.json()) == (400, {"error": f"Invalid input: {INCOMPLETE}"})


async def test_strict_read_beyond_its_budgets_is_rejected(newer: ApiClient) -> None:
    await fill(newer, 1001)
    assert (await newer.page(**STRICT | {"limit": 1001}))["count"] == 1001
    await fill(newer, 1)
    answer = await newer.query(**STRICT)
    assert answer.status_code == 500
    assert answer.json() == {"error": "Storage error: Strict retained entity exceeds its event budget"}
    for _ in range(2):
        await fill(newer, 1, stream="user:2", size=1_200_000)
    answer = await newer.query(**STRICT | {"entity_id": "user:2"})
    assert answer.json() == {"error": "Storage error: Strict retained read encoded data budget exceeded"}


async def test_older_versions_ignore_the_integrity_parameter(older: ApiClient) -> None:
    await older.appended()
    for integrity in ("retained-entity-v1", "other"):
        page = await older.page(integrity=integrity, entity_id="user:1", order="desc", limit=2000)
        assert (page["count"], "archive_integrity" in page) == (1, False)


async def test_unknown_path_or_method_has_no_body(api: ApiClient) -> None:
    for method, path, status in (
        ("GET", "/nope", 404),
        ("GET", f"{QUERY}/", 404),
        ("POST", QUERY, 405),
        ("GET", EVENTS, 405),
    ):
        answer = await api.client.request(method, path, headers={"X-API-Key": api.key})
        assert (answer.status_code, answer.content) == (status, b"")
