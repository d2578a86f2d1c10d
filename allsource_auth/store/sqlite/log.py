"""``SqliteLog``: one embedded file on the event loop: which thread does what, and how appends share a sync.

* Short reads run inline on the event loop, on a connection of their own, and see every acknowledged append.
* Appends gather, and one thread commits them in groups: one sync for all that arrived while the last one was under way.
  A group is a transaction, so several processes can share the file.
* Long reads run page by page on another thread.

In memory there is one connection and no thread; the rest is the same.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar

from allsource_auth.errors import Storage, StoreClosed
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Batch, Committed
from allsource_auth.store.sqlite.file import SqliteFile, storage_error

__all__ = ["GROUP_APPENDS", "GROUP_BYTES", "SqliteLog"]

_T = TypeVar("_T")

GROUP_APPENDS: Final = 512
GROUP_BYTES: Final = 4 * 1024 * 1024
"""How much one transaction takes on, so that the first caller of a group does not wait for a crowd."""


class _Append:
    """An append that waits for its commit. The future holds an error as a result, so that none goes unretrieved."""

    __slots__ = ("batch", "future", "size")

    def __init__(self, batch: Batch, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.batch = batch
        self.size = size
        self.future: asyncio.Future[list[Acknowledged] | BaseException] = loop.create_future()


class SqliteLog:
    """One embedded file, shared by the stores of any number of tenants.

    Args:
        path: the file, created with mode 0600 if it is not there; ``None`` keeps the events in memory.
        durability: ``"full"`` syncs every commit before it is acknowledged. ``"normal"`` leaves that to the operating
            system: a power failure can lose the newest commits, the file stays sound.
        clock_ns: the time now, in nanoseconds since the epoch. Events get strictly increasing times even if it does not.
        busy_timeout: how long, in seconds, to wait for another process that has the file locked.

    Nothing is opened before the first call. One event loop may use it after another, one at a time. Raises
    `InvalidInput` for an option that cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Literal["full", "normal"] = "full",
        clock_ns: Callable[[], int] = time.time_ns,
        busy_timeout: float = 10.0,
    ) -> None:
        self._file = SqliteFile(path, durability=durability, busy_timeout=busy_timeout)
        self.clock_ns = clock_ns
        self.syncs = 0
        """How many commits were made; each is one sync of the file under ``durability="full"``."""
        self.reader: sqlite3.Cursor | None = None
        """For short reads on the event loop: ``None`` before `open` and after `close`."""
        self.newest = 0
        """The newest time of an event seen here, in nanoseconds."""
        self.closed = False
        self._closing: list[Future[None]] = []
        self._pending: deque[_Append] = deque()
        # The loops on which a commit is due, and on which one is under way. Not flags: a loop that was closed in the
        # middle never comes back to reset them, and must not stop the next one.
        self._due_on: asyncio.AbstractEventLoop | None = None
        self._committing_on: asyncio.AbstractEventLoop | None = None
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="allsource-auth-writer")
        self._scanning = ThreadPoolExecutor(1, thread_name_prefix="allsource-auth-scanner")

    @property
    def path(self) -> str | None:
        """The absolute path of the file; ``None`` in memory."""
        return self._file.path

    def __repr__(self) -> str:
        return f"SqliteLog(path={self.path!r})"

    async def open(self) -> sqlite3.Cursor:
        """Open the file if it is not open; returns `reader`. Raises `Storage` or `StoreClosed`."""
        if not self.closed and self.reader is None:
            ready = partial(self._file.open, time.monotonic())
            if self.path is None:
                ready()
            else:
                await asyncio.get_running_loop().run_in_executor(self._writing, ready)
            if not self.closed and self.reader is None:
                self.reader = self._file.reader.cursor()
        if self.reader is None:
            raise StoreClosed
        return self.reader

    async def read(self, statement: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows of a short query, inline; if the file is busy, tried again without holding up the event loop."""
        deadline = time.monotonic() + self._file.busy_timeout
        while True:
            reader = self.reader or await self.open()
            try:
                return reader.execute(statement, arguments).fetchall()
            except sqlite3.Error as error:
                failure = storage_error(error, self.path)
            if failure.reason != "locked" or time.monotonic() >= deadline:
                raise failure
            await asyncio.sleep(0.005)

    async def page(self, fetch: Callable[[sqlite3.Connection], _T]) -> _T:
        """What ``fetch`` reads: on the scanning thread for a file, inline in memory. Raises `Storage`, `StoreClosed`."""
        if self.reader is None:
            await self.open()
        if self.path is None:
            await asyncio.sleep(0)
            if self.closed:
                raise StoreClosed
            return self._fetch(fetch)
        return await asyncio.get_running_loop().run_in_executor(self._scanning, self._fetch, fetch)

    def _fetch(self, fetch: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return fetch(self._file.scanner())
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from None

    async def append(self, batch: Batch, size: int) -> list[Acknowledged]:
        """Store ``batch``, of ``size`` bytes, with whatever else is waiting.

        Raises `VersionConflict`, `Storage` or `StoreClosed`. Cancelled before its commit began, nothing is stored.
        """
        if self.closed:
            raise StoreClosed
        loop = asyncio.get_running_loop()
        append = _Append(batch, size, loop)
        self._pending.append(append)
        self._soon(loop)
        outcome = await append.future
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the waiting appends committed: once all callers that are ready now have joined, after a running commit."""
        if self._due_on is not loop and self._committing_on is not loop:
            self._due_on = loop
            loop.call_soon(self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Begin the commit of one group; false if nobody waits."""
        self._due_on = None
        group = self._next_group(loop)
        if not group:
            return False
        self._committing_on = loop
        asked_at = time.monotonic()
        if self.path is None:
            self._deliver(loop, group, self._commit(group, asked_at))
        else:
            try:
                self._writing.submit(self._commit_and_deliver, loop, group, asked_at)
            except RuntimeError as error:  # no thread can be started
                self._deliver(loop, group, error)
        return True

    def _next_group(self, loop: asyncio.AbstractEventLoop) -> list[_Append]:
        group: list[_Append] = []
        size = 0
        while self._pending and len(group) < GROUP_APPENDS:
            append = self._pending[0]
            if group and size + append.size > GROUP_BYTES:
                break
            self._pending.popleft()
            # A caller that was cancelled, or whose loop is gone, does not want it any more.
            if not append.future.done() and append.future.get_loop() is loop:
                group.append(append)
                size += append.size
        return group

    def _commit(self, group: list[_Append], asked_at: float) -> Committed | BaseException:
        try:
            self._file.open(asked_at)
            committed = self._file.commit([append.batch for append in group], self.clock_ns)
        except BaseException as error:  # whatever it is, the callers wait for it
            return error
        self.syncs += committed.written
        return committed

    def _commit_and_deliver(self, loop: asyncio.AbstractEventLoop, group: list[_Append], asked_at: float) -> None:
        result = self._commit(group, asked_at)
        with suppress(RuntimeError):  # the loop is closed, and with it went the callers
            loop.call_soon_threadsafe(self._deliver, loop, group, result)

    def _deliver(
        self, loop: asyncio.AbstractEventLoop, group: list[_Append], result: Committed | BaseException
    ) -> None:
        self._committing_on = None
        if isinstance(result, Committed):
            self.newest = max(self.newest, result.newest)
        for index, append in enumerate(group):
            if append.future.done():
                continue
            if isinstance(result, Storage):
                append.future.set_result(Storage(str(result), reason=result.reason, ambiguous=result.ambiguous))
            elif isinstance(result, BaseException):
                append.future.set_result(result)
            else:
                append.future.set_result(result.outcomes[index])
        # After the callers above have run, so that their next appends are in the next group.
        if self._pending:
            self._soon(loop)

    async def flush(self) -> None:
        """Wait until every append that was accepted so far is stored, or has failed."""
        if self.closed:
            await self.close()
            return
        loop = asyncio.get_running_loop()
        while self._start(loop):
            pass
        if self.path is None:
            return
        # The thread works in order; a cancelled caller must not take this out of its queue.
        await asyncio.shield(asyncio.wrap_future(self._writing.submit(lambda: None)))

    async def close(self) -> None:
        """Finish what was accepted, then release the file, its connections and threads. May be called again."""
        if not self.closed:
            self.closed = True
            loop = asyncio.get_running_loop()
            while self._start(loop):
                pass
            self.reader = None
            if self.path is None:
                self._file.close()
            else:
                self._closing = [
                    self._scanning.submit(self._file.close_scanner),
                    self._writing.submit(self._file.close),
                ]
            # What is submitted still runs; a caller that is cancelled below leaves no thread behind.
            self._scanning.shutdown(wait=False)
            self._writing.shutdown(wait=False)
        for closing in self._closing:
            await asyncio.shield(asyncio.wrap_future(closing))
        # The threads have nothing left to do but to end.
        self._scanning.shutdown()
        self._writing.shutdown()
