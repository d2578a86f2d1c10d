"""Histograms, closed loops and alternating rounds."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from allsource_auth.cli.measuring import Latency, Round, alternating, closed_loop


def test_durations_are_counted_in_buckets() -> None:
    latency = Latency()
    for nanoseconds in (0, 5, 10, 14, 20, 500_000):
        latency.add(nanoseconds)
    assert latency.counts([2, 10, 15, 100]) == [2, 2, 1, 1]


def test_percentiles_are_in_microseconds_and_keep_three_digits() -> None:
    latency = Latency()
    for microseconds in range(1, 1001):
        latency.add(microseconds * 1000)
    for percentile in (50, 90, 99.9):
        assert latency.microseconds(percentile) == pytest.approx(percentile * 10, rel=0.001)


def test_merged_histogram_has_the_calls_of_both() -> None:
    first, second = Latency(), Latency()
    first.add(1000)
    second.add(9000)
    first.merge(second)
    assert (first.calls, first.microseconds(50), round(first.microseconds(100))) == (2, 1.0, 9)


def test_durations_beyond_the_range_count_as_its_end() -> None:
    latency = Latency()
    latency.add(10**15)
    assert latency.calls == 1


async def test_closed_loop_makes_every_call_once_and_checks_each_result() -> None:
    running, peak = 0, 0
    checked: list[int] = []

    async def call(number: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.001)
        running -= 1
        return number

    async def check_later(result: int) -> None:
        checked.append(result)

    def check(result: int) -> None:
        checked.append(result)

    calls = ((lambda number=number: call(number), check_later if number % 2 else check) for number in range(20))
    measured = Round()
    await closed_loop(calls, callers=3, measured=measured)
    assert sorted(checked) == list(range(20))
    assert (peak, len(measured.durations)) == (3, 20)
    assert min(measured.durations) >= 1_000_000
    assert sum(measured.durations) <= 3 * measured.wall


async def test_closed_loop_that_fails_keeps_what_it_has_measured() -> None:
    numbers = count()

    async def call() -> int:
        if (number := next(numbers)) == 5:
            raise ConnectionError("the server closed the connection")
        return number

    measured = Round()
    with pytest.raises(ExceptionGroup) as raised:
        await closed_loop(iter([(call, lambda result: None)] * 10), callers=1, measured=measured)
    assert raised.group_contains(ConnectionError)
    assert len(measured.durations) == 5
    assert measured.wall > 0


def test_rounds_have_every_subject_once_in_changing_order() -> None:
    subjects = ["a", "b", "c", "d"]
    found = list(alternating(subjects, rounds=10))
    rounds = [found[first : first + 4] for first in range(0, 40, 4)]
    assert all(sorted(one) == subjects for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_rounds_without_a_number_do_not_end() -> None:
    endless = alternating(["a", "b"])
    assert len([next(endless) for _ in range(1000)]) == 1000
