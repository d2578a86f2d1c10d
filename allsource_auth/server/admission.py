"""How many requests Core 0.27 works on at a time (the contract of 0.27, section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allsource_auth.server.answers import Answer, Refused

__all__ = ["Admission"]


class Admission:
    """Places for requests in progress, first come, first served.

    Args:
        places: how many requests are worked on at a time.
        waiting: how many more may wait for a place.
        patience: for how long, in seconds.
    """

    def __init__(self, places: int, waiting: int, patience: float) -> None:
        self._free = asyncio.Semaphore(places)
        self._waiting = 0
        self._most_waiting = waiting
        self._patience = patience

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises `Refused`: 429, nothing in the body, if there is none to be had."""
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    async def _wait(self) -> None:
        full = Refused(Answer(429, headers={"retry-after": "1"}), "too many requests")
        if self._waiting >= self._most_waiting:
            raise full
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise full from None
        finally:
            self._waiting -= 1
