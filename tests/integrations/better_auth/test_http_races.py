"""Concurrent requests to an application in one process and in two processes, on each kind of store."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from better_auth.adapters.base import Where

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, AtomicSignUp
from tests.integrations.better_auth.served import database
from tests.integrations.better_auth.site import BASE, PASSWORD
from tests.support import cores
from tests.support.local import local_allsource

pytestmark = pytest.mark.integrations

ORIGIN = {"origin": BASE}


@dataclass
class Race:
    """A client of the application, and the database under it."""

    client: httpx.AsyncClient
    store: AllsourceAuthAdapter
    database: AllsourceDatabaseAdapter

    async def together(self, count: int, ask: Callable[[int], Awaitable[httpx.Response]]) -> Counter[str]:
        """Send concurrent requests. Return the status and the error code of each response."""
        answers = await asyncio.gather(*map(ask, range(count)))
        return Counter(
            f"{answer.status_code} {answer.json().get('code', '') if answer.status_code != 200 else ''}".strip()
            for answer in answers
        )


PLACES = (
    "memory",
    "file",
    "local",
    pytest.param(cores.OLDEST, marks=pytest.mark.core),
    pytest.param(cores.NEWEST, marks=pytest.mark.core),
)


@asynccontextmanager
async def kept(place: str, directory: Path) -> AsyncIterator[str]:
    """A path, or the URL of an Allsource."""
    if place == "local":
        async with local_allsource(generation="0.27") as running:
            yield running.core_url
    elif place[0].isdigit():
        async with cores.running(place, data=directory / "core") as core:
            yield core.url
    else:
        yield str(directory / "auth.db")


def opened(place: str, where: str) -> AllsourceAuthAdapter:
    if where.startswith("http"):
        return AllsourceAuthAdapter(where)
    return AllsourceAuthAdapter.embedded(None if place == "memory" else where)


@pytest.fixture(params=PLACES)
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Race]:
    """Run the application in this process."""
    async with kept(request.param, tmp_path) as where, opened(request.param, where) as store:
        adapter, app = database(store)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=ORIGIN, timeout=120) as client:
            yield Race(client, store, adapter)


@pytest.fixture(params=PLACES[1:])
async def two_processes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Race]:
    """Run the application in two uvicorn workers on one store."""
    async with kept(request.param, tmp_path) as where, opened(request.param, where) as store:
        adapter, _ = database(store)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "--factory", "tests.integrations.better_auth.served:served"]
        command += ["--workers", "2", "--port", str(port), "--log-level", "warning"]
        process = await asyncio.create_subprocess_exec(
            *command, env=os.environ | {"PLACE": where}, cwd=Path(__file__).parents[3]
        )
        try:
            limits = httpx.Limits(max_connections=200)
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, headers=ORIGIN, timeout=120, limits=limits) as client:
                await _up(client, process)
                yield Race(client, store, adapter)
        finally:
            process.terminate()
            await process.wait()


async def _up(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    """Wait until the application responds."""
    async with asyncio.timeout(60):
        while process.returncode is None:
            try:
                answer = await client.get("/api/auth/ok")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 200
            return
    raise AssertionError("the application has ended")


async def _sign_ups(race: Race, count: int) -> None:
    async def sign_up(number: int) -> httpx.Response:
        email = "Ada@Example.org" if number % 2 else "ada@example.org"
        given = {"name": f"Ada {number}", "email": email, "password": PASSWORD}
        return await race.client.post("/api/auth/sign-up/email", json=given)

    outcomes = await race.together(count, sign_up)
    assert outcomes == {"200": 1, "422 USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL": count - 1}
    (user,) = [user async for user in race.store.users.scan()]
    assert [account.user_id async for account in race.store.accounts.scan()] == [user.id]
    assert [session.user_id async for session in race.store.sessions.scan()] == [user.id]
    assert not (await race.store.check()).findings


async def _resets(race: Race, count: int) -> None:
    given = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
    assert (await race.client.post("/api/auth/sign-up/email", json=given)).status_code == 200
    asked = await race.client.post("/api/auth/request-password-reset", json={"email": "ada@example.org"})
    assert asked.status_code == 200
    (sent,) = [one async for one in race.store.verifications.scan()]
    token = sent.identifier.partition(":")[2]

    async def reset(number: int) -> httpx.Response:
        given = {"token": token, "newPassword": f"password number {number}"}
        return await race.client.post("/api/auth/reset-password", json=given)

    assert await race.together(count, reset) == {"200": 1, "400 INVALID_TOKEN": count - 1}


async def _counted(race: Race, count: int) -> None:
    async def look(number: int) -> httpx.Response:
        return await race.client.get("/api/auth/get-session")

    assert await race.together(count, look) == {"200": count}
    rows = await race.database.find_many("rateLimit", [Where("key", "get-session", "contains")])
    assert [row["count"] for row in rows] == [count]


async def test_one_of_200_sign_ups_gets_the_email(here: Race) -> None:
    await _sign_ups(here, 200)


async def test_one_of_200_atomic_sign_ups_gets_the_email(here: Race) -> None:
    adapter, app = database(here.store, AtomicSignUp())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=ORIGIN, timeout=120) as client:
        await _sign_ups(Race(client, here.store, adapter), 200)


async def test_one_of_200_uses_of_a_reset_token(here: Race) -> None:
    await _resets(here, 200)


async def test_100_requests_are_counted(here: Race) -> None:
    await _counted(here, 100)


async def test_one_of_200_sign_ups_in_two_processes(two_processes: Race) -> None:
    await _sign_ups(two_processes, 200)


async def test_one_of_200_uses_of_a_reset_token_in_two_processes(two_processes: Race) -> None:
    await _resets(two_processes, 200)


async def test_100_requests_are_counted_in_two_processes(two_processes: Race) -> None:
    await _counted(two_processes, 100)
