"""Closed and open loops of calls, in rounds in which the measured calls alternate.

* Closed loop: a number of concurrent callers, each of which makes its next call after the previous one has returned.
* Open loop: calls start at a fixed rate, whether or not earlier ones have returned. Each is timed from the moment at which it
  was due, so waiting counts as latency.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

from allsource_auth.cli.measuring import Call, Check, Latency, Round, alternating, closed_loop

__all__ = ["ROUNDS", "Call", "Prepare", "Row", "closed_loops", "open_loops", "timed_loops"]

ROUNDS = 20
OPEN_LOOP_ROUNDS = 5
TRIAL = 0.2
"""The part of a round's duration for which `timed_loops` tries how many calls fit into a round."""
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)

Prepare = Callable[[], Call]
"""Returns the next call. The time of preparing it is not measured. The call must not return ``None``."""

Row = dict[str, Any]


class Times:
    """The times of one kind of call over all rounds."""

    def __init__(self) -> None:
        self._all = Latency()
        self._rounds: dict[str, list[float]] = {"p50_us": [], "p99_us": [], "per_second": [], "cpu_us": []}
        self._wall = self._cpu = 0

    def add(self, measured: Round) -> None:
        """Add a round."""
        latency = Latency()
        for nanoseconds in measured.durations:
            latency.add(nanoseconds)
        self._all.merge(latency)
        self._rounds["p50_us"].append(latency.microseconds(50))
        self._rounds["p99_us"].append(latency.microseconds(99))
        self._rounds["per_second"].append(latency.calls * 1e9 / measured.wall)
        self._rounds["cpu_us"].append(measured.cpu / latency.calls / 1000)
        self._wall += measured.wall
        self._cpu += measured.cpu

    def row(self) -> Row:
        """Percentiles in microseconds, calls per second, CPU time per call; the figures of each round; the percentile curve."""
        return {
            "p50_us": self._all.microseconds(50),
            "p90_us": self._all.microseconds(90),
            "p99_us": self._all.microseconds(99),
            "p999_us": self._all.microseconds(99.9),
            "p99_us_median_of_rounds": statistics.median(self._rounds["p99_us"]),
            "per_second": self._all.calls * 1e9 / self._wall,
            "cpu_us": self._cpu / self._all.calls / 1000,
            "rounds": self._rounds,
            "curve": [[percentile, self._all.microseconds(percentile)] for percentile in CURVE],
        }


async def closed_loops(
    kinds: Mapping[str, Prepare], *, count: int, callers: int = 1, rounds: int = ROUNDS
) -> dict[str, Row]:
    """`Times.row` of each kind of call: about ``count`` calls in closed loops of ``callers``."""
    return await _in_rounds(kinds, dict.fromkeys(kinds, max(callers, count // rounds)), callers, rounds)


async def timed_loops(kinds: Mapping[str, Prepare], *, seconds: float, callers: int, rounds: int) -> dict[str, Row]:
    """`Times.row` of each kind of call: in each round as many calls as take about ``seconds``, by ``callers`` callers."""
    sizes: dict[str, int] = {}
    for name, prepare in kinds.items():
        trial = Round()
        await closed_loop(_calls_for(prepare, seconds * TRIAL), callers=callers, measured=trial)
        sizes[name] = max(callers, round(len(trial.durations) * seconds * 1e9 / trial.wall))
    return await _in_rounds(kinds, sizes, callers, rounds)


def _calls_for(prepare: Prepare, seconds: float) -> Iterator[tuple[Call, Check]]:
    """Calls until ``seconds`` are over."""
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at:
        yield prepare(), _check


async def _in_rounds(
    kinds: Mapping[str, Prepare], sizes: Mapping[str, int], callers: int, rounds: int
) -> dict[str, Row]:
    """Measure ``sizes`` calls of each kind in each round."""
    times = {name: Times() for name in kinds}
    for name, prepare in alternating(list(kinds.items()), rounds):
        gc.collect()  # else the garbage of the previous round would be collected in this one
        # A client that closed idle connections opens new ones in these calls, which are not measured.
        await asyncio.gather(*(prepare()() for _ in range(callers)))
        calls = [prepare() for _ in range(sizes[name])]
        measured = Round()
        await closed_loop(zip(calls, repeat(_check), strict=False), callers=callers, measured=measured)
        times[name].add(measured)
    return {name: found.row() for name, found in times.items()}


def _check(result: object) -> None:
    assert result is not None


async def open_loops(kinds: Mapping[str, Prepare], *, rate: float, seconds: float) -> dict[str, Row]:
    """`Times.row` of each kind of call: ``rate`` calls per second, for ``seconds`` in all.

    ``late_p99_us``: the delay between the moment at which a call was due and its start, which the timer and the event loop of
    the benchmark cause. ``behind``: the number of calls that had not returned when the last one started; it is small if the
    store keeps up.
    """
    loops = {name: _OpenLoop() for name in kinds}
    for name, prepare in alternating(list(kinds.items()), OPEN_LOOP_ROUNDS):
        gc.collect()
        await prepare()()
        calls = [prepare() for _ in range(max(1, int(rate * seconds / OPEN_LOOP_ROUNDS)))]
        await loops[name].run_round(calls, rate)
    return {name: loop.row(rate) for name, loop in loops.items()}


class _OpenLoop:
    """Starts calls at their due times. A thread waits for them, because the timers of an event loop are too coarse."""

    def __init__(self) -> None:
        self._times = Times()
        self._late = Latency()
        self._behind = 0

    async def run_round(self, calls: list[Call], rate: float) -> None:
        loop = asyncio.get_running_loop()
        began, cpu = time.perf_counter_ns() + 1_000_000, time.process_time_ns()
        due_times = [began + int(number * 1e9 / rate) for number in range(len(calls))]
        measured = Round()
        tasks: list[asyncio.Task[None]] = []
        all_started = asyncio.Event()

        async def one(call: Call, due: int) -> None:
            result = await call()
            measured.durations.append(time.perf_counter_ns() - due)
            _check(result)

        def start(call: Call, due: int) -> None:
            self._late.add(time.perf_counter_ns() - due)
            tasks.append(loop.create_task(one(call, due)))
            if len(tasks) == len(calls):
                self._behind += len(calls) - len(measured.durations)
                all_started.set()

        cancelled = threading.Event()

        def schedule() -> None:
            for call, due in zip(calls, due_times, strict=True):
                while not cancelled.is_set() and (remaining := due - time.perf_counter_ns()) > 0:
                    cancelled.wait(remaining / 1e9)
                if cancelled.is_set():
                    return
                loop.call_soon_threadsafe(start, call, due)

        scheduler = threading.Thread(target=schedule)
        scheduler.start()
        try:
            await all_started.wait()
            await asyncio.gather(*tasks)
        finally:
            cancelled.set()
            scheduler.join()
        measured.wall, measured.cpu = time.perf_counter_ns() - began, time.process_time_ns() - cpu
        self._times.add(measured)

    def row(self, rate: float) -> Row:
        late = self._late.microseconds(99)
        return self._times.row() | {"asked_per_second": rate, "late_p99_us": late, "behind": self._behind}
