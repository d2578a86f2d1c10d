"""Measuring calls: latency histograms, closed loops, and rounds in which the measured calls alternate.

Used by ``allsource-auth bench``, ``allsource-auth demo`` and the scripts in ``benchmarks/``.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns, process_time_ns
from typing import Any, TypeVar

from hdrh.histogram import HdrHistogram  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["Call", "Check", "Latency", "Round", "alternating", "closed_loop"]

Call = Callable[[], Awaitable[Any]]
"""A call to measure, with its arguments bound."""

Check = Callable[[Any], Awaitable[None] | None]
"""Checks the result of a call. Returns ``None``, or an awaitable if the check needs further calls."""

LONGEST = 100_000_000_000
"""Nanoseconds. Longer calls are counted with this duration."""

T = TypeVar("T")


class Latency:
    """A histogram of durations with three significant digits."""

    def __init__(self) -> None:
        self._histogram: Any = HdrHistogram(1, LONGEST, 3)

    def add(self, nanoseconds: int) -> None:
        """Count one call."""
        self._histogram.record_value(min(max(nanoseconds, 1), LONGEST))

    def merge(self, other: Latency) -> None:
        """Count all calls of another histogram as well."""
        self._histogram.add(other._histogram)

    @property
    def calls(self) -> int:
        return int(self._histogram.get_total_count())

    def microseconds(self, percentile: float) -> float:
        """The duration at a percentile (0 to 100)."""
        return float(self._histogram.get_value_at_percentile(percentile)) / 1000

    def counts(self, edges: Sequence[float]) -> list[int]:
        """The number of calls in each bucket. A bucket begins at its edge, in nanoseconds, and ends at the next edge.

        ``edges`` must be ascending. Calls below the first edge are counted in the first bucket; the last bucket has no end.
        """
        counts = [0] * len(edges)
        for step in self._histogram.get_recorded_iterator():
            counts[max(bisect_right(edges, step.value_iterated_to) - 1, 0)] += step.count_at_value_iterated_to
        return counts


@dataclass
class Round:
    """What `closed_loop` measured, in nanoseconds: each call, the whole round, and the CPU time of this process."""

    durations: list[int] = field(default_factory=list[int])
    wall: int = 0
    cpu: int = 0


async def closed_loop(calls: Iterator[tuple[Call, Check]], *, callers: int, measured: Round) -> None:
    """Run a number of concurrent callers; each one makes its next call after the previous one has returned.

    Ends when ``calls`` is exhausted. The time of a check counts in ``measured.wall`` but not in the duration of its call. If a
    call raises or the task is cancelled, ``measured`` holds the calls that returned before.
    """

    async def caller() -> None:
        for call, check in calls:
            began = perf_counter_ns()
            result = await call()
            measured.durations.append(perf_counter_ns() - began)
            checking = check(result)
            if checking is not None:
                await checking

    wall, cpu = perf_counter_ns(), process_time_ns()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    finally:
        measured.wall += perf_counter_ns() - wall
        measured.cpu += process_time_ns() - cpu


def alternating(subjects: Sequence[T], rounds: int | None = None) -> Iterator[T]:
    """Yield every subject once per round, in a new random order each round; without ``rounds`` for ever.

    Changes in the load of the machine then affect all subjects alike, and so does the influence of a call on the next one.
    """
    order = random.Random(7)  # noqa: S311
    while rounds is None or rounds > 0:
        yield from order.sample(subjects, len(subjects))
        rounds = None if rounds is None else rounds - 1
