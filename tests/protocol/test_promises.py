"""The promises of the library, in every interleaving of two mutations.

The short form has no faults. The long form (``nox -s protocol``) has a fault at every step, and samples of three mutations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from _pytest.mark import ParameterSet

from allsource_auth.engine import indexes
from tests.protocol.core import SECOND
from tests.protocol.explore import explore, sample
from tests.protocol.promises import check_promises_after_lost_versions
from tests.protocol.scenario import Fault, Scenario
from tests.protocol.situations import SESSIONS, SPLIT, THREE, TRANSACTIONS, USERS
from tests.support.exploring import size

pytestmark = pytest.mark.heavy

EVERY = USERS + SESSIONS
LIMIT = 400_000


def named(scenario: Scenario) -> str:
    return scenario.name


@pytest.fixture(autouse=True)
def _snapshot_for_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a snapshot for every index entry, so that a short run has several of them."""
    monkeypatch.setattr(indexes, "MIN_NEW_ENTRIES", 0)
    monkeypatch.setattr(indexes, "CHECK_INTERVAL", 1)


def test_scenarios_that_the_matrix_explores_exist() -> None:
    assert set(LARGE) <= {scenario.name for scenario in (*EVERY, *TRANSACTIONS)}
    assert set(SPLIT_LONG) <= {scenario.name for scenario in SPLIT}


@pytest.mark.parametrize("scenario", EVERY, ids=named)
def test_promises_hold_in_every_order(scenario: Scenario) -> None:
    result = explore(scenario, limit=LIMIT)
    assert result.complete
    assert result.schedules > 1


# A run with one fault has one kind of fault. So two explorations with half of the kinds each cover the same runs as one with
# all kinds, and take less time.
HALVES: dict[str, frozenset[Fault]] = {
    "client or reply": frozenset(("death", "lost", "delay", "cancel")),
    "server": frozenset(("restart",)),
}

LARGEST = (
    "changes and sign-up as one, and a change to the email of the sign-up",
    "two sign-ups as one, and two others with one email in common",
    "two changes as one, and the same change of the second",
)
"""The scenarios with the most runs if all faults are possible: the first has almost 400,000. With faults they are explored only
in ``nox -s matrix``; otherwise without faults, with atomic batches, and in samples."""

LARGE = (
    "sign-up, and change of the email and back",
    "sign-up and restoration of the owner",
    "sign-up and return to the former email",
    "sign-in and sign-out",
    "two sign-ins",
    "two sign-ups over the claim of a dead sign-up",
    "two sign-ups that share the second of their values",
    "two users change to one email",
    "two changes of one user, each with a sign-up with one email",
    "two sign-ups as one, and one with the first email",
    "two sign-ups as one, and one with the second email",
    "change and sign-up as one, and a sign-up with the new email",
    "change and sign-up as one, and another change",
    *LARGEST,
    "restoration and sign-up as one, and a sign-up with the former email",
    "change and deletion as one, and a change of the deleted user",
    "change and sign-up as one, and a sign-up and deletion with the new id",
    "two sign-ups with one email",
    "two changes to the same email",
    "sign-up and change to its email",
    "two restorations",
    "sign-in and a reader that compacts the index",
    "two changes as one, and a change of the second",
    "two changes as one, and deletion of the second",
)
"""With faults these have thousands of schedules each. ``nox -s matrix`` explores them. The gate explores them without
faults and takes samples with faults."""


def some(scenarios: list[Scenario], names: tuple[str, ...], mark: pytest.MarkDecorator) -> list[ParameterSet]:
    """Return the scenarios as parameters. Those in ``names`` get the mark of another session."""
    return [pytest.param(one, id=one.name, marks=[mark] if one.name in names else []) for one in scenarios]


TWICE = next(scenario for scenario in TRANSACTIONS if "twice" in scenario.name)
ONCE = [scenario for scenario in TRANSACTIONS if scenario is not TWICE]
MANY_ORDERS = (TWICE.name, LARGEST[0], "two changes of one user, each with a sign-up with one email")
"""Scenarios with so many orders even without faults that only the long form explores them."""


