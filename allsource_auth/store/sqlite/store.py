"""`SqliteStore`: the events of one tenant in a SQLite file, or in memory.

This module contains the statements that read events. `allsource_auth.store.sqlite.log` runs them and commits appends;
`allsource_auth.store.sqlite.file` defines the file format and its errors.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from allsource_auth.errors import InvalidInput, StoreClosed, WrongLoop
from allsource_auth.store.base import Acknowledged, Event, Info, Latest, Link, NewEvent, is_newer_by_time
from allsource_auth.store.sqlite.append import Batch, Record
from allsource_auth.store.sqlite.file import snapshot
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["SqliteLog", "SqliteStore"]

PAGE: Final = 1000

_MAX_EVENT_BYTES: Final = 500_000_000
"""SQLite refuses rows of 1,000,000,000 bytes or more, which would fail the other appends of the transaction, too."""

_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**63 - 1

# The statements use plain placeholders, because Python 3.12.0 to 3.12.3 emit a warning for numbered ones.

# `head` names the newest event. If another tenant appended it, the index finds the newest event of this tenant.
_LATEST = """
    SELECT e.id, e.type, CAST(e.payload AS BLOB), CAST(e.metadata AS BLOB), e.time, e.version, h.version
    FROM head h LEFT JOIN event e ON e.position = CASE WHEN h.tenant = ? THEN h.position ELSE (
        SELECT position FROM event WHERE tenant = ? AND stream = ? ORDER BY time DESC LIMIT 1
    ) END
    WHERE h.stream = ?
"""

# The same for two streams: a member of the first stream's payload names the second one.
_LATEST_LINKED = """
    SELECT e.id, e.type, CAST(e.payload AS BLOB), CAST(e.metadata AS BLOB), e.time, e.version, h.version,
           f.id, f.type, CAST(f.payload AS BLOB), CAST(f.metadata AS BLOB), f.time, f.version, g.version, g.stream
    FROM head h LEFT JOIN event e ON e.position = CASE WHEN h.tenant = ? THEN h.position ELSE (
        SELECT position FROM event WHERE tenant = ? AND stream = ? ORDER BY time DESC LIMIT 1
    ) END
    LEFT JOIN head g ON g.stream = ? || json_extract(e.payload, ?)
    LEFT JOIN event f ON f.position = CASE WHEN g.tenant = ? THEN g.position ELSE (
        SELECT position FROM event WHERE tenant = ? AND stream = g.stream ORDER BY time DESC LIMIT 1
    ) END
    WHERE h.stream = ?
"""

# The same for several streams.
_LATEST_MANY = """
    SELECT e.id, e.type, CAST(e.payload AS BLOB), CAST(e.metadata AS BLOB), e.time, e.version, h.version, h.stream
    FROM head h LEFT JOIN event e ON e.position = CASE WHEN h.tenant = ? THEN h.position ELSE (
        SELECT position FROM event WHERE tenant = ? AND stream = h.stream ORDER BY time DESC LIMIT 1
    ) END
    WHERE h.stream IN ({places})
"""
_STREAMS_PER_STATEMENT: Final = 100
"""Streams per statement. It takes less than a millisecond; between statements other tasks can run."""

_COLUMNS = "e.id, e.type, e.stream, CAST(e.payload AS BLOB), CAST(e.metadata AS BLOB), e.time, e.version"

_READ = f"""
    SELECT {_COLUMNS} FROM event e WHERE tenant = ? AND stream = ? AND time <= ?
    ORDER BY time {{direction}} LIMIT ? OFFSET ?
"""  # noqa: S608
_READ_OLDEST_FIRST = _READ.format(direction="ASC")
_READ_NEWEST_FIRST = _READ.format(direction="DESC")

# Skip scan: one index lookup per distinct value, independent of the number of events that share it.
_TYPES = """
    WITH RECURSIVE known (type) AS (
        SELECT (SELECT type FROM event WHERE tenant = ? AND type >= ? AND type < ? ORDER BY type LIMIT 1)
        UNION ALL
        SELECT (SELECT type FROM event WHERE tenant = ? AND type > known.type AND type < ? ORDER BY type LIMIT 1)
        FROM known WHERE known.type IS NOT NULL
    )
    SELECT type FROM known WHERE type IS NOT NULL
