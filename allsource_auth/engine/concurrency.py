"""Several calls of a store at once: bounded, and with the first failure as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["concurrently"]

T = TypeVar("T")

AT_ONCE = 16
"""Calls on behalf of one caller that are under way at a time."""

IN_ONE_GO = 64
"""Calls after which others get the event loop, where the answers come without waiting."""


async def concurrently(keys: Iterable[str], call: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """``call`` for every key, a bounded number at a time, in the order of the keys; the first failure ends all.

    The caller's own task makes calls until one has to wait; only then there are others. An embedded store answers at once,
    and a task for each of its reads would take several times as long as the reads.
    """
    wanted = list(dict.fromkeys(keys))
    found: dict[str, T] = {}
    if len(wanted) <= 1:
        return {key: await call(key) for key in wanted}
    left = iter(wanted)
    most, callers = min(AT_ONCE, len(wanted)), 1

    async def make_calls() -> None:
        for number, key in enumerate(left, 1):
            found[key] = await call(key)
            if number % (IN_ONE_GO // callers) == 0:
                await asyncio.sleep(0)

    async def join() -> None:
        nonlocal callers
        if len(found) == len(wanted):
            return
        callers += 1
        if callers < most:
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
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
