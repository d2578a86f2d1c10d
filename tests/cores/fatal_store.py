"""``FatalStore``: a store whose server is killed during an append."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from random import Random
from typing import Any

from allsource_auth import Acknowledged, Event, EventStore, Latest, NewEvent, StoreClosed
from tests.cores.real_run import YIELDS
from tests.support.cores import Core
from tests.support.wrappers import WrappedStore

__all__ = ["FatalStore"]


class FatalStore(WrappedStore):
    """Kills and restarts Core once, at a random point of the first ``appends`` appends.

    Each append has two such points: after its request was sent, and after its reply. With ``dies`` the client crashes
    together with the server: every later call, and every reply, raises `StoreClosed`.
    """

    def __init__(self, store: EventStore, core: Core, random: Random, *, appends: int, dies: bool) -> None:
        super().__init__(store)
        self._core = core
        self._dies = dies
        self._points_left = random.randrange(2 * appends)
        self._yields = random.choice(YIELDS)
        self._restart: asyncio.Task[None] | None = None

    @property
    def has_crashed(self) -> bool:
        return self._dies and self._restart is not None

    async def restarted(self) -> None:
        """Wait until the killed Core is running again."""
        assert self._restart is not None
        await self._restart

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        self._check_crashed()
        sent = asyncio.ensure_future(super().append(events))
        await self._point()
        try:
            stored = await sent
            await self._point()
        finally:
            self._check_crashed()
        return stored

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        self._check_crashed()
        try:
            return await super().latest(stream, require_leader=require_leader)
        finally:
            self._check_crashed()

    async def read(self, stream: str, **options: Any) -> list[Event]:
        self._check_crashed()
        try:
            return await super().read(stream, **options)
        finally:
            self._check_crashed()

    async def _point(self) -> None:
        self._points_left -= 1
        if self._points_left == -1:
            for _ in range(self._yields):
                await asyncio.sleep(0)
            self._restart = asyncio.create_task(self._core.restart(signal.SIGKILL))

    def _check_crashed(self) -> None:
        if self.has_crashed:
            raise StoreClosed("the process has crashed")