"""
_HEADS = f"""
    WITH RECURSIVE known (stream) AS (
        SELECT (SELECT stream FROM event WHERE tenant = ? AND stream >= ? AND stream < ? ORDER BY stream LIMIT 1)
        UNION ALL
        SELECT (SELECT stream FROM event WHERE tenant = ? AND stream > known.stream AND stream < ?
                ORDER BY stream LIMIT 1)
        FROM known WHERE known.stream IS NOT NULL LIMIT {PAGE}
    )
    SELECT {_COLUMNS} FROM known CROSS JOIN event e ON e.position = (
        SELECT position FROM event WHERE tenant = ? AND stream = known.stream ORDER BY time DESC LIMIT 1
    )
"""  # noqa: S608

# Each part is in time order by its index, and SQLite merges them up to the limit, so the cost of a page does not depend on
# the number of matching events.
_SCAN_PART = "SELECT time, position FROM event WHERE tenant = ? AND type = ? AND time >= ? AND time <= ?"
_SCAN = f"""
    SELECT {_COLUMNS} FROM ({{parts}} ORDER BY 1 LIMIT {PAGE}) AS page
    CROSS JOIN event e ON e.position = page.position
"""  # noqa: S608
_TYPES_PER_STATEMENT: Final = 100
"""Types per statement: a compound SELECT may have at most 500 parts by default."""


class SqliteStore:
    """An `EventStore` for one tenant in a `SqliteLog`.

    Args:
        log: the file. Several stores, one for each tenant, can share it.
        tenant: the tenant whose events are appended and read. All tenants share one version counter per stream id, as on
            Allsource.
        owns_log: whether `close` also closes the log.

    Batches are atomic, and stored order is time order. Every read sees all acknowledged appends, so ``require_leader`` has no
    effect.
    """

    atomic_batches: bool = True
    time_skew: int = 0
    loses_versions_on_restart: bool = False

    def __init__(self, log: SqliteLog, tenant: str = "default", *, owns_log: bool = True) -> None:
        self._log = log
        self._tenant = tenant
        self._owns_log = owns_log
        self._closed = False

    @property
    def tenant(self) -> str:
        """The tenant whose events this store appends and reads."""
        return self._tenant

    def __repr__(self) -> str:
        return f"SqliteStore(path={self._log.path!r}, tenant={self._tenant!r})"

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        """Append ``events`` in order, all of them or none; see `EventStore.append`.

        Raises:
            VersionConflict: a guard failed; nothing was stored. ``actual`` counts earlier events of the same batch.
            InvalidInput: text that is not UTF-8, or an event of more than 500 MB; nothing was stored.
            Storage: the file cannot be written; nothing was stored, unless ``ambiguous`` is true.
            StoreClosed: after `close`.
        """
        if self._closed or self._log.closed:
            raise StoreClosed
        records = [_record(event) for event in events]
        if not records:
            return []
        size = sum(len(event.payload) + len(event.metadata) for event in events)
        return await self._log.append(Batch(self._tenant, records), size)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        """The newest event of ``stream`` and its version; see `EventStore.latest`.

        Raises `Storage` if the file cannot be read, `StoreClosed` after `close`.
        """
        if self._closed:
            raise StoreClosed
        log = self._log
        arguments = (self._tenant, self._tenant, stream, stream)
        try:
            rows = log.execute(_LATEST, arguments) if log.ready else await log.read(_LATEST, arguments)
        except sqlite3.Error:
            rows = await log.read(_LATEST, arguments)
        if not rows:
            return Latest(event=None, version=0)
        return self._to_latest(stream, rows[0])

    async def latest_linked(self, stream: str, link: Link) -> tuple[Latest, Latest | None]:
        """Read both streams with one statement; see `LinkedReads.latest_linked`. Raises the errors of `latest`."""
        if self._closed:
            raise StoreClosed
        log, tenant = self._log, self._tenant
        path = f'$."{link.member}"'
        arguments = (tenant, tenant, stream, link.prefix, path, tenant, tenant, stream)
        try:
            if not log.ready:
                await log.open()
            rows = log.execute(_LATEST_LINKED, arguments)
        except sqlite3.Error:  # busy, or the payload is not JSON, or this SQLite has no JSON functions
            return await self.latest(stream), None
        if not rows:
            return Latest(event=None, version=0), None
        row = rows[0]
        return self._to_latest(stream, row[:7]), None if row[14] is None else self._to_latest(row[14], row[7:14])

    async def latest_many(self, streams: Sequence[str]) -> list[Latest]:
        """Read up to 100 streams per statement; see `ManyReads.latest_many`. Raises the errors of `latest`."""
        found: dict[str, Latest] = {}
        for start in range(0, len(streams), _STREAMS_PER_STATEMENT):
            if start:
                await asyncio.sleep(0)
            if self._closed:
                raise StoreClosed
            part = streams[start : start + _STREAMS_PER_STATEMENT]
            statement = _LATEST_MANY.format(places=", ".join("?" * len(part)))
            arguments = (self._tenant, self._tenant, *part)
            try:
                if not self._log.ready:
                    await self._log.open()
                rows = self._log.execute(statement, arguments)
            except sqlite3.Error:  # busy
                found |= {stream: await self.latest(stream) for stream in part}
            else:
                found |= {row[7]: self._to_latest(row[7], row[:7]) for row in rows}
        missing = Latest(event=None, version=0)
        return [found.get(stream, missing) for stream in streams]

    def _to_latest(self, stream: str, row: tuple[Any, ...]) -> Latest:
        """The `Latest` for a row of `_LATEST`; also updates the newest known time."""
        event_id, kind, payload, metadata, at, version, head = row
        if event_id is None:
            return Latest(event=None, version=head)
        if at > self._log.newest:
            self._log.newest = at
        event = _event((event_id, kind, stream, payload, metadata, at, version))
        return Latest(event=event, version=head)

    async def read(
        self,
        stream: str,
        *,
        until: int | None = None,
        newest_first: bool = False,
        offset: int = 0,
        limit: int = PAGE,
        require_leader: bool = False,
    ) -> list[Event]:
        """A page of the events of ``stream``; see `EventStore.read`.

        Raises `Storage` if the file cannot be read, `StoreClosed` after `close`.
        """
        arguments = (
            self._tenant,
            stream,
            _clamp(until, _MAX_INTEGER),
            min(max(limit, 0), PAGE),
            min(max(offset, 0), _MAX_INTEGER),
        )
        if self._closed:
            raise StoreClosed
        rows = await self._log.read(_READ_NEWEST_FIRST if newest_first else _READ_OLDEST_FIRST, arguments)
        events = [_event(row) for row in rows]
        for event in events[:1] + events[-1:]:
            self._log.newest = max(self._log.newest, event.time)
        return events

    async def scan(
        self, type_prefix: str, *, since: int | None = None, until: int | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """The events whose type starts with ``type_prefix``; see `EventStore.scan`.

        Pages have up to 1,000 events. Events appended during the scan may be included or not. Raises `Storage` if the file
        cannot be read, `StoreClosed` after `close`.
        """
        since, until = _clamp(since, _MIN_INTEGER), _clamp(until, _MAX_INTEGER)
        while True:
            if self._closed:
                raise StoreClosed
            page = await self._log.page(partial(_scan_page, self._tenant, type_prefix, since, until))
            if page:
                since = page[-1].time + 1
                self._log.newest = max(self._log.newest, page[-1].time)
                yield page
            if len(page) < PAGE:
                return

    async def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        """The newest event of every stream whose id starts with ``stream_prefix``; see `EventStore.heads`.

        Pages have up to 1,000 events, ordered by stream id. ``type_prefix`` and ``newer`` are not used: streams are found by
        id, and stored order is time order. Raises `Storage` if the file cannot be read, `StoreClosed` after `close`.
        """
        start, end = stream_prefix, _prefix_end(stream_prefix)
        while True:
            if self._closed:
                raise StoreClosed
            page = await self._log.page(partial(_heads_page, self._tenant, start, end))
            if page:
                start = page[-1].stream + "\0"  # the next possible id
                self._log.newest = max(self._log.newest, *(event.time for event in page))
                yield page
            if len(page) < PAGE:
                return

    def server_time(self) -> int:
        """The clock of the log or the newest known time of an event, whichever is later; in nanoseconds."""
        return max(self._log.clock_ns(), self._log.newest)

    async def info(self) -> Info:
        """Describe this store: the file, the tenant, the version of SQLite."""
        return Info(
            store="SQLite",
            tenant=self._tenant,
            where=self._log.path,
            server="SQLite",
            server_version=sqlite3.sqlite_version,
            durable=self._log.path is not None,
        )

    async def close(self) -> None:
        """Wait for accepted appends, then close the log if this store owns it. Further calls do nothing.

        Raises `WrongLoop`, and closes nothing, if another event loop has a call in flight.
        """
        was_closed, self._closed = self._closed, True
        try:
            if self._owns_log:
                await self._log.close()
            else:
                await self._log.flush()
        except WrongLoop:
            self._closed = was_closed
            raise


def _record(event: NewEvent) -> Record:
    """Decode an event to text. Raises `InvalidInput` here, because an error in the transaction would fail a whole group."""
    if len(event.payload) + len(event.metadata) > _MAX_EVENT_BYTES:
        raise InvalidInput("payload", f"an event of more than {_MAX_EVENT_BYTES} bytes cannot be stored")
    field = "stream"
    try:
        event.stream.encode()
        field = "type"
        event.type.encode()
        field = "metadata"
        metadata = event.metadata.decode() or "null"
        field = "payload"
        payload = event.payload.decode()
    except UnicodeError:
        raise InvalidInput(field, "is not UTF-8") from None
    return Record(event.stream, event.type, metadata, payload, event.guard)


def _event(row: tuple[Any, ...]) -> Event:
    event_id, kind, stream, payload, metadata, at, version = row
    return Event(
        id=event_id,
        type=kind,
        stream=stream,
        payload=msgspec.Raw(payload),
        metadata=msgspec.Raw(metadata),
        time=at,
        version=version,
    )


def _clamp(at: int | None, default: int) -> int:
    """``at`` limited to the integers of SQLite, or ``default`` without it."""
    return default if at is None else min(max(at, _MIN_INTEGER), _MAX_INTEGER)


def _prefix_end(prefix: str) -> str | bytes:
    """An exclusive upper bound, in SQLite's order, of all text that starts with ``prefix``."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return b""  # every BLOB is greater than every TEXT
    following = ord(stem[-1]) + 1
    # The order of UTF-8 bytes is the order of code points. UTF-8 has no surrogates, so skip them.
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)


def _scan_page(tenant: str, prefix: str, since: int, until: int, connection: sqlite3.Connection) -> list[Event]:
    rows: list[tuple[Any, ...]] = []
    end = _prefix_end(prefix)
    # One snapshot for all statements. Otherwise an event that only a later statement sees could be older than the end of
    # this page, and the next page would not include it.
    with snapshot(connection):
        types = [kind for (kind,) in connection.execute(_TYPES, (tenant, prefix, end, tenant, end))]
        for start in range(0, len(types), _TYPES_PER_STATEMENT):
            chosen = types[start : start + _TYPES_PER_STATEMENT]
            parts = " UNION ALL ".join([_SCAN_PART] * len(chosen))
            arguments = [value for kind in chosen for value in (tenant, kind, since, until)]
            rows += connection.execute(_SCAN.format(parts=parts), arguments).fetchall()
    rows.sort(key=lambda row: row[5])
    return [_event(row) for row in rows[:PAGE]]


def _heads_page(tenant: str, start: str, end: str | bytes, connection: sqlite3.Connection) -> list[Event]:
    return [_event(row) for row in connection.execute(_HEADS, (tenant, start, end, tenant, end, tenant))]
