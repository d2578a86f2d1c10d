"""The limit of 0.27 on concurrent requests: slots, a bounded queue, 429."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, serving
from tests.support.api_client import ApiClient, local_api
from tests.support.faults import Faults


async def received(faults: Faults, count: int) -> None:
    while len(faults.requests) < count:
        await asyncio.sleep(0)


def start_appends(api: ApiClient, count: int) -> list[asyncio.Task[httpx.Response]]:
    return [asyncio.create_task(api.append(f"user:{n}")) for n in range(count)]


async def test_request_beyond_slots_and_queue_gets_429_and_stores_nothing(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults) as api:
        tasks = start_appends(api, 16 + 64)
        await received(faults, 80)
        for refused in (await api.append(), await api.client.get("/health"), await api.query()):
            assert (refused.status_code, refused.content) == (429, b"")
            assert refused.headers["retry-after"] == "1"
        assert not any(task.done() for task in tasks)
        gate.set()
        answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        assert (await api.page(limit=0))["total_count"] == 80


async def test_both_ports_share_one_limit(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    local = LocalAllsource(log, middleware=faults, max_requests=2, max_waiting=1)
    async with serving(local) as running, httpx.AsyncClient() as client:
        urls = [f"{running.core_url}/health", f"{running.query_url}/health", f"{running.core_url}/health"]
        tasks = [asyncio.create_task(client.get(url)) for url in urls]
        async with asyncio.timeout(30):
            await received(faults, 3)
        refused = await client.get(urls[1])
        assert (refused.status_code, refused.content, refused.headers["retry-after"]) == (429, b"", "1")
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        assert (await client.get(urls[0])).status_code == 200
    assert faults.most_at_once == 4


async def test_request_that_waits_too_long_gets_429(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults, max_requests=1, patience=0.0) as api:
        first = asyncio.create_task(api.append())
        await received(faults, 1)
        refused = await api.append()
        assert (refused.status_code, refused.content) == (429, b"")
        gate.set()
        assert (await first).status_code == 200
        assert (await api.append()).status_code == 200


async def test_queue_is_first_in_first_out(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults, max_requests=1) as api:
        tasks = []
        for n in range(5):
            tasks.append(asyncio.create_task(api.append("user:1", n)))
            await received(faults, n + 1)
        gate.set()
        await asyncio.gather(*tasks)
        assert await api.payloads() == [0, 1, 2, 3, 4]


async def test_cancelled_request_releases_its_slot_and_its_place_in_the_queue(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults, max_requests=1, max_waiting=1) as api:
        holding, waiting = start_appends(api, 2)
        await received(faults, 2)
        for task in (waiting, holding):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.set()
        assert (await api.append()).status_code == 200
        assert (await api.page(limit=0))["total_count"] == 1


async def test_older_versions_have_no_limit_on_requests(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.23", log, middleware=faults, max_requests=1, max_waiting=0) as api:
        tasks = start_appends(api, 100)
        await received(faults, 100)
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
