"""What remains of a transaction once it is decided: it will happen, whoever sees to it (section 3 of the design).

The decision's metadata carries the remaining events (``rest``). Its writer appends them right behind the decision; if it is
gone, whoever meets one of its claims does, under the same operation id, so that nothing happens twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from allsource_auth.audit import encode_metadata
from allsource_auth.codec import RawMembers, is_tombstone
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.streams import Streams
from allsource_auth.errors import VersionConflict
from allsource_auth.kinds import FENCED
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["RemainingEvent", "outstanding", "remaining", "roll_forward"]


class RemainingEvent(OpaqueStruct, frozen=True, kw_only=True, omit_defaults=True):
    """One remaining event. ``after`` is the id of the event that it was decided on; ``said``: what its metadata adds."""

    type: str
    stream: str
    payload: msgspec.Raw
    guard: int
    after: str | None = None
    audit_fields: dict[str, Any] = msgspec.field(name="said", default_factory=dict)

    def event(self, op: str, head: Head, payload: bytes | None = None) -> NewEvent:
        """The event, to follow ``head``."""
        return NewEvent(
            type=self.type,
            stream=self.stream,
            payload=bytes(self.payload) if payload is None else payload,
            metadata=encode_metadata(op=op, seq=head.seq + 1, links=self.audit_fields),
            guard=head.guard,
        )


class _Decided(msgspec.Struct, frozen=True):
    op: str | None = None
    rest: list[RemainingEvent] = msgspec.field(default_factory=list)


_decode = msgspec.json.Decoder(_Decided).decode
members_of = msgspec.json.Decoder(RawMembers).decode


def remaining(decision: Event) -> list[RemainingEvent]:
    """The events that follow a decision; none for an event that decides nothing but itself."""
    if b'"rest"' not in bytes(decision.metadata):
        return []
    try:
        return _decode(decision.metadata).rest
    except msgspec.MsgspecError:
        return []


async def roll_forward(streams: Streams, op: str, rest: list[RemainingEvent]) -> None:
    """Append those of the remaining events of operation ``op`` that are not stored yet; can be run by several at once."""
    for each in rest:
        while (event := await _next(streams, op, each)) is not None:
            try:
                await streams.append([event])
            except VersionConflict:
                continue
            break


async def outstanding(streams: Streams, op: str, rest: list[RemainingEvent]) -> list[str]:
    """The streams to which operation ``op`` has still to write."""
    return [each.stream for each in rest if await _next(streams, op, each) is not None]


async def _next(streams: Streams, op: str, each: RemainingEvent) -> NewEvent | None:
    """A remaining event as it has to be appended now; ``None`` if it is stored, or nothing is left to do."""
    head = await streams.head(each.stream)
    if await streams.written_since(head, op, since=None) is not None:
        return None
    payload = _onto(each, head.event, await _base(streams, each, head))
    return None if payload is None else each.event(op, head, payload)


async def _base(streams: Streams, each: RemainingEvent, head: Head) -> Event | None:
    """The event that one of the remaining ones was decided on, where others have changed the stream since."""
    if each.after is None or head.event is None or head.event.id == each.after:
        return head.event
    events = await streams.whole(each.stream, require_leader=True)
    return next((event for event in events if event.id == each.after), None)


def _onto(each: RemainingEvent, newest: Event | None, base: Event | None) -> bytes | None:
    """The payload with which a remaining event is stored on top of ``newest``; ``None`` where nothing is left to do."""
    payload = bytes(each.payload)
    if newest is None or newest.id == each.after:
        return payload
    deleted = is_tombstone(newest.payload)
    if each.after is None:
        # A creation. Only a fence may have come before it; an entity of somebody else stays.
        return payload if deleted and newest.type == FENCED else None
    if is_tombstone(each.payload):
        return None if deleted else payload
    if deleted:
        # Deleted since: as if the deletion had come right after the change. A fence on a tombstone changes nothing.
        return payload if newest.type == FENCED and base is not None and is_tombstone(base.payload) else None
    return merged(payload, newest, base)


def merged(payload: bytes, newest: Event, base: Event | None) -> bytes:
    """``newest`` with what ``payload`` had changed of ``base``, everything else as it is."""
    wanted, members = members_of(payload), members_of(newest.payload)
    former: Mapping[str, msgspec.Raw] = {} if base is None else members_of(base.payload)
    for key, value in wanted.items():
        if key not in former or bytes(former[key]) != bytes(value):
            members[key] = value
    for key in former:
        if key not in wanted:
            members.pop(key, None)
    return msgspec.json.encode(members)


def audit_fields_of(event: Event | NewEvent) -> dict[str, Any]:
    """What an event's metadata says beyond its operation, to be said again by the event that takes its place."""
    members = msgspec.json.decode(event.metadata)
    return {key: value for key, value in members.items() if key not in ("v", "op", "seq", "lib", "rest")}
