"""The order of the events of one stream.

Core orders a stream by time, and its clock may step back. So each guarded event carries a sequence number of its own (``seq``
in the metadata), one more than that of the event it was decided on. Where two events have a ``seq``, it decides their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.errors import Json
from allsource_auth.store.base import Event, Latest, OpaqueStruct

__all__ = [
    "Head",
    "agrees",
    "before_operation",
    "content",
    "in_order",
    "is_newer",
    "may_be_outdated",
    "newest_of",
    "number_of",
]

S = TypeVar("S", bound=msgspec.Struct)


class Head(OpaqueStruct, frozen=True, kw_only=True):
    """The newest event of a stream, as a decision uses it.

    ``guard`` is the version that the next append must expect. It is the larger of the store's counter and the highest
    version in the events, because after a crash or an upgrade either can be too low. ``seq`` is the sequence number of the
    newest event; for a stream of another writer, the number of its events.
    """

    stream: str
    event: Event | None
    guard: int
    seq: int

    @property
    def op(self) -> str | None:
        """The id of the operation that wrote the newest event."""
        return metadata_of(self.event).op if self.event else None


def content(event: Event, type: type[S]) -> S:  # noqa: A002
    """Decode the payload of an index event. Raises `Json`, naming the event."""
    try:
        return msgspec.json.decode(event.payload, type=type)
    except msgspec.MsgspecError:
        pass
    message = f"event {event.id} ({event.type}): the payload does not have the shape of this event type"
    raise Json(message, stream=event.stream, event_id=event.id)


def in_order(events: Iterable[Event]) -> list[Event]:
    """Sort the events of one stream, given by time, into the order in which they were decided."""
    found = list(events)
    places = [place for place, event in enumerate(found) if metadata_of(event).seq is not None]
    sequenced = sorted((found[place] for place in places), key=lambda event: metadata_of(event).seq or 0)
    for place, event in zip(places, sequenced, strict=True):
        found[place] = event
    return found


def is_newer(event: Event, known: Event) -> bool:
    """Whether ``event``, which is later in time, was also decided later than ``known``."""
    seq, known_seq = metadata_of(event).seq, metadata_of(known).seq
    return seq is None or known_seq is None or seq >= known_seq


def newest_of(newest_first: list[Event]) -> Event | None:
    """The newest event of a page that is sorted newest first by time."""
    newest: Event | None = None
    for event in reversed(newest_first):
        if newest is None or is_newer(event, newest):
            newest = event
    return newest


def before_operation(newest_first: list[Event], op: str) -> Event | None:
    """The newest of the events that were stored before operation ``op`` wrote to the stream."""
    ops = [metadata_of(event).op for event in newest_first]
    if op not in ops:
        return None
    last = len(ops) - 1 - ops[::-1].index(op)
    return newest_of(newest_first[last + 1 :])


def number_of(event: Event) -> int:
    """The event's position in its stream, from 1, as far as the event itself tells."""
    return max(event.version, metadata_of(event).seq or 0)


def agrees(latest: Latest) -> bool:
    """Whether the newest event is certainly the last one that the version counts."""
    return (0 if latest.event is None else number_of(latest.event)) >= latest.version


def may_be_outdated(latest: Latest, *, ordered: bool) -> bool:
    """Whether another event of the stream may have been decided later than the newest one by time.

    That is possible where stored order and time order differ. On any store, the unguarded creation of a session (``seq`` 1)
    may arrive after the session's tombstone.
    """
    event = latest.event
    if event is None:
        return False
    late = latest.version > 1 and event.type.endswith(".created")
    if ordered and not late:
        return False
    seq = metadata_of(event).seq
    return seq is not None and seq < latest.version and (event.version < latest.version or (late and seq == 1))
