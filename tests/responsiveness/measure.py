"""The longest time for which an operation holds the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

__all__ = ["LIMIT", "held"]

LIMIT = 0.03
"""Seconds of CPU time. The library aims at a few milliseconds; a slow processor needs several times as many."""

RUNS = 3


async def held(operation: Callable[[], Awaitable[object]]) -> float:
    """The longest CPU time, in seconds, of the loop's thread between two callbacks: the second largest of three runs."""
    return sorted([await _longest(operation) for _ in range(RUNS)])[-2]


async def _longest(operation: Callable[[], Awaitable[object]]) -> float:
    loop = asyncio.get_running_loop()
    longest, last = 0.0, time.thread_time()
    handle: asyncio.Handle

    def tick() -> None:
        nonlocal longest, last, handle
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        handle = loop.call_soon(tick)

    gc.collect()
    gc.disable()  # a collection is as long as the heap of all tests is large
    handle = loop.call_soon(tick)
    await asyncio.sleep(0)
    longest = 0.0
    try:
        await operation()
        await asyncio.sleep(0)
    finally:
        handle.cancel()
        gc.enable()
    return longest
