"""Secondary indexes: which entities have an index key, such as the sessions of a user.

* An index is a stream of entries. They are appended without a guard, because they commute.
* Entries are hints: the entity's own stream decides whether it has the index key.
* Snapshots keep reads short. Stored order and time order may differ by the store's ``time_skew``. So a snapshot has a horizon
  (``until``) and covers the entries up to that time. A reader uses the newest complete snapshot and every entry after its
  horizon, wherever the entry is stored.

The events are described under "Index streams" in `docs/reference/stored-format.md`.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, content
from allsource_auth.engine.streams import PAGE, Streams
from allsource_auth.errors import AllsourceAuthError
from allsource_auth.kind import ADDED, REMOVED, SNAPSHOT
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["Indexes"]

MIN_NEW_ENTRIES = 64
"""A snapshot is written if it covers more new entries than this, and more than a quarter of the number of living entities."""

CHECK_INTERVAL = 64
"""The writer of an entry checks whether a snapshot is due each time the stream's version is a multiple of this."""

MAX_PART_BYTES = 128 * 1024
"""Maximum size of the payload of one part of a snapshot."""

FIRST_PAGE = 256
"""Size of the first page that is read. Few indexes have more events after their newest snapshot."""


class Entry(OpaqueStruct, frozen=True):
    """The payload of an entry."""

    stream: str


class Snapshot(OpaqueStruct, frozen=True):
    """The payload of one part of a snapshot."""

    until: str
    streams: list[str]
    part: int
    parts: int


class IndexContent(OpaqueStruct, frozen=True):
    """An index as it was read: the streams of its newest snapshot, and the entries after its horizon in time order."""

    base: dict[str, None]
    entries: list[Event]

    @property
    def streams(self) -> list[str]:
        """The streams of the entities that the index lists."""
        return list(_apply(self.base, self.entries))


class Indexes:
    """The indexes of one tenant."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def compact_if_due(self, stream: str, version: int) -> None:
        """Compact an index every `CHECK_INTERVAL` versions. ``version`` is that of an entry just stored. Errors are logged."""
        if version % CHECK_INTERVAL:
            return
        try:
            await self.compact(stream, await self.read(stream))
        except AllsourceAuthError as error:
            log_suppressed("an index could not be compacted", error)

    async def read(self, stream: str, *, require_leader: bool = False) -> IndexContent:
        """Read an index from its newest event back to the horizon of its newest complete snapshot."""
        events: dict[str, Event] = {}
        limit = FIRST_PAGE
        while True:
            page = await self._streams.page(
                stream, newest_first=True, offset=len(events), limit=limit, require_leader=require_leader
            )
            events |= {event.id: event for event in page}
            oldest_first = list(reversed(events.values()))
            found = _newest_snapshot(oldest_first)
            if len(page) < limit or (found is not None and page[-1].time <= found[0]):
                break
            limit = PAGE
        until, base = found or (-1, {})
        entries = [event for event in oldest_first if event.type in (ADDED, REMOVED) and event.time > until]
        entries.sort(key=lambda event: event.time)
        return IndexContent(base=base, entries=entries)

    async def compact(self, stream: str, found: IndexContent, deleted: Collection[str] = ()) -> None:
        """Write a snapshot of ``found`` if it covers enough entries. Two concurrent snapshots are harmless. Errors are logged.

        ``deleted``: streams of entities that were found deleted after the index was read. The snapshot omits them. If one of
        them is restored later, a new entry adds it, which the snapshot does not cover.
        """
        if len(found.entries) <= MIN_NEW_ENTRIES:
            return
        until = max(event.time for event in found.entries) - self._streams.store.time_skew
        covered = [event for event in found.entries if event.time <= until]
        living = [member for member in _apply(found.base, covered) if member not in deleted]
        if len(covered) <= max(MIN_NEW_ENTRIES, len(living) // 4):
            return
        try:
            await self._streams.append(_snapshot(stream, until, living))
        except AllsourceAuthError as error:
            log_suppressed("an index could not be compacted", error)


def entry(operation: Operation, type: str, stream: str, head: Head) -> NewEvent:  # noqa: A002
    """Return the entry that adds an entity to an index or removes it.

    ``head`` is the event on the entity's stream that the change of this operation follows.
    """
    payload = msgspec.json.encode({"v": 1, "stream": head.stream})
    return operation.event(type, stream, payload, links={"entitySeq": head.seq + 1})


def _apply(base: dict[str, None], entries: list[Event]) -> dict[str, None]:
    """Apply ``entries``, in time order, to ``base``.

    An entry is ignored if an entry of a later event of the same entity precedes it. A deletion and a restoration right after
    it may have their entries stored in either order.
    """
    found = dict(base)
    known: dict[str, int] = {}
    for event in entries:
        stream = content(event, Entry).stream
        if (seq := metadata_of(event).entity_seq) is not None:
            if seq < known.get(stream, 0):
                continue
            known[stream] = seq
        if event.type == ADDED:
            found[stream] = None
        else:
            found.pop(stream, None)
    return found


def _snapshot(stream: str, until: int, living: list[str]) -> list[NewEvent]:
    """The parts of a snapshot, each of at most `MAX_PART_BYTES`."""
    parts: list[list[str]] = [[]]
    size = 0
    for member in living:
        size += len(member.encode()) + 3
        if size > MAX_PART_BYTES - 200:
            parts.append([])
            size = len(member.encode()) + 3
        parts[-1].append(member)
    operation = Operation()
    return [
        operation.event(
            SNAPSHOT,
            stream,
            msgspec.json.encode({"v": 1, "until": str(until), "streams": part, "part": number, "parts": len(parts)}),
        )
        for number, part in enumerate(parts, 1)
    ]


def _newest_snapshot(events: list[Event]) -> tuple[int, dict[str, None]] | None:
    """Return the complete snapshot with the latest horizon, as (horizon, streams)."""
    sets: dict[tuple[int, str, int], dict[int, Snapshot]] = {}
    for event in events:
        if event.type == SNAPSHOT:
            part = content(event, Snapshot)
            sets.setdefault((int(part.until), metadata_of(event).op or "", part.parts), {})[part.part] = part
    complete = [key for key, parts in sets.items() if len(parts) == key[2]]
    if not complete:
        return None
    newest = max(complete)
    return newest[0], {stream: None for part in sets[newest].values() for stream in part.streams}
