"""What a write transaction does: check the guards, give each event its position, version and time, insert.

Versions count per stream over all tenants, as on Allsource; times grow strictly over the whole file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from allsource_auth.errors import VersionConflict
from allsource_auth.ids import uuid_text
from allsource_auth.store.base import Acknowledged

__all__ = ["Batch", "Committed", "Record", "insert"]


class Record(NamedTuple):
    """An event to insert, with its text decoded."""

    stream: str
    type: str
    metadata: str
    payload: str
    guard: int | None


class Batch(NamedTuple):
    """The events of one append: stored whole or not at all."""

    tenant: str
    records: Sequence[Record]


class Committed(NamedTuple):
    """What a transaction did: an outcome per batch, in order, the newest time in the file, whether it was written to."""

    outcomes: list[list[Acknowledged] | VersionConflict]
    newest: int
    written: bool


def insert(writer: sqlite3.Connection, batches: Sequence[Batch], clock_ns: Callable[[], int]) -> Committed:
    """Insert what passes its guards, inside the transaction that is open; each batch by itself, whole or not at all.

    ``actual`` of a conflict is the version that the guard met, counting earlier events of the same batch.
    """
    last = writer.execute("SELECT position, time FROM event ORDER BY position DESC LIMIT 1").fetchone()
    position, newest = last or (0, 0)
    versions: dict[str, int] = {}
    rows: list[tuple[object, ...]] = []
    heads: dict[str, tuple[str, int, str, int]] = {}
    outcomes: list[list[Acknowledged] | VersionConflict] = []
    for tenant, records in batches:
        planned = _check(writer, records, versions)
        if isinstance(planned, VersionConflict):
            outcomes.append(planned)
            continue
        acknowledged = []
        for record, version in zip(records, planned, strict=True):
            position += 1
            # The clock may stand still or step back, here or in another process: stored order is time order anyway.
            newest = max(clock_ns(), newest + 1)
            stream, kind, metadata, payload, _ = record
            event_id = uuid_text()
            rows.append((position, newest, version, event_id, tenant, stream, kind, metadata, payload))
            versions[stream] = version
            heads[stream] = (stream, version, tenant, position)
            acknowledged.append(Acknowledged(id=event_id, time=newest, version=version))
        outcomes.append(acknowledged)
    if rows:
        writer.executemany(
            "INSERT INTO event (position, time, version, id, tenant, stream, type, metadata, payload)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        writer.executemany(
            "INSERT INTO head (stream, version, tenant, position) VALUES (?, ?, ?, ?) ON CONFLICT (stream) DO UPDATE"
            " SET version = excluded.version, tenant = excluded.tenant, position = excluded.position",
            heads.values(),
        )
    return Committed(outcomes, newest, bool(rows))


def _check(
    writer: sqlite3.Connection, records: Sequence[Record], versions: dict[str, int]
) -> list[int] | VersionConflict:
    """The versions that the events of a batch get, or the first guard that fails.

    ``versions`` remembers the streams that this transaction has met.
    """
    planned: list[int] = []
    ahead: dict[str, int] = {}
    for stream, _, _, _, guard in records:
        version = ahead.get(stream)
        if version is None:
            version = versions.get(stream)
            if version is None:
                row = writer.execute("SELECT version FROM head WHERE stream = ?", (stream,)).fetchone()
                version = versions[stream] = row[0] if row else 0
        if guard is not None and guard != version:
            return VersionConflict(expected=guard, actual=version, stream=stream)
        ahead[stream] = version + 1
        planned.append(version + 1)
    return planned
