"""Lists: which entities belong to a parent (section 3 of the design, "Lists").

Entries are appended without a guard, because they commute; a snapshot now and then keeps reading short. Stored order and
time order may differ by the store's ``time_skew``, so a snapshot names a horizon (``until``) and covers the entries up to it;
a reader takes the newest complete snapshot and every entry after its horizon, wherever that is stored. Entries are hints:
the entity's own stream decides.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, content
from allsource_auth.engine.streams import PAGE, Streams
from allsource_auth.errors import AllsourceAuthError
from allsource_auth.kinds import ADDED, REMOVED, SNAPSHOT
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["Indexes"]

WORTH = 64
"""A snapshot is written when it covers more new entries than this, and more than a quarter of the living."""

LOOK_EVERY = 64
"""Events of a list after which the writer of an entry looks whether a snapshot is due."""

PART_BYTES = 128 * 1024

FIRST_READ = 256
"""Entries that are read first; a list is rarely longer than this beyond its snapshot."""


class Entry(OpaqueStruct, frozen=True):
    stream: str


class Snapshot(OpaqueStruct, frozen=True):
    until: str
    streams: list[str]
    part: int
    parts: int


class Fold(OpaqueStruct, frozen=True):
    """A list as it was read: the streams of its newest snapshot, and the entries beyond its horizon in time order."""

    base: dict[str, None]
    entries: list[Event]

    @property
    def streams(self) -> list[str]:
        return list(_applied(self.base, self.entries))


class Indexes:
    """The lists of one tenant."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def shorten_if_due(self, stream: str, version: int) -> None:
        """Shorten a list after an entry made it ``version`` events long; now and then only, and never a failure."""
        if version % LOOK_EVERY:
            return
        try:
            await self.shorten(stream, await self.read(stream))
        except AllsourceAuthError as error:
            log_suppressed("a list could not be shortened", error)

    async def read(self, stream: str, *, require_leader: bool = False) -> Fold:
        """Read a list from its newest event back to the horizon of its newest complete snapshot."""
        events: dict[str, Event] = {}
        limit = FIRST_READ
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
        return Fold(base=base, entries=entries)

    async def shorten(self, stream: str, fold: Fold, deleted: Collection[str] = ()) -> None:
        """Write a snapshot of what was read if it covers enough; two of them do no harm.

        ``dead``: entities in the list that were deleted, as found after the list was read; the snapshot leaves them out.
        One that comes back later is added again by an entry that the snapshot does not cover.
        """
        if len(fold.entries) <= WORTH:
            return
        until = max(event.time for event in fold.entries) - self._streams.store.time_skew
        covered = [event for event in fold.entries if event.time <= until]
        living = [member for member in _applied(fold.base, covered) if member not in deleted]
        if len(covered) <= max(WORTH, len(living) // 4):
            return
        try:
            await self._streams.append(_snapshot(stream, until, living))
        except AllsourceAuthError as error:
            log_suppressed("a list could not be shortened", error)


def entry(operation: Operation, type: str, stream: str, head: Head) -> NewEvent:  # noqa: A002
    """An entry that adds an entity to a list or removes it, with the event that follows ``head`` on its own stream."""
    payload = msgspec.json.encode({"v": 1, "stream": head.stream})
    return operation.event(type, stream, payload, links={"entitySeq": head.seq + 1})


def _applied(base: dict[str, None], entries: list[Event]) -> dict[str, None]:
    """``base`` after ``entries``, which are in time order.

    An entry that arrives after a later one about the same entity says nothing: of a deletion and a restoration right after
    it, either may have its entry stored first.
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
    """The parts of a snapshot, each of at most 128 KB."""
    parts: list[list[str]] = [[]]
    size = 0
    for member in living:
        size += len(member.encode()) + 3
        if size > PART_BYTES - 200:
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
    """The complete snapshot with the latest horizon, as (horizon, streams)."""
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