@pytest.mark.parametrize("scenario", some(TRANSACTIONS, MANY_ORDERS, pytest.mark.long))
def test_transactions_are_atomic_in_every_order(scenario: Scenario) -> None:
    result = explore(scenario, limit=LIMIT)
    assert result.complete
    assert result.schedules > 1


@pytest.mark.long
@pytest.mark.parametrize("scenario", some([*EVERY, *TRANSACTIONS], LARGE, pytest.mark.matrix))
def test_promises_hold_with_atomic_batches(scenario: Scenario) -> None:
    atomic_batches = replace(scenario, atomic_batches=True, versions="true", stamps=False)
    result = explore(atomic_batches, faults=1, limit=LIMIT)
    assert result.complete
    assert result.schedules > 1


@pytest.mark.long
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("scenario", some(EVERY, LARGE, pytest.mark.matrix))
def test_promises_hold_with_a_fault_at_every_step(scenario: Scenario, half: str) -> None:
    result = explore(replace(scenario, faults=HALVES[half]), faults=1, limit=LIMIT)
    print(f"{scenario.name}: {result}")
    assert result.complete
    assert result.ends > 3


@pytest.mark.long
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("scenario", some(ONCE, LARGE, pytest.mark.matrix))
def test_transactions_are_atomic_with_a_fault_at_every_step(scenario: Scenario, half: str) -> None:
    result = explore(replace(scenario, faults=HALVES[half]), faults=1, limit=LIMIT)
    print(f"{scenario.name}: {result}")
    assert result.complete
    assert result.ends > 3


@pytest.mark.long
@pytest.mark.parametrize("scenario", [*TRANSACTIONS, *(one for one in EVERY if one.name in LARGE)], ids=named)
def test_promises_hold_in_a_sample_with_two_faults(scenario: Scenario) -> None:
    runs = size(250, 1000)
    result = sample(scenario, seed=20261125, runs=runs, faults=2, chance=0.05)
    print(f"{scenario.name}: {result}")
    assert result.schedules == runs


SPLIT_LARGE = ("two sign-ups with one email", "sign-up and change to its email", "sign-up and restoration of the owner")
"""Scenarios with some hundred thousand runs each if reads are split and all faults are possible."""

SPLIT_LONG = (
    "change and deletion",
    "deletion and restoration",
    "two sign-ups with one id that another tenant has",
)
"""Scenarios with thousands of schedules each if reads are split and a fault is possible: ``nox -s matrix`` explores them with
faults."""


@pytest.mark.long
@pytest.mark.parametrize("scenario", [scenario for scenario in SPLIT if scenario.name in SPLIT_LONG], ids=named)
def test_promises_hold_with_split_reads_in_a_sample_with_two_faults(scenario: Scenario) -> None:
    runs = size(500, 2000)
    result = sample(scenario, seed=20261127, runs=runs, faults=2, chance=0.05)
    print(f"{scenario.name}: {result}")
    assert result.schedules == runs


@pytest.mark.parametrize("scenario", TRANSACTIONS, ids=named)
def test_transactions_are_atomic_in_a_small_sample(scenario: Scenario) -> None:
    assert sample(scenario, seed=7, runs=60, faults=1, chance=0.05).schedules == 60


@pytest.mark.parametrize("versions", ["ones", "true"])
@pytest.mark.parametrize("scenario", some(SPLIT, SPLIT_LARGE, pytest.mark.long))
def test_promises_hold_with_split_reads(scenario: Scenario, versions: Literal["ones", "true"]) -> None:
    result = explore(replace(scenario, versions=versions), limit=LIMIT)
    assert result.complete
    assert result.schedules > 1


