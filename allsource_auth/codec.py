"""Payloads: entities to JSON and back, tombstones, and the text of times (``format.md``, "Entity events").

A payload is decoded twice in different ways: into the entity's struct for readers, and into raw members for writers, so
that what an update does not touch (unknown keys, the nanoseconds of a time) is written again exactly as it was.
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

# It begins with the literal, which the regular expression engine looks for first; this runs at every read.
_LONG_FRACTION = re.compile(rb"\.\d{7}")
_FRACTION = re.compile(rb"(\.\d{6})\d+")
_TOMBSTONE_MARK = b'"_deleted"'
_PATH = re.compile(r"`(\$[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(\w+)`")

RawMembers = dict[str, msgspec.Raw]
"""A payload's members as they are written."""

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(RawMembers).decode


class _Mark(msgspec.Struct):
    deleted: bool = msgspec.field(name="_deleted", default=False)


_decode_mark = msgspec.json.Decoder(_Mark).decode


def instant_text(moment: datetime) -> str:
    """RFC 3339 in UTC with six digits and ``Z``."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since the epoch, exactly (a float would lose microseconds)."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


def datetime_of(time: int) -> datetime:
    """The microsecond that a time in nanoseconds lies in."""
    seconds, rest = divmod(time, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def is_tombstone(payload: msgspec.Raw) -> bool:
    """Whether a payload says ``"_deleted": true``, whatever the event's type."""
    data = bytes(payload)
    if _TOMBSTONE_MARK not in data:
        return False
    try:
        return _decode_mark(data).deleted
    except msgspec.MsgspecError:
        return False


def to_raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(instant_text(value) if isinstance(value, datetime) else value))


class Codec(Generic[E]):
    """The payloads of one entity type.

    ``omitted_when_none`` names the attributes that are not written when they are ``None``; ``tombstone`` the attributes that a
    tombstone repeats beside ``_deleted`` and ``id``. ``secret_key``: the stream's id holds a secret, so errors hide it.
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
        self.names = {field.name: field.encode_name for field in fields}
        self._defaults = {field.name: None if field.default is msgspec.NODEFAULT else field.default for field in fields}
        self._omitted_when_none = frozenset(omitted_when_none)
        self._tombstone = tuple(tombstone)
        self._decode = msgspec.json.Decoder(entity).decode
        self._times = tuple(field.name for field in fields if "datetime" in str(field.type))

    def new(self, values: Mapping[str, Any]) -> bytes:
        """The payload of a new entity from its attributes; what is not given has its default."""
        members = {}
        for name, default in self._defaults.items():
            value = values.get(name, default)
            if value is not None or name not in self._omitted_when_none:
                members[self.names[name]] = instant_text(value) if isinstance(value, datetime) else value
        return _encode(members)

    def merged(self, payload: msgspec.Raw, changes: Mapping[str, Any]) -> bytes:
        """``payload`` with the given attributes set, everything else exactly as it was written."""
        members = _decode_members(payload)
        for name, value in changes.items():
            self._put(members, name, value)
        return _encode(members)

    def replaced(self, payload: msgspec.Raw, other: msgspec.Raw, names: Iterable[str]) -> msgspec.Raw:
        """``payload`` with these attributes as ``other`` has them, exactly as they are written there."""
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
        """The payload of a tombstone of ``entity``: its bare id, and what look-ups by others need."""
        members = {"_deleted": True, "id": entity.id}
        members |= {self.names[name]: getattr(entity, name) for name in self._tombstone}
        return _encode(members)

    def decode(self, event: Event) -> E | None:
        """The state that ``event`` holds; ``None`` for a tombstone.

        Raises `Json` with the stream, the event's id and the path of the field when the payload is not this entity.
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
        # Outside the handler, so that the decoder's own text, which may quote the value, is not chained.
        prefix, _, _ = event.stream.partition(":")
        stream = f"{prefix}:{HIDDEN}" if self._secret_key else event.stream
        message = f"stream {stream}, event {event.id}: the payload cannot be read as {self.entity.__name__}"
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
        """Times with more than six digits are cut, not rounded as the decoder would (``format.md``)."""
        members = _decode_members(payload)
        for name in self._times:
            if (raw := members.get(self.names[name])) is not None:
                members[self.names[name]] = msgspec.Raw(_FRACTION.sub(rb"\1", bytes(raw)))
        return _encode(members)
