"""Expiry: sweeps delete expired entities. Their cost depends on the living entities, not on the length of the log.

A sweep reads the events of the kind in time order, starting at a checkpoint. An entity with a later event is read again at
that event. A living entity that has an expiry and no later event keeps the checkpoint from advancing past its newest event.
One without an expiry does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from allsource_auth.engine.collection import Collection
from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, content
from allsource_auth.engine.streams import SECOND
from allsource_auth.entities import Entity
from allsource_auth.errors import Json, VersionConflict
from allsource_auth.kind import INDEX_PREFIX, SWEPT, digest
from allsource_auth.logs import log_suppressed
from allsource_auth.values import count

__all__ = ["sweep"]

E = TypeVar("E", bound=Entity)

CHECKPOINT_LAG = 600 * SECOND
"""The checkpoint is at least this many nanoseconds older than the newest event, for events stored out of time order."""


class Checkpoint(msgspec.Struct):
    """The payload of a checkpoint: all events up to the time ``until`` are done."""

    until: str
    v: int = 1


async def sweep(collection: Collection[E], *, limit: int | None) -> int:
    """Delete expired entities of a kind, at most ``limit`` of them; return how many this call deleted.

    Raises `InvalidInput` for a limit that is not a whole number of at least 0.
    """
    if limit is not None:
        count("limit", limit)
    kind, streams = collection.kind, collection.context.streams
    expiry = kind.expiry
    assert expiry is not None
    head = await streams.head(f"{INDEX_PREFIX}sweep.{kind.name}:{digest(collection.context.tenant)}")
    since = _until(head)
    now = collection.context.now()

    def expired(entity: Entity) -> bool:
        moment = getattr(entity, expiry)
        return moment is not None and bool(moment <= now)

    # Streams of entities that are alive or left for the next sweep, with the time of their newest event.
    kept: dict[str, int] = {}
    newest = since or 0
    deleted = 0
    pages = streams.scan(kind.types, since=since)
    try:
        async for events in pages:
            due: dict[str, int] = {}
            for event in events:
                newest = max(newest, event.time)
                kept.pop(event.stream, None)
                due.pop(event.stream, None)
                try:
                    entity = kind.decode(event)
                except Json as error:
                    log_suppressed("a sweep skipped a state that cannot be decoded", error)
                    continue
                if entity is None or getattr(entity, expiry) is None:
                    continue
                (due if expired(entity) else kept)[event.stream] = event.time
            allowed = len(due) if limit is None else limit - deleted
            now_due, postponed = list(due)[:allowed], list(due)[allowed:]
            deleted += await collection.delete_where([kind.key_of(stream) for stream in now_due], expired)
            kept |= {stream: due[stream] for stream in postponed}
            if limit is not None and deleted >= limit:
                break
    finally:
        await pages.aclose()
    await _advance(collection, head, since, min([newest - CHECKPOINT_LAG, *_earliest(kept)]))
    return deleted


def _earliest(kept: dict[str, int]) -> Iterable[int]:
    return [min(kept.values())] if kept else []


def _until(head: Head) -> int | None:
    return None if head.event is None else int(content(head.event, Checkpoint).until)


async def _advance(collection: Collection[E], head: Head, since: int | None, until: int) -> None:
    """Advance the checkpoint, unless a concurrent sweep has done it."""
    if until <= (since or 0):
        return
    payload = msgspec.json.encode(Checkpoint(until=str(until)))
    try:
        await collection.context.streams.append([Operation().event(SWEPT, head.stream, payload, after=head)])
    except VersionConflict as error:
        log_suppressed("another sweep moved the checkpoint", error)