@pytest.mark.long
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "scenario", some([one for one in SPLIT if one.name not in SPLIT_LARGE], SPLIT_LONG, pytest.mark.matrix)
)
def test_promises_hold_with_split_reads_and_a_fault_at_every_step(scenario: Scenario, half: str) -> None:
    result = explore(replace(scenario, faults=HALVES[half]), faults=1, limit=LIMIT)
    print(f"{scenario.name}: {result}")
    assert result.complete
    assert result.ends > 3


@pytest.mark.long
@pytest.mark.parametrize("fault", ["death", "lost", "cancel", pytest.param("restart", marks=pytest.mark.matrix)])
def test_an_email_has_one_owner_with_split_reads_and_a_fault_at_every_step(
    fault: Fault,
) -> None:
    scenario = next(scenario for scenario in SPLIT if scenario.name == SPLIT_LARGE[0])
    result = explore(replace(scenario, faults=frozenset({fault})), faults=1, limit=LIMIT)
    print(f"{scenario.name}: {result}")
    assert result.complete


def test_read_back_does_not_undo_changes_of_one_user() -> None:
    scenario = next(scenario for scenario in USERS if scenario.name == "two changes to the same email")
    assert explore(replace(scenario, loses_versions_on_restart=True), limit=LIMIT).complete


@pytest.mark.long
def test_read_back_keeps_one_owner_on_a_server_that_loses_versions() -> None:
    scenario = replace(
        next(scenario for scenario in USERS if scenario.name == "two sign-ups with one email"),
        check=check_promises_after_lost_versions,
        faults=HALVES["server"],
        loses_versions_on_restart=True,
    )
    result = explore(scenario, faults=1, limit=LIMIT)
    print(f"{scenario.name}: {result}")
    assert result.complete


@pytest.mark.long
@pytest.mark.parametrize("versions", ["ones", "true"])
@pytest.mark.parametrize("scenario", THREE, ids=named)
def test_promises_hold_in_a_sample_of_three_with_two_faults(
    scenario: Scenario, versions: Literal["ones", "true"]
) -> None:
    runs = size(300, 1500)
    result = sample(replace(scenario, versions=versions), seed=20261123, runs=runs, faults=2, chance=0.05)
    print(f"{scenario.name}: {result}")
    assert result.schedules == runs


@pytest.mark.parametrize("scenario", THREE, ids=named)
def test_promises_hold_in_a_small_sample_of_three(scenario: Scenario) -> None:
    assert sample(scenario, seed=7, runs=60, faults=1, chance=0.05).schedules == 60


LAGGING = [replace(scenario, lagging=True, time_skew=60 * SECOND) for scenario in (*EVERY, *TRANSACTIONS)]
"""Scenarios in which events are counted before they are visible. Each event takes two steps, and readers poll for it, so most
of these have too many runs to explore."""


@pytest.mark.parametrize("scenario", LAGGING, ids=named)
def test_promises_hold_with_late_visibility_in_a_small_sample(scenario: Scenario) -> None:
    assert sample(scenario, seed=7, runs=40, faults=1).schedules == 40


@pytest.mark.long
@pytest.mark.parametrize("versions", ["ones", "true"])
@pytest.mark.parametrize("scenario", LAGGING, ids=named)
def test_promises_hold_with_late_visibility_in_a_sample_with_two_faults(
    scenario: Scenario, versions: Literal["ones", "true"]
) -> None:
    runs = size(50, 3000)
    result = sample(replace(scenario, versions=versions), seed=20261126, runs=runs, faults=2)
    print(f"{scenario.name}: {result}")
    assert result.schedules == runs


@pytest.mark.parametrize("versions", ["ones", "true"])
@pytest.mark.parametrize("name", ["two sign-ups with one id", "two sign-ups over a tombstone"])
def test_promises_hold_with_late_visibility_in_every_order(name: str, versions: Literal["ones", "true"]) -> None:
    scenario = next(scenario for scenario in LAGGING if scenario.name == name)
    result = explore(replace(scenario, versions=versions), limit=LIMIT)
    assert result.complete
    assert result.schedules > 1
