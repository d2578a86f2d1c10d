"""Events in requests and replies: the bodies of appends, acknowledgements, events in queries, feed and WebSocket."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from allsource_auth.server.replies import instant_text

__all__ = ["COLUMNS", "Acknowledgement", "NewBatch", "NewEvent", "WireEvent", "wire_event"]

COLUMNS: Final = (
    "e.id, e.type, e.stream, e.tenant, CAST(e.payload AS BLOB), e.time, CAST(e.metadata AS BLOB), e.version"
)
"""The columns that `wire_event` needs, of an event ``e``."""


class NewEvent(msgspec.Struct):
    """The body of an append. Other members are ignored."""

    event_type: str
    entity_id: str
    payload: Any
    tenant_id: str | None = None
    metadata: Any = None
    expected_version: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __repr__(self) -> str:
        return f"NewEvent(event_type={self.event_type!r})"


class NewBatch(msgspec.Struct):
    """The body of a batch."""

    events: list[NewEvent]


class Acknowledgement(msgspec.Struct):
    """The reply for a stored event."""

    event_id: str
    timestamp: str
    version: int


class WireEvent(msgspec.Struct, gc=False):
    """An event in a reply."""

    id: str
    event_type: str
    entity_id: str
    tenant_id: str
    payload: msgspec.Raw
    timestamp: str
    metadata: msgspec.Raw
    version: int

    def __repr__(self) -> str:
        return f"WireEvent(event_type={self.event_type!r}, version={self.version})"


def wire_event(row: tuple[Any, ...], *, true_version: bool, digits: int = 9) -> WireEvent:
    """The event of a row of `COLUMNS`. Without ``true_version`` it has version 1, as up to 0.24."""
    event_id, kind, stream, tenant, payload, time, metadata, version = row
    return WireEvent(
        event_id,
        kind,
        stream,
        tenant,
        msgspec.Raw(payload),
        instant_text(time, digits=digits),
        msgspec.Raw(metadata),
        version if true_version else 1,
    )
