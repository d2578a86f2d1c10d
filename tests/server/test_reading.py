"""Entity tags, limits of answers, strict reads, single events, entity state."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from tests.server.wire import EVENTS, QUERY, TENANT, Wire

STATE = "/api/v1/entities/user:1/state"
STRICT = {"integrity": "retained-entity-v1", "entity_id": "user:1", "limit": 10}
PREFIX = {"integrity": "retained-prefix-v1", "event_type_prefix": "auth."}


@pytest.mark.parametrize("path", [QUERY, STATE])
async def test_newer_versions_tag_answers_and_do_not_repeat_them(newer: Wire, path: str) -> None:
    await newer.appended()
    asked = {"tenant_id": TENANT, **({"entity_id": "user:1"} if path == QUERY else {})}
    answer = await newer.client.get(path, params=asked)
    tag = answer.headers["etag"]
    assert re.fullmatch(r'"sha256:[0-9a-f]{32}"', tag)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await newer.client.get(path, params=asked, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await newer.client.get(path, params=asked, headers={"If-None-Match": '"other"'})).status_code == 200
    await newer.appended()
    changed = await newer.client.get(path, params=asked, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_older_versions_have_no_tags(older: Wire) -> None:
    await older.appended()
    answer = await older.query()
    assert "etag" not in answer.headers
    assert (await older.client.get(QUERY, params={"tenant_id": TENANT}, headers={"If-None-Match": "*"})).json()["count"]


async def fill(wire: Wire, count: int, *, stream: str = "user:1", size: int = 1) -> None:
    event = {"event_type": "auth.filled", "entity_id": stream, "tenant_id": TENANT, "payload": "x" * size}
    while count > 0:
        part = min(count, 5000)
        answer = await wire.client.post(f"{EVENTS}/batch", json={"events": [event] * part})
        assert answer.status_code == 200
        count -= part


async def test_a_page_of_newer_versions_ends_at_ten_thousand_events(newer: Wire) -> None:
    await fill(newer, 10_001)
    for asked in ({}, {"limit": 20_000}, {"entity_id": "user:1", "limit": 10_001}):
        page = await newer.page(**asked)
        assert (page["count"], page["total_count"], page["has_more"]) == (10_000, 10_001, True)
    assert (await newer.page(limit=20_000, offset=9_999))["count"] == 2


async def test_a_page_of_older_versions_has_no_end(older: Wire) -> None:
    await fill(older, 10_001)
    assert (await older.page())["count"] == 10_001


async def test_an_answer_of_newer_versions_ends_at_16_mebibytes(newer: Wire) -> None:
    for _ in range(9):
        await fill(newer, 1, size=1_900_000)
    for answer in (
        await newer.query(),
        await newer.client.get(STATE, params={"tenant_id": TENANT, "history": "true"}),
    ):
        assert answer.status_code == 413
        assert answer.json() == {"error": "response_too_large", "message": "Request a smaller bounded page."}
    assert (await newer.page(limit=4))["count"] == 4


async def test_an_answer_of_older_versions_has_no_end(older: Wire) -> None:
    for _ in range(9):
        await fill(older, 1, size=1_900_000)
    assert (await older.page())["count"] == 9


async def test_a_strict_read_says_so_and_has_microseconds(newer: Wire) -> None:
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


async def test_the_version_of_a_strict_read_is_that_of_the_tenants_events(newer: Wire) -> None:
    await newer.appended()
    await newer.appended(tenant_id="other")
    assert (await newer.page(**STRICT))["entity_version"] == 1
    assert (await newer.page(**STRICT | {"entity_id": "nobody"}))["entity_version"] == 0


FILTERED = "Strict retained read requires retained-entity-v1 without filters, offset or descending order"
INCOMPLETE = "Strict retained read requires tenant_id, entity_id and limit 1..1001"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"integrity": "other"}, FILTERED),
        ({"integrity": ""}, FILTERED),
        ({"offset": 1}, FILTERED),
        ({"order": "desc"}, FILTERED),
        ({"event_type": "a.b"}, FILTERED),
        ({"event_type_prefix": "a."}, FILTERED),
        ({"exclude_event_type_prefix": "a."}, FILTERED),
        ({"payload_filter": "{}"}, FILTERED),
        ({"since": "2001-01-01T00:00:00Z"}, FILTERED),
        ({"until": "2001-01-01T00:00:00Z"}, FILTERED),
        ({"as_of": "2001-01-01T00:00:00Z"}, FILTERED),
        ({"limit": 0}, INCOMPLETE),
        ({"limit": 1002}, INCOMPLETE),
        ({"tenant_id": ""}, "Tenant ID cannot be empty"),
        ({"entity_id": ""}, "Entity ID cannot be empty"),
    ],
)
async def test_rules_of_strict_reads(newer: Wire, asked: dict[str, Any], said: str) -> None:
    answer = await newer.query(**STRICT | asked)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Invalid input: {said}"}


@pytest.mark.parametrize("left_out", ["tenant_id", "entity_id", "limit"])
async def test_a_strict_read_needs_them_all(newer: Wire, left_out: str) -> None:
    asked = {name: value for name, value in {"tenant_id": TENANT, **STRICT}.items() if name != left_out}
    answer = await newer.client.get(QUERY, params={name: str(value) for name, value in asked.items()})
    assert (answer.status_code, answer.json()) == (400, {"error": f"Invalid input: {INCOMPLETE}"})


async def test_budgets_of_strict_reads(newer: Wire) -> None:
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
    assert (await newer.query(**PREFIX)).json() == {"error": "Storage error: Prefix query encoded budget exceeded"}


async def test_a_strict_read_of_types(newer: Wire) -> None:
    for n in (1, 2, 3):
        await newer.appended(f"user:{n}", n)
    await newer.appended("invoice:1", kind="billing.paid")
    page = await newer.page(**PREFIX, limit=2, order="desc")
    assert [event["payload"] for event in page["events"]] == [3, 2]
    assert (page["total_count"], page["has_more"]) == (3, True)
    assert page.keys().isdisjoint({"archive_integrity", "entity_version"})
    assert len(page["events"][0]["timestamp"]) > len("2026-01-01T00:00:00.123456Z")


@pytest.mark.parametrize("asked", [{"entity_id": "user:1"}, {"event_type_prefix": ""}, {"tenant_id": ""}])
async def test_rules_of_strict_reads_of_types(newer: Wire, asked: dict[str, str]) -> None:
    answer = await newer.query(**PREFIX | asked)
    assert answer.status_code == 400
    said = "Invalid input: Strict prefix read requires tenant_id and nonempty event_type_prefix without entity_id"
    assert answer.json() == {"error": said}


async def test_older_versions_ignore_integrity(older: Wire) -> None:
    await older.appended()
    for integrity in ("retained-entity-v1", "other"):
        page = await older.page(integrity=integrity, entity_id="user:1", order="desc", limit=2000)
        assert (page["count"], "archive_integrity" in page) == (1, False)


async def test_one_event_is_found_by_id_whatever_its_tenant(wire: Wire) -> None:
    stored = await wire.appended(metadata={"op": "x"})
    answer = await wire.client.get(f"{EVENTS}/{stored['event_id'].upper()}")
    assert answer.status_code == 200
    assert answer.json() == {"event": (await wire.page())["events"][0], "found": True}


async def test_an_unknown_event_is_missing(wire: Wire) -> None:
    event_id = str(uuid.uuid4())
    answer = await wire.client.get(f"{EVENTS}/{event_id}")
    assert answer.status_code == 404
    assert answer.json() == {"error": f"Entity not found: Event '{event_id}' not found"}


async def test_an_event_id_is_a_uuid(wire: Wire) -> None:
    answer = await wire.client.get(f"{EVENTS}/xyz")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert answer.text.startswith("Invalid URL: Cannot parse `event_id` with value `xyz`: UUID parsing failed")


async def test_state_is_a_shallow_merge(wire: Wire) -> None:
    await wire.appended(payload={"name": "Ada", "address": {"city": "London", "street": "x"}}, kind="auth.user.created")
    await wire.appended(payload="no object")
    last = await wire.appended(payload={"address": {"city": "Paris"}, "name": None}, kind="auth.user.deleted")
    answer = await wire.client.get(STATE, params={"tenant_id": TENANT})
    assert answer.status_code == 200
    found = answer.json()
    assert found["current_state"] == {"address": {"city": "Paris"}, "name": None}
    assert (found["entity_id"], found["event_count"], found["as_of"]) == ("user:1", 3, None)
    assert found["last_updated"] == last["timestamp"]
    assert ("history" in found, "version" in found) == (not wire.newer, wire.newer)


async def test_state_tells_the_history_if_asked(wire: Wire) -> None:
    first = await wire.appended(payload={"n": 1}, kind="auth.user.created")
    await wire.appended(payload={"n": 2})
    found = (await wire.client.get(STATE, params={"tenant_id": TENANT, "history": "true"})).json()
    assert len(found["history"]) == 2
    assert found["history"][0] == {
        "event_id": first["event_id"],
        "type": "auth.user.created",
        "timestamp": first["timestamp"],
        "payload": {"n": 1},
    }
    assert found.get("version", 2) == 2


async def test_state_as_of_a_time(wire: Wire) -> None:
    first = await wire.appended(payload={"n": 1})
    await wire.appended(payload={"n": 2})
    asked = {"tenant_id": TENANT, "as_of": first["timestamp"]}
    found = (await wire.client.get(STATE, params=asked)).json()
    assert (found["current_state"], found["event_count"], found["as_of"]) == ({"n": 1}, 1, first["timestamp"])
    before = await wire.client.get(STATE, params=asked | {"as_of": "2001-01-01T00:00:00Z"})
    assert (before.status_code, before.json()) == (404, {"error": "Entity not found: user:1"})
    unreadable = await wire.client.get(STATE, params=asked | {"as_of": "now"})
    assert (unreadable.status_code, unreadable.headers["content-type"]) == (400, "text/plain; charset=utf-8")


async def test_state_without_tenant_crosses_tenants(wire: Wire) -> None:
    await wire.appended(payload={"of": "acme", "a": 1})
    await wire.appended(payload={"of": "other"}, tenant_id="other")
    assert (await wire.client.get(STATE)).json()["current_state"] == {"of": "other", "a": 1}
    assert (await wire.client.get(STATE, params={"tenant_id": TENANT})).json()["current_state"]["of"] == "acme"
    for tenant in ("", "nowhere"):
        assert (await wire.client.get(STATE, params={"tenant_id": tenant})).status_code == 404


async def test_the_entity_is_one_segment_of_the_path(wire: Wire) -> None:
    await wire.appended("a/b c", payload={"n": 1})
    answer = await wire.client.get("/api/v1/entities/a%2Fb%20c/state", params={"tenant_id": TENANT})
    assert answer.json()["entity_id"] == "a/b c"
    answer = await wire.client.get("/api/v1/entities/x%2Fy/state", params={"tenant_id": TENANT})
    assert answer.json() == {"error": "Entity not found: x/y"}


async def test_unknown_routes_and_methods_have_no_body(wire: Wire) -> None:
    for method, path, status in (
        ("GET", "/nope", 404),
        ("GET", f"{QUERY}/", 404),
        ("POST", QUERY, 405),
        ("GET", EVENTS, 405),
    ):
        answer = await wire.client.request(method, path, headers={"X-API-Key": wire.key})
        assert (answer.status_code, answer.content) == (status, b"")
