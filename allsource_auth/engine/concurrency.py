"""Bounded concurrency: call a function for many keys, and propagate the first failure unwrapped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar, cast

__all__ = ["concurrently"]

T = TypeVar("T")

MAX_CONCURRENT = 16
"""Maximum number of concurrent calls on behalf of one caller."""

CALLS_PER_YIELD = 64
"""Calls that complete without waiting before the event loop gets control."""


async def concurrently(keys: Iterable[str], call: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """Return ``call(key)`` for each of ``keys``, in their order, with at most `MAX_CONCURRENT` calls at a time.

    The first failure cancels the other calls and is raised.

    The task of the caller makes the calls itself until one of them has to wait. Only then further tasks start. An embedded
    store returns without waiting, and a task for each of its reads would take several times as long as the reads.
    """
    wanted = list(dict.fromkeys(keys))
    found: dict[str, T] = {}
    if len(wanted) <= 1:
        return {key: await call(key) for key in wanted}
    queue = iter(wanted)
    max_workers, workers = min(MAX_CONCURRENT, len(wanted)), 1

    async def make_calls() -> None:
        for number, key in enumerate(queue, 1):
            found[key] = await call(key)
            if number % (CALLS_PER_YIELD // workers) == 0:
                await asyncio.sleep(0)

    async def join() -> None:
        nonlocal workers
        if len(found) == len(wanted):
            return
        workers += 1
        if workers < max_workers:
            group.create_task(join())
        await make_calls()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(join())
            await make_calls()
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return {key: found[key] for key in wanted}


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error = failures.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error))
    return error
