"""Fixtures for the integrations: an adapter on each store, with an empty store."""

from __future__ import annotations

import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.contract.conftest import clock, site, watch
from tests.support.clocks import ManualClock
from tests.support.exploring import ALL
from tests.support.targets import TARGETS, Site, Target

__all__ = ["adapter", "clock", "site", "target", "watch"]

NAMES = (
    ("sqlite-memory", "sqlite-file", "local", "core-0.23.0", "core-0.27.0") if ALL else ("sqlite-memory", "core-0.27.0")
)
"""The session ``matrix`` runs the integrations on all stores, which the contract suite shows to behave alike."""


@pytest.fixture(
    params=[pytest.param(target, id=target.name, marks=target.marks) for target in TARGETS if target.name in NAMES]
)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


@pytest.fixture
async def adapter(site: Site, clock: ManualClock) -> AllsourceAuthAdapter:
    return AllsourceAuthAdapter.with_store(site.store("default"), clock=clock)
