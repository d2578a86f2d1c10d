"""Clocks that the test controls."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

__all__ = ["START", "Gate", "ManualClock"]

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class ManualClock:
    """A clock that changes only when it is set or moved, forwards or backwards."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, by: timedelta) -> datetime:
        self.now += by
        return self.now

    def nanoseconds(self) -> int:
        delta = self.now - datetime(1970, 1, 1, tzinfo=UTC)
        return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


class Gate:
    """A clock that blocks the commit that reads it, until the test opens the gate."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> int:
        self.entered.set()
        assert self.opened.wait(60)
        return 1

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 60)
