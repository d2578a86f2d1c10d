"""Fences: events that repeat the newest state of a stream, so that a pending commit guarded by the old version fails.

See "Fences" in `docs/explanation/uniqueness.md`. This module also restores events that were overwritten: a server that loses
versions on restart may store an append that expects a new stream after existing events ("Servers that lose versions on
restart" in `docs/explanation/lost-replies.md`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from allsource_auth.codec import is_tombstone
from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, before_operation
from allsource_auth.engine.streams import Streams
from allsource_auth.errors import VersionConflict
from allsource_auth.kind import FENCED
from allsource_auth.store.base import Event, NewEvent

__all__ = ["Rewrite", "fence", "only_fences", "restore_after_fence", "restore_overwritten"]


def fence(head: Head, operation: Operation) -> NewEvent:
    """Return the event that repeats the state of ``head`` and makes every commit guarded by its version fail."""
    if head.event is not None:
        payload = bytes(head.event.payload)
    else:
        payload = msgspec.json.encode({"_deleted": True, "id": head.stream.partition(":")[2]})
    return operation.event(FENCED, head.stream, payload, after=head)


def only_fences(base: Event | None, since: list[Event]) -> bool:
    """Whether all events ``since`` the event ``base`` are fences that repeat its state. ``None``: the stream was empty.

    The newest event does not tell: if it repeats a tombstone, the entity may have been created and deleted again before it.
    """
    return all(
        event.type == FENCED
        and (is_tombstone(event.payload) if base is None else bytes(event.payload) == bytes(base.payload))
        for event in since
    )


Rewrite = Callable[[Event, Head], NewEvent | None]
"""Takes an overwritten event and the head of its stream; returns the event that restores it, or ``None`` if none is needed."""


async def restore_overwritten(streams: Streams, stream: str, op: str, rewrite: Rewrite) -> bool:
    """Restore the event that preceded those of operation ``op``, which expected a new stream.

    Returns whether there was an event to restore.
    """
    while True:
        overwritten = before_operation(await streams.page(stream, newest_first=True, require_leader=True), op)
        restoring = None if overwritten is None else rewrite(overwritten, await streams.head(stream))
        if restoring is None:
            return False
        try:
            await streams.append([restoring])
        except VersionConflict:
            continue
        return True


async def restore_after_fence(fencing: Operation, head: Head, streams: Streams) -> bool:
    """Restore the entity that the fence of operation ``fencing`` overwrote; return whether there was one.

    Only a fence that was decided on an empty stream (``head``) can overwrite an entity.
    """
    if head.guard or not streams.store.loses_versions_on_restart:
        return False

    def repeated(overwritten: Event, now: Head) -> NewEvent:
        return Operation().event(FENCED, head.stream, bytes(overwritten.payload), after=now)

    return await restore_overwritten(streams, head.stream, fencing.id, repeated)
