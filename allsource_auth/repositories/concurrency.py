"""Several calls of a store at once: bounded, and with the first failure as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

__all__ = ["concurrently"]

T = TypeVar("T")

AT_ONCE = 16
"""Calls on behalf of one caller that are under way at a time."""


async def concurrently(keys: Iterable[str], call: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """``call`` for every key, a bounded number at a time, in the order of the keys; the first failure ends all."""
    wanted = list(dict.fromkeys(keys))
    found: dict[str, T] = {}
    if len(wanted) <= 1:
        return {key: await call(key) for key in wanted}
    places = anyio.Semaphore(AT_ONCE)

    async def one(key: str) -> None:
        async with places:
            found[key] = await call(key)

    try:
        async with anyio.create_task_group() as group:
            for key in wanted:
                group.start_soon(one, key)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return {key: found[key] for key in wanted}


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error = failures.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
