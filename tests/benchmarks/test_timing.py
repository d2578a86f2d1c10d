"""What closed and open loops measure."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from types import SimpleNamespace

import pytest

from allsource_auth.cli.measuring import Check, Round
from benchmarks import timing
from benchmarks.timing import OPEN_LOOP_ROUNDS, Call, Prepare, closed_loops, open_loops, timed_loops

PAUSE = 0.1
RATE = 200


def pausing(every: int) -> Prepare:
    """Reads, one of which in every ``every`` blocks the event loop."""
    numbers = count()

    async def read() -> int:
        number = next(numbers)
        if number % every == 1:  # the first read is not measured
            time.sleep(PAUSE)
        return number

    return lambda: read


async def test_open_loop_counts_the_time_that_reads_wait_during_a_pause() -> None:
    """40 reads in 0.2 s, the first of which blocks for 0.1 s. The five that are due next wait for 0.08 s or more."""
    per_round = RATE // OPEN_LOOP_ROUNDS
    rows = await open_loops({"read": pausing(per_round + 1)}, rate=RATE, seconds=1)
    slower_than = dict(rows["read"]["curve"])
    assert slower_than[90.0] >= 60_000
    assert rows["read"]["asked_per_second"] == RATE


async def test_read_that_finds_nothing_ends_the_benchmark() -> None:
    async def nothing() -> None:
        return None

    def prepare() -> Callable[[], Awaitable[object]]:
        return nothing

    with pytest.raises(ExceptionGroup) as raised:
        await closed_loops({"read": prepare}, count=20)
    assert raised.group_contains(AssertionError)
    with pytest.raises(AssertionError):
        await open_loops({"read": prepare}, rate=1000, seconds=0.01)


async def test_row_has_percentiles_rates_and_the_figures_of_each_round() -> None:
    async def read() -> bool:
        return True

    rows = await closed_loops({"one": lambda: read, "other": lambda: read}, count=100, callers=2, rounds=5)
    assert list(rows) == ["one", "other"]
    for row in rows.values():
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["p999_us"]
        assert [len(figures) for figures in row["rounds"].values()] == [5] * 4
        assert [percentile for percentile, _ in row["curve"]] == sorted(percentile for percentile, _ in row["curve"])
        assert row["per_second"] > 0


async def test_round_of_a_timed_loop_has_as_many_calls_as_fit_into_its_duration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a clock that only the calls advance: by a millisecond, and by ten."""
    now = 0.0
    made = {"fast": 0, "slow": 0}

    def kind(name: str, seconds: float) -> Prepare:
        async def read() -> bool:
            nonlocal now
            now += seconds
            made[name] += 1
            return True

        return lambda: read

    async def loop(calls: Iterator[tuple[Call, Check]], *, callers: int, measured: Round) -> None:
        began = now
        for call, _ in calls:
            await call()
            measured.durations.append(1)
        measured.wall = measured.cpu = int((now - began) * 1e9)

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(timing, "closed_loop", loop)
    rows = await timed_loops({"fast": kind("fast", 0.001), "slow": kind("slow", 0.01)}, seconds=1, callers=2, rounds=2)
    assert made["fast"] == pytest.approx(200 + 2 * (2 + 1000), abs=5)
    assert made["slow"] == pytest.approx(20 + 2 * (2 + 100), abs=5)
    assert rows["fast"]["per_second"] == pytest.approx(1000)
