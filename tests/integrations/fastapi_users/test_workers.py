"""Two workers of uvicorn on one store: unique values stay unique, and both workers accept the same sessions."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.support import cores

pytestmark = pytest.mark.integrations

ROOT = Path(__file__).parents[3]
PATIENCE = 60
PASSWORD = "a long password"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def workers(environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Serve the application with two workers on the store set in the environment. Return its URL."""
    port = _free_port()
    application = "tests.integrations.fastapi_users.application:served"
    options = ("--factory", "--workers", "2", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ALLSOURCE_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "uvicorn",
        application,
        *options,
        cwd=ROOT,
        env={**inherited, **environment},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        await _listening(child, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        if child.returncode is None:
            child.terminate()
        output, _ = await child.communicate()
        assert b"Traceback" not in output, output.decode()


async def _listening(child: Process, port: int) -> None:
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        while child.returncode is None:
            try:
                await client.get("/openapi.json")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
    pytest.fail(f"uvicorn ended with {child.returncode}")


async def _race(url: str) -> str:
    """Send 200 registrations with one email on separate connections. Return the id of the created user."""

    async def register(number: int) -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
            return await client.post(
                "/auth/register", json={"email": "ada@example.org", "password": f"{PASSWORD} {number}"}
            )

    replies = await asyncio.gather(*map(register, range(200)))
    won = [number for number, reply in enumerate(replies) if reply.status_code == 201]
    assert len(won) == 1
    refused = [(reply.status_code, reply.json()["detail"]) for reply in replies if reply.status_code != 201]
    assert refused == [(400, "REGISTER_USER_ALREADY_EXISTS")] * 199
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        login = {"username": "ada@example.org", "password": f"{PASSWORD} {won[0]}"}
        reply = await client.post("/auth/bearer/login", data=login)
        assert reply.status_code == 200, reply.text
        headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}
    for _ in range(8):  # each on a new connection, so that both workers have answered
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as client:
            assert (await client.get("/users/me")).json()["email"] == "ada@example.org"
    made: str = replies[won[0]].json()["id"]
    return made


async def _is_sound(adapter: AllsourceAuthAdapter, user: str) -> None:
    async with adapter:
        assert [one.id async for one in adapter.users.scan()] == [user]
        assert [one.user_id async for one in adapter.accounts.scan()] == [user]
        assert not (await adapter.check()).findings


async def test_two_workers_on_one_file(tmp_path: Path) -> None:
    file = tmp_path / "auth.db"
    async with workers({"ALLSOURCE_EMBEDDED_PATH": str(file)}) as url:
        user = await _race(url)
    await _is_sound(AllsourceAuthAdapter.embedded(file), user)


@pytest.mark.core
@pytest.mark.parametrize("version", [cores.OLDEST, cores.NEWEST])
async def test_two_workers_on_a_real_core(tmp_path: Path, version: str) -> None:
    async with cores.running(version, data=tmp_path / "core") as core:
        async with workers({"ALLSOURCE_CORE_URL": core.url, "ALLSOURCE_API_KEY": core.api_key}) as url:
            user = await _race(url)
        await _is_sound(AllsourceAuthAdapter(core.url, api_key=core.api_key), user)
