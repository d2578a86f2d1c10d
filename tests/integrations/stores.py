"""An empty adapter on every store: fixtures, for the conftest of an integration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.support.canaries import Watch, watched
from tests.support.clocks import ManualClock
from tests.support.targets import TARGETS, Site, Target

__all__ = ["adapter", "clock", "site", "target", "watch"]

NAMES = ("sqlite-memory", "sqlite-file", "local", "core-0.23.0", "core-0.27.0")


@pytest.fixture(
    params=[pytest.param(target, id=target.name, marks=target.marks) for target in TARGETS if target.name in NAMES]
)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def site(target: Target, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    async with target.start(tmp_path, clock) as started:
        yield started


@pytest.fixture
async def adapter(site: Site, clock: ManualClock) -> AllsourceAuthAdapter:
    return AllsourceAuthAdapter.with_store(site.store("default"), clock=clock)


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Whatever a test logs, returns or raises is looked through for secrets."""
    with watched(monkeypatch) as watch:
        yield watch
