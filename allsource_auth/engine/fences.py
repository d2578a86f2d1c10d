"""Fences: events that repeat a state, so that a commit decided on an older version can only fail."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, before_operation
from allsource_auth.engine.streams import Streams
from allsource_auth.errors import VersionConflict
from allsource_auth.kinds import FENCED
from allsource_auth.store.base import Event, NewEvent

__all__ = ["Rewrite", "covered_by", "fence", "uncovered"]


def fence(head: Head, operation: Operation) -> NewEvent:
    """The event that changes nothing, but makes a commit that was decided on ``head`` impossible."""
    if head.event is not None:
        payload = bytes(head.event.payload)
    else:
        payload = msgspec.json.encode({"_deleted": True, "id": head.stream.partition(":")[2]})
    return operation.event(FENCED, head.stream, payload, after=head)


Rewrite = Callable[[Event, Head], NewEvent | None]
"""Takes what was covered and the head of its stream; returns the event that shows it again, ``None`` where none is needed."""


async def uncovered(streams: Streams, stream: str, op: str, rewrite: Rewrite) -> bool:
    """Show what an event of operation ``op`` was stored on top of, although it was to be the first of its stream.

    Whether there was something: a server that forgets versions when it restarts lets that happen (contract, section 6.1).
    """
    while True:
        covered = before_operation(await streams.page(stream, newest_first=True, require_leader=True), op)
        again = None if covered is None else rewrite(covered, await streams.head(stream))
        if again is None:
            return False
        try:
            await streams.append([again])
        except VersionConflict:
            continue
        return True


async def covered_by(fencing: Operation, head: Head, streams: Streams) -> bool:
    """Whether a fence that was to be the first event of ``head`` covered an entity; it is shown again then."""
    if head.guard or not streams.store.loses_versions_on_restart:
        return False

    def repeated(covered: Event, now: Head) -> NewEvent:
        return Operation().event(FENCED, head.stream, bytes(covered.payload), after=now)

    return await uncovered(streams, head.stream, fencing.id, repeated)
