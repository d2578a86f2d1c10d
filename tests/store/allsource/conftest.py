"""Local Allsource servers of both generations, reached with both HTTP engines; fake clocks and pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import pytest

from allsource_auth import Tls
from allsource_auth.store.allsource import client as allsource_client
from allsource_auth.store.allsource import http, read_routing
from allsource_auth.store.allsource import store as allsource
from tests.store.allsource.local import Local, Pauses, running_local
from tests.support.proxy import FaultProxy
from tests.support.targets import SECOND_ENGINE


@pytest.fixture(
    params=[pytest.param(None, id="pyreqwest"), pytest.param(SECOND_ENGINE, id="httpx", marks=pytest.mark.modes)]
)
def engine(request: pytest.FixtureRequest) -> Tls | None:
    """The option ``tls``, which selects the HTTP engine."""
    found: Tls | None = request.param
    return found


@pytest.fixture
async def newer(engine: Tls | None) -> AsyncIterator[Local]:
    async with running_local("0.27", engine) as local:
        yield local


@pytest.fixture
async def older(engine: Tls | None) -> AsyncIterator[Local]:
    async with running_local("0.23", engine) as local:
        yield local


@pytest.fixture(params=["0.23", "0.27"])
async def either(request: pytest.FixtureRequest, engine: Tls | None) -> AsyncIterator[Local]:
    generation: Literal["0.23", "0.27"] = request.param
    async with running_local(generation, engine) as local:
        yield local


@pytest.fixture
async def proxy(newer: Local) -> AsyncIterator[FaultProxy]:
    """A proxy with faults in front of `newer`. A test opens a store with its URL."""
    async with FaultProxy(newer.core_url) as opened:
        yield opened


@pytest.fixture(params=["pyreqwest", "httpx-on-aiohttp", "own-client"])
async def options(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """Options that select each engine, including a client of the caller."""
    async with httpx.AsyncClient() as client:
        engines: dict[str, dict[str, Any]] = {
            "pyreqwest": {},
            "httpx-on-aiohttp": {"tls": SECOND_ENGINE},
            "own-client": {"http_client": client},
        }
        yield engines[request.param]


class Time:
    """A clock that the test moves."""

    now = 1000.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Replaces the monotonic clock of the store, of the read routing and of the HTTP engine."""
    found = Time()
    for module in (allsource, read_routing, http):
        monkeypatch.setattr(module, "monotonic", lambda: found.now)
    return found


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Replaces the pauses between attempts: they are recorded and take no time."""
    found = Pauses()
    monkeypatch.setattr(allsource_client, "asyncio", found)
    monkeypatch.setattr(allsource_client, "monotonic", found.monotonic)
    return found
