"""Appending events: validation, JSON normalised as by Core, storage, publication to WebSockets."""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec

from allsource_auth.errors import VersionConflict
from allsource_auth.server.events import Acknowledgement, NewEvent, WireEvent
from allsource_auth.server.live_events import LiveEvents
from allsource_auth.server.log_access import LogAccess
from allsource_auth.server.replies import conflict, instant_text, plain_text_error
from allsource_auth.server.rules import check_event, check_reserved
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Record

__all__ = ["Appender"]

DEFAULT_TENANT: Final = "default"

_MAX_UNSIGNED: Final = 2**64 - 1
_MIN_SIGNED: Final = -(2**63)
_LONG_NUMBER: Final = re.compile(r"\d{19}")

# Core keeps JSON as a tree with sorted keys.
_encode = msgspec.json.Encoder(order="deterministic").encode


class Appender:
    """Validates events, appends them to the log and publishes them to ``live_events``.

    ``newer``: with the reserved names and the true versions of 0.27.
    """

    def __init__(self, access: LogAccess, live_events: LiveEvents, *, newer: bool) -> None:
        self._access = access
        self._live_events = live_events
        self._newer = newer

    async def append(self, event: NewEvent) -> Acknowledgement:
        """Append one event.

        Raises `Rejected` (400 for an invalid event, 409 for a failed guard), and `Storage` if the log cannot be used.
        """
        self._check_reserved(event)
        return await self._append(event)

    async def append_all(self, events: list[NewEvent]) -> list[Acknowledgement]:
        """Append one event after another. The first failure is raised; the events before it stay stored."""
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
        if guard is not None and guard > _MAX_UNSIGNED:
            raise plain_text_error("Failed to deserialize the JSON body into the target type: expected_version", 422)
        payload, metadata = _stored_text(event.payload), _stored_text(event.metadata)
        record = Record(event.entity_id, event.event_type, metadata, payload, guard)
        try:
            acknowledged = await self._access.append(tenant, record)
        except VersionConflict as error:
            raise conflict(error) from None
        if self._live_events.subscribers:
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
        self._live_events.publish(record.type, record.stream, msgspec.json.encode(event).decode())


def _stored_text(value: Any) -> str:
    text = _encode(value).decode()
    if _LONG_NUMBER.search(text) is not None:
        return _encode(_within_64_bits(value)).decode()
    return text


def _within_64_bits(value: Any) -> Any:
    """``value`` with integers of more than 64 bits as floats, as Core's parser reads them."""
    if isinstance(value, dict):
        return {key: _within_64_bits(member) for key, member in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_within_64_bits(item) for item in cast("list[object]", value)]
    if type(value) is int and not _MIN_SIGNED <= value <= _MAX_UNSIGNED:
        return float(value)
    return value
