"""The stores that the suites run on. Add a `Target` to run them on another one.

A *site* is one set of events. All stores of a site read and write the same events, each for its tenant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import pytest

from allsource_auth import AllsourceStore, EventStore, SqliteLog, SqliteStore
from allsource_auth.store.allsource.http import engine
from allsource_auth.store.allsource.http.parsing import H11Parser, HttptoolsParser, ReplyParser
from tests.support import cores
from tests.support.clocks import ManualClock
from tests.support.local import local_allsource

__all__ = ["TARGETS", "Site", "Target"]


@dataclass(frozen=True)
class Site:
    """One set of events. ``store`` opens a store for a tenant; the site closes it."""

    store: Callable[[str], EventStore]


Start = Callable[[Path, ManualClock], AbstractAsyncContextManager[Site]]


@dataclass(frozen=True)
class Target:
    """A kind of store.

    ``dates_events``: events have the time of the clock that the site was started with. ``keeps_text``: JSON is returned
    as it was written. ``numbers_events``: each event has its own version (not on 0.23). ``crowd``: how many users a test
    can sign up in reasonable time.
    """

    name: str
    start: Start
    dates_events: bool = False
    keeps_text: bool = False
    numbers_events: bool = True
    crowd: int = 2000
    marks: tuple[pytest.MarkDecorator, ...] = ()


@asynccontextmanager
async def _memory(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
    log = SqliteLog(None, clock_ns=clock.nanoseconds)
    try:
        yield Site(lambda tenant: SqliteStore(log, tenant, owns_log=False))
    finally:
        await log.close()


@asynccontextmanager
async def _file(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """Each store opens the file itself, as several adapters in one application do."""
    async with AsyncExitStack() as stores:

        def store(tenant: str) -> EventStore:
            opened = SqliteStore(SqliteLog(directory / "auth.db", clock_ns=clock.nanoseconds), tenant)
            stores.push_async_callback(opened.close)
            return opened

        yield Site(store)


@contextmanager
def parsed_by(parser: type[ReplyParser]) -> Iterator[None]:
    """Make new connection pools use this parser of replies."""
    with mock.patch.object(engine, "parser_class", return_value=parser):
        yield


@asynccontextmanager
async def _over_http(core_url: str, query_url: str, api_key: str) -> AsyncIterator[Site]:
    """Each store has its own connection pool."""
    async with AsyncExitStack() as stores:

        def store(tenant: str) -> EventStore:
            opened = AllsourceStore(core_url, query_url, api_key, tenant_id=tenant)
            stores.push_async_callback(opened.close)
            return opened

        yield Site(store)


def _core(version: str) -> Start:
    """A Core with a data directory. It starts within milliseconds."""

    @asynccontextmanager
    async def start(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
        async with (
            cores.running(version, data=directory / "core") as core,
            _over_http(core.url, core.url, core.api_key) as site,
        ):
            yield site

    return start


def _local(generation: Literal["0.23", "0.27"], parser: type[ReplyParser] = HttptoolsParser) -> Start:
    """A local Allsource. Plain reads go to its Query Service."""

    @asynccontextmanager
    async def start(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
        async with (
            local_allsource(generation=generation, clock_ns=clock.nanoseconds) as running,
            _over_http(running.core_url, running.query_url, "ask_for_tests") as site,
        ):
            with parsed_by(parser):
                yield site

    return start


TARGETS = (
    Target("sqlite-memory", _memory, dates_events=True, keeps_text=True, crowd=100_000),
    Target("sqlite-file", _file, dates_events=True, keeps_text=True, crowd=20_000),
    Target("local", _local("0.27"), marks=(pytest.mark.heavy,)),
    Target("local-0.23", _local("0.23"), numbers_events=False, marks=(pytest.mark.matrix,)),
    Target("local-h11", _local("0.27", H11Parser), marks=(pytest.mark.modes,)),
    Target("core-0.23.0", _core(cores.OLDEST), numbers_events=False, marks=(pytest.mark.core,)),
    Target("core-0.27.0", _core(cores.NEWEST), marks=(pytest.mark.core,)),
)
