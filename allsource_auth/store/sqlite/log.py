"""`SqliteLog`: one SQLite file used from the event loop: threads and group commit.

* Short reads run directly on the event loop, on their own connection. They see every acknowledged append.
* Appends are committed by a writer thread in groups: the appends that arrive during one commit share the next transaction and
  its sync. Several processes can share the file, because each group is a transaction.
* Long reads run page by page on a scanner thread.

A database in memory uses one connection and no threads, but is otherwise the same.
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
"""Limits of one transaction, so that the first append of a group does not wait for arbitrarily many others."""


class _Append:
    """An append that waits for its commit. An error becomes the result of the future, so none is reported as unretrieved."""

    __slots__ = ("batch", "future", "size")

    def __init__(self, batch: Batch, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.batch = batch
        self.size = size
        self.future: asyncio.Future[list[Acknowledged] | BaseException] = loop.create_future()


class SqliteLog:
    """One SQLite file, shared by the stores of any number of tenants.

    Args:
        path: the file, created with mode 0600 if it does not exist; ``None`` for a database in memory.
        durability: ``"full"`` syncs every commit to disk before it is acknowledged. ``"normal"`` leaves syncing to the
            operating system: a power failure can lose the newest commits, but does not damage the file.
        clock_ns: returns the current time in nanoseconds since the epoch. The times of events increase strictly even if
            the clock does not.
        busy_timeout: maximum seconds to wait for another process that has locked the file.

    The file is opened by the first call. Several event loops may use the log one after the other, but not at the same time.
    Raises `InvalidInput` for an invalid option.
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
        self.syncs: int = 0
        """Number of commits. With ``durability="full"`` each one syncs the file once."""
        self.reader: sqlite3.Cursor | None = None
        """The cursor for short reads on the event loop; ``None`` before `open` and after `close`."""
        self.newest: int = 0
        """The newest time of the events read or written by this object, in nanoseconds."""
        self.closed: bool = False
        self._closing: list[Future[None]] = []
        self._pending: deque[_Append] = deque()
        # The event loops on which a commit is scheduled and in progress. Flags would not do: a loop that is closed before
        # its commit ends cannot reset them, and they would block the next loop.
        self._scheduled_on: asyncio.AbstractEventLoop | None = None
        self._committing_on: asyncio.AbstractEventLoop | None = None
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="allsource-auth-writer")
        self._scanner_thread = ThreadPoolExecutor(1, thread_name_prefix="allsource-auth-scanner")

    @property
    def path(self) -> str | None:
        """The absolute path of the file; ``None`` for a database in memory."""
        return self._file.path

    def __repr__(self) -> str:
        return f"SqliteLog(path={self.path!r})"

    async def open(self) -> sqlite3.Cursor:
        """Open the file if necessary and return `reader`. Raises `Storage` or `StoreClosed`."""
        if not self.closed and self.reader is None:
            ready = partial(self._file.open, time.monotonic())
            if self.path is None:
                ready()
            else:
                await asyncio.get_running_loop().run_in_executor(self._writer_thread, ready)
            if not self.closed and self.reader is None:
                self.reader = self._file.reader.cursor()
        if self.reader is None:
            raise StoreClosed
        return self.reader

    async def read(self, statement: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows of a short query, which runs on the event loop. Retries while the file is busy, without blocking the loop.

        Raises `Storage` or `StoreClosed`.
        """
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
        """Run ``fetch``, a long read: on the scanner thread, or directly for a database in memory.

        Raises `Storage` or `StoreClosed`.
        """
        if self.reader is None:
            await self.open()
        if self.path is None:
            await asyncio.sleep(0)
            if self.closed:
                raise StoreClosed
            return self._fetch(fetch)
        return await asyncio.get_running_loop().run_in_executor(self._scanner_thread, self._fetch, fetch)

    def _fetch(self, fetch: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return fetch(self._file.scanner())
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from None

    async def append(self, batch: Batch, size: int) -> list[Acknowledged]:
        """Store ``batch``, of ``size`` bytes, in one transaction with other waiting appends.

        Raises `VersionConflict`, `Storage` or `StoreClosed`. If the caller is cancelled before the commit begins, nothing is
        stored.
        """
        if self.closed:
            raise StoreClosed
        loop = asyncio.get_running_loop()
        append = _Append(batch, size, loop)
        self._pending.append(append)
        self._schedule_commit(loop)
        outcome = await append.future
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _schedule_commit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule a commit after the callbacks that are ready now, so that their appends join the group.

        Does nothing while a commit is in progress: its `_deliver` schedules the next one.
        """
        if self._scheduled_on is not loop and self._committing_on is not loop:
            self._scheduled_on = loop
            loop.call_soon(self._start_commit, loop)

    def _start_commit(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Begin the commit of one group. Returns false if no append waits."""
        self._scheduled_on = None
        group = self._next_group(loop)
        if not group:
            return False
        self._committing_on = loop
        requested_at = time.monotonic()
        if self.path is None:
            self._deliver(loop, group, self._commit(group, requested_at))
        else:
            try:
                self._writer_thread.submit(self._commit_and_deliver, loop, group, requested_at)
            except RuntimeError as error:  # the thread cannot be started
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
            # Drop appends whose caller was cancelled or whose event loop is closed.
            if not append.future.done() and append.future.get_loop() is loop:
                group.append(append)
                size += append.size
        return group

    def _commit(self, group: list[_Append], requested_at: float) -> Committed | BaseException:
        try:
            self._file.open(requested_at)
            committed = self._file.commit([append.batch for append in group], self.clock_ns)
        except BaseException as error:  # every error must reach the waiting callers
            return error
        self.syncs += committed.written
        return committed

    def _commit_and_deliver(self, loop: asyncio.AbstractEventLoop, group: list[_Append], requested_at: float) -> None:
        result = self._commit(group, requested_at)
        with suppress(RuntimeError):  # the loop is closed, so no caller waits
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
        # Scheduled after the callers resumed above, so that their next appends join the next group.
        if self._pending:
            self._schedule_commit(loop)

    async def flush(self) -> None:
        """Wait until every append accepted so far is stored or has failed."""
        if self.closed:
            await self.close()
            return
        loop = asyncio.get_running_loop()
        while self._start_commit(loop):
            pass
        if self.path is None:
            return
        # The thread works in order. `shield`, so that a cancelled caller does not remove this item from its queue.
        await asyncio.shield(asyncio.wrap_future(self._writer_thread.submit(lambda: None)))

    async def close(self) -> None:
        """Complete accepted appends, then close the connections and end the threads. Further calls do nothing."""
        if not self.closed:
            self.closed = True
            loop = asyncio.get_running_loop()
            while self._start_commit(loop):
                pass
            self.reader = None
            if self.path is None:
                self._file.close()
            else:
                self._closing = [
                    self._scanner_thread.submit(self._file.close_scanner),
                    self._writer_thread.submit(self._file.close),
                ]
            # Submitted work still runs. Shut down here, so that no thread is left if this call is cancelled below.
            self._scanner_thread.shutdown(wait=False)
            self._writer_thread.shutdown(wait=False)
        for closing in self._closing:
            await asyncio.shield(asyncio.wrap_future(closing))
        # The queues are empty, so this only waits for the threads to end.
        self._scanner_thread.shutdown()
        self._writer_thread.shutdown()
