"""Core's wire: the requests as text, and the answers as events (sections 5 to 8 of the contract).

An answer is believed only if it is what was asked for: the right shape, tenant and streams, and not more than was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec

from allsource_auth.errors import Json
from allsource_auth.store.base import Acknowledged, Event, NewEvent, OpaqueStruct

__all__ = ["Health", "Page", "Wire", "instant", "instant_text"]

QUERY = "/api/v1/events/query"
EVENTS = "/api/v1/events"
BATCH = "/api/v1/events/batch"
FEED = "/api/v1/event-feed"
STRICT = "retained-entity-v1"

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - both sides of the subtraction are in UTC
_NULL = msgspec.Raw(b"null")
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for text of the wrong shape; the last for more nesting than it can follow."""


class _WireEvent(OpaqueStruct, frozen=True, gc=False):
    id: str
    event_type: str
    entity_id: str
    tenant_id: str
    payload: msgspec.Raw
    timestamp: str
    metadata: msgspec.Raw = _NULL
    version: int = 1


class _Integrity(OpaqueStruct, frozen=True):
    """What marks the answer to a strict read (section 8.5 of the contract)."""

    protocol: str


class _Answer(OpaqueStruct, frozen=True):
    """Core's envelope; ``data`` is that of older Query Services (section 14.2 of the contract)."""

    events: list[_WireEvent] | None = None
    data: list[_WireEvent] | None = None
    has_more: bool | None = None
    entity_version: int = 0
    archive_integrity: _Integrity | None = None


class _Acknowledgement(OpaqueStruct, frozen=True):
    event_id: str
    timestamp: str
    version: int


class _Acknowledgements(OpaqueStruct, frozen=True):
    events: list[_Acknowledgement]


class _Streams(OpaqueStruct, frozen=True):
    mode: str | None = None


class Health(OpaqueStruct, frozen=True):
    """What is read of ``/health`` (section 4 of the contract)."""

    service: str | None = None
    version: str | None = None
    system_streams: _Streams = _Streams()

    @property
    def durable(self) -> bool | None:
        """A Core that cannot use its data directory starts all the same, and only tells it here."""
        return {"event-sourced": True, "in-memory": False}.get(self.system_streams.mode or "")


class Page(OpaqueStruct, frozen=True):
    """The answer to a query. ``more`` is ``None`` where the server does not say whether there is more."""

    events: list[Event]
    more: bool | None
    version: int
    strict: bool


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_acknowledgement = msgspec.json.Decoder(_Acknowledgement).decode
_read_acknowledgements = msgspec.json.Decoder(_Acknowledgements).decode
_read_health = msgspec.json.Decoder(Health).decode
_encode = msgspec.json.Encoder().encode


