"""Each safeguard is needed: if one is removed, the exploration finds a run that breaks a promise.

Each test plants a bug in the real code by replacing a small part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest

from allsource_auth.engine import claims, indexes, settling, streams
from allsource_auth.engine.claims import Claims, release_event
from allsource_auth.engine.context import Context
from allsource_auth.engine.indexes import Indexes
from allsource_auth.engine.mutations import Mutations
from allsource_auth.engine.operation import Operation, Plan
from allsource_auth.engine.ordering import Head
from allsource_auth.kind import CLAIMED
from allsource_auth.store.base import NewEvent
from allsource_auth.transactions import transaction as transactions
from tests.protocol.explore import Violation, explore, replay
from tests.protocol.promises import LATER, Auth, check_promises
from tests.protocol.scenario import Scenario
from tests.protocol.situations import SESSIONS, SPLIT, TRANSACTIONS, USERS, before, sign_in, situation

pytestmark = pytest.mark.heavy


def find(name: str, situations: Sequence[Scenario] = (*USERS, *SESSIONS)) -> Scenario:
    return next(scenario for scenario in situations if scenario.name == name)


def broken(scenario: Scenario, *, faults: int = 0) -> str:
    """Explore, and return the message of the violation. The replay of its choices ends in the same violation."""
    with pytest.raises(Violation) as found:
        explore(scenario, faults=faults)
    run = replay(scenario, found.value.choices, faults=faults)
    assert run.violation is not None
    assert str(run.violation) == str(found.value.cause)
    assert len(run.lines) > 3
    return str(run.violation)


@pytest.fixture(autouse=True)
def _snapshot_for_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "MIN_NEW_ENTRIES", 0)
    monkeypatch.setattr(indexes, "CHECK_INTERVAL", 1)


def test_without_the_fence_an_email_has_two_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    async def only_wait(self: Claims, owner: object) -> bool:
        return True  # the grace period is over, so the value counts as free

    monkeypatch.setattr(Claims, "_fence", only_wait)
    assert "two living owners" in broken(find("two sign-ups with one email"))


def without_guard(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """Remove the guard of events whose type ends with ``wanted``."""
    guarded = Operation.event

    def event(self: Operation, *given: Any, **options: Any) -> NewEvent:
        made = guarded(self, *given, **options)
        return msgspec.structs.replace(made, guard=None) if made.type.endswith(wanted) else made

    monkeypatch.setattr(Operation, "event", event)


def test_with_unguarded_claims_an_email_has_two_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    without_guard(monkeypatch, CLAIMED)
    assert "two living owners" in broken(find("two sign-ups with one email"))


def test_with_unguarded_updates_an_acknowledged_change_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    without_guard(monkeypatch, "user.updated")
    assert "is lost" in broken(find("two changes of different fields"))


def test_with_unguarded_creations_an_email_has_two_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    without_guard(monkeypatch, "user.created")
    assert "two living owners" in broken(find("two sign-ups with one email"))


def test_with_an_unguarded_release_a_living_user_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    without_guard(monkeypatch, "released")
    assert "not found by its email" in broken(find("sign-up and deletion of the owner"))


def test_with_the_commit_point_before_the_claims_an_email_has_two_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "events", property(lambda plan: [plan.commit, *plan.before, *plan.after]))
    assert "two living owners" in broken(find("two sign-ups with one email"))


def test_with_a_snapshot_without_horizon_a_living_session_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = Indexes.compact

    async def without_horizon(self: Indexes, stream: str, found: Any, deleted: Collection[str] = ()) -> None:
        ordered = SimpleNamespace(store=SimpleNamespace(time_skew=0), append=self._streams.append)
        await compact(Indexes(ordered), stream, found, deleted)  # type: ignore[arg-type]

    monkeypatch.setattr(Indexes, "compact", without_horizon)
    assert "are alive" in broken(find("two sign-ins"))


def test_without_search_for_the_operation_a_lost_reply_breaks_a_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(streams.Streams, "written_since", never)
    assert broken(find("two sign-ups with one email"), faults=1)


def test_with_a_release_instead_of_a_fence_a_living_user_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def withdraw(self: Mutations, operation: Operation) -> None:
        for plan in operation.sent:
            for event in plan.before:
                head = await self._streams.head(event.stream)
                if head.op == operation.id:
                    await self._streams.append([release_event(operation, event.stream, plan.head.stream, head)])

    monkeypatch.setattr(Mutations, "_withdraw", withdraw)
    assert "not found by its email" in broken(find("two changes to the same email"))


@pytest.mark.long
def test_with_cold_counters_an_email_has_two_owners() -> None:
    """The store must send a guarded append only to a server that has loaded the tenant since its start."""
    scenario = find("two sign-ups with one email")
    cold = replace(scenario, warm=False, faults=frozenset({"restart"}))
    assert broken(cold, faults=1)


async def sign_out_and_read(auth: Auth) -> None:
    await auth.sessions.delete("t1")
    assert await auth.sessions.get("t1") is None, "a revoked session is valid again"


def clock_steps_back() -> Scenario:
    scenario = situation(
        "revocation while the clock steps back",
        before(sign_in(token="t1"), facts={"emails": ()}),
        check_promises,
        A=sign_out_and_read,
        B=lambda auth: auth.sessions.create(user_id="u1", expires_at=LATER),
    )
    return replace(scenario, faults=frozenset({"clock"}))


@pytest.fixture
def _no_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes do not support a clock that steps back by more than a snapshot's horizon: see "Known limits" in
    `docs/explanation/guarantees-and-limits.md`."""
    monkeypatch.setattr(indexes, "MIN_NEW_ENTRIES", 64)


