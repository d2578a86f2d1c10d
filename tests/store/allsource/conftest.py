"""Local Allsource servers of both generations, reached with both parsers of replies; fake clocks and pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import httpx
import pytest

from allsource_auth.store.allsource import client as allsource_client
from allsource_auth.store.allsource import read_routing
from allsource_auth.store.allsource import store as allsource
from allsource_auth.store.allsource.http import engine
from allsource_auth.store.allsource.http.parsing import H11Parser, HttptoolsParser, ReplyParser
from tests.store.allsource.local import Local, Pauses, running_local
from tests.support.proxy import FaultProxy
from tests.support.targets import parsed_by


@pytest.fixture(params=[HttptoolsParser, pytest.param(H11Parser, marks=pytest.mark.matrix)], ids=["httptools", "h11"])
def parser(request: pytest.FixtureRequest) -> Iterator[type[ReplyParser]]:
    """The parser of replies."""
    with parsed_by(request.param):
        yield request.param


@pytest.fixture
async def newer(parser: type[ReplyParser]) -> AsyncIterator[Local]:
    async with running_local("0.27") as local:
        yield local


@pytest.fixture
async def older(parser: type[ReplyParser]) -> AsyncIterator[Local]:
    async with running_local("0.23") as local:
        yield local


@pytest.fixture(params=["0.23", "0.27"])
async def either(request: pytest.FixtureRequest, parser: type[ReplyParser]) -> AsyncIterator[Local]:
    generation: Literal["0.23", "0.27"] = request.param
    async with running_local(generation) as local:
        yield local


@pytest.fixture
async def proxy(newer: Local) -> AsyncIterator[FaultProxy]:
    """A proxy with faults in front of `newer`. A test opens a store with its URL."""
    async with FaultProxy(newer.core_url) as opened:
        yield opened


@pytest.fixture(params=["httptools", "h11", "own-client"])
async def options(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """Options that select each engine; the library's own one with both parsers."""
    if request.param == "own-client":
        async with httpx.AsyncClient() as client:
            yield {"http_client": client}
    else:
        with parsed_by(HttptoolsParser if request.param == "httptools" else H11Parser):
            yield {}


class Time:
    """A clock that the test moves."""

    now = 1000.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Replaces the monotonic clock of the store, of the read routing and of the HTTP engine."""
    found = Time()
    for module in (allsource, read_routing, engine):
        monkeypatch.setattr(module, "monotonic", lambda: found.now)
    return found


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Replaces the pauses between attempts: they are recorded and take no time."""
    found = Pauses()
    monkeypatch.setattr(allsource_client, "asyncio", found)
    monkeypatch.setattr(allsource_client, "monotonic", found.monotonic)
    return found
