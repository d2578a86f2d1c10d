"""Who did it, from where and why: the context that writes carry, and the changes that the history tells.

Inside ``with audit(actor="ada", ip="203.0.113.7"):`` every event that is written carries these in its metadata
(``format.md``, "Metadata"). The context belongs to the task that entered it and to the tasks it starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from allsource_auth import values
from allsource_auth.entities import HIDDEN, Entity, Redacted
from allsource_auth.store.base import Event
from allsource_auth.version import __version__

__all__ = ["Change", "audit"]

E = TypeVar("E", bound=Entity)

MAX_AUDIT_BYTES = 512
FORMAT = 1
LIB = f"allsource_auth/{__version__}"
_ELLIPSIS = "…"
_WIRE_NAMES = {"user_agent": "userAgent", "request_id": "requestId"}

_encode = msgspec.json.Encoder().encode
_context: ContextVar[Mapping[str, str]] = ContextVar("allsource_auth.audit", default={})  # noqa: B039 - never mutated


class Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the metadata of an event of ours says; every key may be missing in events of others."""

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
_FOREIGN = Metadata()


def metadata_of(event: Event) -> Metadata:
    """The metadata of ``event``; an empty one where a stranger wrote something else there."""
    try:
        return _decode(event.metadata)
    except msgspec.MsgspecError:
        return _FOREIGN


def encode_metadata(*, op: str, seq: int | None = None, links: Mapping[str, Any] | None = None) -> bytes:
    """The metadata of a new event: operation, sequence, the audit context, and links such as ``restores``."""
    members: dict[str, Any] = {"v": FORMAT, "op": op, "lib": LIB, **_context.get(), **(links or {})}
    if seq is not None:
        members["seq"] = seq
    return _encode(members)


def _fitting(value: str) -> str:
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
) -> Iterator[None]:
    """Say who acts, in whose name, from where and why; every event written inside carries it.

    A context inside another one adds to it and overrides what it names again. Each text has at most 512 bytes; a longer
    one is cut and ends in an ellipsis. Raises `InvalidInput` for what is not text.
    """
    given = {
        "actor": actor,
        "impersonator": impersonator,
        "ip": ip,
        "user_agent": user_agent,
        "request_id": request_id,
        "reason": reason,
    }
    said = {
        _WIRE_NAMES.get(name, name): _fitting(values.text(name, value))
        for name, value in given.items()
        if value is not None
    }
    token = _context.set({**_context.get(), **said})
    try:
        yield
    finally:
        _context.reset(token)


class Change(Redacted, Generic[E], frozen=True, kw_only=True):
    """One event of an entity's history, with the state before and after it.

    ``event`` is the label for people (``UserUpdated``), ``wire_type`` what was stored. ``at`` is the store's time in UTC,
    cut to microseconds. ``diff`` maps each field that changed to (old, new), with secrets replaced by a marker. ``state``
    is ``None`` after a deletion, ``before`` is ``None`` for the first event and after a deletion. ``restores`` and
    ``reverted_to`` are the ids of the events whose state came back.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"kind", "event", "wire_type", "event_id"})

    kind: str
    key: str
    event: str
    wire_type: str
    event_id: str
    at: datetime
    seq: int | None
    state: E | None
    before: E | None
    diff: dict[str, tuple[Any, Any]]
    actor: str | None = None
    impersonator: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    reason: str | None = None
    op: str | None = None
    restores: str | None = None
    reverted_to: str | None = None


def difference(before: Entity | None, after: Entity | None, secrets: frozenset[str]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two states differ, as (old, new); where one state is missing, the fields that the other has."""
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
    return found  # type: ignore[return-value]  # two values each


def _without_passwords(value: Any) -> Any:
    """Metadata as it may be shown: the Rust crate used to keep password hashes in it."""
    if isinstance(value, dict):
        return {k: HIDDEN if k in values.PASSWORD_KEYS else _without_passwords(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_passwords(item) for item in value]
    return value
