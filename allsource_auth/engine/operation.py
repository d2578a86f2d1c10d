"""One mutation on its way: its operation, its plan and its outcome."""

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
    """The events of one mutation. ``head`` is the commit stream as it was when the plan was made.

    ``state`` is the entity that the commit's payload decodes to. ``instead`` belongs to a commit without a guard: the events
    that make it void if it should arrive late.
    """

    head: Head
    commit: NewEvent
    before: list[NewEvent] = msgspec.field(default_factory=list)
    after: list[NewEvent] = msgspec.field(default_factory=list)
    state: Entity | None = None
    compensation: Callable[[Operation, Head], list[NewEvent]] | None = None

    @property
    def events(self) -> list[NewEvent]:
        return [*self.before, self.commit, *self.after]


class Operation:
    """One mutation on its way: its id, which every event of it carries, and what was sent so far."""

    def __init__(self) -> None:
        self.id = operation_id()
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
        """An event of this operation.

        ``after`` is what it was decided on: it gives the ``seq`` and, unless ``guarded`` is false, the guard. An entry of a
        list is decided on nothing. ``links``: members of the metadata such as ``restores``.
        """
        seq = None if after is None else after.seq + 1
        guard = after.guard if after is not None and guarded else None
        metadata = encode_metadata(op=self.id, seq=seq, links=links)
        return NewEvent(type=type, stream=stream, payload=payload, metadata=metadata, guard=guard)


class Done(OpaqueStruct, frozen=True, kw_only=True):
    """What a mutation came to: the commit event's payload; where a reply says so, its state and what was stored."""

    operation: Operation
    payload: bytes
    state: Entity | None = None
    stored: list[tuple[NewEvent, Acknowledged]] = msgspec.field(default_factory=list)


Decide = Callable[[Operation], Awaitable[Plan | None]]
"""Reads what it needs and makes the plan, or returns ``None`` when there is nothing to do."""
