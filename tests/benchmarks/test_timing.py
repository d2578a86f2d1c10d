"""What the loops count as the time of a read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from benchmarks.timing import RATE_ROUNDS, Prepare, at_rate, in_turns

PAUSE = 0.1
RATE = 200


def pausing(every: int) -> Prepare:
    """Reads of which one in so many holds everything up."""
    numbers = count()

    async def read() -> int:
        number = next(numbers)
        if number % every == 1:  # the very first one is made outside of what is timed
            time.sleep(PAUSE)
        return number

    return lambda: read


async def test_open_loop_counts_the_wait_of_those_that_were_due_in_a_pause() -> None:
    """40 reads in 0.2 s, the first of which takes 0.1 s: the five that were due first wait 0.08 s or more."""
    of_a_round = RATE // RATE_ROUNDS
    rows = await at_rate({"read": pausing(of_a_round + 1)}, rate=RATE, seconds=1)
    slower_than = dict(rows["read"]["curve"])
    assert slower_than[90.0] >= 60_000
    assert rows["read"]["asked_per_second"] == RATE


async def test_a_read_that_finds_nothing_ends_the_benchmark() -> None:
    async def nothing() -> None:
        return None

    def prepare() -> Callable[[], Awaitable[object]]:
        return nothing

    with pytest.raises(AssertionError):
        await in_turns({"read": prepare}, count=20)