@pytest.mark.usefixtures("_no_snapshots")
@pytest.mark.parametrize("versions", ["ones", "true"])
def test_revoked_session_stays_revoked_when_the_clock_steps_back(versions: Literal["ones", "true"]) -> None:
    result = explore(replace(clock_steps_back(), versions=versions), faults=1)
    assert result.complete


@pytest.mark.usefixtures("_no_snapshots")
def test_without_sequence_numbers_a_revoked_session_is_valid_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "may_be_outdated", lambda latest, ordered: False)
    broken(clock_steps_back(), faults=1)


def test_with_two_reads_for_commit_and_value_an_email_has_two_owners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def two_reads(self: Claims, kind: object, unique: object, wanted: object, owner: Head, op: str) -> bool:
        return await self._streams.written_since(owner, op, since=None) is not None

    monkeypatch.setattr(Claims, "_is_committed", two_reads)
    assert "two living owners" in broken(find("two users change to one email"))


VERSIONS = pytest.mark.parametrize("versions", ["ones", "true"])


@VERSIONS
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two sign-ups with one id", "decided on the same one"),
        ("two sign-ups with one email", "two living owners"),
        ("sign-up and change to its email", "two living owners"),
        ("two sign-ins with one token", "decided on the same one"),
        ("two changes of a user that another program wrote", "is lost"),
    ],
)
def test_with_the_version_read_after_its_event_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, versions: Literal["ones", "true"], name: str, words: str
) -> None:
    trust_counters(monkeypatch)
    assert words in broken(replace(find(name, SPLIT), versions=versions))


def trust_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make decisions without waiting for events that are counted but not visible."""
    for module in (streams, settling):
        monkeypatch.setattr(module, "agrees", lambda latest: True)


def dying(name: str) -> Scenario:
    return replace(find(name, TRANSACTIONS), faults=frozenset({"death"}))


async def nothing(*_: object) -> None:
    return None


def test_without_roll_forward_an_email_has_two_owners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "roll_forward", nothing)
    assert "two living owners" in broken(dying("two sign-ups as one, and one with the second email"), faults=1)


def test_without_the_decision_in_claims_a_promise_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Claims.take

    async def without_decision(self: Claims, *given: Any, decision: object = None, **options: Any) -> list[NewEvent]:
        return await take(self, *given, **options)

    monkeypatch.setattr(Claims, "take", without_decision)
    assert broken(dying("two sign-ups as one, and one with the second email"), faults=1)


def test_without_fence_on_the_decision_a_refused_transaction_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions.Transaction, "_fence_decision", nothing)
    late = replace(find("two changes as one, and deletion of the second", TRANSACTIONS), faults=frozenset({"delay"}))
    assert "was refused, but wrote" in broken(late, faults=1)


def test_with_claims_judged_on_the_overlay_an_email_has_two_owners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def context(*given: Any, committed_claims: object, **options: Any) -> Context[Any]:
        return Context(*given, **options)

    monkeypatch.setattr(transactions, "Context", context)
    name = "changes and sign-up as one, and a change to the email of the sign-up"
    assert "two living owners" in broken(find(name, TRANSACTIONS))


def test_without_wait_for_counted_events_an_email_has_two_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """This bug occurred on a real Core: a contender treated the claim of a sign-up that was just stored as ownerless."""
    trust_counters(monkeypatch)
    scenario = replace(find("two sign-ups with one email"), lagging=True)
    assert "two living owners" in broken(scenario)
