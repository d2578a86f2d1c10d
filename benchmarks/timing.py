"""Timing of reads, in rounds that take turns, so that all kinds meet the same machine.

Closed loops: so many callers, each of whom asks again when it has its answer. Open loops: so many reads a second, whether or
not earlier ones are answered; each is timed from the moment at which it was due, so a read that had to wait counts as slow.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hdrh.histogram import HdrHistogram

__all__ = ["ROUNDS", "Prepare", "Read", "Row", "Times", "at_rate", "in_turns"]

ROUNDS = 20
RATE_ROUNDS = 5
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)

Read = Callable[[], Awaitable[object]]

Prepare = Callable[[], Read]
"""Draws what is read next; its time is not counted."""

Row = dict[str, Any]


def _histogram() -> HdrHistogram:
    """Nanoseconds, up to a hundred seconds, three digits."""
    return HdrHistogram(1, 100_000_000_000, 3)


class Times:
    """How long the reads of one kind took, over all rounds."""

    def __init__(self) -> None:
        self._all = _histogram()
        self._rounds: dict[str, list[float]] = {"p50_us": [], "p99_us": [], "per_second": [], "cpu_us": []}
        self._count = self._wall = self._cpu = 0

    def add(self, took: list[int], *, wall: int, cpu: int) -> None:
        """One round: the nanoseconds of each read, of the round by the clock, and of this process on a processor."""
        single = _histogram()
        for nanoseconds in took:
            single.record_value(nanoseconds)
        self._all.add(single)
        self._rounds["p50_us"].append(single.get_value_at_percentile(50) / 1000)
        self._rounds["p99_us"].append(single.get_value_at_percentile(99) / 1000)
        self._rounds["per_second"].append(len(took) * 1e9 / wall)
        self._rounds["cpu_us"].append(cpu / len(took) / 1000)
        self._count += len(took)
        self._wall += wall
        self._cpu += cpu

    def row(self) -> Row:
        """Percentiles in microseconds, reads per second, processor time per read; the rounds, and the whole curve."""
        return {
            "p50_us": self._all.get_value_at_percentile(50) / 1000,
            "p90_us": self._all.get_value_at_percentile(90) / 1000,
            "p99_us": self._all.get_value_at_percentile(99) / 1000,
            "p999_us": self._all.get_value_at_percentile(99.9) / 1000,
            "p99_us_median_of_rounds": statistics.median(self._rounds["p99_us"]),
            "per_second": self._count * 1e9 / self._wall,
            "cpu_us": self._cpu / self._count / 1000,
            "rounds": self._rounds,
            "curve": [[percent, self._all.get_value_at_percentile(percent) / 1000] for percent in CURVE],
        }


async def in_turns(
    kinds: Mapping[str, Prepare], *, count: int, callers: int = 1, rounds: int = ROUNDS
) -> dict[str, Row]:
    """`Times.row` of each kind, about ``count`` reads of it in closed loops of ``callers``.

    The order of the kinds is drawn anew for each round: what comes before a kind has an effect on it.
    """
    found = {name: Times() for name in kinds}
    size = max(callers, count // rounds)
    turns = random.Random(7)
    for _ in range(rounds):
        for name, prepare in turns.sample(list(kinds.items()), len(kinds)):
            gc.collect()  # so that nobody clears away what the round before has left
            # Whoever closes idle connections makes new ones here, outside of what is timed.
            await asyncio.gather(*(prepare()() for _ in range(callers)))
            await _closed(found[name], [prepare() for _ in range(size)], callers)
    return {name: times.row() for name, times in found.items()}


async def _closed(times: Times, reads: list[Read], callers: int) -> None:
    took: list[int] = []
    waiting = iter(reads)

    async def caller() -> None:
        for read in waiting:
            began = time.perf_counter_ns()
            result = await read()
            took.append(time.perf_counter_ns() - began)
            assert result is not None

    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    await asyncio.gather(*(caller() for _ in range(callers)))
    times.add(took, wall=time.perf_counter_ns() - wall, cpu=time.process_time_ns() - cpu)


async def at_rate(kinds: Mapping[str, Prepare], *, rate: float, seconds: float) -> dict[str, Row]:
    """`Times.row` of each kind, read ``rate`` times a second, for ``seconds`` in all.

    ``late_p99_us``: how late a read was begun, the clock's and the loop's part of its time. ``behind``: how many were not yet
    answered when the last one was due; a store that keeps up has few.
    """
    found = {name: _Arrivals() for name in kinds}
    turns = random.Random(7)
    for _ in range(RATE_ROUNDS):
        for name, prepare in turns.sample(list(kinds.items()), len(kinds)):
            gc.collect()
            await prepare()()
            await found[name].round([prepare() for _ in range(max(1, int(rate * seconds / RATE_ROUNDS)))], rate)
    return {name: arrivals.row(rate) for name, arrivals in found.items()}


class _Arrivals:
    """Reads of one kind that are begun on time. A thread watches the clock, as a loop's own timers are too coarse."""

    def __init__(self) -> None:
        self._times = Times()
        self._late = _histogram()
        self._behind = 0

    async def round(self, reads: list[Read], rate: float) -> None:
        loop = asyncio.get_running_loop()
        began, cpu = time.perf_counter_ns() + 1_000_000, time.process_time_ns()
        due = [began + int(number * 1e9 / rate) for number in range(len(reads))]
        took: list[int] = []
        tasks: list[asyncio.Task[None]] = []
        all_begun = asyncio.Event()

        async def one(read: Read, at: int) -> None:
            result = await read()
            took.append(time.perf_counter_ns() - at)
            assert result is not None

        def begin(read: Read, at: int) -> None:
            self._late.record_value(max(1, time.perf_counter_ns() - at))
            tasks.append(loop.create_task(one(read, at)))
            if len(tasks) == len(reads):
                self._behind += len(reads) - len(took)
                all_begun.set()

        given_up = threading.Event()

        def watch() -> None:
            for read, at in zip(reads, due, strict=True):
                while not given_up.is_set() and (left := at - time.perf_counter_ns()) > 0:
                    given_up.wait(left / 1e9)
                if given_up.is_set():
                    return
                loop.call_soon_threadsafe(begin, read, at)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            await all_begun.wait()
            await asyncio.gather(*tasks)
        finally:
            given_up.set()
            watcher.join()
        self._times.add(took, wall=time.perf_counter_ns() - began, cpu=time.process_time_ns() - cpu)

    def row(self, rate: float) -> Row:
        late = self._late.get_value_at_percentile(99) / 1000
        return self._times.row() | {"asked_per_second": rate, "late_p99_us": late, "behind": self._behind}
