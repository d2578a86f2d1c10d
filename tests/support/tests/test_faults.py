"""``Faults``: each fault has its documented effect, on the selected requests, as often as it was armed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, serving
from tests.support.api_client import EVENTS, QUERY, TENANT, ApiClient, local_api
from tests.support.faults import Faults, ReceivedRequest

UNCERTAIN = b'{"error":"Queue full: Conditional archive deadline exceeded; the outcome is uncertain"}'


async def stored_events(api: ApiClient) -> int:
    found: int = (await api.page(limit=0))["total_count"]
    return found


async def test_requests_are_recorded_in_order(local: ApiClient, faults: Faults) -> None:
    await local.appended()
    await local.query(entity_id="user:1")
    await local.client.get("/nope")
    assert faults.requests == [
        ReceivedRequest("POST", EVENTS, ""),
        ReceivedRequest("GET", QUERY, f"tenant_id={TENANT}&entity_id=user%3A1"),
        ReceivedRequest("GET", "/nope", ""),
    ]
    assert faults.most_at_once == 1


async def test_highest_number_of_concurrent_requests_is_recorded(local: ApiClient, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate, on="POST")
    tasks = [asyncio.create_task(local.append(f"user:{n}")) for n in range(5)]
    while len(faults.requests) < 5:
        await asyncio.sleep(0)
    assert (await local.query()).status_code == 200
    gate.set()
    await asyncio.gather(*tasks)
    await local.query()
    assert faults.most_at_once == 6


async def test_request_with_a_lost_reply_is_processed(local: ApiClient, faults: Faults) -> None:
    faults.lose_replies(2)
    assert await stored_events(local) == 0
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await local.append()
    await local.appended()
    assert await stored_events(local) == 3


async def test_lost_reply_closes_the_connection(log: SqliteLog, faults: Faults) -> None:
    local = LocalAllsource(log, middleware=faults)
    async with serving(local) as running, httpx.AsyncClient(base_url=running.core_url) as client:
        api = ApiClient(client, newer=True)
        await api.appended()
        faults.lose_replies(on="")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await api.query()
        faults.lose_replies()
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await api.append()
        assert await stored_events(api) == 2


async def test_refusal_has_the_given_status_body_and_headers(local: ApiClient, faults: Faults) -> None:
    faults.refuse(503, UNCERTAIN, {"Retry-After": "1", "Content-Type": "application/json"}, count=2)
    for answer in (await local.append(), await local.query()):
        assert (answer.status_code, answer.content) == (503, UNCERTAIN)
        assert (answer.headers["retry-after"], answer.headers["content-type"]) == ("1", "application/json")
    assert await stored_events(local) == 0


async def test_refused_request_is_processed_with_stored(local: ApiClient, faults: Faults) -> None:
    faults.refuse(503, UNCERTAIN, stored=True)
    assert (await local.append()).status_code == 503
    assert await stored_events(local) == 1


async def test_refusal_acts_on_each_third_request(local: ApiClient, faults: Faults) -> None:
    faults.refuse(429, count=2, every=3, on="POST")
    found = []
    for _ in range(8):
        found.append((await local.append()).status_code)
        assert (await local.query()).status_code == 200
    assert found == [200, 200, 429, 200, 200, 429, 200, 200]


async def test_fault_acts_on_the_selected_requests_only(local: ApiClient, faults: Faults) -> None:
    faults.refuse(503, on="GET /api/v1/events/query")
    faults.refuse(429, on="/batch")
    await local.appended()
    assert (await local.query()).status_code == 503
    assert (await local.client.post(f"{EVENTS}/batch", json={"events": []})).status_code == 429


async def test_faults_act_in_the_order_of_arming(local: ApiClient, faults: Faults) -> None:
    faults.refuse(503)
    faults.refuse(429, count=2)
    assert [(await local.query()).status_code for _ in range(4)] == [503, 429, 429, 200]


async def test_garbled_reply_replaces_the_reply(local: ApiClient, faults: Faults) -> None:
    faults.garble(b"<html>Bad gateway</html>", "text/html", 502)
    faults.garble(b'{"event_id":', "application/json", stored=False)
    first, second = await local.append(), await local.append()
    assert (first.status_code, first.headers["content-type"], first.text[:6]) == (502, "text/html", "<html>")
    assert (second.status_code, second.content) == (200, b'{"event_id":')
    assert await stored_events(local) == 1


async def test_rewritten_reply_is_passed_through_the_function(local: ApiClient, faults: Faults) -> None:
    def another_entity(answer: Any) -> Any:
        for event in answer["events"]:
            event["entity_id"] = "user:2"
        return answer

    await local.appended()
    faults.rewrite(another_entity, on=QUERY)
    for _ in range(2):
        page = await local.page(entity_id="user:1")
        assert [event["entity_id"] for event in page["events"]] == ["user:2"]
    assert (await local.append("")).status_code == 400
    faults.clear()
    assert [event["entity_id"] for event in (await local.page())["events"]] == ["user:1"]


async def test_delay_holds_requests_before_they_are_processed(local: ApiClient, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate, on="POST")
    held = asyncio.create_task(local.append())
    while not faults.requests:
        await asyncio.sleep(0)
    assert await stored_events(local) == 0
    assert not held.done()
    gate.set()
    assert (await held).status_code == 200
    faults.delay(0.0)
    await local.appended()
    assert await stored_events(local) == 2


async def test_clear_disarms_everything(local: ApiClient, faults: Faults) -> None:
    faults.lose_replies(5)
    faults.refuse(503, count=5)
    faults.delay(asyncio.Event())
    faults.rewrite(lambda answer: None)
    faults.stale()
    faults.clear()
    await local.appended()
    assert await stored_events(local) == 1


async def test_stale_server_answers_from_its_archive(local: ApiClient, faults: Faults) -> None:
    await local.appended(payload={"n": 1})
    faults.stale()
    await local.appended(payload={"n": 2}, expected_version=1)
    await local.appended("user:2")
    old = await local.page(entity_id="user:1", order="desc", limit=1)
    assert [event["payload"] for event in old["events"]] == [{"n": 1}]
    assert (old["total_count"], old["entity_version"]) == (1, 2)
    nothing = await local.page(entity_id="user:2")
    assert (nothing["events"], nothing["entity_version"]) == ([], 1)


async def test_stale_server_rejects_queries_without_entity(local: ApiClient, faults: Faults) -> None:
    faults.stale()
    refused = await local.query(event_type_prefix="auth.")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
    assert refused.json()["error"] == "archive_hydration_refused"
    assert refused.json().keys() == {"error", "needed_bytes", "available_bytes"}


async def test_strict_reads_of_a_stale_server_are_complete(local: ApiClient, faults: Faults) -> None:
    faults.stale()
    await local.appended(payload={"n": 1})
    strict = await local.page(entity_id="user:1", limit=10, integrity="retained-entity-v1")
    assert [event["payload"] for event in strict["events"]] == [{"n": 1}]


async def test_single_stream_can_be_stale(local: ApiClient, faults: Faults) -> None:
    faults.stale("user:1")
    await local.appended("user:1")
    await local.appended("user:2")
    assert (await local.page(entity_id="user:1"))["count"] == 0
    assert (await local.page(entity_id="user:2"))["count"] == 1


async def test_restart_closes_idle_connections(log: SqliteLog, faults: Faults) -> None:
    async with serving(LocalAllsource(log, middleware=faults)) as running:
        host, port = running.core_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        health = b"GET /health HTTP/1.1\r\nHost: local\r\n\r\n"
        writer.write(health)
        await reader.readuntil(b'"version":"0.27.0"}')
        faults.restart(cold=False)
        # A connection that is open would answer.
        writer.write(health)
        with suppress(ConnectionError):
            assert await reader.read(1) == b""
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("arming", [{"count": 0}, {"every": 0}])
def test_arming_rejects_a_count_below_one(arming: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Faults().refuse(503, **arming)  # type: ignore[arg-type]


async def test_faults_belong_to_one_server(log: SqliteLog, faults: Faults) -> None:
    with pytest.raises(RuntimeError):
        faults.stale()
    async with local_api("0.27", log, middleware=faults):
        with pytest.raises(RuntimeError):
            LocalAllsource(log, middleware=faults)
