"""Common base of the state machines: an event loop, a clock, and stores that are closed at the end."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from allsource_auth import AllsourceAuthAdapter
from tests.support.clocks import ManualClock
from tests.support.targets import Target

__all__ = ["HOUR", "LIFETIMES", "STEPS", "Machine"]

T = TypeVar("T")

HOUR = timedelta(hours=1)
STEPS = st.sampled_from(
    [timedelta(0), timedelta(microseconds=1), timedelta(minutes=11), HOUR, timedelta(days=1), -HOUR]
)
LIFETIMES = st.sampled_from([-HOUR, timedelta(0), timedelta(microseconds=1), HOUR, timedelta(days=2)])


class Machine(RuleBasedStateMachine):
    """A state machine on a store. `everything_agrees` runs at the end of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.open = AsyncExitStack()
        self.clock = ManualClock()
        self.directory = tempfile.TemporaryDirectory()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def adapters_on(self, target: Target) -> list[AllsourceAuthAdapter]:
        """Return two adapters on the same events."""
        site = self.run(self.open.enter_async_context(target.start(Path(self.directory.name), self.clock)))
        return [AllsourceAuthAdapter.with_store(site.store("default"), clock=self.clock) for _ in range(2)]

    def teardown(self) -> None:
        try:
            self.run(self.everything_agrees())
        finally:
            self.run(self.open.aclose())
            self.runner.close()
            self.directory.cleanup()

    async def everything_agrees(self) -> None:
        raise NotImplementedError
