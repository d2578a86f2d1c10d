"""The places of 0.27: so many requests at a time, so many waiting, the rest 429."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, serving
from tests.support.api_client import ApiClient, local_api
from tests.support.faults import Faults


async def arrived(faults: Faults, count: int) -> None:
    while len(faults.requests) < count:
        await asyncio.sleep(0)


def start(api: ApiClient, count: int) -> list[asyncio.Task[httpx.Response]]:
    return [asyncio.create_task(api.append(f"user:{n}")) for n in range(count)]


async def test_more_than_places_and_waiting_get_429_and_store_nothing(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults) as api:
        tasks = start(api, 16 + 64)
        await arrived(faults, 80)
        for refused in (await api.append(), await api.client.get("/health"), await api.query()):
            assert (refused.status_code, refused.content) == (429, b"")
            assert refused.headers["retry-after"] == "1"
        assert not any(task.done() for task in tasks)
        gate.set()
        answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        assert (await api.page(limit=0))["total_count"] == 80


async def test_over_sockets_and_both_ports_together(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    local = LocalAllsource(log, middleware=faults, max_requests=2, max_waiting=1)
    async with serving(local) as running, httpx.AsyncClient() as client:
        urls = [f"{running.core_url}/health", f"{running.query_url}/health", f"{running.core_url}/health"]
        tasks = [asyncio.create_task(client.get(url)) for url in urls]
        async with asyncio.timeout(30):
            while len(faults.requests) < 3:
                await asyncio.sleep(0)
        refused = await client.get(urls[1])
        assert (refused.status_code, refused.content, refused.headers["retry-after"]) == (429, b"", "1")
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        assert (await client.get(urls[0])).status_code == 200
    assert faults.most_at_once == 4


async def test_who_has_waited_too_long_gets_429(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults, max_requests=1, patience=0.0) as api:
        first = asyncio.create_task(api.append())
        await arrived(faults, 1)
        refused = await api.append()
        assert (refused.status_code, refused.content) == (429, b"")
        gate.set()
        assert (await first).status_code == 200
        assert (await api.append()).status_code == 200


async def test_the_first_to_come_is_the_first_to_get_a_place(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults, max_requests=1) as api:
        tasks = []
        for n in range(5):
            tasks.append(asyncio.create_task(api.append("user:1", n)))
            await arrived(faults, n + 1)
        gate.set()
        await asyncio.gather(*tasks)
        assert await api.payloads() == [0, 1, 2, 3, 4]


async def test_a_client_that_gives_up_gives_its_place_back(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.27", log, middleware=faults, max_requests=1, max_waiting=1) as api:
        holding, waiting = start(api, 2)
        await arrived(faults, 2)
        for task in (waiting, holding):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.set()
        assert (await api.append()).status_code == 200
        assert (await api.page(limit=0))["total_count"] == 1


async def test_older_versions_have_no_limit(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    async with local_api("0.23", log, middleware=faults, max_requests=1, max_waiting=0) as api:
        tasks = start(api, 100)
        await arrived(faults, 100)
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
