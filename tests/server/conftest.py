"""Local servers in memory, and the same questions to real Cores (``-m core``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import httpx
import pytest

from allsource_auth import SqliteLog
from allsource_auth.server import Faults, LocalAllsource
from tests.server.wire import Wire
from tests.support import cores

SYSTEM_KEY = "ask_of_the_system"


@asynccontextmanager
async def local_wire(generation: Literal["0.23", "0.27"], log: SqliteLog, **options: Any) -> AsyncIterator[Wire]:
    """A local Core in this process, without a socket."""
    local = LocalAllsource(log, generation=generation, **options)
    transport = httpx.ASGITransport(local.core)
    async with httpx.AsyncClient(transport=transport, base_url="http://local") as client:
        yield Wire(client, newer=generation == "0.27", key=next(iter(options.get("api_keys", [""]))))


@asynccontextmanager
async def real_wire(version: str) -> AsyncIterator[Wire]:
    async with cores.running(version) as core, httpx.AsyncClient(base_url=core.url) as client:
        yield Wire(client, newer=version == cores.NEWEST, key=core.api_key)


@pytest.fixture
async def log() -> AsyncIterator[SqliteLog]:
    opened = SqliteLog(None)
    yield opened
    await opened.close()


@pytest.fixture
def faults() -> Faults:
    return Faults()


def _wire(name: str, log: SqliteLog) -> AbstractAsyncContextManager[Wire]:
    where, _, version = name.partition(" ")
    if where == "core":
        return real_wire(version)
    generation: Literal["0.23", "0.27"] = "0.27" if version == cores.NEWEST else "0.23"
    return local_wire(generation, log, api_keys={SYSTEM_KEY: "system"})


NEWER = [f"local {cores.NEWEST}", pytest.param(f"core {cores.NEWEST}", marks=pytest.mark.core)]
OLDER = [f"local {cores.OLDEST}", pytest.param(f"core {cores.OLDEST}", marks=pytest.mark.core)]


@pytest.fixture(params=NEWER + OLDER)
async def wire(request: pytest.FixtureRequest, log: SqliteLog) -> AsyncIterator[Wire]:
    """A Core of either generation, local or real."""
    async with _wire(request.param, log) as found:
        yield found


@pytest.fixture(params=NEWER)
async def newer(request: pytest.FixtureRequest, log: SqliteLog) -> AsyncIterator[Wire]:
    """A Core of 0.27, local or real."""
    async with _wire(request.param, log) as found:
        yield found


@pytest.fixture(params=OLDER)
async def older(request: pytest.FixtureRequest, log: SqliteLog) -> AsyncIterator[Wire]:
    """A Core of 0.23, local or real."""
    async with _wire(request.param, log) as found:
        yield found


@pytest.fixture
async def local(log: SqliteLog, faults: Faults) -> AsyncIterator[Wire]:
    """A local Core of 0.27 in dev mode, with faults."""
    async with local_wire("0.27", log, faults=faults) as found:
        yield found


@pytest.fixture
async def local_older(log: SqliteLog, faults: Faults) -> AsyncIterator[Wire]:
    """A local Core of 0.23 in dev mode, with faults."""
    async with local_wire("0.23", log, faults=faults) as found:
        yield found
