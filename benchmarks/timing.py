"""Timing of reads: closed loops of one or more callers, in rounds that take turns, so that all kinds meet the same machine."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

from hdrh.histogram import HdrHistogram

__all__ = ["ROUNDS", "Prepare", "Read", "Times", "in_turns"]

ROUNDS = 20

Read = Callable[[], Awaitable[object]]

Prepare = Callable[[], Read]
"""Draws what is read next; its time is not counted."""


def _histogram() -> HdrHistogram:
    """Nanoseconds, up to ten seconds, three digits."""
    return HdrHistogram(1, 10_000_000_000, 3)


class Times:
    """How long the reads of one kind took, over all rounds."""

    def __init__(self) -> None:
        self._all = _histogram()
        self._p99: list[float] = []
        self._count = self._wall = self._cpu = 0

    def add(self, took: list[int], *, wall: int, cpu: int) -> None:
        """One round: the nanoseconds of each read, of the round by the clock, and of this process on a processor."""
        single = _histogram()
        for nanoseconds in took:
            single.record_value(nanoseconds)
        self._all.add(single)
        self._p99.append(single.get_value_at_percentile(99) / 1000)
        self._count += len(took)
        self._wall += wall
        self._cpu += cpu

    def row(self) -> dict[str, float]:
        """Percentiles in microseconds, the median of the p99 of single rounds, and reads per second."""
        return {
            "p50_us": self._all.get_value_at_percentile(50) / 1000,
            "p90_us": self._all.get_value_at_percentile(90) / 1000,
            "p99_us": self._all.get_value_at_percentile(99) / 1000,
            "p999_us": self._all.get_value_at_percentile(99.9) / 1000,
            "p99_us_median_of_rounds": statistics.median(self._p99),
            "per_second": self._count * 1e9 / self._wall,
            "cpu_us": self._cpu / self._count / 1000,
        }


async def in_turns(kinds: Mapping[str, Prepare], *, count: int, callers: int = 1) -> dict[str, dict[str, float]]:
    """`Times.row` of each kind, about ``count`` reads of it, ``callers`` at a time.

    The order of the kinds is drawn anew for each round: what comes before a kind has an effect on it.
    """
    found = {name: Times() for name in kinds}
    size = max(callers, count // ROUNDS)
    turns = random.Random(7)
    for _ in range(ROUNDS):
        for name, prepare in turns.sample(list(kinds.items()), len(kinds)):
            gc.collect()  # so that nobody clears away what the round before has left
            # Whoever closes idle connections makes new ones here, outside of what is timed.
            await asyncio.gather(*(prepare()() for _ in range(callers)))
            await _round(found[name], [prepare() for _ in range(size)], callers)
    return {name: times.row() for name, times in found.items()}


async def _round(times: Times, reads: list[Read], callers: int) -> None:
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
