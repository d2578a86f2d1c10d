"""``concurrently``: several calls at once, bounded, in one task where nothing has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from allsource_auth.engine.concurrency import CALLS_PER_YIELD, MAX_CONCURRENT, concurrently
from tests.support.turns import turns_of_others


class Calls:
    """Calls that wait until they are let go, or answer at once; what is under way, and what was."""

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


def keys(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 3, MAX_CONCURRENT, MAX_CONCURRENT + 1, 5 * MAX_CONCURRENT])
async def test_every_key_once_in_order(count: int, waiting: bool) -> None:
    calls = Calls(waiting=waiting)
    calls.gate.set()
    found = await concurrently([*keys(count), *reversed(keys(count))], calls)
    assert list(found.items()) == [(key, key.upper()) for key in keys(count)]
    assert sorted(calls.begun) == sorted(keys(count))


@pytest.mark.parametrize("count", [2, 5, MAX_CONCURRENT, 5 * MAX_CONCURRENT])
async def test_as_many_at_once_as_there_may_be(count: int) -> None:
    calls = Calls(waiting=True)
    running = asyncio.ensure_future(concurrently(keys(count), calls))
    await asyncio.sleep(0.01)
    assert calls.now == min(count, MAX_CONCURRENT)
    assert len(calls.tasks) == calls.now
    calls.gate.set()
    await running
    assert calls.most == min(count, MAX_CONCURRENT)


async def test_no_task_for_what_does_not_wait() -> None:
    calls = Calls(waiting=False)
    await concurrently(keys(CALLS_PER_YIELD - 1), calls)
    assert calls.tasks == {asyncio.current_task()}


async def test_others_get_the_loop() -> None:
    async with turns_of_others() as turns:
        await concurrently(keys(20 * CALLS_PER_YIELD), Calls(waiting=False))
    assert turns.count >= 20


@pytest.mark.parametrize("bad", ["k0", "k1", "k7", "k40"])
@pytest.mark.parametrize("waits", [True, False])
async def test_the_first_failure_ends_all(bad: str, waits: bool) -> None:
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


async def test_a_failure_comes_as_it_is_from_a_call_within_a_call() -> None:
    async def inner(key: str) -> str:
        await asyncio.sleep(0)
        raise KeyError(key)

    async def outer(key: str) -> dict[str, str]:
        return await concurrently(["a", "b"], inner)

    with pytest.raises(KeyError, match="'a'"):
        await concurrently(["x", "y"], outer)


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    calls = Calls(waiting=True)
    running = asyncio.ensure_future(concurrently(keys(50), calls))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert calls.now == 0
    assert len(asyncio.all_tasks()) == 1


async def test_keys_are_asked_for_once() -> None:
    """Any iterable will do, one that can be walked through once as well."""

    def once() -> Iterator[str]:
        yield from keys(3)

    assert list(await concurrently(once(), Calls(waiting=False))) == keys(3)
