"""Guards: reads before guarded appends, replaced servers, versions that a server misreports."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from allsource_auth import AllsourceStore, SqliteLog
from allsource_auth.server import LocalAllsource
from allsource_auth.store.allsource import store as allsource
from allsource_auth.store.allsource.http import engine
from tests.store.allsource.conftest import Time
from tests.store.allsource.local import Local, Pauses
from tests.support.events import new_event, stored_user

pytestmark = pytest.mark.usefixtures("watch")

CORE, QUERY, APPEND = "GET core", "GET query", "POST core"


async def test_guarded_append_is_sent_directly_after_a_read(older: Local, time: Time) -> None:
    store = older.store()

    async def append(stream: str = "s", *, guard: int | None = None) -> list[str]:
        await store.append([new_event(stream, guard=guard)])
        return older.requests()

    assert (await append(guard=0))[-2:] == [CORE, APPEND]
    assert await append(guard=1) == [APPEND], "the server was read just before"
    time.now += allsource.TENANT_LOADED_FOR / 2
    assert await append(guard=2) == [APPEND]
    time.now += allsource.TENANT_LOADED_FOR
    assert await append(guard=3) == [CORE, APPEND]
    time.now += 60
    assert await append() == [APPEND], "an unguarded append needs no versions"
    assert await append(guard=5) == [CORE, APPEND]
    time.now += 60
    await store.latest("s")
    assert older.requests() == [QUERY]
    assert await append(guard=6) == [CORE, APPEND], "the read went to another server"
    time.now += 60
    await store.latest("s", require_leader=True)
    assert older.requests() == [CORE]
    assert await append(guard=7) == [APPEND]
    time.now += 60
    await store.append([new_event("a"), new_event("s", guard=8), new_event("b")])
    assert older.requests() == [CORE, APPEND]
    assert older.arrived == []


async def test_each_retry_of_a_guarded_append_follows_a_read(
    older: Local, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (allsource, engine):
        monkeypatch.setattr(module, "monotonic", pauses.monotonic)
    store = older.store()
    await store.append([new_event("s", guard=0)])
    older.requests()
    older.faults.refuse(429, count=3, on="POST")
    await store.append([new_event("s", guard=1)])
    assert older.requests() == [APPEND, *[CORE, APPEND] * 3]


async def test_features_are_detected_again_after_a_failed_connection(older: Local, time: Time) -> None:
    store = older.store()
    await store.append([new_event("s", guard=0)])
    assert store.loses_versions_on_restart
    older.faults.lose_replies(2, on="GET")  # the first one is repeated on a new connection
    await store.latest("s", require_leader=True)
    older.arrived.clear()
    await store.append([new_event("s", guard=1)])
    strict_read, read, append = older.arrived
    assert strict_read.parameters["integrity"] == ["retained-entity-v1"]
    assert (read.method, read.parameters["entity_id"]) == ("GET", ["s"])
    assert append.method == "POST"


async def test_newer_server_is_not_read_before_each_append(newer: Local, time: Time) -> None:
    store = newer.store()
    at_first = store.loses_versions_on_restart
    await store.append([new_event("s", guard=0)])
    assert (at_first, store.loses_versions_on_restart) == (True, False)
    newer.requests()
    time.now += 1
    await store.append([new_event("s", guard=1)])
    assert newer.requests() == [APPEND]


@pytest.mark.parametrize("generation", ["0.23", "0.27"])
async def test_replacement_by_another_server_version_is_detected(generation: str, time: Time) -> None:
    """An upgrade or a downgrade behind the same address, without a failed connection."""
    log = SqliteLog(None)
    both = {"0.23": LocalAllsource(log, generation="0.23").core, "0.27": LocalAllsource(log, generation="0.27").core}
    order = ["0.23", "0.27"] if generation == "0.23" else ["0.27", "0.23"]

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await both[order[0]](scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(serve)) as client:
        store = AllsourceStore("http://localhost", http_client=client)
        await store.append([new_event("s", guard=0)])
        assert store.loses_versions_on_restart == (generation == "0.23")
        order.reverse()
        time.now += 60
        await store.latest("s", require_leader=True)
        await store.append([new_event("s", guard=1)])
        assert store.loses_versions_on_restart == (generation == "0.27")
    await log.close()


# Misreported versions


def all_ones(answer: Any) -> Any:
    """As after an upgrade from 0.23: queries report version 1 for every event and for the stream."""
    if "events" not in answer or "entity_version" not in answer:
        return answer
    events = [event | {"version": 1} for event in answer["events"]]
    return answer | {"events": events, "entity_version": min(1, answer["entity_version"])}


@pytest.mark.parametrize("fresh", [False, True], ids=["same-adapter", "fresh-adapter"])
async def test_conflict_supplies_the_version_that_reads_misreport(newer: Local, fresh: bool) -> None:
    await newer.append(*(new_event("auth-user:ada", stored_user("ada", name=str(number))) for number in range(3)))
    newer.faults.rewrite(all_ones, on="GET")
    adapter = newer.adapter()
    for turn in range(3):
        reader = newer.adapter() if fresh else adapter
        changed = await reader.users.update("ada", name=f"turn {turn}")
        assert await reader.users.get("ada") == changed
    assert len(await newer.events("auth-user:ada")) == 6
    await adapter.users.delete("ada")
    assert await adapter.users.get("ada") is None


async def test_version_of_a_conflict_is_dropped_after_a_new_event(newer: Local) -> None:
    await newer.append(*(new_event("auth-user:ada", stored_user("ada", name=str(number))) for number in range(3)))
    newer.faults.rewrite(all_ones, on="GET")
    adapter, other = newer.adapter(), newer.adapter()
    for turn in range(4):
        await adapter.users.update("ada", name=f"turn {turn}")
        await other.users.update("ada", role=f"turn {turn}")
    user = await adapter.users.get("ada")
    assert user is not None
    assert (user.name, user.role) == ("turn 3", "turn 3")
    assert len(await newer.events("auth-user:ada")) == 11
