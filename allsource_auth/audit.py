"""The audit context of writes, the metadata of events, and the changes in a history.

Events that are written inside ``with audit(actor="ada", ip="203.0.113.7"):`` have these fields in their metadata ("Metadata" in
docs/reference/stored-format.md).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from allsource_auth import values
from allsource_auth.entities import HIDDEN, Entity, Redacted
from allsource_auth.store.base import Event
from allsource_auth.version import __version__

__all__ = ["Change", "audit"]

E = TypeVar("E", bound=Entity)

MAX_AUDIT_BYTES = 512
"""Maximum size of an audit field in bytes of UTF-8."""

FORMAT = 1
"""Version of the metadata."""

LIB = f"allsource_auth/{__version__}"
_ELLIPSIS = "…"
_JSON_NAMES = {"user_agent": "userAgent", "request_id": "requestId"}

_encode = msgspec.json.Encoder().encode
_context: ContextVar[Mapping[str, str]] = ContextVar("allsource_auth.audit", default={})  # noqa: B039 - never mutated


class Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The members of an event's metadata that the library reads. Other programs may omit any of them."""

    op: str | None = None
    seq: int | None = None
    actor: str | None = None
    impersonator: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    reason: str | None = None
    restores: str | None = None
    reverted_to: str | None = None
    entity_seq: int | None = None


_decode = msgspec.json.Decoder(Metadata).decode
_EMPTY = Metadata()


def metadata_of(event: Event) -> Metadata:
    """Return the metadata of ``event``. Empty for metadata that was not written by this library."""
    try:
        return _decode(event.metadata)
    except msgspec.MsgspecError:
        return _EMPTY


def encode_metadata(*, op: str, seq: int | None = None, links: Mapping[str, Any] | None = None) -> bytes:
    """Encode the metadata of a new event, with the fields of the current audit context.

    Args:
        op: the operation id.
        seq: the sequence number of the event, if it has one.
        links: further members, such as ``restores``. They take precedence over the audit context.
    """
    members: dict[str, Any] = {"v": FORMAT, "op": op, "lib": LIB, **_context.get(), **(links or {})}
    if seq is not None:
        members["seq"] = seq
    return _encode(members)


def _truncated(value: str) -> str:
    """Return ``value`` cut to `MAX_AUDIT_BYTES`, at a character boundary."""
    data = value.encode()
    if len(data) <= MAX_AUDIT_BYTES:
        return value
    return data[: MAX_AUDIT_BYTES - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS


@contextmanager
def audit(
    *,
    actor: str | None = None,
    impersonator: str | None = None,
    ip: str | None = None,
    user_agent: str | None = None,
    request_id: str | None = None,
    reason: str | None = None,
) -> Generator[None]:
    """Record who makes a change, from where and why, in the metadata of all events written inside the block.

    The context is context-local: it applies to the current task and the tasks it starts. A nested context adds to the outer one
    and overrides fields that are given again. A field has at most 512 bytes of UTF-8; longer text is cut and ends in ``…``.

    Args:
        actor: the user, service or form that makes the change.
        impersonator: the user who acts in the name of ``actor``.
        ip: the IP address of the client.
        user_agent: the user agent of the client.
        request_id: the id of the request, to find it in the logs of the application.
        reason: why the change is made.

    Raises:
        InvalidInput: a field is not text.
    """
    given = {
        "actor": actor,
        "impersonator": impersonator,
        "ip": ip,
        "user_agent": user_agent,
        "request_id": request_id,
        "reason": reason,
    }
    fields = {
        _JSON_NAMES.get(name, name): _truncated(values.text(name, value))
        for name, value in given.items()
        if value is not None
    }
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


class Change(Redacted, Generic[E], frozen=True, kw_only=True):
    """One event in the history of an entity, with the states before and after it and the audit fields."""

    _shown: ClassVar[frozenset[str]] = frozenset({"kind", "event", "wire_type", "event_id"})

    kind: str
    """The kind of the entity, such as ``user``."""
    key: str
    """The key of the entity: its id, or the token of a session."""
    event: str
    """The readable name of the event, such as ``UserUpdated``; see `EventLabel`."""
    wire_type: str
    """The stored type of the event, such as ``auth.user.updated``."""
    event_id: str
    """The id of the event, for `Repository.as_of` and `RestorableRepository.revert`."""
    at: datetime
    """The time of the event in UTC, by the clock of the store, cut to microseconds."""
    seq: int | None
    """The sequence number of the event in its stream; ``None`` if another program wrote it."""
    state: E | None
    """The state after the event; ``None`` after a deletion."""
    before: E | None
    """The state before the event; ``None`` if the entity did not exist or was deleted then."""
    diff: dict[str, tuple[Any, Any]]
    """The attributes that changed, each with the old and the new value. Secrets are replaced by a marker."""
    actor: str | None = None
    """See `audit`, as for the next five attributes."""
    impersonator: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    reason: str | None = None
    op: str | None = None
    """The operation id. All events of one mutation, or of one transaction, have the same one."""
    restores: str | None = None
    """The id of the event whose state was restored, if the change is a restoration."""
    reverted_to: str | None = None
    """The id of the event whose state was taken, if the change is a reversion."""


def difference(before: Entity | None, after: Entity | None, secrets: frozenset[str]) -> dict[str, tuple[Any, Any]]:
    """Return the attributes in which two states differ, each with the old and the new value.

    If a state is missing, its values count as ``None``. Values of ``secrets`` are replaced by a marker.
    """
    known = after if after is not None else before
    if known is None:
        return {}
    found = {}
    for name in known.__struct_fields__:
        old, new = getattr(before, name, None), getattr(after, name, None)
        if old != new:
            hide = name in secrets
            found[name] = tuple(
                HIDDEN if hide and value is not None else _without_passwords(value) for value in (old, new)
            )
    return found  # type: ignore[return-value]  # tuples of two values


def _without_passwords(value: Any) -> Any:
    """Replace password hashes in a JSON value by a marker. Earlier versions of the Rust crate stored them in metadata."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {k: HIDDEN if k in values.PASSWORD_KEYS else _without_passwords(v) for k, v in members.items()}
    if isinstance(value, list):
        return [_without_passwords(item) for item in cast("list[object]", value)]
    return value
