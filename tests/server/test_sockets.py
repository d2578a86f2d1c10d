"""Serving on sockets: addresses, shutdown, signals, silence in the logs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, serving
from tests.support.api_client import TENANT, ApiClient
from tests.support.faults import Faults


async def refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


async def test_both_ports_answer_until_the_block_exits(log: SqliteLog) -> None:
    async with serving(LocalAllsource(log)) as running:
        assert running.core_url != running.query_url
        async with httpx.AsyncClient() as client:
            core = await client.get(f"{running.core_url}/health")
            assert core.json()["service"] == "allsource-auth-local"
            assert abs(parsedate_to_datetime(core.headers["date"]).timestamp() - log.clock_ns() / 1e9) < 3600
            assert (await client.get(f"{running.query_url}/health")).status_code == 200
    assert await refuses(running.core_url)
    assert await refuses(running.query_url)


async def test_log_stays_open_after_serving(log: SqliteLog) -> None:
    for _ in range(2):
        async with serving(LocalAllsource(log)) as running, httpx.AsyncClient(base_url=running.core_url) as client:
            await ApiClient(client, newer=True).appended()
    async with serving(LocalAllsource(log)) as running, httpx.AsyncClient(base_url=running.core_url) as client:
        assert (await ApiClient(client, newer=True).page())["count"] == 2


async def test_one_of_concurrent_creations_wins_on_a_file(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    async with serving(LocalAllsource(log)) as running, httpx.AsyncClient(base_url=running.core_url) as client:
        api = ApiClient(client, newer=True)
        for stream in ("user:1", "user:2"):
            answers = await asyncio.gather(*(api.append(stream, n, expected_version=0) for n in range(16)))
            assert sorted(answer.status_code for answer in answers) == [200, *[409] * 15]
    await log.close()


async def test_port_in_use_raises_with_the_address(log: SqliteLog) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in ({"core_port": port}, {"query_port": port}):
            with pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1, port {port}: .*in use"):
                async with serving(LocalAllsource(log), **ports):
                    raise AssertionError("it serves")


async def test_invalid_host_raises_with_the_address(log: SqliteLog) -> None:
    with pytest.raises(OSError, match=r"^cannot listen on no host, port 0: "):
        async with serving(LocalAllsource(log), host="no host"):
            raise AssertionError("it serves")


async def test_port_can_be_reused_at_once(log: SqliteLog) -> None:
    async with serving(LocalAllsource(log)) as running, httpx.AsyncClient() as client:
        port = int(running.core_url.rpartition(":")[2])
        await client.get(f"{running.core_url}/health")
    async with serving(LocalAllsource(log), core_port=port) as running:
        assert running.core_url.endswith(f":{port}")


async def test_idle_connections_are_closed_on_stop(log: SqliteLog) -> None:
    async with serving(LocalAllsource(log)) as running:
        host, port = running.core_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nHost: local\r\n\r\n")
        await reader.readuntil(b'"version":"0.27.0"}')
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_request_in_progress_is_finished_on_stop(log: SqliteLog, faults: Faults) -> None:
    gate = asyncio.Event()
    faults.delay(gate)
    local = LocalAllsource(log, middleware=faults)
    async with serving(local) as running, httpx.AsyncClient(base_url=running.core_url) as client:
        appending = asyncio.create_task(ApiClient(client, newer=True).append())
        while not faults.requests:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0)
        gate.set()
        assert (await appending).status_code == 200
        await stopping
        await running.stop()


async def test_unfinished_request_is_cancelled_without_a_log_record(
    log: SqliteLog, faults: Faults, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource_auth.server.sockets.GRACE", 0.0)
    caplog.set_level(logging.DEBUG)
    faults.delay(asyncio.Event())
    async with httpx.AsyncClient() as client:
        async with serving(LocalAllsource(log, middleware=faults)) as running:
            api = ApiClient(client, newer=True)
            client.base_url = httpx.URL(running.core_url)
            appending = asyncio.create_task(api.append())
            while not faults.requests:
                await asyncio.sleep(0)
        with pytest.raises(httpx.RemoteProtocolError):
            await appending
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_requests_and_their_content_are_not_logged(log: SqliteLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    local = LocalAllsource(log, api_keys={"ask_canary": TENANT})
    async with serving(local) as running, httpx.AsyncClient(base_url=running.core_url) as client:
        api = ApiClient(client, newer=True)
        await api.appended("canary:1", {"password": "canary"})
        await api.append("canary:1", {"password": "canary"}, expected_version=0)
        await api.query(entity_id="canary:1", order="canary")
    records = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert records == []


async def test_signal_handlers_are_unchanged_by_default(log: SqliteLog) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serving(LocalAllsource(log)):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.skipif(sys.platform == "win32", reason="the event loop of Windows has no signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_asks_for_the_end(log: SqliteLog, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    async with serving(LocalAllsource(log), signals=True) as running:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(30):
            await running.asked_to_stop()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.core_url}/health")).status_code == 200
    assert signal.getsignal(number) == before


async def test_disconnect_in_the_middle_of_a_request_is_harmless(log: SqliteLog) -> None:
    async with serving(LocalAllsource(log)) as running, httpx.AsyncClient(base_url=running.core_url) as client:
        host, port = running.core_url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/v1/events HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await ApiClient(client, newer=True).page())["count"] == 0


async def test_ipv6_address_is_in_brackets_in_the_url(log: SqliteLog) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    async with serving(LocalAllsource(log), host="::1") as running, httpx.AsyncClient() as client:
        assert running.core_url.startswith("http://[::1]:")
        assert (await client.get(f"{running.core_url}/health")).status_code == 200
