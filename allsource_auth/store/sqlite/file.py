"""The embedded file: its format, how it is opened and checked, and what can go wrong with it.

One SQLite database in write-ahead mode, readable with any SQLite tool::

    event   one row per event, in stored order; payload and metadata are JSON text
    head    one row per stream, over all tenants: its version, and the tenant and position of its newest event

Everything here is synchronous; `allsource_auth.store.sqlite.log` decides on which thread it runs. Nothing here survives a
``fork``: open the file in the child.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from allsource_auth.errors import InvalidInput, Storage
from allsource_auth.store.sqlite.append import Batch, Committed, insert

__all__ = ["APPLICATION_ID", "FORMAT", "SqliteFile", "snapshot", "storage_error"]

APPLICATION_ID = 0x41534175
"""``ASAu``, at offset 68 of the file: how ``file(1)`` and this library tell it from other SQLite databases."""

FORMAT = 1
"""The ``user_version`` that this library writes; it refuses a higher one."""

# Step n leads from format n to n + 1. Times grow strictly with the position, so an index on (..., time) gives stored
# order and serves `since` and `until` as well. `head` holds the newest event's place, so that the newest event of a
# stream is two look-ups; large columns come last in `event`, so that the others are read without their overflow pages.
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
"""By primary result code; everything else means that the content is not what this library wrote: ``corrupt``."""

_ERRNO_REASONS = {errno.EROFS: "read-only", errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EIO: "input/output"}

_ADVICE = {
    "locked": "another process kept it locked for too long; let it finish, or raise busy_timeout",
    "full": "there is no space left for it; nothing was stored, free some space and try again",
    "read-only": "it cannot be written to; check the permissions of the file and its directory, and the mount",
    "corrupt": "its content is damaged; restore a backup, or save what can be read with the .recover command of sqlite3",
    "newer format": "it was written by a newer version of allsource_auth; upgrade the library (the file is untouched)",
    "another application": "it is no event log of allsource_auth; choose another path (the file is untouched)",
    "cannot open": "it cannot be opened as a file; check that its directory exists and that it may be accessed",
    "input/output": "the disk reports an error; check the disk and the system's log",
}


def _storage(path: str | None, reason: str, *, ambiguous: bool = False) -> Storage:
    return Storage(f"{path or 'in memory'}: {_ADVICE[reason]}", reason=reason, ambiguous=ambiguous)


def storage_error(error: sqlite3.Error, path: str | None, *, committing: bool = False) -> Storage:
    """The `Storage` error for what SQLite reported; it names the file, never any of its content.

    ``committing`` says that COMMIT itself failed: after an input/output error it is then open what was stored.
    """
    # An error of the Python module, such as text that is not UTF-8, has no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    reason = _REASONS.get(code & 0xFF, "corrupt")
    return _storage(path, reason, ambiguous=committing and reason == "input/output")


class SqliteFile:
    """The connections to one file (or to one database in memory).

    ``path``: where the file is or shall be; ``None`` keeps everything in memory. ``busy_timeout``: how long, in seconds,
    a transaction waits for another process. Raises `InvalidInput` for a value that cannot be meant.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Literal["full", "normal"],
        busy_timeout: float,
    ) -> None:
        if path is not None and (os.fspath(path) in ("", ":memory:") or "\0" in os.fspath(path)):
            raise InvalidInput("path", "name a file, or pass None to keep events in memory")
        if durability not in ("full", "normal"):
            raise InvalidInput("durability", 'must be "full" or "normal"')
        if not 0 <= busy_timeout <= 86400:
            raise InvalidInput("busy_timeout", "must be seconds, from 0 to 86400")
        # Absolute from here on, so that a later change of the working directory does not move the store.
        self.path = None if path is None else str(Path(path).absolute())
        self.busy_timeout = busy_timeout
        self._durability = durability
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None
        self._failure: str | None = None
        self._failed_at = 0.0

    @property
    def reader(self) -> sqlite3.Connection:
        """The connection for short reads; it never waits for a lock. `open` must have been called."""
        assert self._reader is not None
        return self._reader

    def open(self, asked_at: float) -> None:
        """Open the file, creating or migrating it where needed; does nothing if it is open.

        ``asked_at``: ``time.monotonic()`` when the caller asked; whoever asked before an attempt failed gets that
        failure instead of waiting for an attempt of its own. Raises `Storage`.
        """
        if self._writer is not None:
            return
        if self._failure is not None and asked_at < self._failed_at:
            raise _storage(self.path, self._failure)
        opened: list[sqlite3.Connection] = []
        try:
            if self.path is None:
                writer = reader = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                opened.append(writer)
                self._migrate(writer)
            else:
                target = os.path.realpath(self.path)
                self._create(target)
                opened.append(writer := self._connect(target, self.busy_timeout))
                self._prepare(writer)
                opened.append(reader := self._connect(target, 0.0))
                # Reading once maps the shared memory now, under the writer's patience instead of the reader's none.
                reader.execute("PRAGMA query_only = ON")
                self._wait(reader, "SELECT 1 FROM event LIMIT 1")
        except BaseException as error:
            for connection in opened:
                connection.close()
            if not isinstance(error, Storage | sqlite3.Error):
                raise
            failure = error if isinstance(error, Storage) else self._open_error(error)
            self._failure, self._failed_at = failure.reason, time.monotonic()
            raise failure from None
        self._writer, self._reader, self._failure = writer, reader, None

    def scanner(self) -> sqlite3.Connection:
        """The connection for long reads, on a thread of their own; `open` must have been called. Raises `sqlite3.Error`."""
        if self._scanner is None:
            if self.path is None:
                return self.reader
            scanner = self._connect(os.path.realpath(self.path), self.busy_timeout)
            scanner.execute("PRAGMA query_only = ON")
            scanner.execute("PRAGMA cell_size_check = ON")
            self._scanner = scanner
        return self._scanner

    def commit(self, batches: Sequence[Batch], clock_ns: Callable[[], int]) -> Committed:
        """Store the batches in one transaction: one sync for all of them.

        Each batch is checked and stored by itself; one whose guard fails becomes a `VersionConflict` among the
        outcomes and leaves the others alone. ``actual`` is the version that the guard met, counting earlier events of
        the same batch. Raises `Storage` if the transaction failed: then none is stored, or, if it is ambiguous,
        nobody knows.
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
            # SQLite ends the transaction by itself after some errors, not after all.
            if writer.in_transaction:
                with suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
        return committed

    def close_scanner(self) -> None:
        """Close the connection of `scanner`; called on the thread that uses it."""
        if self._scanner is not None:
            self._scanner.close()
            self._scanner = None

    def close(self) -> None:
        """Close the writer and the reader. The last connection to a file folds the write-ahead log back into it."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _create(self, target: str) -> None:
        """Make an empty file that only its owner can read, or check the one that is there without touching it."""
        try:
            # SQLite gives the -wal and -shm files the mode of the file itself.
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
            return
        except FileExistsError:
            pass
        except OSError as error:
            raise _storage(self.path, _ERRNO_REASONS.get(error.errno or 0, "cannot open")) from None
        try:
            status = Path(target).stat()
        except OSError as error:
            raise _storage(self.path, _ERRNO_REASONS.get(error.errno or 0, "cannot open")) from None
        if not stat.S_ISREG(status.st_mode):
            raise _storage(self.path, "cannot open")
        if not _permits(target, os.R_OK):
            raise _storage(self.path, "cannot open")
        # SQLite would silently fall back to reading.
        if not _permits(target, os.W_OK):
            raise _storage(self.path, "read-only")
        if status.st_size:
            self._probe(target)

    def _probe(self, target: str) -> None:
        """Refuse a file that is not ours, through a connection that cannot change it.

        An ordinary connection would replay or check-point the other application's journal. The file must not be
        opened past SQLite either: closing it would drop the locks of this process's other connections (POSIX).
        """
        connection = self._connect(target, self.busy_timeout, mode="ro")
        try:
            self._examine(connection)
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise _storage(self.path, "another application") from None
            # A crash left a journal that must be rolled back first, or another process is just removing its own:
            # reading needs a connection that may write.
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

    def _prepare(self, writer: sqlite3.Connection) -> None:
        writer.execute("PRAGMA trusted_schema = OFF")
        # Only on the connections off the event loop: it costs every page that is loaded.
        writer.execute("PRAGMA cell_size_check = ON")
        # Once more: the file may have been empty a moment ago.
        self._examine(writer)
        # Busy handlers are not called for every lock that this takes when several processes create the file at once.
        if self._wait(writer, "PRAGMA journal_mode = WAL") != "wal":
            raise _storage(self.path, "cannot open")
        writer.execute(f"PRAGMA synchronous = {self._durability.upper()}")
        # Where the system's fsync stops at the drive's cache (macOS), ask for more; elsewhere this changes nothing.
        writer.execute(f"PRAGMA fullfsync = {'ON' if self._durability == 'full' else 'OFF'}")
        writer.execute("PRAGMA journal_size_limit = 67108864")
        self._migrate(writer)

    def _migrate(self, writer: sqlite3.Connection) -> None:
        if self._examine(writer) == FORMAT:
            return
        writer.execute("BEGIN IMMEDIATE")
        try:
            for step in _MIGRATIONS[self._examine(writer) :]:
                for statement in step:
                    writer.execute(statement)
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            writer.execute(f"PRAGMA user_version = {FORMAT}")
            writer.execute("COMMIT")
        finally:
            if writer.in_transaction:
                writer.execute("ROLLBACK")

    def _examine(self, connection: sqlite3.Connection) -> int:
        """The format of the database, 0 for one without content. Raises `Storage` for one that is not ours."""
        with snapshot(connection):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (content,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application == APPLICATION_ID and version > FORMAT:
            raise _storage(self.path, "newer format")
        if application == APPLICATION_ID and version > 0:
            return int(version)
        if (application, version, content) == (0, 0, 0):
            return 0
        raise _storage(self.path, "another application")

    def _wait(self, connection: sqlite3.Connection, statement: str) -> object:
        """The first value of ``statement``, tried again for as long as the file is busy."""
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
        # SQLite keeps two more files beside the first one, and cannot make them.
        if failure.reason == "cannot open" and not _permits(Path(self.path or "").parent, os.W_OK):
            return _storage(self.path, "read-only")
        return failure


def _permits(path: str | Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything inside sees the database at one moment; inside a transaction that is so already."""
    inside = connection.in_transaction
    if not inside:
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if not inside and connection.in_transaction:
            connection.execute("ROLLBACK")
