"""Run a scenario in every possible order, in one given order, or in random orders.

`explore` is a depth-first search. A run is identified by its choices. The search runs the scenario from the start, follows the
choices of one unexplored branch, then always takes the first possibility and records the others as new branches. A branch
ends where the run reaches a state that was seen before. This is sound because clients depend only on what they observe (see
`draws`): whatever can follow has been explored or will be. Branches with fewer faults are explored first. So a state need not
be explored again with more faults, and the first violation that is found has the fewest faults.

These functions run their own event loop: call them from plain functions, not from coroutines.
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

_COLLECTION_THRESHOLD = 200_000
"""Objects that are allocated before the garbage collector runs. Each of its passes over the many states is slow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The extent of an exploration."""

    schedules: int
    """Number of runs, including those that ended in a known state."""
    ends: int
    """Number of runs whose final state was checked."""
    states: int
    """Number of distinct states with more than one possibility."""
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
    """One run, with a line for each step."""

    lines: list[str]
    choices: list[int]
    """All choices of the run, also those after the given ones."""
    outcomes: dict[str, Outcome]
    violation: BaseException | None

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Violation(AssertionError):
    """A run that breaks a promise.

    `replay` repeats it with ``choices``, ``faults`` and ``reduce``. ``cause`` is the exception that was raised.
    """

    def __init__(self, scenario: Scenario, choices: list[int], faults: int, reduce: bool, run: Replay) -> None:
        self.choices = choices
        self.faults = faults
        self.reduce = reduce
        self.cause = run.violation
        self.trace = str(run)
        call = f"replay(scenario, {choices}, faults={faults}{'' if reduce else ', reduce=False'})"
        super().__init__(f"{scenario.name}\n{run}\nviolation: {_words(run.violation)}\n{call}")


class _Script:
    """Makes the given choices, then takes the first possibility, or the one that ``then`` returns."""

    def __init__(self, choices: Sequence[int], then: Callable[[int, int], int] | None = None) -> None:
        self.taken: list[int] = []
        self._choices = choices
        self._then = then

    def pick(self, world: World, steps: int, faults: int) -> int:
        """Return the next choice."""
        index = len(self.taken)
        if index < len(self._choices):
            choice = self._choices[index]
            if choice >= steps + faults:
                raise ValueError(
                    f"choice {index} is {choice}, but there are only {steps + faults}; is it of another scenario?"
                )
        else:
            choice = self._then(steps, faults) if self._then else 0
        self.taken.append(choice)
        return choice

    def ends(self, world: World) -> bool:
        """Return true: the final state of every run is checked."""
        return True


class _Search:
    """The branches that are not explored yet, and the states that were seen."""

    def __init__(self, faults: int, prune: bool) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self.ends_seen = 0
        self.taken = bytearray()
        self._prefix = b""
        self._prune = prune
        self._pending: list[list[bytes]] = [[] for _ in range(faults + 1)]
        self._pending[0].append(b"")

    def next(self) -> bool:
        """Go to the next branch; return false if there is none."""
        for branches in self._pending:
            if branches:
                self._prefix = branches.pop()
                self.taken = bytearray()
                return True
        return False

    def pick(self, world: World, steps: int, faults: int) -> int:
        """Follow the branch. After its end take the first possibility, and record the others as new branches."""
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
        """Return whether this final state is new."""
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
    """A scenario whose setup has run, with the loop that all runs use."""

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
        """Run once. Returns the world, and the exception that the run raised, if any."""
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
        """Replay a failed run and return it as an error with its trace."""
        run = self.replay(choices, faults, reduce)
        return Violation(self._scenario, list(choices), faults, reduce, run)

    def replay(self, choices: Sequence[int], faults: int, reduce: bool) -> Replay:
        """Run once and return the trace."""
        lines: list[str] = []
        script = _Script(choices)
        world, error = self.run(script, faults=faults, reduce=reduce, lines=lines)
        if isinstance(error, ValueError) and len(script.taken) < len(choices):
            raise error
        return Replay(lines=lines, choices=script.taken, outcomes=world.outcomes, violation=error)


def explore(
    scenario: Scenario, *, faults: int = 0, limit: int = 200_000, prune: bool = True, reduce: bool = True
) -> Result:
    """Run ``scenario`` in every order.

    Args:
        scenario: the scenario.
        faults: maximum number of faults in a run.
        limit: maximum number of runs.
        prune: end a run in a state that was seen before.
        reduce: use the partial order reduction that `world` describes.

    Raises `Violation` for the first run that fails.
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
    """Run ``scenario`` with the given choices, and return the trace. A violation is returned, not raised.

    ``faults`` and ``reduce`` must be those of the exploration that made the choices.
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
    """Run ``scenario`` in ``runs`` random orders. ``chance`` is the probability of a fault wherever one is possible.

    Raises `Violation` for the first run that fails.
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
    thresholds = gc.get_threshold()
    gc.set_threshold(_COLLECTION_THRESHOLD, *thresholds[1:])
    try:
        with deterministic(loop.time):
            yield _Stage(scenario, loop)
    finally:
        gc.set_threshold(*thresholds)
        loop.close()


def _words(error: BaseException | None) -> str:
    if error is None:
        return "none in the replay: the scenario is not deterministic"
    text = str(error) or repr(error)
    return text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
