"""The SQLite file: format, opening, checks, migrations, errors.

The file is a SQLite database in WAL mode, which any SQLite tool can read::

    event   one row per event, in stored order; payload and metadata are JSON text
    head    one row per stream id of all tenants: its version, and the tenant and position of its newest event

All functions are synchronous; `allsource_auth.store.sqlite.log` chooses the thread.

A forked process must neither use nor close the connections that it inherits. It cannot open the same file anew either: SQLite
keeps the locks of all connections to a file in one place in the process, and would rely on locks that only the parent process
has. See "How To Corrupt An SQLite Database File", section 2.6, in the documentation of SQLite.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from allsource_auth.errors import InvalidInput, Storage
from allsource_auth.store.sqlite.append import Batch, Committed, insert

__all__ = ["APPLICATION_ID", "FILE_FORMAT", "SqliteFile", "forked_error", "snapshot", "storage_error"]

APPLICATION_ID = 0x41534175
"""``ASAu``, at offset 68 of the file. It distinguishes the file from other SQLite databases, also for ``file(1)``."""

FILE_FORMAT = 1
"""The ``user_version`` that this library writes. A file with a higher one is refused."""

# Migration n converts file format n to n + 1.
#
# Times increase strictly with the position, so an index on (..., time) yields stored order and serves `since` and `until`.
# `head` stores the position of the newest event, so reading it takes two lookups. The large columns of `event` are the last
# ones, so that the others are read without overflow pages.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE event (
            position INTEGER PRIMARY KEY,
            time INTEGER NOT NULL,
            version INTEGER NOT NULL,
            id TEXT NOT NULL,
            tenant TEXT NOT NULL,
            stream TEXT NOT NULL,
            type TEXT NOT NULL,
            metadata TEXT NOT NULL,
            payload TEXT NOT NULL
        )""",
        """CREATE TABLE head (
            stream TEXT PRIMARY KEY,
            version INTEGER NOT NULL,
            tenant TEXT NOT NULL,
            position INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX event_by_stream ON event (tenant, stream, time)",
        "CREATE INDEX event_by_type ON event (tenant, type, time)",
    ),
)

_REASONS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot open",
    sqlite3.SQLITE_PERM: "cannot open",
    sqlite3.SQLITE_IOERR: "input/output",
}
"""By primary result code of SQLite. All other codes mean damaged content: ``corrupt``."""

_ERRNO_REASONS = {errno.EROFS: "read-only", errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EIO: "input/output"}

_ADVICE = {
    "locked": "another process has locked it; let that finish, or raise busy_timeout",
    "full": "no space is left on the device; nothing was stored, free some space and retry",
    "read-only": "it is not writable; check the permissions of the file and its directory, and the mount options",
    "corrupt": "its content is damaged; restore a backup, or save what can be read with the .recover command of sqlite3",
    "newer format": "it was written by a newer version of allsource_auth; upgrade the library (the file was not changed)",
    "another application": "it is not an event log of allsource_auth; choose another path (the file was not changed)",
    "cannot open": "it cannot be opened as a file; check that its directory exists and that both are accessible",
    "input/output": "the disk reported an error; check the disk and the system log",
    "forked": "it was open when this process was forked, and SQLite cannot use it here; close it before the fork, or open it "
    "only after the fork",
}


_inherited: set[tuple[int, int]] = set()
"""Device and inode of each file that was open in a process from which this one was forked."""


def _error(path: str | None, reason: str, *, ambiguous: bool = False) -> Storage:
    return Storage(f"{path or 'in memory'}: {_ADVICE[reason]}", reason=reason, ambiguous=ambiguous)


def storage_error(error: sqlite3.Error, path: str | None, *, committing: bool = False) -> Storage:
    """The `Storage` error for an error of SQLite. It names the file, never its content.

    ``committing``: COMMIT failed. After an input/output error the transaction may then be stored or not.
    """
    # Errors raised by the Python module itself, such as text that is not UTF-8, have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    reason = _REASONS.get(code & 0xFF, "corrupt")
    return _error(path, reason, ambiguous=committing and reason == "input/output")


def forked_error(path: str) -> Storage:
    """The error of a file that was open when this process was forked."""
    return _error(path, "forked")


class SqliteFile:
    """The connections to one file, or to one database in memory.

    ``path``: the file, which need not exist; ``None`` for a database in memory. ``busy_timeout``: maximum seconds that a
    transaction waits for another process. Raises `InvalidInput` for an invalid value.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Literal["full", "normal"],
        busy_timeout: float,
    ) -> None:
        if path is not None and (os.fspath(path) in ("", ":memory:") or "\0" in os.fspath(path)):
            raise InvalidInput("path", "must name a file; pass None for a database in memory")
        if durability not in ("full", "normal"):
            raise InvalidInput("durability", 'must be "full" or "normal"')
        if not 0 <= busy_timeout <= 86400:
            raise InvalidInput("busy_timeout", "must be from 0 to 86400 seconds")
        # Absolute, so that a later change of the working directory does not affect the store.
        self.path: str | None = None if path is None else str(Path(path).absolute())
        self.busy_timeout = busy_timeout
        self._durability = durability
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None
        self._failure: str | None = None
        self._failed_at = 0.0
        self._opening = False
        self._identity = (0, 0)  # device and inode, known before the first connection is opened

    @property
    def reader(self) -> sqlite3.Connection:
        """The connection for short reads, which never waits for a lock. Requires `open`."""
        assert self._reader is not None
        return self._reader

    def open(self, requested_at: float) -> None:
        """Open the file, and create or migrate it if necessary. Does nothing if it is open. Raises `Storage`.

        ``requested_at``: ``time.monotonic()`` of the request. A request that was made before the last attempt failed gets
        the same failure, instead of waiting for another attempt.
        """
        if self._writer is not None:
            return
        if self._failure is not None and requested_at < self._failed_at:
            raise _error(self.path, self._failure)
        opened: list[sqlite3.Connection] = []
        self._opening = True
        try:
            if self.path is None:
                writer = reader = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                opened.append(writer)
                self._migrate(writer)
            else:
                target = os.path.realpath(self.path)
                self._create_or_check(target)
                opened.append(writer := self._connect(target, self.busy_timeout))
                self._configure_writer(writer)
                opened.append(reader := self._connect(target, 0.0))
                # The first read maps the shared memory, which may meet a lock. Do it here, where waiting is allowed.
                reader.execute("PRAGMA query_only = ON")
                self._retry_while_busy(reader, "SELECT 1 FROM event LIMIT 1")
        except BaseException as error:
            for connection in opened:
                connection.close()
            self._opening = False
            if not isinstance(error, Storage | sqlite3.Error):
                raise
            failure = error if isinstance(error, Storage) else self._open_error(error)
            self._failure, self._failed_at = failure.reason, time.monotonic()
            raise failure from None
        self._writer, self._reader, self._failure = writer, reader, None
        self._opening = False

    def scanner(self) -> sqlite3.Connection:
        """The connection for long reads, which run on another thread. Requires `open`. Raises `sqlite3.Error`."""
        if self._scanner is None:
            if self.path is None:
                return self.reader
            scanner = self._connect(os.path.realpath(self.path), self.busy_timeout)
            scanner.execute("PRAGMA query_only = ON")
            scanner.execute("PRAGMA cell_size_check = ON")
            self._scanner = scanner
        return self._scanner

    def commit(self, batches: Sequence[Batch], clock_ns: Callable[[], int]) -> Committed:
        """Store the batches in one transaction, that is, with one sync; see `insert`.

        The outcome of a batch whose guard fails is a `VersionConflict`; the other batches are not affected. Raises
        `Storage` if the transaction failed: then nothing was stored, or it is unknown if the error is ambiguous.
        """
        writer = self._writer
        assert writer is not None
        committing = False
        try:
            writer.execute("BEGIN IMMEDIATE")
            committed = insert(writer, batches, clock_ns)
            committing = committed.written
            writer.execute("COMMIT" if committing else "ROLLBACK")
        except sqlite3.Error as error:
            raise storage_error(error, self.path, committing=committing) from None
        finally:
            # SQLite rolls the transaction back after some errors, but not after all.
            if writer.in_transaction:
                with suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
        return committed

    def close_scanner(self) -> None:
        """Close the connection of `scanner`. Must run on the thread that uses it."""
        if self._scanner is not None:
            self._scanner.close()
            self._scanner = None

    def close(self) -> None:
        """Close the writer and the reader. Closing the last connection to a file checkpoints the write-ahead log."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def abandon(self, cursors: Sequence[sqlite3.Cursor]) -> bool:
        """In a forked process: give up the inherited connections, without closing them. Returns whether there are any.

        ``cursors``: cursors of these connections that must not be used any more either.
        """
        inherited = [each for each in (self._reader, self._writer, self._scanner) if each is not None]
        if not inherited and not self._opening:
            return False
        for connection in inherited:
            _never_delete(connection)
        for cursor in cursors:
            _never_delete(cursor)
        self._reader = self._writer = self._scanner = None
        if self.path is not None:
            _inherited.add(self._identity)
        return True

    def _create_or_check(self, target: str) -> None:
        """Create an empty file that only its owner can access, or check an existing one without changing it."""
        try:
            # SQLite gives the -wal and -shm files the mode of the database file.
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
            self._identity = _identity(os.fstat(descriptor))
            os.close(descriptor)
            return
        except FileExistsError:
            pass
        except OSError as error:
            raise _error(self.path, _ERRNO_REASONS.get(error.errno or 0, "cannot open")) from None
        try:
            status = Path(target).stat()
        except OSError as error:
            raise _error(self.path, _ERRNO_REASONS.get(error.errno or 0, "cannot open")) from None
        if not stat.S_ISREG(status.st_mode):
            raise _error(self.path, "cannot open")
        if not _accessible(target, os.R_OK):
            raise _error(self.path, "cannot open")
        # SQLite would silently open the file read-only.
        if not _accessible(target, os.W_OK):
            raise _error(self.path, "read-only")
        if _identity(status) in _inherited:
            raise _error(self.path, "forked")
        self._identity = _identity(status)
        if status.st_size:
            self._check_readonly(target)

    def _check_readonly(self, target: str) -> None:
        """Refuse a file of another application, using a read-only connection.

        A writable connection would replay or checkpoint the other application's journal. Reading the file without SQLite
        is unsafe, too: closing it would drop the POSIX locks of other connections in this process.
        """
        connection = self._connect(target, self.busy_timeout, mode="ro")
        try:
            self._file_format(connection)
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise _error(self.path, "another application") from None
            # Not readable without writing: a crash left a journal that must be rolled back, or another process is removing
            # its journal. `_configure_writer` checks the file again.
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
        finally:
            connection.close()

    def _connect(self, target: str, timeout: float, *, mode: str = "rw") -> sqlite3.Connection:
        return sqlite3.connect(
            f"{Path(target).as_uri()}?mode={mode}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )

    def _configure_writer(self, writer: sqlite3.Connection) -> None:
        writer.execute("PRAGMA trusted_schema = OFF")
        # It slows down the loading of each page, so it is set only on connections that are not used on the event loop.
        writer.execute("PRAGMA cell_size_check = ON")
        # Check again: the file may have been empty before.
        self._file_format(writer)
        # SQLite does not call the busy handler for every lock that this takes when several processes create the file.
        if self._retry_while_busy(writer, "PRAGMA journal_mode = WAL") != "wal":
            raise _error(self.path, "cannot open")
        writer.execute(f"PRAGMA synchronous = {self._durability.upper()}")
        # On macOS fsync does not flush the drive's cache; fullfsync does. It has no effect on other systems.
        writer.execute(f"PRAGMA fullfsync = {'ON' if self._durability == 'full' else 'OFF'}")
        writer.execute("PRAGMA journal_size_limit = 67108864")
        self._migrate(writer)

    def _migrate(self, writer: sqlite3.Connection) -> None:
        if self._file_format(writer) == FILE_FORMAT:
            return
        writer.execute("BEGIN IMMEDIATE")
        try:
            for step in _MIGRATIONS[self._file_format(writer) :]:
                for statement in step:
                    writer.execute(statement)
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            writer.execute(f"PRAGMA user_version = {FILE_FORMAT}")
            writer.execute("COMMIT")
        finally:
            if writer.in_transaction:
                writer.execute("ROLLBACK")

    def _file_format(self, connection: sqlite3.Connection) -> int:
        """The file format of the database, 0 if it is empty. Raises `Storage` if it is not readable by this version."""
        with snapshot(connection):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (content,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application == APPLICATION_ID and version > FILE_FORMAT:
            raise _error(self.path, "newer format")
        if application == APPLICATION_ID and version > 0:
            return int(version)
        if (application, version, content) == (0, 0, 0):
            return 0
        raise _error(self.path, "another application")

    def _retry_while_busy(self, connection: sqlite3.Connection, statement: str) -> object:
        """The first value that ``statement`` returns. Retries while the file is busy, up to ``busy_timeout``."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                row = connection.execute(statement).fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
            else:
                return row[0] if row else None

    def _open_error(self, error: sqlite3.Error) -> Storage:
        failure = storage_error(error, self.path)
        # SQLite could not create the -wal and -shm files next to the database.
        if failure.reason == "cannot open" and not _accessible(Path(self.path or "").parent, os.W_OK):
            return _error(self.path, "read-only")
        return failure


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _never_delete(inherited: sqlite3.Connection | sqlite3.Cursor) -> None:
    """Keep an inherited object even when the process ends, because deleting it would close or reset it."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _accessible(path: str | Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Generator[None]:
    """Run the block in a read transaction, so that it sees one snapshot; joins a transaction that is already open."""
    joined = connection.in_transaction
    if not joined:
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if not joined and connection.in_transaction:
            connection.execute("ROLLBACK")
