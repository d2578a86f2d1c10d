"""Roll-forward: completing a transaction whose decision is stored.

The metadata of the decision carries the remaining events (``rest``). The writer appends them together with the decision. If
they are missing because the writer or the server failed, any contender for a claim of the transaction appends them, under
the same operation id, so that each is stored once. See "Roll-forward" in `docs/explanation/mutations-and-transactions.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from allsource_auth.audit import encode_metadata
from allsource_auth.codec import RawMembers, is_tombstone
from allsource_auth.engine.fences import only_fences
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.streams import Streams
from allsource_auth.errors import VersionConflict
from allsource_auth.kind import FENCED
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["RemainingEvent", "outstanding", "remaining", "roll_forward"]


class RemainingEvent(OpaqueStruct, frozen=True, kw_only=True, omit_defaults=True):
    """One remaining event.

    ``after`` is the id of the event that it was decided on. ``audit_fields`` are further members of its metadata.
    """

    type: str
    stream: str
    payload: msgspec.Raw
    guard: int
    after: str | None = None
    audit_fields: dict[str, Any] = msgspec.field(name="said", default_factory=dict[str, Any])

    def new_event(self, op: str, head: Head, payload: bytes | None = None) -> NewEvent:
        """Return the event to append after ``head``, with another payload if one is given."""
        return NewEvent(
            type=self.type,
            stream=self.stream,
            payload=bytes(self.payload) if payload is None else payload,
            metadata=encode_metadata(op=op, seq=head.seq + 1, links=self.audit_fields),
            guard=head.guard,
        )


class _DecisionMetadata(msgspec.Struct, frozen=True):
    op: str | None = None
    rest: list[RemainingEvent] = msgspec.field(default_factory=list[RemainingEvent])


_decode_metadata = msgspec.json.Decoder(_DecisionMetadata).decode
_decode_members = msgspec.json.Decoder(RawMembers).decode


def remaining(decision: Event) -> list[RemainingEvent]:
    """Return the remaining events of a transaction. An event that is no decision has none."""
    if b'"rest"' not in bytes(decision.metadata):
        return []
    try:
        return _decode_metadata(decision.metadata).rest
    except msgspec.MsgspecError:
        return []


async def roll_forward(streams: Streams, op: str, events: list[RemainingEvent]) -> None:
    """Append the remaining events of operation ``op`` that are not stored yet. Concurrent calls are harmless."""
    for event in events:
        while (new := await _new_event(streams, op, event)) is not None:
            try:
                await streams.append([new])
            except VersionConflict:
                continue
            break


async def outstanding(streams: Streams, op: str, events: list[RemainingEvent]) -> list[str]:
    """Return the streams whose remaining event of operation ``op`` has still to be appended."""
    return [event.stream for event in events if await _new_event(streams, op, event) is not None]


async def _new_event(streams: Streams, op: str, event: RemainingEvent) -> NewEvent | None:
    """Return the event to append for a remaining event; ``None`` if it is stored already or has become obsolete."""
    head = await streams.head(event.stream)
    if await streams.written_since(head, op, since=None) is not None:
        return None
    payload = await _rebased_payload(streams, event, head.event)
    return None if payload is None else event.new_event(op, head, payload)


async def _rebased_payload(streams: Streams, event: RemainingEvent, newest: Event | None) -> bytes | None:
    """Return the payload for appending a remaining event after ``newest``; ``None`` if it has become obsolete."""
    payload = bytes(event.payload)
    if newest is None or newest.id == event.after:
        return payload
    base, since = await streams.read_since(event.stream, event.after)
    if newest.type == FENCED and only_fences(base, since) and (base is None) == (event.after is None):
        return payload
    if event.after is None or any(is_tombstone(other.payload) for other in since):
        # The id was used for another entity, or the entity was deleted since, as if right after the event. An obsolete event
        # must stay obsolete, so it does not matter whether the entity was restored or the id was used again after that.
        return None
    return payload if is_tombstone(event.payload) else merge(payload, newest, base)


def merge(payload: bytes, newest: Event, base: Event | None) -> bytes:
    """Return the state ``newest`` with the members that ``payload`` changed, relative to ``base``."""
    wanted, members = _decode_members(payload), _decode_members(newest.payload)
    former: Mapping[str, msgspec.Raw] = {} if base is None else _decode_members(base.payload)
    for key, value in wanted.items():
        if key not in former or bytes(former[key]) != bytes(value):
            members[key] = value
    for key in former:
        if key not in wanted:
            members.pop(key, None)
    return msgspec.json.encode(members)


def audit_fields_of(event: Event | NewEvent) -> dict[str, Any]:
    """Return the audit fields and links of an event's metadata, for an event that replaces it."""
    members = msgspec.json.decode(event.metadata)
    return {key: value for key, value in members.items() if key not in ("v", "op", "seq", "lib", "rest")}
