"""Clients of local Cores in memory, and of real Cores (``-m core``) for the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import httpx
import pytest

from allsource_auth import SqliteLog
from tests.support import cores
from tests.support.api_client import ApiClient, local_api
from tests.support.faults import Faults

SYSTEM_KEY = "ask_of_the_system"


@asynccontextmanager
async def real_api(version: str) -> AsyncIterator[ApiClient]:
    async with cores.running(version) as core, httpx.AsyncClient(base_url=core.url) as client:
        yield ApiClient(client, newer=version == cores.NEWEST, key=core.api_key)


@pytest.fixture
async def log() -> AsyncIterator[SqliteLog]:
    opened = SqliteLog(None)
    yield opened
    await opened.close()


@pytest.fixture
def faults() -> Faults:
    return Faults()


def api_of(name: str, log: SqliteLog) -> AbstractAsyncContextManager[ApiClient]:
    target, _, version = name.partition(" ")
    if target == "core":
        return real_api(version)
    generation: Literal["0.23", "0.27"] = "0.27" if version == cores.NEWEST else "0.23"
    return local_api(generation, log, api_keys={SYSTEM_KEY: "system"})


NEWER = [f"local {cores.NEWEST}", pytest.param(f"core {cores.NEWEST}", marks=pytest.mark.core)]
OLDER = [f"local {cores.OLDEST}", pytest.param(f"core {cores.OLDEST}", marks=pytest.mark.core)]


@pytest.fixture(params=NEWER + OLDER)
async def api(request: pytest.FixtureRequest, log: SqliteLog) -> AsyncIterator[ApiClient]:
    """A Core of either generation, local or real."""
    async with api_of(request.param, log) as client:
        yield client


@pytest.fixture(params=NEWER)
async def newer(request: pytest.FixtureRequest, log: SqliteLog) -> AsyncIterator[ApiClient]:
    """A Core of 0.27, local or real."""
    async with api_of(request.param, log) as client:
        yield client


@pytest.fixture(params=OLDER)
async def older(request: pytest.FixtureRequest, log: SqliteLog) -> AsyncIterator[ApiClient]:
    """A Core of 0.23, local or real."""
    async with api_of(request.param, log) as client:
        yield client


@pytest.fixture
async def local(log: SqliteLog) -> AsyncIterator[ApiClient]:
    """A local Core of 0.27 in development mode."""
    async with local_api("0.27", log) as client:
        yield client
