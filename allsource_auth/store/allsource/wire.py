"""The wire format of Core: builds requests and decodes replies.

The endpoints are described in docs/reference/allsource-api.md. A reply is checked for shape, tenant, stream, type and number
of events; one that does not match its request raises `Json`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec

from allsource_auth.errors import Json
from allsource_auth.store.base import Acknowledged, Event, NewEvent, OpaqueStruct

__all__ = ["Health", "Page", "WireFormat", "format_time", "parse_time"]

QUERY = "/api/v1/events/query"
EVENTS = "/api/v1/events"
BATCH = "/api/v1/events/batch"
FEED = "/api/v1/event-feed"
STRICT = "retained-entity-v1"

_UNQUOTED = re.compile(r"[A-Za-z0-9_.~:-]*").fullmatch

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - both sides of the subtraction are in UTC
_NULL = msgspec.Raw(b"null")
_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of the decoders for malformed replies; `RecursionError` if they are nested too deeply."""


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
    """Present in replies to strict reads only."""

    protocol: str


class _QueryReply(OpaqueStruct, frozen=True):
    """The envelope of a query: Core and newer Query Services send ``events``, older Query Services ``data``."""

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


class _SystemStreams(OpaqueStruct, frozen=True):
    mode: str | None = None


class Health(OpaqueStruct, frozen=True):
    """The members of a ``/health`` reply that are used."""

    service: str | None = None
    version: str | None = None
    system_streams: _SystemStreams = _SystemStreams()

    @property
    def durable(self) -> bool | None:
        """Whether events are stored on disk. A Core that cannot use its data directory silently runs in memory."""
        return {"event-sourced": True, "in-memory": False}.get(self.system_streams.mode or "")


class Page(OpaqueStruct, frozen=True):
    """A decoded reply to a query. ``more``: whether further events match, ``None`` if the server does not report it."""

    events: list[Event]
    more: bool | None
    version: int
    strict: bool


_decode_query = msgspec.json.Decoder(_QueryReply).decode
_decode_acknowledgement = msgspec.json.Decoder(_Acknowledgement).decode
_decode_acknowledgements = msgspec.json.Decoder(_Acknowledgements).decode
_decode_health = msgspec.json.Decoder(Health).decode
_encode = msgspec.json.Encoder().encode


class WireFormat:
    """Requests and replies of one tenant. Every request names the tenant: without it a query returns no events."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self._tenant_json = _encode(tenant)
        self._query_path = f"{QUERY}?tenant_id={quote(tenant, safe='')}"
        self._latest_path = f"{self._query_path}&order=desc&limit=1&entity_id="

    # Requests

    def latest(self, stream: str) -> str:
        # Nearly all stream ids need no quoting, which takes several times as long as this test.
        return self._latest_path + (stream if _UNQUOTED(stream) else quote(stream, safe=":"))

    def strict(self, stream: str, limit: int) -> str:
        """A strict read of the whole stream: complete, or an error. Core 0.23 and 0.24 ignore ``integrity``."""
        return f"{self._query_path}&entity_id={quote(stream, safe='')}&integrity={STRICT}&limit={limit}"

    def read(self, stream: str, *, until: int | None, newest_first: bool, offset: int, limit: int) -> str:
        order = "desc" if newest_first else "asc"
        text = f"{self._query_path}&entity_id={quote(stream, safe='')}&order={order}&limit={limit}&offset={offset}"
        return text if until is None else f"{text}&until={format_time(until)}"

    def scan(self, type_prefix: str, *, since: int | None, until: int | None, offset: int, limit: int) -> str:
        text = f"{self._query_path}&event_type_prefix={quote(type_prefix, safe='')}&order=asc&limit={limit}"
        if since is not None:
            text += f"&since={format_time(since)}"
        if until is not None:
            text += f"&until={format_time(until)}"
        return f"{text}&offset={offset}" if offset else text

    def feed(self) -> str:
        return f"{FEED}?tenant_id={quote(self.tenant, safe='')}&limit=0"

    def append(self, events: Sequence[NewEvent]) -> tuple[str, bytes]:
        """Path and body of the request that appends ``events``."""
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

    # Replies

    def page(self, body: bytes, *, limit: int, stream: str | None = None, type_prefix: str = "") -> Page:
        """Decode the reply to a query for at most ``limit`` events of a stream or a type prefix. Raises `Json`."""
        reply: _QueryReply | None
        try:
            reply = _decode_query(body)
            found = reply.data if reply.events is None else reply.events
        except _MALFORMED:
            reply = found = None
        if reply is None or found is None:
            raise Json("the server's reply to a query is not the expected JSON")
        if len(found) > limit:
            raise Json(f"the server returned {len(found)} events, but at most {limit} were requested")
        events: list[Event] = []
        for event in found:
            if event.tenant_id != self.tenant or (stream is not None and event.entity_id != stream):
                raise Json("the server returned an event of another tenant or stream", event_id=event.id)
            if not event.event_type.startswith(type_prefix):
                raise Json("the server returned an event of another type", event_id=event.id)
            events.append(
                Event(
                    id=event.id,
                    type=event.event_type,
                    stream=event.entity_id,
                    payload=event.payload,
                    metadata=event.metadata,
                    time=parse_time(event.timestamp),
                    version=event.version,
                )
            )
        strict = reply.archive_integrity is not None and reply.archive_integrity.protocol == STRICT
        return Page(events=events, more=reply.has_more, version=reply.entity_version, strict=strict)

    def acknowledged(self, body: bytes, count: int) -> list[Acknowledged]:
        """Decode the reply to an append of ``count`` events. Raises an ambiguous `Json`: the events may be stored."""
        try:
            found = [_decode_acknowledgement(body)] if count == 1 else _decode_acknowledgements(body).events
            if len(found) == count:
                return [
                    Acknowledged(id=each.event_id, time=parse_time(each.timestamp), version=each.version)
                    for each in found
                ]
        except (*_MALFORMED, Json):
            pass
        error = Json("the server's reply to an append is not the expected JSON; the events may be stored")
        error.ambiguous = True
        raise error

    def health(self, body: bytes) -> Health:
        """Decode the reply of ``/health``; an empty `Health` if it is not the expected JSON."""
        try:
            return _decode_health(body)
        except _MALFORMED:
            return Health()


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with any number of fraction digits. Raises `Json`."""
    try:
        elapsed = datetime.fromisoformat(text[:19]) - _EPOCH
        rest = text[19:]
        if len(rest) == 11 and rest[0] == "." and rest[10] == "Z" and rest[1:10].isdigit():  # what Core sends
            return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000_000 + int(rest[1:10])
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
    raise Json("a time in the server's reply is not in RFC 3339 format")


def format_time(time: int) -> str:
    """An RFC 3339 time with nine fraction digits and ``Z``, from nanoseconds since the epoch."""
    seconds, fraction = divmod(time, 1_000_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment.isoformat()[:19]}.{fraction:09}Z"  # strftime does not pad years before 1000 with zeros
