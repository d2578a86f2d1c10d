"""Calls of the event feed, which keep guarded appends fast on 0.27."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from allsource_auth import AllsourceStore
from allsource_auth.store.allsource import store as allsource
from allsource_auth.store.allsource.http.parsing import ReplyParser
from tests.store.allsource.conftest import Time
from tests.store.allsource.local import KEY, Local, Pauses, running_local
from tests.support.events import new_event

pytestmark = [pytest.mark.usefixtures("watch"), pytest.mark.heavy]

FEED = "/api/v1/event-feed"


@pytest.fixture
async def local(parser: type[ReplyParser]) -> AsyncIterator[Local]:
    """A server that knows the API key, so that the store can read the feed."""
    async with running_local("0.27", api_keys={KEY: "default"}) as opened:
        yield opened


async def feed_calls_of_an_append(local: Local, store: AllsourceStore) -> int:
    """Append a guarded event; return how often the feed was called for it."""
    guard = len(await local.events("s"))
    local.arrived.clear()
    await store.append([new_event("s", guard=guard)])
    assert len(await local.events("s")) == guard + 1
    assert local.arrived[-1].method == "POST"
    return [request.path for request in local.arrived].count(FEED)


async def fail_a_connection(local: Local, store: AllsourceStore) -> None:
    local.faults.lose_replies(2, on="GET")  # the first one is repeated on a new connection
    await store.latest("s", require_leader=True)


async def test_feed_is_called_once_per_interval(local: Local, time: Time) -> None:
    store = local.store()
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    (call,) = [request for request in local.arrived if request.path == FEED]
    assert call.parameters == {"tenant_id": ["default"], "limit": ["0"]}
    assert (call.port, call.headers["x-api-key"]) == ("core", KEY)
    for _ in range(3):
        assert await feed_calls_of_an_append(local, store) == 0
    for _ in range(2):
        time.now += allsource.FEED_INTERVAL + 1
        assert await feed_calls_of_an_append(local, store) in (1, 2)
        assert await feed_calls_of_an_append(local, store) == 0


async def test_feed_is_called_after_a_reconnect(local: Local, time: Time) -> None:
    store = local.store()
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    await fail_a_connection(local, store)
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    assert await feed_calls_of_an_append(local, store) == 0


async def test_unguarded_append_does_not_call_the_feed(local: Local) -> None:
    store = local.store()
    await store.append([new_event("s")])
    await store.latest("s")
    assert [request.path for request in local.arrived].count(FEED) == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_refused_feed_is_not_called_before_a_reconnect(local: Local, time: Time, status: int) -> None:
    store = local.store()
    local.faults.refuse(status, b'{"error":"tenant_forbidden"}', on=FEED)
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    for _ in range(3):
        time.now += allsource.FEED_INTERVAL + 1
        assert await feed_calls_of_an_append(local, store) == 0
    await fail_a_connection(local, store)
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    time.now += allsource.FEED_INTERVAL + 1
    assert await feed_calls_of_an_append(local, store) in (1, 2)


async def test_forbidden_feed_is_not_called_again(newer: Local, time: Time) -> None:
    """In development mode the feed serves only the tenant of the developer."""
    store = newer.store()
    assert await feed_calls_of_an_append(newer, store) == 1
    time.now += allsource.FEED_INTERVAL + 1
    assert await feed_calls_of_an_append(newer, store) == 0


async def test_feed_is_not_called_on_older_servers(older: Local) -> None:
    assert await feed_calls_of_an_append(older, older.store()) == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "body": b'{"error":"Storage error: index evicted"}'},
        {"status": 502, "body": b"<html>"},
        {"status": 503, "body": b'{"error":"read_model_busy"}', "headers": {"Retry-After": "1"}},
        {"status": 503, "body": b'{"error":"archive_budget_exceeded"}', "headers": {"Retry-After": "300"}},
        {"status": 429, "body": b""},
        {"status": 409, "body": b'{"error":"version_conflict","expected_version":1,"current_version":2}'},
        {"status": 301, "body": b""},
    ],
    ids=lambda fault: str(fault["status"]),
)
async def test_failing_feed_neither_fails_nor_delays_appends(
    local: Local, time: Time, pauses: Pauses, fault: dict[str, Any]
) -> None:
    store = local.store()
    local.faults.refuse(**fault, count=1000, on=FEED)
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    assert await feed_calls_of_an_append(local, store) == 0
    time.now += allsource.FEED_INTERVAL + 1
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    assert pauses.made == []


async def test_lost_reply_of_the_feed_is_no_reconnect_and_fails_no_append(
    local: Local, time: Time, pauses: Pauses
) -> None:
    store = local.store()
    local.faults.lose_replies(1000, on=FEED)
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    assert await feed_calls_of_an_append(local, store) == 0
    time.now += allsource.FEED_INTERVAL + 1
    assert await feed_calls_of_an_append(local, store) in (1, 2)
    assert pauses.made == []


async def test_malformed_reply_of_the_feed_fails_no_append(local: Local) -> None:
    store = local.store()
    local.faults.garble(b"<html>", "text/html", on=FEED)
    assert await feed_calls_of_an_append(local, store) in (1, 2)
