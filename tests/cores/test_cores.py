"""``tests.support.cores`` with real Cores: start, stop, restart, upgrade, failures."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cores import NEWEST, OLDEST, Core, CoreFailed, CoreMissing, required, running
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.core

VERSIONS = [OLDEST, NEWEST]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as opened:
        yield opened


async def append(client: httpx.AsyncClient, core: Core, stream: str, *, expected: int | None = None) -> httpx.Response:
    event: dict[str, Any] = {"event_type": "core.tested", "entity_id": stream, "tenant_id": "acme", "payload": {"n": 1}}
    if expected is not None:
        event["expected_version"] = expected
    return await client.post(f"{core.url}/api/v1/events", json=event)


async def count(client: httpx.AsyncClient, core: Core, stream: str) -> int:
    page = await client.get(f"{core.url}/api/v1/events/query", params={"tenant_id": "acme", "entity_id": stream})
    return len(page.raise_for_status().json()["events"])


async def reported_version(client: httpx.AsyncClient, core: Core) -> str:
    version: str = (await client.get(f"{core.url}/health")).json()["version"]
    return version


@pytest.mark.parametrize("version", VERSIONS)
async def test_core_in_memory_loses_its_events_at_a_restart(client: httpx.AsyncClient, version: str) -> None:
    async with running(version) as core:
        assert await reported_version(client, core) == version
        assert (await append(client, core, "thing:1")).json()["version"] == 1
        assert await count(client, core, "thing:1") == 1
        await core.restart()
        assert await count(client, core, "thing:1") == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL], ids=lambda sig: sig.name)
@pytest.mark.parametrize("version", VERSIONS)
async def test_core_with_data_directory_keeps_its_events(
    client: httpx.AsyncClient, tmp_path: Path, version: str, sig: signal.Signals
) -> None:
    async with running(version, data=tmp_path / "core") as core:
        url, key, pid = core.url, core.api_key, core.pid
        assert (await append(client, core, "thing:1", expected=0)).status_code == 200
        for expected in (1, 2):
            await core.restart(sig)
            assert await count(client, core, "thing:1") == expected
            assert (await append(client, core, "thing:1")).status_code == 200
        assert (core.url, core.api_key) == (url, key)
        assert core.pid != pid


async def test_newest_core_opens_the_data_of_the_oldest(client: httpx.AsyncClient, tmp_path: Path) -> None:
    async with running(OLDEST, data=tmp_path) as core:
        await append(client, core, "thing:1")
        await core.restart(version=NEWEST)
        assert (core.version, await reported_version(client, core)) == (NEWEST, NEWEST)
        assert await count(client, core, "thing:1") == 1
    async with running(NEWEST, data=tmp_path) as again:
        assert await count(client, again, "thing:1") == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_api_key_belongs_to_an_administrator_of_system(
    client: httpx.AsyncClient, tmp_path: Path, version: str
) -> None:
    for _ in range(2):
        async with running(version, data=tmp_path) as core:
            me = await client.get(f"{core.url}/api/v1/auth/me", headers={"X-API-Key": core.api_key})
            assert (me.json()["tenant_id"], me.json()["role"]) == ("system", "admin")
            assert core.api_key not in repr(core)


async def test_core_gets_the_given_environment_and_not_the_inherited(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALLSOURCE_DATA_DIR", str(tmp_path / "inherited"))
    async with running(NEWEST, env={"ALLSOURCE_DEV_MODE": "false"}) as core:
        refused = await client.get(f"{core.url}/api/v1/event-feed", params={"limit": 0})
        assert refused.status_code == 401
        served = await client.get(
            f"{core.url}/api/v1/event-feed",
            params={"limit": 0, "tenant_id": "acme"},
            headers={"X-API-Key": core.api_key},
        )
        assert served.status_code == 200
    assert not list(tmp_path.iterdir())


async def test_two_cores_run_at_the_same_time(client: httpx.AsyncClient) -> None:
    async with running(OLDEST) as oldest, running(NEWEST) as newest:
        assert oldest.url != newest.url
        assert [await reported_version(client, oldest), await reported_version(client, newest)] == VERSIONS


async def test_port_is_closed_after_stop_and_after_the_block(client: httpx.AsyncClient) -> None:
    async with running(NEWEST) as core:
        await core.stop()
        await core.stop()
        with pytest.raises(httpx.ConnectError):
            await reported_version(client, core)
        await core.start()
        assert await reported_version(client, core) == NEWEST
    with pytest.raises(httpx.ConnectError):
        await reported_version(client, core)


async def test_core_is_killed_if_the_block_raises() -> None:
    pids: list[int] = []

    async def fail() -> None:
        async with running(NEWEST) as core:
            pids.append(core.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert_exited(pids[0])


async def test_core_is_killed_if_the_task_is_cancelled() -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def use() -> None:
        async with running(NEWEST) as core:
            started.set_result(core.pid)
            await asyncio.Event().wait()

    using = asyncio.create_task(use())
    pid = await started
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert_exited(pid)


def assert_exited(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_killed_core_can_be_started_again(client: httpx.AsyncClient, tmp_path: Path) -> None:
    async with running(NEWEST, data=tmp_path) as core:
        await append(client, core, "thing:1")
        await core.kill()
        await core.start()
        assert await count(client, core, "thing:1") == 1


async def test_start_is_retried_while_the_port_is_in_use(client: httpx.AsyncClient) -> None:
    async with running(OLDEST) as core, running(NEWEST) as other:
        await core.stop()
        await other.stop()
        core._port, core.url = other._port, other.url
        await other.start()
        starting = asyncio.create_task(core.start())
        while "Address already in use" not in core.output():
            await asyncio.sleep(0.01)
        assert not starting.done()
        await other.stop()
        await starting
        assert await reported_version(client, core) == OLDEST


async def test_failed_start_reports_the_output() -> None:
    with pytest.raises(CoreFailed, match=r"(?s)exited with 1; its last output:\n.*assign requested address"):
        async with running(NEWEST, env={"ALLSOURCE_HOST": "203.0.113.1"}):
            pass


@pytest.mark.parametrize("version", VERSIONS)
async def test_unusable_data_directory_is_reported_although_core_serves_from_memory(
    client: httpx.AsyncClient, tmp_path: Path, version: str
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    async with running(version, env={"ALLSOURCE_DATA_DIR": str(blocked)}) as core:
        health = (await client.get(f"{core.url}/health")).json()
        assert (health["status"], health["system_streams"]["mode"]) == ("healthy", "in-memory")
        assert (await append(client, core, "thing:1")).status_code == 200
        await core.restart()
        assert await count(client, core, "thing:1") == 0
    with pytest.raises(CoreFailed, match=r"(?s)keeps its events in memory.*storage directory"):
        async with running(version, data=blocked):
            pass


async def test_proxy_keeps_its_client_connection_while_core_restarts(tmp_path: Path) -> None:
    async with (
        running(NEWEST, data=tmp_path) as core,
        FaultProxy(core.url) as proxy,
        httpx.AsyncClient(base_url=proxy.url) as client,
    ):
        event = {
            "event_type": "core.tested",
            "entity_id": "thing:1",
            "tenant_id": "acme",
            "payload": {"text": "a" * 2000},
        }
        assert (await client.post("/api/v1/events", json=event)).status_code == 200
        await core.restart()
        page = await client.get("/api/v1/events/query", params={"tenant_id": "acme", "entity_id": "thing:1"})
        assert page.headers["Transfer-Encoding"] == "chunked"
        assert [stored["payload"] for stored in page.json()["events"]] == [event["payload"]]
        assert proxy.connections == 1


def test_missing_core_raises_with_the_build_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALLSOURCE_AUTH_CORES", str(tmp_path))
    with pytest.raises(CoreMissing, match=r"run `python -m tests\.support\.cores build 0\.27\.0`"):
        required(NEWEST)