class Wire:
    """The wire as one tenant speaks it. The tenant is always sent (section 3.3 of the contract)."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self._tenant_json = _encode(tenant)
        self._of_tenant = f"{QUERY}?tenant_id={quote(tenant, safe='')}"
        self._latest = f"{self._of_tenant}&order=desc&limit=1&entity_id="

    # Requests

    def latest(self, stream: str) -> str:
        return self._latest + quote(
            stream, safe=":"
        )  # with the colon, what our own streams are named takes the short way

    def strict(self, stream: str, limit: int) -> str:
        """The whole stream, or an error where some of it cannot be read; servers that cannot do that ignore the wish."""
        return f"{self._of_tenant}&entity_id={quote(stream, safe='')}&integrity={STRICT}&limit={limit}"

    def read(self, stream: str, *, until: int | None, newest_first: bool, offset: int, limit: int) -> str:
        order = "desc" if newest_first else "asc"
        text = f"{self._of_tenant}&entity_id={quote(stream, safe='')}&order={order}&limit={limit}&offset={offset}"
        return text if until is None else f"{text}&until={instant_text(until)}"

    def scan(self, type_prefix: str, *, since: int | None, until: int | None, offset: int, limit: int) -> str:
        text = f"{self._of_tenant}&event_type_prefix={quote(type_prefix, safe='')}&order=asc&limit={limit}"
        if since is not None:
            text += f"&since={instant_text(since)}"
        if until is not None:
            text += f"&until={instant_text(until)}"
        return f"{text}&offset={offset}" if offset else text

    def feed(self) -> str:
        return f"{FEED}?tenant_id={quote(self.tenant, safe='')}&limit=0"

    def append(self, events: Sequence[NewEvent]) -> tuple[str, bytes]:
        """Path and body that append ``events``."""
        if len(events) == 1:
            return EVENTS, self._event(events[0])
        return BATCH, b'{"events":[%b]}' % b",".join(map(self._event, events))

    def _event(self, event: NewEvent) -> bytes:
        guard = b"" if event.guard is None else b',"expected_version":%d' % event.guard
        return b'{"tenant_id":%b,"entity_id":%b,"event_type":%b,"metadata":%b%b,"payload":%b}' % (
            self._tenant_json,
            _encode(event.stream),
            _encode(event.type),
            event.metadata or b"null",
            guard,
            event.payload,
        )

    # Answers

    def page(self, body: bytes, *, limit: int, stream: str | None = None, type_prefix: str = "") -> Page:
        """The answer to a query for at most ``limit`` events of a stream, or of a type prefix. Raises `Json`."""
        try:
            answer = _read_answer(body)
            found = answer.data if answer.events is None else answer.events
        except _NOT_JSON:
            found = None
        if found is None:
            raise Json("the server's answer is not the JSON that a query is answered with")
        if len(found) > limit:
            raise Json(f"the server answered with {len(found)} events, {limit} were asked for")
        events = []
        for event in found:
            if event.tenant_id != self.tenant or (stream is not None and event.entity_id != stream):
                raise Json("the server answered with an event of another tenant or stream", event_id=event.id)
            if not event.event_type.startswith(type_prefix):
                raise Json("the server answered with an event of another type", event_id=event.id)
            events.append(
                Event(
                    id=event.id,
                    type=event.event_type,
                    stream=event.entity_id,
                    payload=event.payload,
                    metadata=event.metadata,
                    time=instant(event.timestamp),
                    version=event.version,
                )
            )
        strict = answer.archive_integrity is not None and answer.archive_integrity.protocol == STRICT
        return Page(events=events, more=answer.has_more, version=answer.entity_version, strict=strict)

    def acknowledged(self, body: bytes, count: int) -> list[Acknowledged]:
        """The answer to an append of ``count`` events. Raises `Json`, with ``ambiguous``: they may have been stored."""
        try:
            found = [_read_acknowledgement(body)] if count == 1 else _read_acknowledgements(body).events
            if len(found) == count:
                return [
                    Acknowledged(id=each.event_id, time=instant(each.timestamp), version=each.version) for each in found
                ]
        except (*_NOT_JSON, Json):
            pass
        error = Json("the server's answer is not the JSON that an append is answered with")
        error.ambiguous = True
        raise error

    def health(self, body: bytes) -> Health:
        """What a server says of itself; nothing where it does not."""
        try:
            return _read_health(body)
        except _NOT_JSON:
            return Health()


def instant(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with any number of digits (section 2 of the contract). Raises `Json`."""
    try:
        elapsed = datetime.fromisoformat(text[:19]) - _EPOCH
        rest = text[19:]
        fraction = 0
        if rest[:1] == ".":
            zone = rest.lstrip(".0123456789")
            fraction = int(rest[1 : len(rest) - len(zone)][:9].ljust(9, "0"))
            rest = zone
        if rest != "Z":
            sign = {"+": -1, "-": 1}[rest[0]]
            hours, minutes = rest[1:].split(":")
            elapsed += sign * timedelta(hours=int(hours), minutes=int(minutes))
    except (ValueError, TypeError, LookupError):
        pass
    else:
        return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000_000 + fraction
    raise Json("a time in the server's answer is not RFC 3339")


def instant_text(time: int) -> str:
    """A time in nanoseconds as RFC 3339 with nine digits and ``Z``."""
    seconds, fraction = divmod(time, 1_000_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment.isoformat()[:19]}.{fraction:09}Z"  # strftime leaves out the zeros of early years
