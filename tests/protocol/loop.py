"""A deterministic event loop with virtual time: asyncio without sockets, threads or a clock.

Tasks, futures, locks, timers and anyio's primitives are those of asyncio. When nothing is ready to run, a real loop waits in
``select``. `SimLoop` calls its ``idle`` callback instead, which decides what happens next.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn, TypeVar

__all__ = ["SimLoop", "Spinning"]

T = TypeVar("T")

_SPINS = 2_000
_WIPES = 100


class Spinning(Exception):
    """The tasks run in a busy loop: none of them ever waits."""


class _Selector:
    """The selector that `asyncio.BaseEventLoop` calls between its callbacks."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop._quiet(timeout)
        return []


class SimLoop(asyncio.BaseEventLoop):
    """An event loop with a clock that only `advance` moves. It can be used for many runs."""

    def __init__(self) -> None:
        super().__init__()
        self.set_debug(False)
        self.set_exception_handler(self._report)
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self._tasks: list[asyncio.Task[Any]] = []
        self._idle: Callable[[], bool] = bool
        self._spins = 0
        self.now = 0.0
        self.errors: list[str] = []
        """Errors that callbacks raised outside of a task in this run."""

    def run(self, idle: Callable[[], bool]) -> None:
        """Run all ready callbacks. Whenever none is ready, call ``idle``; stop when it returns false."""
        self._idle = idle
        self._spins = 0
        self.run_forever()

    def advance(self) -> None:
        """Advance the clock to the next timer."""
        self.now = max(self.now, self._timers[0].when())

    @property
    def has_timers(self) -> bool:
        """Whether a timer is set."""
        timers = self._timers
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False  # type: ignore[attr-defined]
            self._timer_cancelled_count -= 1
        return bool(timers)

    def drop(self, belongs: Callable[[contextvars.Context], bool]) -> None:
        """Cancel the timers that were set in a context for which ``belongs`` returns true."""
        for handle in list(self._timers):
            if belongs(handle._context):  # type: ignore[attr-defined]
                handle.cancel()

    def wipe(self) -> None:
        """Cancel all tasks of this run, remove all timers, and reset the clock."""
        for _ in range(_WIPES):
            pending = [task for task in self._tasks if not task.done()]
            if not pending:
                break
            for task in pending:
                task.cancel()
            self.run(bool)
        else:
            raise RuntimeError("a task cannot be cancelled")
        for task in self._tasks:
            if not task.cancelled():
                task.exception()
        self._tasks.clear()
        self._timers.clear()
        self._ready.clear()  # type: ignore[attr-defined]
        self._timer_cancelled_count = 0
        self.errors.clear()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=str(name or "task"), context=context, **options)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("a simulated run has no threads")

    @property
    def _timers(self) -> list[asyncio.TimerHandle]:
        return self._scheduled  # type: ignore[attr-defined, no-any-return]

    def _quiet(self, timeout: float | None) -> None:
        if timeout == 0:
            self._spins += 1
            if self._spins > _SPINS:
                raise Spinning("the clients run in a busy loop and never wait")
            return
        self._spins = 0
        while not self._ready:  # type: ignore[attr-defined]
            before = self.now
            if not self._idle():
                self.stop()
                return
            if self.now != before:
                return

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = context.get("message", "")
        if "never retrieved" not in message:
            self.errors.append(f"{message}: {context.get('exception')!r}")

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread that could wake the loop."""
