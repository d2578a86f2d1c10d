"""Scenarios of `tests.protocol` on real servers, with random schedules."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from allsource_auth.engine import indexes
from tests.cores.real_run import run_scenario
from tests.protocol.promises import Auth
from tests.protocol.scenario import Scenario
from tests.protocol.situations import SESSIONS, SPLIT, THREE, TRANSACTIONS, USERS
from tests.support import cores
from tests.support.cores import Core, running
from tests.support.exploring import ALL
from tests.support.local import local_allsource

SITUATIONS = {scenario.name: scenario for scenario in [*SPLIT, *USERS, *SESSIONS, *THREE, *TRANSACTIONS]}

SEEDS = 400 if ALL else 8
FEW_SEEDS = 100 if ALL else 4

parametrized = pytest.mark.parametrize("scenario", SITUATIONS.values(), ids=SITUATIONS.keys())


@pytest.fixture(autouse=True)
def _snapshots_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a snapshot for a single entry, so that two writers of a snapshot compete."""
    monkeypatch.setattr(indexes, "MIN_NEW_ENTRIES", 0)
    monkeypatch.setattr(indexes, "CHECK_INTERVAL", 1)


@pytest.fixture(autouse=True)
def _retry_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry mutations that lost a race without a limit of attempts."""

    async def pause(auth: Auth, attempt: int) -> None:
        for _ in range(attempt):
            await asyncio.sleep(0)

    monkeypatch.setattr(Auth, "_pause", pause)


@pytest.fixture(autouse=True)
def _poll_cores_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "LOOK_SECONDS", 0.002)


@pytest.mark.heavy
@parametrized
async def test_scenario_holds_on_the_local_allsource(scenario: Scenario) -> None:
    for seed in range(FEW_SEEDS):
        async with local_allsource() as server:
            await run_scenario(scenario, server.core_url, seed)


@pytest.mark.core
@parametrized
async def test_scenario_holds_on_core(scenario: Scenario, version: str, tmp_path: Path) -> None:
    for seed in range(SEEDS):
        async with running(version, data=tmp_path / str(seed)) as core:
            await run_scenario(scenario, core.url, seed)


@pytest.mark.core
@parametrized
async def test_scenario_holds_on_a_core_that_is_killed(scenario: Scenario, version: str, tmp_path: Path) -> None:
    killed = 0
    for seed in range(FEW_SEEDS):
        async with running(version, data=tmp_path / str(seed)) as core:

            async def archive(core: Core = core) -> None:
                await core.restart()
                await core.restart()

            async def kill(core: Core = core) -> None:
                await core.restart(signal.SIGKILL)

            killed += await run_scenario(scenario, core.url, seed, between=archive, disturbance=kill)
    assert killed
