"""Events on the wire: what a writer sends, what a reader gets, and how one is appended."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

from allsource_auth.errors import VersionConflict
from allsource_auth.server.answers import conflict, instant_text, malformed
from allsource_auth.server.memory import Memory
from allsource_auth.server.rules import check_event, check_reserved
from allsource_auth.server.stream import Hub
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Record

__all__ = ["COLUMNS", "Acknowledgement", "Appender", "NewBatch", "NewEvent", "WireEvent", "wire_event"]

COLUMNS: Final = (
    "e.id, e.type, e.stream, e.tenant, CAST(e.payload AS BLOB), e.time, CAST(e.metadata AS BLOB), e.version"
)
"""What `wire_event` takes, of an event ``e``."""

DEFAULT_TENANT: Final = "default"

_LARGEST_GUARD: Final = 2**64 - 1
_SMALLEST_NUMBER: Final = -(2**63)
_LONG_NUMBER: Final = re.compile(r"\d{19}")

# Core keeps JSON as a tree with sorted keys (section 19 of the contract).
_encode = msgspec.json.Encoder(order="deterministic").encode


class NewEvent(msgspec.Struct):
    """The body of an append (section 5.1 of the contract); other fields are ignored."""

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
    """What is answered for a stored event."""

    event_id: str
    timestamp: str
    version: int


class WireEvent(msgspec.Struct, gc=False):
    """An event as it is read (section 8.1 of the contract)."""

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
    """The event of a row of `COLUMNS`; up to 0.24 every event says version 1."""
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


class Appender:
    """Checks events, appends them through ``memory`` and tells ``hub``.

    ``newer``: as 0.27 does, with reserved names and true versions.
    """

    def __init__(self, memory: Memory, hub: Hub, *, newer: bool) -> None:
        self._memory = memory
        self._hub = hub
        self._newer = newer

    async def append(self, event: NewEvent) -> Acknowledgement:
        """Append one event. Raises `Refused`: 400 for a rule of section 7, 409 for a guard; `Storage` for the file."""
        self._check_reserved(event)
        return await self._append(event)

    async def append_all(self, events: list[NewEvent]) -> list[Acknowledgement]:
        """Append one after another: the first failure is raised, what came before it stays (section 5.2)."""
        for event in events:
            self._check_reserved(event)
        return [await self._append(event) for event in events]

    def _check_reserved(self, event: NewEvent) -> None:
        if self._newer:
            check_reserved(event.event_type, event.entity_id)

    async def _append(self, event: NewEvent) -> Acknowledgement:
        tenant = DEFAULT_TENANT if event.tenant_id is None else event.tenant_id
        check_event(event.event_type, event.entity_id, tenant)
        guard = event.expected_version
        if guard is not None and guard > _LARGEST_GUARD:
            raise malformed("Failed to deserialize the JSON body into the target type: expected_version", 422)
        payload, metadata = _stored_text(event.payload), _stored_text(event.metadata)
        record = Record(event.entity_id, event.event_type, metadata, payload, guard)
        try:
            acknowledged = await self._memory.append(tenant, record)
        except VersionConflict as error:
            raise conflict(error) from None
        if self._hub.listeners:
            self._publish(tenant, record, acknowledged)
        return Acknowledgement(acknowledged.id, instant_text(acknowledged.time), acknowledged.version)

    def _publish(self, tenant: str, record: Record, acknowledged: Acknowledged) -> None:
        event = WireEvent(
            acknowledged.id,
            record.type,
            record.stream,
            tenant,
            msgspec.Raw(record.payload.encode()),
            instant_text(acknowledged.time),
            msgspec.Raw(record.metadata.encode()),
            acknowledged.version if self._newer else 1,
        )
        self._hub.publish(record.type, record.stream, msgspec.json.encode(event).decode())


def _stored_text(value: Any) -> str:
    text = _encode(value).decode()
    if _LONG_NUMBER.search(text) is not None:
        return _encode(_within_range(value)).decode()
    return text


def _within_range(value: Any) -> Any:
    """``value`` with the integers that need more than 64 bits as floats, as Core's parser has them."""
    if isinstance(value, dict):
        return {key: _within_range(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_within_range(item) for item in value]
    if type(value) is int and not _SMALLEST_NUMBER <= value <= _LARGEST_GUARD:
        return float(value)
    return value
