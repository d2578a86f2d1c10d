"""The stores that the suites run on. A further one is one more `Target`.

A *site* is one place with events: every store that it hands out sees the same events, under the tenant it was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from allsource_auth import EventStore, SqliteLog, SqliteStore

from .clocks import ManualClock

__all__ = ["TARGETS", "Site", "Target"]


@dataclass(frozen=True)
class Site:
    """One place with events. ``store`` opens a store on it for a tenant; the site closes what it handed out."""

    store: Callable[[str], EventStore]


@dataclass(frozen=True)
class Target:
    """A way to keep events. ``dates_events``: the events carry the time of the clock that the site was started with."""

    name: str
    start: Callable[[Path, ManualClock], AbstractAsyncContextManager[Site]]
    dates_events: bool


@asynccontextmanager
async def _memory(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
    log = SqliteLog(None, clock_ns=clock.nanoseconds)
    try:
        yield Site(lambda tenant: SqliteStore(log, tenant, owns_log=False))
    finally:
        await log.close()


@asynccontextmanager
async def _file(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """Every store opens the file by itself, as adapters in one application would."""
    async with AsyncExitStack() as stores:

        def store(tenant: str) -> EventStore:
            opened = SqliteStore(SqliteLog(directory / "auth.db", clock_ns=clock.nanoseconds), tenant)
            stores.push_async_callback(opened.close)
            return opened

        yield Site(store)


TARGETS = (
    Target("sqlite-memory", _memory, dates_events=True),
    Target("sqlite-file", _file, dates_events=True),
)
