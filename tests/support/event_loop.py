"""Counts how often the event loop can run other tasks during a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Iterations", "loop_iterations"]


class Iterations:
    """How often the other task has run."""

    count = 0


@asynccontextmanager
async def loop_iterations() -> AsyncIterator[Iterations]:
    """Count the iterations of a task that is always ready to run."""
    iterations = Iterations()

    async def other_task() -> None:
        while True:
            iterations.count += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(other_task())
    try:
        yield iterations
    finally:
        other.cancel()
