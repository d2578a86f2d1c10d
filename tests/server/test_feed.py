"""The event feed: pages, cursors, filters, limits, credentials."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from allsource_auth import SqliteLog
from allsource_auth.store.sqlite.append import Batch, Record
from tests.support.api_client import FEED, TENANT, ApiClient, local_api
from tests.support.faults import Faults


async def page(api: ApiClient, **parameters: Any) -> dict[str, Any]:
    answer = await api.feed(**parameters)
    assert answer.status_code == 200, answer.text
    assert "etag" not in answer.headers
    found: dict[str, Any] = answer.json()
    return found


async def test_pages_continue_at_the_cursor_until_caught_up(newer: ApiClient) -> None:
    for n in range(5):
        await newer.appended("user:1", n)
        await newer.appended("user:1", "elsewhere", tenant_id="other")
    read: list[Any] = []
    cursor: dict[str, int] = {}
    positions: list[int] = []
    caught_up = False
    while not caught_up:
        found = await page(newer, limit=2, **cursor)
        assert found["tenant_id"] == TENANT
        assert found["head"] == {"epoch": found["cursor"]["epoch"], "position": 5}
        read += [(event["payload"], event["version"]) for event in found["events"]]
        positions += found["positions"]
        assert found["cursor"]["position"] == positions[-1]
        cursor, caught_up = found["cursor"], found["caught_up"]
    assert read == [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9)]
    assert positions == [1, 2, 3, 4, 5]
    assert (await page(newer, **cursor))["events"] == []
    await newer.appended("user:1", 5)
    assert [event["payload"] for event in (await page(newer, **cursor))["events"]] == [5]


async def test_feed_has_the_same_events_as_a_query(newer: ApiClient) -> None:
    await newer.appended(metadata={"op": "x"})
    assert (await page(newer))["events"] == (await newer.page())["events"]


async def test_limit_zero_returns_the_head(newer: ApiClient) -> None:
    await newer.appended()
    found = await page(newer, limit=0)
    assert (found["events"], found["positions"], found["caught_up"]) == ([], [], True)
    assert found["cursor"] == found["head"]
    assert found["cursor"]["position"] == 1
    assert 0 <= found["cursor"]["epoch"] < 2**52


async def test_empty_feed_is_caught_up_at_position_zero(newer: ApiClient) -> None:
    found = await page(newer)
    assert (found["head"]["position"], found["caught_up"], found["events"]) == (0, True, [])


@pytest.mark.parametrize(
    ("filters", "payloads", "caught_up"),
    [
        ({"prefixes": "auth."}, [0, 2, 4], True),
        ({"prefixes": "auth.,billing."}, [0, 1, 2, 3, 4], True),
        ({"prefixes": "auth., "}, [0, 2, 4], True),
        ({"prefixes": "", "limit": 3}, [0, 1, 2], False),
        ({"prefixes": "auth.", "limit": 2}, [0, 2], False),
        ({"entity_id": "odd"}, [1, 3], True),
        ({"entity_id": "odd", "prefixes": "auth."}, [], True),
        ({"entity_id": ""}, [], True),
    ],
)
async def test_filters_keep_the_positions(
    newer: ApiClient, filters: dict[str, Any], payloads: list[int], caught_up: bool
) -> None:
    for n in range(5):
        await newer.appended("odd" if n % 2 else "even", n, kind="billing.paid" if n % 2 else "auth.user.created")
    found = await page(newer, **filters)
    assert [event["payload"] for event in found["events"]] == payloads
    assert found["positions"] == [n + 1 for n in payloads]
    assert found["caught_up"] is caught_up
    assert found["cursor"]["position"] == (5 if caught_up else payloads[-1] + 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"limit": 501}, "feed limit must be 0..500"),
        ({"epoch": 1}, "feed cursor requires epoch and position"),
        ({"position": 1}, "feed cursor requires epoch and position"),
        ({"prefixes": "a,b,c,d,e,f,g,h,i"}, "feed permits at most 8 prefixes of 128 bytes"),
        ({"prefixes": "é" * 65}, "feed permits at most 8 prefixes of 128 bytes"),
    ],
)
async def test_invalid_parameter_is_rejected(newer: ApiClient, parameters: dict[str, Any], message: str) -> None:
    answer = await newer.feed(**parameters)
    assert (answer.status_code, answer.json()) == (400, {"error": f"Invalid input: {message}"})


@pytest.mark.parametrize("parameters", [{"limit": -1}, {"epoch": "x", "position": 1}, {"epoch": 1, "position": -1}])
async def test_unreadable_parameter_is_rejected_in_plain_text(newer: ApiClient, parameters: dict[str, Any]) -> None:
    answer = await newer.feed(**parameters)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")


async def test_cursor_of_another_epoch_or_beyond_the_end_conflicts(newer: ApiClient) -> None:
    await newer.appended()
    epoch = (await page(newer))["cursor"]["epoch"]
    for given, position in ((epoch + 1, 0), (epoch, 2)):
        answer = await newer.feed(epoch=given, position=position)
        assert answer.status_code == 409
        assert answer.json() == {
            "error": "version_conflict",
            "expected_version": given,
            "current_version": epoch,
        }


async def test_event_too_large_for_a_page_blocks_its_position(newer: ApiClient) -> None:
    await newer.appended("user:1", 1)
    await newer.appended("user:2", "x" * 600_000)
    await newer.appended("user:3", 3)
    assert [event["payload"] for event in (await page(newer, limit=1))["events"]] == [1]
    first = await page(newer)
    assert (first["cursor"]["position"], first["caught_up"]) == (1, False)
    answer = await newer.feed(**first["cursor"])
    message = "Invalid input: single feed event exceeds bounded feed response"
    assert (answer.status_code, answer.json()) == (400, {"error": message})
    after = first["cursor"] | {"position": 2}
    assert [event["payload"] for event in (await page(newer, **after))["events"]] == [3]


async def test_page_has_at_most_512_kibibytes(newer: ApiClient) -> None:
    for _ in range(4):
        await newer.appended(payload="x" * 200_000)
    found = await page(newer)
    assert (len(found["events"]), found["cursor"]["position"], found["caught_up"]) == (2, 2, False)


async def test_filtered_page_may_be_empty_before_the_end(log: SqliteLog) -> None:
    records = [Record("user:1", "auth.filled", "null", "1", None)] * 10_001
    await log.append(Batch(TENANT, records), 1)
    async with local_api("0.27", log, api_keys={"ask_a": TENANT}) as api:
        await api.appended("user:1", "last", kind="billing.paid")
        first = await page(api, prefixes="billing.")
        assert (first["events"], first["caught_up"], first["cursor"]["position"]) == ([], False, 10_000)
        second = await page(api, prefixes="billing.", **first["cursor"])
        assert ([event["payload"] for event in second["events"]], second["positions"]) == (["last"], [10_002])


async def test_reading_during_concurrent_appends_misses_no_event(newer: ApiClient) -> None:
    async def write(writer: int) -> None:
        for n in range(10):
            await newer.appended(f"user:{writer}", n)

    writing = asyncio.gather(*(write(writer) for writer in range(6)))
    read: list[str] = []
    positions: list[int] = []
    cursor: dict[str, int] = {}
    while not writing.done() or len(read) < 60:
        found = await page(newer, limit=7, **cursor)
        read += [event["id"] for event in found["events"]]
        positions += found["positions"]
        cursor = found["cursor"]
    await writing
    assert len(set(read)) == 60
    assert positions == list(range(1, 61))


async def test_older_versions_have_no_feed(older: ApiClient) -> None:
    assert (await older.feed()).status_code == 404


async def test_feed_requires_a_key_of_the_tenant_or_of_system(log: SqliteLog) -> None:
    keys = {"ask_acme": TENANT, "token": "other", "ask_system": "system"}
    async with local_api("0.27", log, api_keys=keys) as api:
        await api.appended()
        for headers, status, message in (
            ({}, 401, "Missing authorization header"),
            ({"X-API-Key": "ask_wrong"}, 401, "Invalid API key"),
            ({"Authorization": "Bearer wrong"}, 401, "Invalid token: InvalidToken"),
            ({"Authorization": "Bearer"}, 401, "Empty authorization token"),
            ({"Authorization": "Bearer ask_acme", "X-API-Key": "ask_wrong"}, 200, None),
            ({"Authorization": "ask_acme"}, 200, None),
            ({"X-API-Key": "Bearer ask_acme"}, 200, None),
            ({"X-API-Key": "token"}, 403, None),
            ({"X-API-Key": "ask_system"}, 200, None),
        ):
            answer = await api.client.get(FEED, params={"tenant_id": TENANT}, headers=headers)
            assert answer.status_code == status
            if message is not None:
                assert (answer.text, answer.headers["content-type"]) == (message, "text/plain; charset=utf-8")
        forbidden = await api.client.get(FEED, params={"tenant_id": TENANT}, headers={"X-API-Key": "token"})
        assert forbidden.json() == {"error": "tenant_forbidden"}
        own = await api.client.get(FEED, headers={"X-API-Key": "ask_acme"})
        assert (own.json()["tenant_id"], len(own.json()["events"])) == (TENANT, 1)


async def test_development_mode_serves_the_feed_of_its_own_tenant_only(local: ApiClient) -> None:
    await local.appended(tenant_id="dev-tenant")
    found = (await local.client.get(FEED, headers={"X-API-Key": "ask_whatever"})).json()
    assert (found["tenant_id"], len(found["events"])) == ("dev-tenant", 1)
    assert (await local.client.get(FEED, params={"tenant_id": "dev-tenant"})).status_code == 200
    assert (await local.feed()).json() == {"error": "tenant_forbidden"}


async def test_restart_starts_a_new_epoch(log: SqliteLog, faults: Faults) -> None:
    async with local_api("0.27", log, middleware=faults, api_keys={"ask_a": TENANT}) as api:
        await api.appended()
        cursor = (await page(api))["cursor"]
        faults.restart(cold=False)
        assert (await api.feed(**cursor)).status_code == 409
        assert (await page(api))["head"]["position"] == 1
