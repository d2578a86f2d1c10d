"""The limit of Core 0.27 on concurrent requests (``docs/reference/allsource-api.md``, "Admission")."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from allsource_auth.server.replies import Rejected, Reply

__all__ = ["Admission"]


class Admission:
    """A bounded number of concurrent requests with a bounded FIFO queue.

    Args:
        max_requests: how many requests are processed at a time.
        max_waiting: how many more may wait in the queue.
        patience: how long a request may wait, in seconds.
    """

    def __init__(self, max_requests: int, max_waiting: int, patience: float) -> None:
        self._slots = asyncio.Semaphore(max_requests)
        self._waiting = 0
        self._max_waiting = max_waiting
        self._patience = patience

    def limit(self, app: ASGIApp) -> ASGIApp:
        """Return ``app`` behind this limit. WebSockets do not count."""

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            try:
                async with self._slot():
                    await app(scope, receive, send)
            except Rejected as error:
                await error.reply(scope, receive, send)

        return limited

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None]:
        """Hold a slot. Raises `Rejected` (429 without a body) if the queue is full or the wait takes too long."""
        if self._slots.locked():
            await self._wait()
        else:
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _wait(self) -> None:
        full = Rejected(Reply(429, headers={"retry-after": "1"}), "too many requests")
        if self._waiting >= self._max_waiting:
            raise full
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._slots.acquire()
        except TimeoutError:
            raise full from None
        finally:
            self._waiting -= 1
