"""Encoding and decoding of payloads: entities, tombstones, times ("Entity events" in docs/reference/stored-format.md).

Readers decode a payload into the struct of the entity. Writers decode it into raw members and encode those again, so that a
change keeps unknown members, and times with more than six fraction digits, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec

from allsource_auth.entities import HIDDEN, Entity
from allsource_auth.errors import Json
from allsource_auth.store.base import Event

__all__ = ["Codec", "instant_text", "is_tombstone", "nanoseconds"]

E = TypeVar("E", bound=Entity)

# Starts with a literal, which the regular expression engine searches first: this pattern runs for every read.
_LONG_FRACTION = re.compile(rb"\.\d{7}")
_FRACTION = re.compile(rb"(\.\d{6})\d+")
_TOMBSTONE_MARK = b'"_deleted"'
_PATH = re.compile(r"`(\$[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(\w+)`")

RawMembers = dict[str, msgspec.Raw]
"""The members of a payload, undecoded."""

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(RawMembers).decode


class _Mark(msgspec.Struct):
    deleted: bool = msgspec.field(name="_deleted", default=False)


_decode_mark = msgspec.json.Decoder(_Mark).decode


def instant_text(moment: datetime) -> str:
    """Return a time as RFC 3339 text in UTC, with six fraction digits and ``Z``."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def nanoseconds(moment: datetime) -> int:
    """Return nanoseconds since the epoch, exactly. ``datetime.timestamp`` would lose microseconds."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


def datetime_of(time: int) -> datetime:
    """Convert nanoseconds since the epoch to a datetime in UTC, cut to microseconds."""
    seconds, rest = divmod(time, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def is_tombstone(payload: msgspec.Raw) -> bool:
    """Return whether a payload has ``"_deleted": true``. The type of the event does not matter."""
    data = bytes(payload)
    if _TOMBSTONE_MARK not in data:
        return False
    try:
        return _decode_mark(data).deleted
    except msgspec.MsgspecError:
        return False


def to_raw(value: Any) -> msgspec.Raw:
    """Encode one value as JSON."""
    return msgspec.Raw(_encode(instant_text(value) if isinstance(value, datetime) else value))


class Codec(Generic[E]):
    """Encodes and decodes the payloads of one entity type.

    Args:
        entity: the struct of the entity.
        omitted_when_none: attributes that are omitted if they are ``None``, instead of written as ``null``.
        tombstone: attributes that a tombstone repeats besides the id.
        secret_key: whether the id of the stream contains a secret, which errors must hide.
    """

    def __init__(
        self,
        entity: type[E],
        *,
        omitted_when_none: Iterable[str] = (),
        tombstone: Iterable[str] = (),
        secret_key: bool = False,
    ) -> None:
        self.entity = entity
        self._secret_key = secret_key
        fields = msgspec.structs.fields(entity)
        self.names: dict[str, str] = {field.name: field.encode_name for field in fields}
        self._defaults = {field.name: None if field.default is msgspec.NODEFAULT else field.default for field in fields}
        self._omitted_when_none = frozenset(omitted_when_none)
        self._tombstone = tuple(tombstone)
        self._decode = msgspec.json.Decoder(entity).decode
        self._times = tuple(field.name for field in fields if "datetime" in str(field.type))

    def new(self, values: Mapping[str, Any]) -> bytes:
        """Encode the payload of a new entity. Attributes that are not given have their default."""
        members = {}
        for name, default in self._defaults.items():
            value = values.get(name, default)
            if value is not None or name not in self._omitted_when_none:
                members[self.names[name]] = instant_text(value) if isinstance(value, datetime) else value
        return _encode(members)

    def merged(self, payload: msgspec.Raw, changes: Mapping[str, Any]) -> bytes:
        """Return ``payload`` with some attributes changed and all other members unchanged."""
        members = _decode_members(payload)
        for name, value in changes.items():
            self._put(members, name, value)
        return _encode(members)

    def replaced(self, payload: msgspec.Raw, other: msgspec.Raw, names: Iterable[str]) -> msgspec.Raw:
        """Return ``payload`` with the attributes ``names`` taken from ``other``, byte for byte."""
        keys = [self.names[name] for name in names]
        if not keys:
            return payload
        members, others = _decode_members(payload), _decode_members(other)
        for key in keys:
            if key in others:
                members[key] = others[key]
            else:
                members.pop(key, None)
        return msgspec.Raw(_encode(members))

    def _put(self, members: RawMembers, name: str, value: Any) -> None:
        if value is None and name in self._omitted_when_none:
            members.pop(self.names[name], None)
        else:
            members[self.names[name]] = to_raw(value)

    def tombstone(self, entity: E) -> bytes:
        """Encode a tombstone of ``entity``: its id, and the attributes that other programs need for look-ups."""
        members = {"_deleted": True, "id": entity.id}
        members |= {self.names[name]: getattr(entity, name) for name in self._tombstone}
        return _encode(members)

    def decode(self, event: Event) -> E | None:
        """Return the state in ``event``, or ``None`` for a tombstone.

        Raises `Json`, with the stream, the id of the event and the path of the field, if the payload cannot be decoded.
        """
        payload = bytes(event.payload)
        if _TOMBSTONE_MARK in payload and is_tombstone(event.payload):
            return None
        try:
            return self._read(payload)
        except msgspec.MsgspecError as error:
            found, missing = _PATH.search(str(error)), _MISSING.match(str(error))
            path = found.group(1) if found else None
            if missing is not None:
                path = f"{path or '$'}.{missing.group(1)}"
        # Raised outside of the handler: the message of the decoder may quote the value and must not be chained.
        prefix, _, _ = event.stream.partition(":")
        stream = f"{prefix}:{HIDDEN}" if self._secret_key else event.stream
        message = f"stream {stream}, event {event.id}: the payload cannot be decoded as {self.entity.__name__}"
        raise Json(message + (f" at {path}" if path else ""), path=path, stream=stream, event_id=event.id)

    def _read(self, payload: bytes) -> E:
        if _LONG_FRACTION.search(payload):
            payload = self._cut_to_microseconds(payload)
        entity = self._decode(payload)
        for name in self._times:
            value = getattr(entity, name)
            if value is not None and value.tzinfo is not UTC:
                entity = msgspec.structs.replace(entity, **{name: value.astimezone(UTC)})
        return entity

    def _cut_to_microseconds(self, payload: bytes) -> bytes:
        """Cut times to six fraction digits. The decoder would round them."""
        members = _decode_members(payload)
        for name in self._times:
            if (raw := members.get(self.names[name])) is not None:
                members[self.names[name]] = msgspec.Raw(_FRACTION.sub(rb"\1", bytes(raw)))
        return _encode(members)
