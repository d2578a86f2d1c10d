"""``concurrently``: bounded concurrent calls, made by one task as long as no call has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from allsource_auth.engine.concurrency import CALLS_PER_YIELD, MAX_CONCURRENT, concurrently
from tests.support.event_loop import loop_iterations


class Calls:
    """A function whose calls wait for ``gate``, or return at once. It counts current calls, and records calls and tasks."""

    def __init__(self, *, waiting: bool) -> None:
        self.waiting = waiting
        self.begun: list[str] = []
        self.tasks: set[asyncio.Task[object] | None] = set()
        self.now = 0
        self.most = 0
        self.gate = asyncio.Event()

    async def __call__(self, key: str) -> str:
        self.begun.append(key)
        self.tasks.add(asyncio.current_task())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.waiting:
                await self.gate.wait()
            return key.upper()
        finally:
            self.now -= 1


async def run_ready_tasks() -> None:
    """Yield until each call that may start has started."""
    for _ in range(10 * MAX_CONCURRENT):
        await asyncio.sleep(0)


def keys(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 3, MAX_CONCURRENT, MAX_CONCURRENT + 1, 5 * MAX_CONCURRENT])
async def test_each_key_is_called_once_and_results_keep_the_order(count: int, waiting: bool) -> None:
    calls = Calls(waiting=waiting)
    calls.gate.set()
    found = await concurrently([*keys(count), *reversed(keys(count))], calls)
    assert list(found.items()) == [(key, key.upper()) for key in keys(count)]
    assert sorted(calls.begun) == sorted(keys(count))


@pytest.mark.parametrize("count", [2, 5, MAX_CONCURRENT, 5 * MAX_CONCURRENT])
async def test_concurrency_is_bounded(count: int) -> None:
    calls = Calls(waiting=True)
    running = asyncio.ensure_future(concurrently(keys(count), calls))
    await run_ready_tasks()
    assert calls.now == min(count, MAX_CONCURRENT)
    assert len(calls.tasks) == calls.now
    calls.gate.set()
    await running
    assert calls.most == min(count, MAX_CONCURRENT)


async def test_calls_that_do_not_wait_start_no_task() -> None:
    calls = Calls(waiting=False)
    await concurrently(keys(CALLS_PER_YIELD - 1), calls)
    assert calls.tasks == {asyncio.current_task()}


async def test_other_tasks_run_between_calls_that_do_not_wait() -> None:
    async with loop_iterations() as iterations:
        await concurrently(keys(20 * CALLS_PER_YIELD), Calls(waiting=False))
    assert iterations.count >= 20


@pytest.mark.parametrize("bad", ["k0", "k1", "k7", "k40"])
@pytest.mark.parametrize("waits", [True, False])
async def test_first_failure_cancels_the_other_calls(bad: str, waits: bool) -> None:
    calls = Calls(waiting=True)
    failure = RuntimeError(bad)

    async def call(key: str) -> str:
        if key == bad:
            if waits:
                await asyncio.sleep(0)
            raise failure
        if bad == "k40" and len(calls.begun) < 30:
            calls.begun.append(key)
            return key
        return await calls(key)

    with pytest.raises(RuntimeError) as caught:
        await asyncio.wait_for(concurrently(keys(50), call), 10)
    assert caught.value is failure
    assert calls.now == 0
    assert len(asyncio.all_tasks()) == 1


async def test_failure_of_a_nested_call_is_raised_unwrapped() -> None:
    async def inner(key: str) -> str:
        await asyncio.sleep(0)
        raise KeyError(key)

    async def outer(key: str) -> dict[str, str]:
        return await concurrently(["a", "b"], inner)

    with pytest.raises(KeyError, match="'a'"):
        await concurrently(["x", "y"], outer)


async def test_cancelled_caller_leaves_no_tasks_behind() -> None:
    calls = Calls(waiting=True)
    running = asyncio.ensure_future(concurrently(keys(50), calls))
    await run_ready_tasks()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert calls.now == 0
    assert len(asyncio.all_tasks()) == 1


async def test_keys_may_be_an_iterator() -> None:
    def iterator() -> Iterator[str]:
        yield from keys(3)

    assert list(await concurrently(iterator(), Calls(waiting=False))) == keys(3)
