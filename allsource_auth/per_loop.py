"""State that belongs to one event loop, such as locks, futures and connections, and the lock of what event loops share.

An object may be used by several event loops, one after another or in different threads. Each gets its own part.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop", "shared_lock"]

T = TypeVar("T")

shared_lock: threading.RLock = threading.RLock()
"""Guards the state that event loops in different threads share. It is held for a few statements, never over an ``await``.

It is reentrant, because the garbage collector may end an abandoned coroutine in these statements, and run its ``finally``.
A ``fork`` waits until it is free, so that the child process gets a consistent state and a lock that nobody holds.
"""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=shared_lock.acquire, after_in_parent=shared_lock.release, after_in_child=shared_lock.release
    )

_process = [0]
"""A number that is another one in each forked process. The system call `os.getpid` takes longer."""


def _count_fork() -> None:
    _process[0] += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_count_fork)


class PerLoop(Generic[T]):
    """One value for each running event loop, created on first use.

    Args:
        create: creates the value for the running loop.
        discard: called with the value of a loop that is closed, or that was inherited by a forked process. It must not use
            that loop.
    """

    def __init__(self, create: Callable[[], T], discard: Callable[[T], None] = lambda value: None) -> None:
        self._create = create
        self._discard = discard
        self._values: dict[asyncio.AbstractEventLoop, tuple[T, int]] = {}

    def get(self) -> T:
        """The value of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._values.get(loop)
        if found is not None and found[1] == _process[0]:
            return found[0]
        return self._add(loop)

    def _add(self, loop: asyncio.AbstractEventLoop) -> T:
        process = _process[0]
        with shared_lock:
            stale = [key for key, (_, owner) in self._values.items() if owner != process or key.is_closed()]
            discarded = [self._values.pop(key)[0] for key in stale]
            value = self._create()
            self._values[loop] = value, process
        for old in discarded:
            self._discard(old)
        return value

    def peek(self) -> T | None:
        """The value of the running event loop, or ``None`` if it has none yet."""
        found = self._values.get(asyncio.get_running_loop())
        return found[0] if found is not None and found[1] == _process[0] else None

    def others(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Remove the values of all event loops but the running one; return those whose loops are open, and discard the rest."""
        running, process = asyncio.get_running_loop(), _process[0]
        with shared_lock:
            found = {loop: self._values.pop(loop) for loop in list(self._values) if loop is not running}
        alive: list[tuple[asyncio.AbstractEventLoop, T]] = []
        for loop, (value, owner) in found.items():
            if owner == process and not loop.is_closed():
                alive.append((loop, value))
            else:
                self._discard(value)
        return alive
