"""Run a scenario in every possible order, in one given order, or in random ones.

`explore` is a depth-first search that knows a run only by its choices: it runs the scenario from the start, follows the
choices of one unexplored branch, goes on with the first possibility, and notes the others. A branch ends where the run
reaches a state that was seen before: the clients depend on nothing but what they observe (`draws`), so everything that
can follow has been or will be looked at. Branches with fewer faults go first: a state that was reached with fewer
faults needs no second look, and the first violation found has the fewest faults possible.

These functions have an event loop of their own: call them from plain functions, not from coroutines.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tests.protocol.core import Interner, SimCore
from tests.protocol.draws import deterministic
from tests.protocol.loop import SimLoop
from tests.protocol.scenario import Outcome, Scenario
from tests.protocol.world import Chooser, World

__all__ = ["Replay", "Result", "Violation", "explore", "replay", "sample"]

_clock = time.perf_counter

_LEFT_BEFORE_COLLECTION = 200_000
"""Objects that runs leave behind before they are collected; the states seen are many, and looking through them is slow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What was explored."""

    schedules: int
    """Runs, those cut short in a known state included."""
    ends: int
    """Runs whose end was checked."""
    states: int
    """Distinct states in which there was something to choose."""
    complete: bool
    """Whether every possible run is covered."""
    seconds: float

    def __str__(self) -> str:
        extent = "complete" if self.complete else "NOT complete"
        rate = self.schedules / max(self.seconds, 1e-9)
        return (
            f"{self.schedules:,} schedules, {self.ends:,} ends, {self.states:,} states, {extent}, "
            f"{self.seconds:.2f} s, {rate:,.0f} per second"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """One run, told."""

    lines: list[str]
    choices: list[int]
    """Every choice of the run, those after the given ones included."""
    outcomes: dict[str, Outcome]
    violation: BaseException | None

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Violation(AssertionError):
    """A run that ends in a state that must not be.

    ``choices``, ``faults`` and ``reduce`` are what `replay` needs to run it again, ``cause`` is what was raised.
    """

    def __init__(self, scenario: Scenario, choices: list[int], faults: int, reduce: bool, told: Replay) -> None:
        self.choices = choices
        self.faults = faults
        self.reduce = reduce
        self.cause = told.violation
        self.trace = str(told)
        again = f"replay(scenario, {choices}, faults={faults}{'' if reduce else ', reduce=False'})"
        super().__init__(f"{scenario.name}\n{told}\nviolation: {_words(told.violation)}\n{again}")


class _Script:
    """Choices made before; afterwards the first possibility, or whatever ``then`` answers."""

    def __init__(self, choices: Sequence[int], then: Callable[[int, int], int] | None = None) -> None:
        self.taken: list[int] = []
        self._choices = choices
        self._then = then

    def pick(self, world: World, steps: int, faults: int) -> int:
        """The next choice."""
        index = len(self.taken)
        if index < len(self._choices):
            choice = self._choices[index]
            if choice >= steps + faults:
                raise ValueError(f"choice {index} is {choice}, but there are only {steps + faults}: another scenario?")
        else:
            choice = self._then(steps, faults) if self._then else 0
        self.taken.append(choice)
        return choice

    def ends(self, world: World) -> bool:
        """Every run is of interest."""
        return True


class _Search:
    """The branches that are still to be explored, and the states that were seen."""

    def __init__(self, faults: int, prune: bool) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self.ends_seen = 0
        self.taken = bytearray()
        self._prefix = b""
        self._prune = prune
        self._pending: list[list[bytes]] = [[] for _ in range(faults + 1)]
        self._pending[0].append(b"")

    def next(self) -> bool:
        """Go to the next branch; false if there is none."""
        for branches in self._pending:
            if branches:
                self._prefix = branches.pop()
                self.taken = bytearray()
                return True
        return False

    def pick(self, world: World, steps: int, faults: int) -> int:
        """Follow the branch; beyond its end the first possibility, with the others as new branches."""
        taken = self.taken
        index = len(taken)
        if index < len(self._prefix):
            choice = self._prefix[index]
            taken.append(choice)
            return choice
        if self._known(world, "choice"):
            return -1
        so_far = bytes(taken)
        same, more = self._pending[world.used], self._pending[min(world.used + 1, len(self._pending) - 1)]
        same += [so_far + bytes((other,)) for other in range(steps - 1, 0, -1)]
        more += [so_far + bytes((other,)) for other in range(steps + faults - 1, steps - 1, -1)]
        taken.append(0)
        return 0

    def ends(self, world: World) -> bool:
        """Whether this end is new."""
        if self._known(world, "end"):
            return False
        self.ends_seen += 1
        return True

    def _known(self, world: World, where: str) -> bool:
        if not self._prune:
            return False
        key = where, world.key()
        if key in self.seen:
            return True
        self.seen.add(key)
        return False


class _Stage:
    """A scenario whose setup has run, on a loop that serves all runs."""

    def __init__(self, scenario: Scenario, loop: SimLoop) -> None:
        self._scenario = scenario
        self._loop = loop
        self._ids = Interner()
        self._facts: Mapping[str, Any] = {}
        self._core = SimCore(self._ids, versions=scenario.versions, tick=scenario.tick, clock=scenario.clock)
        if scenario.setup is not None:
            world = World(scenario, loop, self._ids, self._core, _Script(()), facts={})
            try:
                self._facts = MappingProxyType(world.alone("setup", scenario.setup) or {})
            finally:
                world.close()

    def run(
        self, chooser: Chooser, *, faults: int, reduce: bool, lines: list[str] | None = None
    ) -> tuple[World, Exception | None]:
        """One run; what went wrong in it, if anything did."""
        world = World(
            self._scenario,
            self._loop,
            self._ids,
            self._core.copy(),
            chooser,
            facts=self._facts,
            faults=faults,
            reduce=reduce,
            lines=lines,
        )
        try:
            world.run()
        except Exception as error:
            return world, error
        finally:
            world.close()
        return world, None

    def violation(self, choices: Sequence[int], faults: int, reduce: bool) -> Violation:
        """A run that went wrong, as an error that tells it."""
        told = self.replay(choices, faults, reduce)
        return Violation(self._scenario, list(choices), faults, reduce, told)

    def replay(self, choices: Sequence[int], faults: int, reduce: bool) -> Replay:
        """One run with its trace."""
        lines: list[str] = []
        script = _Script(choices)
        world, error = self.run(script, faults=faults, reduce=reduce, lines=lines)
        if isinstance(error, ValueError) and len(script.taken) < len(choices):
            raise error
        return Replay(lines=lines, choices=script.taken, outcomes=world.outcomes, violation=error)


def explore(
    scenario: Scenario, *, faults: int = 0, limit: int = 200_000, prune: bool = True, reduce: bool = True
) -> Result:
    """Run ``scenario`` in every order, with at most ``faults`` faults in each run, and at most ``limit`` runs.

    ``prune``: do not go on from a state that was seen before. ``reduce``: the partial order reduction of `world`.
    Raises `Violation` for the first run that goes wrong.
    """
    search = _Search(faults, prune)
    schedules = 0
    started = _clock()
    complete = True
    with _stage(scenario) as stage:
        while search.next():
            if schedules >= limit:
                complete = False
                break
            schedules += 1
            _, error = stage.run(search, faults=faults, reduce=reduce)
            if error is not None:
                raise stage.violation(list(search.taken), faults, reduce) from error
    return Result(
        schedules=schedules,
        ends=search.ends_seen,
        states=len(search.seen),
        complete=complete,
        seconds=_clock() - started,
    )


def replay(scenario: Scenario, choices: Sequence[int], *, faults: int = 0, reduce: bool = True) -> Replay:
    """Run ``scenario`` in the order that ``choices`` say and tell what happens; it does not raise for a violation.

    ``faults`` and ``reduce`` are those of the exploration that the choices come from.
    """
    with _stage(scenario) as stage:
        return stage.replay(choices, faults, reduce)


def sample(
    scenario: Scenario,
    *,
    seed: int,
    runs: int,
    faults: int = 0,
    chance: float = 0.05,
    reduce: bool = False,
) -> Result:
    """Run ``scenario`` in ``runs`` random orders; where a fault is possible one happens with the given ``chance``.

    Raises `Violation` for the first run that goes wrong.
    """
    dice = random.Random(seed)

    def roll(steps: int, faults: int) -> int:
        if faults and dice.random() < chance:
            return steps + dice.randrange(faults)
        return dice.randrange(steps)

    started = _clock()
    with _stage(scenario) as stage:
        for _ in range(runs):
            script = _Script((), roll)
            _, error = stage.run(script, faults=faults, reduce=reduce)
            if error is not None:
                raise stage.violation(script.taken, faults, reduce) from error
    return Result(schedules=runs, ends=runs, states=0, complete=False, seconds=_clock() - started)


@contextmanager
def _stage(scenario: Scenario) -> Iterator[_Stage]:
    loop = SimLoop()
    often = gc.get_threshold()
    gc.set_threshold(_LEFT_BEFORE_COLLECTION, *often[1:])
    try:
        with deterministic(loop.time):
            yield _Stage(scenario, loop)
    finally:
        gc.set_threshold(*often)
        loop.close()


def _words(error: BaseException | None) -> str:
    if error is None:
        return "none when told again: the scenario is not deterministic"
    text = str(error) or repr(error)
    return text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
