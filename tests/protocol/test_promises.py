"""The promises of the library, in every interleaving of two mutations: without faults here, with a fault at every step in
the long form (``nox -s protocol``), which also takes samples of three mutations."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from allsource_auth.repositories import lists

from .explore import explore, sample
from .scenario import Fault, Scenario
from .situations import SESSIONS, THREE, USERS

pytestmark = pytest.mark.heavy

EVERY = USERS + SESSIONS
LIMIT = 400_000


def named(scenario: Scenario) -> str:
    return scenario.name


@pytest.fixture(autouse=True)
def _snapshots_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a snapshot for a single entry, so that two of them meet in a short run."""
    monkeypatch.setattr(lists, "WORTH", 0)
    monkeypatch.setattr(lists, "LOOK_EVERY", 1)


@pytest.mark.parametrize("scenario", EVERY, ids=named)
def test_promises_hold_in_every_order(scenario: Scenario) -> None:
    result = explore(scenario, limit=LIMIT)
    assert result.complete
    assert result.schedules > 1


@pytest.mark.long
@pytest.mark.parametrize("scenario", EVERY, ids=named)
def test_promises_hold_where_batches_are_atomic(scenario: Scenario) -> None:
    atomic = replace(scenario, atomic=True, versions="true", stamps=False)
    result = explore(atomic, faults=1, limit=LIMIT)
    assert result.complete
    assert result.schedules > 1


# One fault in a run is of one kind, so two explorations of half the kinds cover what one of all kinds would, with less.
HALVES: dict[str, frozenset[Fault]] = {
    "client or reply": frozenset(("death", "lost", "delay", "cancel")),
    "server": frozenset(("restart",)),
}


@pytest.mark.long
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("scenario", EVERY, ids=named)
def test_promises_hold_with_a_fault_at_every_step(scenario: Scenario, half: str) -> None:
    result = explore(replace(scenario, faults=HALVES[half]), faults=1, limit=LIMIT)
    print(f"{scenario.name}: {result}")
    assert result.complete
    assert result.ends > 3


@pytest.mark.long
@pytest.mark.parametrize("versions", ["ones", "true"])
@pytest.mark.parametrize("scenario", THREE, ids=named)
def test_promises_hold_in_a_sample_of_three_with_two_faults(
    scenario: Scenario, versions: Literal["ones", "true"]
) -> None:
    result = sample(replace(scenario, versions=versions), seed=20261123, runs=1500, faults=2, chance=0.05)
    print(f"{scenario.name}: {result}")
    assert result.schedules == 1500


@pytest.mark.parametrize("scenario", THREE, ids=named)
def test_promises_hold_in_a_small_sample_of_three(scenario: Scenario) -> None:
    assert sample(scenario, seed=7, runs=60, faults=1, chance=0.05).schedules == 60
