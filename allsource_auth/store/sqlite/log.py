"""`SqliteLog`: one SQLite file used from the event loop: threads and group commit.

* Short reads run directly on the event loop, on their own connection. They see every acknowledged append.
* Appends are committed by a writer thread in groups: the appends that arrive during one commit share the next transaction and
  its sync. Several processes can share the file, because each group is a transaction.
* Long reads run page by page on a scanner thread.

A database in memory uses one connection and no threads, but is otherwise the same.

One event loop uses the log at a time: a call of a second one raises `WrongLoop` while a call of the first is in flight. For
reads on the event loop, the cursor is taken from a list and put back, which needs no lock. Calls that wait are counted.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, TypeVar
from weakref import WeakSet

from allsource_auth.errors import AllsourceAuthError, Storage, StoreClosed, WrongLoop
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Batch, Committed
from allsource_auth.store.sqlite.file import SqliteFile, forked_error, storage_error

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


class _Calls:
    """The calls of one event loop. As a context manager it is one call in flight, which `SqliteLog._call` has counted.

    ``count``: the number of calls in flight. ``pending``: the appends that wait for a commit. ``scheduled`` and ``committing``:
    whether a commit is scheduled and in progress. A loop that is closed before its commit ends leaves them set.
    """

    __slots__ = ("committing", "count", "loop", "pending", "scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.count = 0
        self.pending: deque[_Append] = deque()
        self.scheduled = self.committing = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.count -= 1


class SqliteLog:
    """One SQLite file, shared by the stores of any number of tenants.

    Args:
        path: the file, created with mode 0600 if it does not exist; ``None`` for a database in memory.
        durability: ``"full"`` syncs every commit to disk before it is acknowledged. ``"normal"`` leaves syncing to the
            operating system: a power failure can lose the newest commits, but does not damage the file.
        clock_ns: returns the current time in nanoseconds since the epoch. The times of events increase strictly even if
            the clock does not.
        busy_timeout: maximum seconds to wait for another process that has locked the file.

    The file is opened by the first call. Several event loops may use the log one after the other. While a call of one loop is
    in flight, calls of others raise `WrongLoop`. In a forked process, a log that was open at the ``fork`` raises `Storage`
    (reason ``forked``), or `StoreClosed` if the database is in memory. Raises `InvalidInput` for an invalid option.
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
        self.ready: bool = False
        """Whether the file is open, so that `execute` can be called."""
        self.newest: int = 0
        """The newest time of the events read or written by this object, in nanoseconds."""
        self.closed: bool = False
        self._inherited = False  # it was open during a fork, and this is the child process
        # The cursor for short reads on the event loop. A thread removes it while it uses the connection.
        self._idle_reader: list[sqlite3.Cursor] = []
        self._start()
        _logs.add(self)

    def _start(self) -> None:
        """Set what belongs to this process: the calls, the lock, and the threads, which start when they are needed."""
        self._lock = threading.RLock()  # reentrant for the reason that `shared_lock` has
        self._calls = _Calls(None)
        self._closing: list[Future[None]] = []
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="allsource-auth-writer")
        self._scanner_thread = ThreadPoolExecutor(1, thread_name_prefix="allsource-auth-scanner")

    @property
    def path(self) -> str | None:
        """The absolute path of the file; ``None`` for a database in memory."""
        return self._file.path

    def __repr__(self) -> str:
        return f"SqliteLog(path={self.path!r})"

    def _call(self) -> _Calls:
        """Begin a call that may wait; the ``with`` block of the result ends it.

        Raises `WrongLoop` if another event loop has a call in flight, `StoreClosed` or `Storage` if the log cannot be used.
        """
        if self.closed or self._inherited:
            raise self._unusable()
        return self._begin_call()

    def _begin_call(self) -> _Calls:
        loop = asyncio.get_running_loop()
        with self._lock:
            calls = self._calls
            if calls.loop is not loop:
                if calls.loop is not None and calls.count and not calls.loop.is_closed():
                    raise WrongLoop
                calls = self._calls = _Calls(loop)
            calls.count += 1
        return calls

    def _unusable(self) -> AllsourceAuthError:
        """The reason why the log, or its cursor, cannot be used now."""
        if self.ready:
            return WrongLoop()  # a call on another thread has the cursor
        if self.closed or not self._inherited:
            return StoreClosed()
        if self.path is not None:
            return forked_error(self.path)
        return StoreClosed("the data of this adapter is in the memory of the process from which this one was forked")

    def _take_reader(self) -> sqlite3.Cursor:
        """Take the cursor for use on this thread; put it back into `_idle_reader` at once after that."""
        try:
            return self._idle_reader.pop()
        except IndexError:
            raise self._unusable() from None

    async def open(self) -> sqlite3.Connection:
        """Open the file if necessary. Returns the connection for short reads. Raises `Storage` or `StoreClosed`."""
        with self._call():
            if not self.ready:
                ready = partial(self._file.open, time.monotonic())
                if self.path is None:
                    ready()
                else:
                    await asyncio.get_running_loop().run_in_executor(self._writer_thread, ready)
                if self.closed:
                    raise StoreClosed
                if not self.ready:
                    self._idle_reader.append(self._file.reader.cursor())
                    self.ready = True
            return self._file.reader

    def execute(self, statement: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows of a short query, which runs on this thread. Requires `ready`.

        Raises `sqlite3.Error` if the file is busy, `WrongLoop` if another event loop uses the log, `StoreClosed` after `close`.
        """
        calls = self._calls
        if calls.count and calls.loop is not asyncio.get_running_loop():
            self._call().__exit__(None, None, None)
        try:
            reader = self._idle_reader.pop()
        except IndexError:
            raise self._unusable() from None
        try:
            return reader.execute(statement, arguments).fetchall()
        finally:
            self._idle_reader.append(reader)

    async def read(self, statement: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows of a short query, which runs on the event loop. Retries while the file is busy, without blocking the loop.

        Raises `Storage` or `StoreClosed`.
        """
        with self._call():
            deadline = time.monotonic() + self._file.busy_timeout
            while True:
                if not self.ready:
                    await self.open()
                try:
                    return self.execute(statement, arguments)
                except sqlite3.Error as error:
                    failure = storage_error(error, self.path)
                if failure.reason != "locked" or time.monotonic() >= deadline:
                    raise failure
                await asyncio.sleep(0.005)

    async def page(self, fetch: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``fetch``, a long read: on the scanner thread, or directly for a database in memory.

        Raises `Storage` or `StoreClosed`.
        """
        with self._call():
            if not self.ready:
                await self.open()
            if self.path is not None:
                return await asyncio.get_running_loop().run_in_executor(self._scanner_thread, self._fetch, fetch)
            await asyncio.sleep(0)
            reader = self._take_reader()
            try:
                return self._fetch(fetch)
            finally:
                self._idle_reader.append(reader)

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
        calls = self._call()
        with calls:
            loop = asyncio.get_running_loop()
            append = _Append(batch, size, loop)
            calls.pending.append(append)
            self._schedule_commit(loop, calls)
            outcome = await append.future
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

    def _schedule_commit(self, loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
        """Schedule a commit after the callbacks that are ready now, so that their appends join the group.

        Does nothing while a commit is in progress: its `_deliver` schedules the next one.
        """
        if not calls.scheduled and not calls.committing:
            calls.scheduled = True
            loop.call_soon(self._start_commit, loop, calls)

    def _start_commit(self, loop: asyncio.AbstractEventLoop, calls: _Calls) -> bool:
        """Begin the commit of one group. Returns false if no append waits."""
        calls.scheduled = False
        group = _next_group(calls.pending)
        if not group:
            return False
        calls.committing = True
        requested_at = time.monotonic()
        if self.path is None:
            self._deliver(loop, calls, group, self._commit(group, requested_at))
        else:
            try:
                self._writer_thread.submit(self._commit_and_deliver, loop, calls, group, requested_at)
            except RuntimeError as error:  # the thread cannot be started
                self._deliver(loop, calls, group, error)
        return True

    def _commit(self, group: list[_Append], requested_at: float) -> Committed | BaseException:
        reader: sqlite3.Cursor | None = None
        try:
            self._file.open(requested_at)
            if self.path is None and self.ready:
                reader = self._take_reader()  # the connection is the same
            committed = self._file.commit([append.batch for append in group], self.clock_ns)
        except BaseException as error:  # every error must reach the waiting callers
            return error
        finally:
            if reader is not None:
                self._idle_reader.append(reader)
        self.syncs += committed.written
        return committed

    def _commit_and_deliver(
        self, loop: asyncio.AbstractEventLoop, calls: _Calls, group: list[_Append], requested_at: float
    ) -> None:
        result = self._commit(group, requested_at)
        with suppress(RuntimeError):  # the loop is closed, so no caller waits
            loop.call_soon_threadsafe(self._deliver, loop, calls, group, result)

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: _Calls,
        group: list[_Append],
        result: Committed | BaseException,
    ) -> None:
        calls.committing = False
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
        if calls.pending:
            self._schedule_commit(loop, calls)

    async def flush(self) -> None:
        """Wait until every append accepted so far is stored or has failed. Raises `WrongLoop`."""
        if self.closed or self._inherited:
            await self.close()
            return
        calls = self._call()
        with calls:
            while self._start_commit(asyncio.get_running_loop(), calls):
                pass
            if self.path is None:
                return
            # The thread works in order. `shield`, so that a cancelled caller does not remove this item from its queue.
            await asyncio.shield(asyncio.wrap_future(self._writer_thread.submit(lambda: None)))

    async def close(self) -> None:
        """Complete accepted appends, then close the connections and end the threads. Further calls do nothing.

        Raises `WrongLoop`, and closes nothing, if another event loop has a call in flight.
        """
        calls = self._begin_call()
        with calls:
            if not self.closed:
                if self.ready:
                    self._take_reader()
                    self.ready = False
                self.closed = True
                while self._start_commit(asyncio.get_running_loop(), calls):
                    pass
                if self.path is None:
                    self._file.close()
                else:
                    scanner = self._scanner_thread.submit(self._file.close_scanner)
                    self._closing = [scanner, self._writer_thread.submit(self._close_file, scanner)]
                # Submitted work still runs. Shut down here, so that no thread is left if this call is cancelled below.
                self._scanner_thread.shutdown(wait=False)
                self._writer_thread.shutdown(wait=False)
            for closing in self._closing:
                await asyncio.shield(asyncio.wrap_future(closing))
            # The queues are empty, so this only waits for the threads to end.
            self._scanner_thread.shutdown()
            self._writer_thread.shutdown()

    def _close_file(self, scanner: Future[None]) -> None:
        """Close the other connections after the scanner's: if the last two close at once, the write-ahead log remains."""
        with suppress(sqlite3.Error):  # `close` raises it
            scanner.result()
        self._file.close()

    def after_fork(self) -> None:
        """In a forked process: give up the connections, the threads and the calls of the parent process."""
        self._start()
        self._idle_reader, readers = [], self._idle_reader
        if self._file.abandon(readers):
            self._inherited, self.ready = True, False


def _next_group(pending: deque[_Append]) -> list[_Append]:
    """Remove the appends of the next transaction from ``pending``, without those whose caller was cancelled."""
    group: list[_Append] = []
    size = 0
    while pending and len(group) < GROUP_APPENDS:
        append = pending[0]
        if group and size + append.size > GROUP_BYTES:
            break
        pending.popleft()
        if not append.future.done():
            group.append(append)
            size += append.size
    return group


_logs: WeakSet[SqliteLog] = WeakSet()


def _after_fork() -> None:
    for log in list(_logs):
        log.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
