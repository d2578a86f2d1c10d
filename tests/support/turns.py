"""How often others get the event loop while something runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns", "turns_of_others"]


class Turns:
    """Turns of the loop that a task beside has had."""

    count = 0


@asynccontextmanager
async def turns_of_others() -> AsyncIterator[Turns]:
    """Count the turns of a task that wants every one there is."""
    turns = Turns()

    async def others() -> None:
        while True:
            turns.count += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(others())
    try:
        yield turns
    finally:
        beside.cancel()
