"""Appending: acknowledgements, invalid bodies, versions and guards, batches."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.support.api_client import EVENTS, TENANT, ApiClient

JSON = {"Content-Type": "application/json"}
EVENT = {"event_type": "auth.user.created", "entity_id": "user:1", "tenant_id": TENANT, "payload": {"n": 1}}
RANDOM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z")


async def test_append_is_acknowledged_with_id_time_and_version(api: ApiClient) -> None:
    answer = await api.client.post(EVENTS, json=EVENT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["event_id", "timestamp", "version"]
    assert RANDOM_ID.fullmatch(answer.json()["event_id"])
    assert INSTANT.fullmatch(answer.json()["timestamp"])
    assert answer.json()["version"] == 1


async def test_acknowledged_event_is_returned_by_a_query(api: ApiClient) -> None:
    acknowledged = (await api.client.post(EVENTS, json=EVENT | {"metadata": {"op": "x"}})).json()
    page = await api.page(entity_id="user:1")
    assert page["events"] == [
        {
            "id": acknowledged["event_id"],
            "event_type": "auth.user.created",
            "entity_id": "user:1",
            "tenant_id": TENANT,
            "payload": {"n": 1},
            "timestamp": acknowledged["timestamp"],
            "metadata": {"op": "x"},
            "version": 1,
        }
    ]


async def test_event_without_metadata_has_null(api: ApiClient) -> None:
    await api.appended()
    assert (await api.page())["events"][0]["metadata"] is None


async def test_id_and_time_sent_by_the_client_are_ignored(api: ApiClient) -> None:
    own = {"id": "0" * 36, "event_id": "0" * 36, "timestamp": "2001-01-01T00:00:00Z", "idempotency_key": "k"}
    first = await api.appended(**own)
    second = await api.appended(**own)
    assert first["event_id"] != second["event_id"] != own["id"]
    assert not second["timestamp"].startswith("2001")
    assert second["version"] == 2


async def test_append_without_tenant_goes_to_default(api: ApiClient) -> None:
    await api.client.post(EVENTS, json={key: value for key, value in EVENT.items() if key != "tenant_id"})
    assert (await api.page())["events"] == []
    assert [event["tenant_id"] for event in (await api.page(tenant_id="default"))["events"]] == ["default"]


async def test_keys_are_sorted_and_numbers_keep_their_type(api: ApiClient) -> None:
    await api.appended(payload={"z": 1, "a": {"c": 1.0, "b": 18446744073709551615}, "m": -9223372036854775808})
    text = (await api.query()).text
    assert '"payload":{"a":{"b":18446744073709551615,"c":1.0},"m":-9223372036854775808,"z":1}' in text


async def test_integer_beyond_64_bits_becomes_a_float(api: ApiClient) -> None:
    await api.appended(payload=[{"n": 123456789012345678901234567890}])
    (payload,) = await api.payloads()
    assert payload == [{"n": 1.2345678901234568e29}]
    assert isinstance(payload[0]["n"], float)


@pytest.mark.parametrize("payload", ["null", "[]", "0", '"text"', "false"])
async def test_any_json_value_is_a_valid_payload(api: ApiClient, payload: str) -> None:
    body = f'{{"event_type":"a.b","entity_id":"e","tenant_id":"{TENANT}","payload":{payload}}}'
    assert (await api.client.post(EVENTS, content=body, headers=JSON)).status_code == 200
    assert f'"payload":{payload},' in (await api.query()).text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"event_type":"a.b","entity_id":"e","payload":1} x', 400),
        (b'{"event_type":"a.b","entity_id":"\xff","payload":1}', 400),
        (b'{"event_type":"a.b","entity_id":"e","payload":"\\ud800"}', 400),
        (b'{"event_type":"a.b","entity_id":"e","payload":NaN}', 400),
        (b'{"event_type":"a.b","entity_id":"e","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b"{}", 422),
        (b"[]", 422),
        (b'{"event_type":"a.b","entity_id":"e"}', 422),
        (b'{"event_type":1,"entity_id":"e","payload":1}', 422),
        (b'{"event_type":"a.b","entity_id":"e","payload":1,"expected_version":-1}', 422),
        (b'{"event_type":"a.b","entity_id":"e","payload":1,"expected_version":1.0}', 422),
        (b'{"event_type":"a.b","entity_id":"e","payload":1,"expected_version":"1"}', 422),
        (b'{"event_type":"a.b","entity_id":"e","payload":1,"expected_version":18446744073709551616}', 422),
    ],
)
async def test_invalid_body_is_rejected_in_plain_text(api: ApiClient, body: bytes, status: int) -> None:
    answer = await api.client.post(EVENTS, content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("Failed to ")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.acme+json", 200),
    ],
)
async def test_content_type_must_be_json(api: ApiClient, content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = b'{"event_type":"a.b","entity_id":"e","payload":1}'
    answer = await api.client.post(EVENTS, content=body, headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert answer.text == "Expected request with `Content-Type: application/json`"


async def test_body_above_two_mebibytes_is_rejected(api: ApiClient) -> None:
    assert (await api.append(payload="x" * 1_900_000)).status_code == 200
    refused = await api.append(payload="x" * (2 * 1024 * 1024))
    assert refused.status_code == 413
    assert refused.text == "Failed to buffer the request body: length limit exceeded"
    assert (await api.page(limit=0))["total_count"] == 1


async def test_version_counts_per_stream_over_all_tenants(api: ApiClient) -> None:
    versions = [
        (await api.appended("shared", tenant_id=tenant))["version"] for tenant in ("acme", "other", "acme", "third")
    ]
    assert versions == [1, 2, 3, 4]
    assert (await api.appended("alone"))["version"] == 1


async def test_guard_must_equal_the_version(api: ApiClient) -> None:
    assert (await api.appended(expected_version=0))["version"] == 1
    assert (await api.appended(expected_version=1))["version"] == 2
    for guard in (0, 1, 3, 18446744073709551615):
        refused = await api.append(expected_version=guard)
        assert refused.status_code == 409
        assert refused.text == f'{{"current_version":2,"error":"version_conflict","expected_version":{guard}}}'
    assert (await api.page(limit=0))["total_count"] == 2


async def test_guard_counts_the_events_of_other_tenants(api: ApiClient) -> None:
    await api.appended("shared")
    refused = await api.append("shared", expected_version=0, tenant_id="other")
    assert refused.json()["current_version"] == 1


async def test_null_means_no_guard(api: ApiClient) -> None:
    await api.appended()
    assert (await api.appended(expected_version=None, tenant_id=TENANT))["version"] == 2


async def test_one_of_concurrent_creations_wins(api: ApiClient) -> None:
    for round_number in range(3):
        stream = f"user:{round_number}"
        answers = await asyncio.gather(*(api.append(stream, {"by": n}, expected_version=0) for n in range(16)))
        assert sorted(answer.status_code for answer in answers) == [200, *[409] * 15]
        winner = [answer.status_code for answer in answers].index(200)
        assert await api.payloads(entity_id=stream) == [{"by": winner}]


def batch(*events: dict[str, Any]) -> dict[str, Any]:
    return {"events": [EVENT | event for event in events]}


async def test_batch_is_acknowledged_in_order(api: ApiClient) -> None:
    body = batch({"expected_version": 0}, {"expected_version": 1}, {"entity_id": "user:2"})
    answer = await api.client.post(f"{EVENTS}/batch", json=body)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["total"], found["ingested"]) == (3, 3)
    assert [event["version"] for event in found["events"]] == [1, 2, 1]
    ids = [event["id"] for event in (await api.page())["events"]]
    assert ids == [event["event_id"] for event in found["events"]]


async def test_empty_batch_stores_nothing(api: ApiClient) -> None:
    assert (await api.client.post(f"{EVENTS}/batch", json={"events": []})).json() == {
        "total": 0,
        "ingested": 0,
        "events": [],
    }


@pytest.mark.parametrize(
    ("failing", "status"), [({"expected_version": 7}, 409), ({"event_type": "Bad"}, 400), ({"tenant_id": "a.b"}, 400)]
)
async def test_batch_stops_at_the_first_failure_and_keeps_earlier_events(
    api: ApiClient, failing: dict[str, Any], status: int
) -> None:
    body = batch({"payload": 1}, {"payload": 2} | failing, {"payload": 3})
    answer = await api.client.post(f"{EVENTS}/batch", json=body)
    assert answer.status_code == status
    assert "error" in answer.json()
    assert "ingested" not in answer.json()
    assert await api.payloads() == [1]


async def test_batch_with_a_malformed_element_stores_nothing(api: ApiClient) -> None:
    answer = await api.client.post(f"{EVENTS}/batch", json={"events": [EVENT, {"event_type": "a.b"}]})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert (await api.client.post(f"{EVENTS}/batch", json={})).status_code == 422
    assert await api.payloads() == []


async def test_batch_with_a_reserved_name_stores_nothing(newer: ApiClient) -> None:
    answer = await newer.client.post(f"{EVENTS}/batch", json=batch({}, {"entity_id": "read-model:x"}))
    assert answer.status_code == 400
    assert await newer.payloads() == []


async def test_older_versions_reserve_nothing_for_read_models(older: ApiClient) -> None:
    assert (await older.appended("read-model:x", kind="allsource.read_model.committed"))["version"] == 1


async def test_stored_event_cannot_be_changed_or_deleted(api: ApiClient) -> None:
    event_id = (await api.appended())["event_id"]
    for method in ("PUT", "PATCH", "DELETE"):
        response = await api.client.request(method, f"{EVENTS}/{event_id}", json=EVENT)
        assert response.status_code in (404, 405)
