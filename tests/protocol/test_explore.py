"""The exploration: it reaches every possible final state, detects violations, and prints runs that can be replayed."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from math import comb
from typing import Any

import pytest

from allsource_auth.errors import AllsourceAuthError, Conflict, Http, VersionConflict
from allsource_auth.store.base import NewEvent
from tests.protocol.core import SECOND
from tests.protocol.explore import Violation, explore, replay, sample
from tests.protocol.scenario import ALL_FAULTS, Client, Fault, Scenario
from tests.protocol.store import SimStore
from tests.protocol.world import Broken, World

pytestmark = pytest.mark.heavy

NONE: frozenset[Fault] = frozenset()


def only(*kinds: Fault) -> frozenset[Fault]:
    return frozenset(kinds)


def new(stream: str, guard: int | None = None, payload: str = "{}") -> NewEvent:
    return NewEvent(type="auth.user.created", stream=stream, payload=payload.encode(), metadata=b"null", guard=guard)


async def anything(world: World) -> None:
    """A check that accepts everything."""


def two(client: Client, **options: Any) -> Scenario:
    """Two clients that run the same program."""
    options.setdefault("check", anything)
    return Scenario(name="two clients", clients={"A": client, "B": client}, **options)


def one(client: Client, **options: Any) -> Scenario:
    options.setdefault("check", anything)
    return Scenario(name="one client", clients={"A": client}, **options)


def how(world: World) -> tuple[Hashable, ...]:
    """Return the outcomes of the clients, without the messages of errors."""
    return tuple(
        (name, outcome.how, type(outcome.error).__name__ if outcome.error else outcome.value)
        for name, outcome in sorted(world.outcomes.items())
    )


def log(world: World) -> tuple[Hashable, ...]:
    """Return the payloads and times of all events, by stream, in stored order."""
    return tuple(
        (stream, *[(bytes(event.payload), event.time) for event in world.core.events(stream)])
        for stream in world.core.streams()
    )


def ends(scenario: Scenario, **options: Any) -> set[Hashable]:
    """Return the (log, outcomes) of all final states of ``scenario``."""
    found: set[Hashable] = set()

    async def check(world: World) -> None:
        found.add((log(world), how(world)))

    assert explore(replace(scenario, check=check), **options).complete
    return found


def outcomes(scenario: Scenario, **options: Any) -> set[Hashable]:
    return {end[1] for end in ends(scenario, **options)}  # type: ignore[index]


def payloads(scenario: Scenario, stream: str, **options: Any) -> set[str]:
    """Return all sequences of payloads (one letter each) that ``stream`` has in a final state."""
    found = set()
    for end in ends(scenario, **options):
        streams = {name: events for name, *events in end[0]}  # type: ignore[index]
        found.add("".join(payload.decode() for payload, _ in streams.get(stream, [])))
    return found


# -- programs


async def naive_sign_up(store: SimStore, world: World) -> str:
    """Check that the value is free, then take it without a guard."""
    if (await store.latest("claim")).event is not None:
        raise Conflict("user", "email")
    owner = str(uuid.uuid4())
    await store.append([new("claim", payload=owner), new(f"user:{owner}", 0)])
    return owner


async def guarded_create(store: SimStore, world: World) -> str:
    await store.append([new("user", 0)])
    return "created"


async def three_reads(store: SimStore, world: World) -> None:
    for _ in range(3):
        await store.latest("user")


async def two_appends(store: SimStore, world: World) -> None:
    for _ in range(2):
        await store.append([new("user")])


async def persistent_create(store: SimStore, world: World) -> str:
    """Retry while the outcome is unknown. After a conflict look for the own event."""
    me = f'"{uuid.uuid4()}"'
    for _ in range(4):
        try:
            await store.append([new("claim", payload=me), new("user", 0, me)])
        except VersionConflict:
            events = await store.read("user")
            return "mine" if [bytes(event.payload) for event in events] == [me.encode()] else "taken"
        except Http:
            continue
        else:
            return "created"
    return "unknown"


async def parallel(store: SimStore, world: World) -> Hashable:
    """Send two concurrent requests; return the types of their results."""
    results = await asyncio.gather(store.append([new("a", 0)]), store.latest("b"), return_exceptions=True)
    await store.append([new("b")])
    return tuple(type(result).__name__ for result in results)


async def racing(store: SimStore, world: World) -> Hashable:
    """Send two concurrent appends to one stream; return the order of their replies."""

    async def append(payload: str) -> None:
        await store.append([new("log", payload=payload)])
        replies.append(payload)

    replies: list[str] = []
    await asyncio.gather(append("1"), append("2"))
    return "".join(replies)


async def write_earlier_version(store: SimStore, world: World) -> None:
    """Append a version that was read two steps ago."""
    before = (await store.latest("log")).version
    await store.append([new("log", payload="-")])
    await store.append([new("log", payload=str(before))])


async def read_twice(store: SimStore, world: World) -> Hashable:
    """Return the results of two reads of a stream, with an append in between."""
    before = await store.latest("log")
    await store.append([new("log")])
    after = await store.latest("log")
    return before.event is not None, before.version, after.version


async def append_with_timeout(store: SimStore, world: World) -> str:
    """Append with a timeout of a second, then wait and read."""
    try:
        async with asyncio.timeout(1):
            await store.append([new("a"), new("b")])
    except TimeoutError:
        return "gave up"
    await asyncio.sleep(2)
    return f"version {(await store.latest('a')).version}"


# -- replays


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("faults", [0, 2])
def test_same_choices_give_the_same_run(reduce: bool, faults: int) -> None:
    scenario = two(persistent_create)
    traces = set()
    for seed in range(10):
        dice = random.Random(seed)
        choices = [int(dice.random() < 0.3) for _ in range(50)]
        first = replay(scenario, choices, faults=faults, reduce=reduce)
        traces.add(str(first))
        for _ in range(3):
            repeated = replay(scenario, first.choices, faults=faults, reduce=reduce)
            assert repeated.lines == first.lines
            assert repeated.choices == first.choices == choices[: len(first.choices)]
    assert len(traces) >= 5


def test_runs_do_not_depend_on_earlier_runs() -> None:
    traces: dict[tuple[Hashable, ...], Counter[Hashable]] = {}

    async def check(world: World) -> None:
        traces.setdefault(tuple(world.notes["A"]), Counter())[log(world)] += 1

    async def noisy(store: SimStore, world: World) -> None:
        """Leave a task, a timer and an open request behind."""
        background = asyncio.create_task(store.latest("never seen"))
        asyncio.get_running_loop().call_later(1000, world.note, "too late")
        world.note(str(uuid.uuid4()))
        world.note(asyncio.get_running_loop().time())
        world.note(len(asyncio.all_tasks()))
        await store.append([new("a")])
        del background

    scenario = one(noisy, check=check)
    result = explore(scenario, prune=False)
    assert result.complete
    sample(scenario, seed=1, runs=50)
    assert len(traces) == 1
    assert len(next(iter(traces.values()))) == 1


def test_choice_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="choice 0 is 7"):
        replay(two(two_appends), [7])


def test_setup_runs_once_and_every_run_starts_from_its_state() -> None:
    runs = []

    async def setup(world: World) -> dict[str, str]:
        runs.append(1)
        await world.store().append([new("user", 0)])
        return {"stream": "user"}

    async def client(store: SimStore, world: World) -> int:
        return (await store.latest(world.facts["stream"])).version + len(await store.read("new")) * 100

    async def check(world: World) -> None:
        assert [outcome.value for outcome in world.outcomes.values()] == [1, 1]
        await world.store().append([new("new", 0)])

    assert explore(two(client, setup=setup, check=check), prune=False).ends == comb(4, 2)
    assert len(runs) == 1


# -- finding what is wrong


async def one_owner(world: World) -> None:
    owners = [name for name, outcome in world.outcomes.items() if outcome.how == "returned"]
    assert len(owners) < 2, f"two owners: {' and '.join(owners)}"


def test_naive_uniqueness_is_detected_and_its_schedule_printed() -> None:
    scenario = two(naive_sign_up, check=one_owner)
    with pytest.raises(Violation, match="two owners: A and B") as caught:
        explore(scenario)
    violation = caught.value
    repeated = replay(scenario, violation.choices)
    assert str(repeated) == violation.trace
    assert str(repeated.violation).startswith("two owners: A and B")
    lines = [line.split(" user:")[0] for line in repeated.lines]
    assert lines[:4] == [
        "  1. A: latest claim -> nothing, version 0",
        "  2. B: latest claim -> nothing, version 0",
        "  3. A: append 1/2 auth.user.created on claim -> stored as version 1",
        "  4. A: append 2/2 auth.user.created on",
    ]
    assert f"replay(scenario, {violation.choices}, faults=0)" in str(violation)


def test_naive_uniqueness_is_detected_by_random_runs() -> None:
    scenario = two(naive_sign_up, check=one_owner)
    with pytest.raises(Violation, match="two owners") as caught:
        sample(scenario, seed=7, runs=1000)
    assert isinstance(replay(scenario, caught.value.choices, reduce=False).violation, AssertionError)
    with pytest.raises(Violation) as same:
        sample(scenario, seed=7, runs=1000)
    assert same.value.choices == caught.value.choices


def test_branches_with_fewer_faults_are_explored_first() -> None:
    async def check(world: World) -> None:
        used.append(world.used)

    used: list[int] = []
    explore(two(two_appends, check=check), faults=2)
    assert used == sorted(used)
    assert set(used) == {0, 1, 2}


def test_guarded_creates_have_one_winner_in_every_schedule() -> None:
    async def check(world: World) -> None:
        created = [outcome.how for outcome in world.outcomes.values()].count("returned")
        assert created == 1
        assert len(world.core.events("user")) == 1

    result = explore(
        Scenario(name="three creates", clients=dict.fromkeys("ABC", guarded_create), check=check), prune=False
    )
    assert result.complete
    assert result.ends >= 6


def test_unexpected_exception_is_a_violation() -> None:
    async def client(store: SimStore, world: World) -> None:
        await store.latest("a")
        raise KeyError("oops")

    with pytest.raises(Violation, match="A raises KeyError: 'oops'"):
        explore(one(client))
    explore(one(client, expected=(KeyError,)))


def test_client_that_never_ends_is_a_violation() -> None:
    async def polls(store: SimStore, world: World) -> None:
        while (await store.latest("never")).event is None:
            pass

    async def waits(store: SimStore, world: World) -> None:
        await asyncio.Event().wait()

    async def spins(store: SimStore, world: World) -> None:
        while True:
            await asyncio.sleep(0)

    for client, words in ((polls, "does not terminate"), (waits, "no step is possible"), (spins, "in a busy loop")):
        with pytest.raises(Violation, match=words):
            explore(one(client))


def test_check_that_never_ends_is_a_violation() -> None:
    async def check(world: World) -> None:
        while (await world.store().latest("never")).event is None:
            pass

    with pytest.raises(Violation, match="check does not terminate"):
        explore(one(guarded_create, check=check))


def test_limit_makes_the_result_incomplete() -> None:
    result = explore(two(three_reads), prune=False, limit=10)
    assert (result.schedules, result.complete) == (10, False)
    assert "NOT complete" in str(result)


# -- how many


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_every_order_of_independent_steps_is_run(steps: int) -> None:
    async def reads(store: SimStore, world: World) -> None:
        for _ in range(steps):
            await store.latest("a")

    async def appends(store: SimStore, world: World) -> None:
        await store.append([new("a")] * steps)

    assert explore(two(reads), prune=False, reduce=False).ends == comb(2 * steps, steps)
    assert explore(two(reads, split=True), prune=False, reduce=False).ends == comb(4 * steps, 2 * steps)
    assert explore(two(appends), prune=False, reduce=False).ends == comb(2 * steps + 2, steps + 1)
    assert explore(two(appends), prune=False).ends == comb(2 * steps, steps)
    assert explore(two(appends, atomic_batches=True), prune=False).ends == 2


def test_pruning_leaves_one_run_per_state_and_step() -> None:
    result = explore(two(three_reads))
    # A grid of 4 by 4 states; on its two outer edges one client is done and nothing is left to choose.
    assert result.states == 3 * 3 + 1
    assert result.ends == 1


SCENARIOS = {
    "naive": two(naive_sign_up),
    "create": two(persistent_create),
    "reads": two(three_reads),
    "appends": two(two_appends),
    "parallel": two(parallel),
    "racing": one(racing),
    "timeout": two(append_with_timeout),
    "timeout, time passes at any step": two(append_with_timeout, timers="any"),
    "stamps": two(two_appends, stamps=True),
    "atomic": two(persistent_create, atomic_batches=True),
    "clock of all events": two(guarded_create, clock="global", faults=ALL_FAULTS | {"clock"}),
    "only lost": two(persistent_create, faults=only("lost")),
    "only delay": two(persistent_create, faults=only("delay")),
    "only restarts": two(persistent_create, faults=only("restart")),
    "not warm": two(guarded_create, warm=False),
    "split": two(read_twice, split=True),
    "split, with a guard": two(naive_sign_up, split=True),
    "split, only restarts": two(read_twice, split=True, faults=only("restart")),
    "split, time passes at any step": two(append_with_timeout, split=True, timers="any"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_reduction_loses_no_end(name: str) -> None:
    """The full and the reduced exploration have the same final states."""
    for faults in (0, 1):
        assert ends(SCENARIOS[name], faults=faults) == ends(SCENARIOS[name], faults=faults, reduce=False)


@pytest.mark.long
@pytest.mark.parametrize("name", ["appends", "naive", "only delay", "only restarts", "racing"])
def test_reduction_loses_no_end_with_two_faults(name: str) -> None:
    assert ends(SCENARIOS[name], faults=2) == ends(SCENARIOS[name], faults=2, reduce=False)


@pytest.mark.parametrize("faults", [0, 1])
def test_pruning_loses_no_end(faults: int) -> None:
    for name in ("naive", "appends", "timeout"):
        pruned = ends(SCENARIOS[name], faults=faults)
        assert pruned == ends(SCENARIOS[name], faults=faults, prune=False)


def test_pruning_distinguishes_what_a_client_has_read() -> None:
    scenario = two(write_earlier_version)
    logs = payloads(scenario, "log")
    assert logs == payloads(scenario, "log", prune=False)
    assert {"--00", "--01", "--10", "-0-2", "-0-1"} <= logs


@pytest.mark.parametrize("faults", [0, 1])
def test_pruning_distinguishes_what_a_half_done_read_has_read(faults: int) -> None:
    scenario = two(read_twice, split=True)
    assert ends(scenario, faults=faults) == ends(scenario, faults=faults, prune=False)


def test_replies_to_one_client_arrive_in_any_order() -> None:
    found = {(end[0][0][1:], end[1][0][2]) for end in ends(one(racing))}  # type: ignore[index]
    assert len(found) == 4


# -- batches


def test_elements_of_two_batches_interleave() -> None:
    async def batch(store: SimStore, world: World) -> None:
        await store.append([new("log", payload="1"), new("log", payload="2")])

    assert payloads(two(batch), "log") == {"1212", "1122"}
    assert payloads(two(batch, atomic_batches=True), "log") == {"1212"}


async def failing_batch(store: SimStore, world: World) -> str:
    try:
        await store.append([new("log", payload="1"), new("taken", 0), new("log", payload="3")])
    except VersionConflict as error:
        return f"{error.expected} {error.actual} {error.stream}"
    return "stored"


async def take(world: World) -> None:
    await world.store().append([new("taken", 0)])


def test_failed_batch_keeps_the_events_before_the_failure() -> None:
    scenario = one(failing_batch, setup=take)
    assert payloads(scenario, "log") == {"1"}
    assert outcomes(scenario) == {(("A", "returned", "0 1 None"),)}


def test_failed_atomic_batch_keeps_nothing_and_names_the_stream() -> None:
    scenario = one(failing_batch, setup=take, atomic_batches=True)
    assert payloads(scenario, "log") == {""}
    assert outcomes(scenario) == {(("A", "returned", "0 1 taken"),)}


def test_tenants_share_counters() -> None:
    scenario = replace(two(guarded_create), tenants={"B": "other"})
    wins = {tuple(end[1] for end in found) for found in outcomes(scenario)}  # type: ignore[attr-defined]
    assert wins == {("returned", "raised"), ("raised", "returned")}


# -- faults


def test_dying_client_leaves_any_prefix_of_its_batch() -> None:
    async def batch(store: SimStore, world: World) -> None:
        await store.append([new("log", payload=letter) for letter in "123"])
        await store.append([new("log", payload="4")])

    scenario = one(batch, faults=only("death"))
    assert payloads(scenario, "log", faults=1) == {"", "1", "12", "123", "1234"}
    assert outcomes(scenario, faults=1) == {(("A", "returned", None),), (("A", "died", None),)}


def test_dead_client_runs_no_more_code() -> None:
    async def client(store: SimStore, world: World) -> None:
        try:
            async with asyncio.timeout(5):
                await store.append([new("log", payload="1")])
        finally:
            world.note("dead" if "A" in world.outcomes else "alive")
            await store.append([new("log", payload="2")])

    async def check(world: World) -> None:
        if world.outcomes["A"].how == "died":
            last_words.add(tuple(world.notes.get("A", ())))

    last_words: set[Hashable] = set()

    async def sleeper(store: SimStore, world: World) -> None:
        await asyncio.sleep(10)

    clients = {"A": client, "B": sleeper}
    scenario = Scenario(
        name="death", clients=clients, check=check, faults=only("death"), timers="any", expected=(TimeoutError,)
    )
    explore(scenario, faults=1, reduce=False)
    assert last_words == {(), ("alive",)}


def test_lost_reply_is_ambiguous_for_appends_only() -> None:
    async def client(store: SimStore, world: World) -> str:
        try:
            await store.append([new("log")])
            await store.latest("log")
        except Http as error:
            return "ambiguous" if error.ambiguous else "plain"
        return "fine"

    async def check(world: World) -> None:
        seen.add((world.outcomes["A"].value, len(world.core.events("log"))))

    for reduce in (True, False):
        seen: set[Hashable] = set()
        explore(one(client, check=check, faults=only("lost")), faults=1, reduce=reduce)
        assert seen == {("ambiguous", 1), ("plain", 1), ("fine", 1)}


async def append_again(store: SimStore, world: World) -> None:
    """Send an unguarded event again if the outcome is unknown."""
    try:
        await store.append([new("log", payload="a")])
    except Http:
        await store.append([new("log", payload="b")])


def test_delayed_append_is_executed_late_or_never() -> None:
    assert payloads(one(append_again, faults=only("delay")), "log", faults=1) == {"a", "b", "ab", "ba"}
    assert payloads(one(append_again, faults=only("lost")), "log", faults=1) == {"a", "ab"}


def test_delayed_append_may_be_executed_after_its_client_has_ended() -> None:
    scenario = one(append_again, faults=only("delay"))
    late = 0

    async def check(world: World) -> None:
        nonlocal late
        late += [bytes(event.payload) for event in world.core.events("log")] == [b"b", b"a"]

    explore(replace(scenario, check=check), faults=1)
    assert late


@pytest.mark.long
def test_guards_make_a_delayed_append_harmless() -> None:
    async def check(world: World) -> None:
        events = world.core.events("user")
        assert len(events) <= 1
        values = [outcome.value for outcome in world.outcomes.values()]
        assert values.count("created") + values.count("mine") <= 1

    result = explore(two(persistent_create, check=check, faults=only("delay", "lost", "death")), faults=2)
    assert result.complete
    assert result.ends > 100


def test_restart_cuts_batches_and_every_client_gets_an_error() -> None:
    async def batch(store: SimStore, world: World) -> str:
        try:
            await store.append([new("log", payload="1"), new("log", payload="2")])
        except Http as error:
            return f"ambiguous {error.ambiguous}"
        return "stored"

    scenario = two(batch, faults=only("restart"))
    assert payloads(scenario, "log", faults=1) == {
        "", "1", "12", "11", "112", "121", "1212", "1122",
    }  # fmt: skip
    both = (("A", "returned", "ambiguous True"), ("B", "returned", "ambiguous True"))
    assert both in outcomes(scenario, faults=1)


@pytest.mark.parametrize("versions", ["ones", "true"])
@pytest.mark.parametrize("warm", [True, False])
def test_cold_server_accepts_a_second_create_unless_it_is_read_first(warm: bool, versions: Any) -> None:
    async def setup(world: World) -> None:
        await world.store().append([new("user", 0)])

    async def create_twice(store: SimStore, world: World) -> None:
        for _ in range(2):
            with suppress(Http, VersionConflict):
                await store.append([new("user", 0)])

    async def check(world: World) -> None:
        assert len(world.core.events("user")) == 1, "two users"

    scenario = two(create_twice, check=check, setup=setup, faults=only("restart"), warm=warm, versions=versions)
    assert explore(scenario).complete
    if warm or versions == "true":
        assert explore(scenario, faults=2).complete
    else:
        with pytest.raises(Violation, match="two users") as caught:
            explore(scenario, faults=1)
        assert "the server dies and restarts" in caught.value.trace


def test_cancellation_lets_the_client_clean_up() -> None:
    async def client(store: SimStore, world: World) -> None:
        try:
            await store.append([new("log", payload="1"), new("log", payload="2")])
        except asyncio.CancelledError:
            await store.append([new("log", payload="c")])
            raise

    for reduce in (True, False):
        scenario = one(client, faults=only("cancel"))
        assert payloads(scenario, "log", faults=1, reduce=reduce) == {"12", "c", "1c", "c1", "12c", "1c2", "c12"}
        assert outcomes(scenario, faults=1, reduce=reduce) == {(("A", "returned", None),), (("A", "cancelled", None),)}


def test_clock_fault_moves_time_back() -> None:
    async def client(store: SimStore, world: World) -> int:
        first, second = (await store.append([new("log")]))[0], (await store.append([new("log")]))[0]
        return second.time - first.time

    scenario = one(client, faults=only("clock"), clock_step=-SECOND, tick=10)
    assert outcomes(scenario, faults=1) == {(("A", "returned", 10),), (("A", "returned", 10 - SECOND),)}


def test_number_of_faults_is_limited() -> None:
    async def check(world: World) -> None:
        seen.add(world.used)

    for faults in (0, 1, 2):
        seen: set[int] = set()
        explore(two(two_appends, check=check), faults=faults)
        assert seen == set(range(faults + 1))
    assert explore(two(guarded_create, faults=NONE), faults=3).ends == explore(two(guarded_create)).ends


# -- time


def test_unguarded_events_may_get_their_time_before_they_are_stored() -> None:
    async def check(world: World) -> None:
        times = [event.time for event in world.core.events("user")]
        seen.add((times == sorted(times), len(set(times)) == len(times)))

    async def client(store: SimStore, world: World) -> None:
        await store.append([new("user")])

    for stamps, more in ((True, {(True, False), (False, True)}), (False, set[Hashable]())):
        seen: set[Hashable] = set()
        explore(two(client, check=check, stamps=stamps))
        assert seen == {(True, True)} | more


def test_guarded_events_get_their_time_when_they_are_stored() -> None:
    async def guarded(store: SimStore, world: World) -> int:
        return (await store.append([new("user", 1)]))[0].time

    async def unguarded(store: SimStore, world: World) -> int:
        return (await store.append([new("user")]))[0].time

    async def check(world: World) -> None:
        late, early = world.outcomes["A"], world.outcomes["B"]
        if late.how == "returned":
            waited.append(late.value > early.value)  # type: ignore[operator]

    waited: list[bool] = []
    explore(Scenario(name="in order", clients={"A": guarded, "B": unguarded}, check=check, stamps=True))
    assert set(waited) == {True}


def test_time_of_an_event_is_not_before_its_request() -> None:
    async def client(store: SimStore, world: World) -> bool:
        first = (await store.append([new("log")]))[0]
        second = (await store.append([new("log")]))[0]
        return second.time > first.time

    assert outcomes(two(client, stamps=True)) == {(("A", "returned", True), ("B", "returned", True))}


def test_time_passes_when_all_clients_sleep() -> None:
    assert outcomes(one(append_with_timeout)) == {(("A", "returned", "version 1"),)}
    assert outcomes(one(append_with_timeout, timers="any")) == {
        (("A", "returned", "version 1"),),
        (("A", "returned", "gave up"),),
    }
    late = replace(one(append_with_timeout), faults=only("delay"))
    assert (("A", "raised", "Http"),) in outcomes(late, faults=1)


def test_server_time_is_the_newest_time_read() -> None:
    async def client(store: SimStore, world: World) -> int:
        stored = await store.append([new("log")])
        return store.server_time() - stored[0].time

    assert outcomes(one(client)) == {(("A", "returned", 3600 * SECOND),)}
    assert outcomes(one(client, grace_over=False)) == {(("A", "returned", 0),)}


# -- the store


async def look(store: SimStore, world: World) -> Hashable:
    latest = await store.latest("log")
    return latest.event is not None, latest.version


async def write(store: SimStore, world: World) -> None:
    await store.append([new("log")])


@pytest.mark.parametrize(
    ("options", "between"), [({"split": True}, True), ({"split": True, "atomic_batches": True}, False), ({}, False)]
)
def test_append_may_happen_between_the_halves_of_a_split_read(options: dict[str, bool], between: bool) -> None:
    scenario = Scenario(name="look", clients={"A": look, "B": write}, check=anything, **options)  # type: ignore[arg-type]
    seen = {found[0][2] for found in outcomes(scenario)}  # type: ignore[index]
    assert seen == {(False, 0), (True, 1)} | ({(False, 1)} if between else set())


def test_split_read_is_printed_as_two_steps() -> None:
    scenario = Scenario(name="look", clients={"A": look, "B": write}, check=anything, split=True)
    assert replay(scenario, [0, 1]).lines[:3] == [
        "  1. A: latest log -> nothing",
        "  2. B: append 1/1 auth.user.created on log -> stored as version 1",
        "  3. B: reply",
    ]
    assert "A: latest log, then its version -> nothing, version 1" in str(replay(scenario, [0, 1]))


@pytest.mark.parametrize(
    ("fault", "traces", "end"),
    [
        ("death", "FAULT: A dies", "died"),
        ("lost", "FAULT: A: request: the reply is lost", "raised"),
        ("cancel", "FAULT: A is cancelled", "cancelled"),
        ("restart", "FAULT: the server dies and restarts", "raised"),
    ],
)
def test_half_done_read_can_be_lost(fault: Fault, traces: str, end: str) -> None:
    scenario = Scenario(name="look", clients={"A": look, "B": write}, check=anything, split=True, faults=only(fault))
    run = replay(scenario, [0, 2], faults=1, reduce=False)
    assert run.lines[:2] == ["  1. A: latest log -> nothing", f"  2. {traces}"]
    assert "its version" not in str(run)
    assert run.outcomes["A"].how == end
    assert run.violation is None


def test_each_page_is_a_step() -> None:
    async def setup(world: World) -> None:
        await world.store().append([new(f"user:{number}") for number in range(5)])

    async def client(store: SimStore, world: World) -> Hashable:
        scanned = [[event.stream for event in page] async for page in store.scan("auth.user.")]
        heads = [[event.stream for event in page] async for page in store.heads("user:", "auth.user.")]
        assert [len(page) for page in scanned] == [len(page) for page in heads] == [2, 2, 1]
        assert [*chain(*scanned)] == [*chain(*heads)] == [f"user:{number}" for number in range(5)]
        return "all"

    for clock in ("global", "stream"):
        scenario = one(client, setup=setup, page=2, clock=clock)
        assert outcomes(scenario) == {(("A", "returned", "all"),)}
        assert len(replay(scenario, []).lines) == 6 + 2


def test_closed_store_raises_store_closed() -> None:
    async def client(store: SimStore, world: World) -> None:
        await store.close()
        await store.latest("a")

    assert outcomes(one(client)) == {(("A", "raised", "StoreClosed"),)}
    assert issubclass(Broken, Exception)
    assert not issubclass(Broken, AllsourceAuthError)


def test_empty_append_sends_no_request() -> None:
    async def client(store: SimStore, world: World) -> int:
        return len(await store.append([]))

    assert replay(one(client), []).lines == ["     A returns 0", "  1. end"]
