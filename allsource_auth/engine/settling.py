"""Waiting for events that a server has counted but does not show yet.

Core counts an event in the stream's version before a read returns it, and looks the version up after the events. So a version
can count events that the reply does not have. There are two cases, and only time tells them apart:

* The event is about to become visible. A decision made without it would overwrite it, so the decision has to wait.
* The event never becomes visible: it belongs to another tenant that uses the same stream id, or its server failed after
  counting it. After a time limit such events are taken for missing, as long as the version and the newest event stay the same.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from allsource_auth.audit import metadata_of
from allsource_auth.engine.ordering import agrees, newest_of, number_of
from allsource_auth.kind import INDEX_PREFIX
from allsource_auth.per_loop import shared_lock
from allsource_auth.store.base import Event, Latest

__all__ = ["LONGEST_PAUSE", "MAX_ENTRIES", "Settling", "remember"]

MAX_ENTRIES = 1000
"""Maximum entries of each per-stream cache."""

PATIENCE = 0.5
PATIENCE_APPENDS = 10
LONGEST_PATIENCE = 10.0
"""A counted event may take this many seconds to become visible, or this many times the slowest recent append if that is longer,
but never longer than a mutation keeps trying."""

SHARED_PATIENCE = 0.01
"""The same, in seconds, for a stream id that another tenant is known to use. Never more than `LONGEST_PAUSE`."""

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two reads while waiting; the pause doubles."""


T = TypeVar("T")


class Reads(Protocol):
    """The reads that `Settling` needs; `Streams` has them. All of them ask the server that accepts writes."""

    @property
    def slowest_append(self) -> float: ...

    async def latest_from_leader(self, stream: str) -> Latest: ...

    async def newest_events(self, stream: str, latest: Latest) -> list[Event]: ...

    async def newest_until_seq(self, stream: str, version: int, *, require_leader: bool) -> list[Event]: ...

    async def count(self, stream: str) -> int: ...


class Settling:
    """Reads the newest events of a stream until they are all that its version counts."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._missing: dict[str, tuple[str, int]] = {}

    async def events(self, stream: str, version: int) -> list[Event]:
        """The newest events of a stream, once they are all that ``version`` counts. ``version`` was read before them."""
        # The event may have become visible after the version was read.
        if found := await self._visible(stream, version):
            return found
        # By time, the event with the highest number need not be the newest.
        events, missing = await self._all_visible(stream, version)
        if missing is not None and self._missing.get(stream) != missing:
            waited, pause, patience = 0.0, FIRST_PAUSE, self._patience(stream)
            while waited < patience:
                await asyncio.sleep(pause)
                waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)
                if found := await self._visible(stream, version):
                    return found
            events, missing = await self._all_visible(stream, version)
        if missing is not None:
            remember(self._missing, stream, missing)
        return events

    def _patience(self, stream: str) -> float:
        """Seconds to wait for a counted event.

        Short for a stream with events that never became visible, because another tenant goes on using its id. Ids of index
        streams contain a hash of the tenant, so no other tenant uses them.
        """
        slowest = self._reads.slowest_append
        if stream in self._missing and not stream.startswith(INDEX_PREFIX):
            return min(max(SHARED_PATIENCE, slowest), LONGEST_PAUSE)
        return min(max(PATIENCE, PATIENCE_APPENDS * slowest), LONGEST_PATIENCE)

    async def _visible(self, stream: str, version: int) -> list[Event]:
        """The newest events if they are what ``version`` counts, else an empty list.

        A version that is older than the newest event is safe: the guard fails if anything was stored since it was read.
        """
        again = await self._reads.latest_from_leader(stream)
        latest = Latest(event=again.event, version=version)
        return await self._reads.newest_events(stream, latest) if agrees(latest) else []

    async def _all_visible(self, stream: str, version: int) -> tuple[list[Event], tuple[str, int] | None]:
        """The newest events, as far back as needed, and a mark for the counted events that are not among them.

        The mark is ``None`` if all events are there. It changes when the version or the newest event changes.
        """
        events = await self._reads.newest_until_seq(stream, version, require_leader=True)
        unseen = version - max((number_of(event) for event in events), default=0)
        if unseen > 0 and events and all(metadata_of(event).seq is None for event in events):
            # Events of another program, on a server that does not number events.
            unseen = version - await self._reads.count(stream)
        if unseen <= 0:
            return events, None
        newest = newest_of(events)
        if newest is not None and newest.version < number_of(newest):
            # The server does not number events. The number of events of another tenant stays the same.
            return events, ("", unseen)
        return events, (newest.id if newest else "", version)


def remember(entries: dict[str, T], stream: str, entry: T) -> None:
    """Keep an entry for a stream as the newest one, and drop the oldest one of a full cache."""
    with shared_lock:
        entries.pop(stream, None)
        if len(entries) >= MAX_ENTRIES:
            del entries[next(iter(entries))]
        entries[stream] = entry
