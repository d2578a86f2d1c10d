"""The parts of a mutation: its operation, its plan and its outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from allsource_auth.audit import encode_metadata
from allsource_auth.engine.ordering import Head
from allsource_auth.entities import Entity
from allsource_auth.ids import operation_id
from allsource_auth.store.base import Acknowledged, NewEvent, OpaqueStruct

__all__ = ["NO_LINKS", "Decide", "Done", "Operation", "Plan"]


NO_LINKS: Mapping[str, Any] = MappingProxyType({})


class Plan(OpaqueStruct, frozen=True, kw_only=True):
    """The events of one mutation: ``before``, ``commit`` (the commit point) and ``after``, in the order of the append.

    ``head`` is the head of the commit point's stream that the plan was decided on. ``state`` is the entity that the payload of
    the commit point decodes to. ``compensation`` makes the compensating events for an unguarded commit point: they outrank it
    if it is stored late.
    """

    head: Head
    commit: NewEvent
    before: list[NewEvent] = msgspec.field(default_factory=list[NewEvent])
    after: list[NewEvent] = msgspec.field(default_factory=list[NewEvent])
    state: Entity | None = None
    compensation: Callable[[Operation, Head], list[NewEvent]] | None = None

    @property
    def events(self) -> list[NewEvent]:
        """All events, in the order in which they are appended."""
        return [*self.before, self.commit, *self.after]


class Operation:
    """The identity of one mutation: the id in the metadata of all its events, and the plans that were sent so far."""

    def __init__(self) -> None:
        self.id: str = operation_id()
        self.sent: list[Plan] = []
        self.ambiguous = False

    def event(
        self,
        type: str,  # noqa: A002
        stream: str,
        payload: bytes,
        *,
        after: Head | None = None,
        guarded: bool = True,
        links: Mapping[str, Any] = NO_LINKS,
    ) -> NewEvent:
        """Return an event of this operation.

        Args:
            type: the event type.
            stream: the stream that the event is appended to.
            payload: the payload, as JSON.
            after: the head that the event was decided on. It determines ``seq`` and the guard. ``None`` for index entries and
                snapshots, which have neither.
            guarded: false for an event without a guard.
            links: members of the metadata such as ``restores``.
        """
        seq = None if after is None else after.seq + 1
        guard = after.guard if after is not None and guarded else None
        metadata = encode_metadata(op=self.id, seq=seq, links=links)
        return NewEvent(type=type, stream=stream, payload=payload, metadata=metadata, guard=guard)


class Done(OpaqueStruct, frozen=True, kw_only=True):
    """The outcome of a stored mutation: the payload of its commit point.

    ``state`` and ``stored`` are only set if the append was acknowledged. Otherwise the commit point was found by a read.
    """

    operation: Operation
    payload: bytes
    state: Entity | None = None
    stored: list[tuple[NewEvent, Acknowledged]] = msgspec.field(default_factory=list[tuple[NewEvent, Acknowledged]])


Decide = Callable[[Operation], Awaitable[Plan | None]]
"""Reads the streams it depends on, and returns the plan, or ``None`` if there is nothing to do."""
