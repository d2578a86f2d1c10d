"""``FatalStore``: a store whose server is killed while something is appended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from random import Random
from typing import Any

from allsource_auth import Acknowledged, Event, EventStore, Latest, NewEvent, StoreClosed
from tests.cores.stage import TURNS
from tests.support.cores import Core
from tests.support.wrappers import WrappedStore

__all__ = ["FatalStore"]


class FatalStore(WrappedStore):
    """At a drawn moment of the first ``appends`` appends Core is killed, and started again.

    Every append has two moments: it is on its way, and it is answered. With ``dies`` whoever uses the store dies with
    the server: from then on it hears nothing and can do nothing.
    """

    def __init__(self, store: EventStore, core: Core, drawn: Random, *, appends: int, dies: bool) -> None:
        super().__init__(store)
        self._core = core
        self._dies = dies
        self._moments = drawn.randrange(2 * appends)
        self._turns = drawn.choice(TURNS)
        self._restart: asyncio.Task[None] | None = None

    @property
    def is_dead(self) -> bool:
        return self._dies and self._restart is not None

    async def restarted(self) -> None:
        """Wait until Core is back. It must have been killed."""
        assert self._restart is not None
        await self._restart

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        self._refuse_the_dead()
        sent = asyncio.ensure_future(super().append(events))
        await self._moment()
        try:
            stored = await sent
            await self._moment()
        finally:
            self._refuse_the_dead()
        return stored

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        self._refuse_the_dead()
        try:
            return await super().latest(stream, require_leader=require_leader)
        finally:
            self._refuse_the_dead()

    async def read(self, stream: str, **options: Any) -> list[Event]:
        self._refuse_the_dead()
        try:
            return await super().read(stream, **options)
        finally:
            self._refuse_the_dead()

    async def _moment(self) -> None:
        self._moments -= 1
        if self._moments == -1:
            for _ in range(self._turns):
                await asyncio.sleep(0)
            self._restart = asyncio.create_task(self._core.restart(signal.SIGKILL))

    def _refuse_the_dead(self) -> None:
        if self.is_dead:
            raise StoreClosed("the process has died")
