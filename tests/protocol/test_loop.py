"""The deterministic event loop, and random numbers and clocks that are the same in every run."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context

import anyio
import pytest

from tests.protocol.draws import START, WHO, Identity, deterministic
from tests.protocol.loop import SimLoop, Spinning


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop()
    yield loop
    loop.close()


def finish(loop: SimLoop, program: Callable[[], Awaitable[object]]) -> object:
    """Run a coroutine to its end. The clock advances whenever it waits."""

    async def main() -> object:
        return await program()

    def idle() -> bool:
        if task.done() or not loop.has_timers:
            return False
        loop.advance()
        return True

    task = loop.create_task(main())
    loop.run(idle)
    return task.result()


def test_sleeping_takes_virtual_time_only(loop: SimLoop) -> None:
    async def program() -> float:
        await asyncio.sleep(3600)
        await asyncio.gather(asyncio.sleep(5), asyncio.sleep(7))
        return loop.time()

    started = time.perf_counter()
    assert finish(loop, program) == 3607
    assert time.perf_counter() - started < 5


def test_asyncio_primitives_work(loop: SimLoop) -> None:
    async def program() -> list[str]:
        lock, order = asyncio.Lock(), list[str]()

        async def one(name: str) -> None:
            async with lock:
                await asyncio.sleep(1)
                order.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(one(name))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.Event().wait()
        return order

    assert finish(loop, program) == ["a", "b", "c"]
    assert loop.now == 5


def test_anyio_primitives_work(loop: SimLoop) -> None:
    async def program() -> list[int]:
        limiter, order = anyio.CapacityLimiter(1), list[int]()

        async def one(number: int) -> None:
            async with limiter:
                await anyio.sleep(1)
                order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(one, number)
        with anyio.move_on_after(10) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        return order

    assert sorted(finish(loop, program)) == [0, 1, 2]  # type: ignore[call-overload]
    assert loop.now == 13


def test_idle_is_called_only_when_nothing_is_ready(loop: SimLoop) -> None:
    seen: list[str] = []

    async def program() -> None:
        for step in range(3):
            seen.append(f"run {step}")
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    def idle() -> bool:
        seen.append("idle")
        return False

    loop.create_task(program())
    loop.run(idle)
    assert seen == ["run 0", "run 1", "run 2", "idle"]
    loop.wipe()


def test_threads_are_refused(loop: SimLoop) -> None:
    async def program() -> None:
        await asyncio.to_thread(time.time)

    with pytest.raises(RuntimeError, match="no threads"):
        finish(loop, program)
    loop.wipe()


def test_wipe_removes_tasks_timers_and_time(loop: SimLoop) -> None:
    cleaned: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(100)
            cleaned.append("never")

    async def program() -> None:
        loop.create_task(stubborn())
        loop.call_later(50, cleaned.append, "late")
        await asyncio.sleep(1)

    finish(loop, program)
    loop.wipe()
    assert not loop.has_timers
    assert asyncio.all_tasks(loop) == set()
    assert loop.now == 0
    finish(loop, lambda: asyncio.sleep(1000))
    assert cleaned == []


def test_task_that_never_waits_is_detected(loop: SimLoop) -> None:
    async def program() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Spinning):
        finish(loop, program)
    loop.wipe()


def test_timers_of_a_dropped_client_do_not_fire(loop: SimLoop) -> None:
    fired: list[str] = []
    for name in ("dead", "alive"):
        context = copy_context()
        context.run(WHO.set, Identity(name))
        loop.call_later(1, fired.append, name, context=context)

    def is_dead(context: object) -> bool:
        who = context.get(WHO)  # type: ignore[attr-defined]
        return isinstance(who, Identity) and who.name == "dead"

    loop.drop(is_dead)
    finish(loop, lambda: asyncio.sleep(2))
    assert fired == ["alive"]


def draw(name: str) -> list[object]:
    def all_kinds() -> list[object]:
        WHO.set(Identity(name))
        return [
            uuid.uuid4(),
            secrets.token_urlsafe(32),
            secrets.token_bytes(100),
            os.urandom(8),
            random.random(),
            random.uniform(1, 2),
            random.randrange(1_000_000),
            random.choice(range(1000)),
        ]

    return copy_context().run(all_kinds)


def test_random_numbers_depend_on_the_client_alone() -> None:
    with deterministic(lambda: 0.0):
        first, other, again = draw("A"), draw("B"), draw("A")
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert len(set(map(str, first))) == len(first)


def test_clocks_are_virtual_inside_the_context_only() -> None:
    with deterministic(lambda: 1.5):
        assert time.time() == START + 1.5
        assert time.time_ns() == START * 1_000_000_000 + 1_500_000_000
        assert time.monotonic() == time.perf_counter() == 1.5
        assert WHO.get() is None
        assert uuid.uuid4() != uuid.uuid4()
    assert abs(time.time() - START - 1.5) > 1 or time.monotonic() != 1.5
    assert time.monotonic_ns() != 1_500_000_000
