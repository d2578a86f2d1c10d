"""Adapters on real Cores."""

from __future__ import annotations

import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.support.clocks import ManualClock
from tests.support.cores import NEWEST, OLDEST, Core

VERSIONS = [OLDEST, NEWEST]


def at(
    core: Core, url: str = "", *, tenant_id: str = "default", clock: ManualClock | None = None
) -> AllsourceAuthAdapter:
    """An adapter on a Core; with ``url`` through a proxy in front of it."""
    return AllsourceAuthAdapter(url or core.url, api_key=core.api_key, tenant_id=tenant_id, clock=clock)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found
