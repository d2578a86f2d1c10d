"""The write transaction: check guards, assign position, version and time to each event, insert.

All tenants share one version counter per stream id, as on Allsource. Times increase strictly over the whole file.
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
    """An event to insert, with metadata and payload as text."""

    stream: str
    type: str
    metadata: str
    payload: str
    guard: int | None


class Batch(NamedTuple):
    """The events of one append, which are stored completely or not at all."""

    tenant: str
    records: Sequence[Record]


class Committed(NamedTuple):
    """The result of a transaction: an outcome for each batch, the newest time in the file, whether anything was written."""

    outcomes: list[list[Acknowledged] | VersionConflict]
    newest: int
    written: bool


def insert(writer: sqlite3.Connection, batches: Sequence[Batch], clock_ns: Callable[[], int]) -> Committed:
    """Insert the batches whose guards hold, inside the open transaction of ``writer``.

    Each batch is inserted completely or not at all, independently of the others. The ``actual`` of a conflict counts earlier
    events of the same batch.
    """
    last = writer.execute("SELECT position, time FROM event ORDER BY position DESC LIMIT 1").fetchone()
    position, newest = last or (0, 0)
    versions: dict[str, int] = {}
    rows: list[tuple[object, ...]] = []
    heads: dict[str, tuple[str, int, str, int]] = {}
    outcomes: list[list[Acknowledged] | VersionConflict] = []
    for tenant, records in batches:
        assigned = _assign_versions(writer, records, versions)
        if isinstance(assigned, VersionConflict):
            outcomes.append(assigned)
            continue
        acknowledged: list[Acknowledged] = []
        for record, version in zip(records, assigned, strict=True):
            position += 1
            # Keep time order equal to stored order even if the clock stops or steps back, in this process or another.
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


def _assign_versions(
    writer: sqlite3.Connection, records: Sequence[Record], versions: dict[str, int]
) -> list[int] | VersionConflict:
    """The versions for the events of a batch, or the conflict of the first guard that fails.

    ``versions`` caches the versions of the streams that this transaction has looked up.
    """
    assigned: list[int] = []
    in_batch: dict[str, int] = {}
    for stream, _, _, _, guard in records:
        version = in_batch.get(stream)
        if version is None:
            version = versions.get(stream)
            if version is None:
                row = writer.execute("SELECT version FROM head WHERE stream = ?", (stream,)).fetchone()
                version = versions[stream] = row[0] if row else 0
        if guard is not None and guard != version:
            return VersionConflict(expected=guard, actual=version, stream=stream)
        in_batch[stream] = version + 1
        assigned.append(version + 1)
    return assigned
