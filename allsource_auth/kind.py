"""`Kind`: the declaration of a kind of entity, with its unique constraints and secondary indexes.

A `Kind` declares the names of the streams and events, the unique values, the indexes, the parents, the expiry and the secret
attributes of an entity. The engine and the repositories read it. The kinds of the library are declared in ``kinds.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from allsource_auth import values
from allsource_auth.codec import Codec
from allsource_auth.entities import Entity
from allsource_auth.errors import InvalidInput, Json, NotFound
from allsource_auth.ids import uuid_text
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event

__all__ = [
    "ADDED",
    "CLAIMED",
    "CONFIGURED",
    "FENCED",
    "INDEX_PREFIX",
    "RELEASED",
    "REMOVED",
    "SNAPSHOT",
    "SWEPT",
    "Check",
    "EventLabel",
    "Index",
    "Kind",
    "Unique",
    "digest",
]

E = TypeVar("E", bound=Entity)

Check = Callable[[str, object], Any]
"""Takes a field's name and a value; returns the value to store or raises `InvalidInput`."""

INDEX_PREFIX = "auth-idx:"
"""Prefix of the ids of index streams (claims, index entries, checkpoints, settings). A hash in the id includes the tenant."""

FENCED = "auth.index.fenced"
CLAIMED = "auth.index.claimed"
RELEASED = "auth.index.released"
ADDED = "auth.index.added"
REMOVED = "auth.index.removed"
SNAPSHOT = "auth.index.snapshot"
SWEPT = "auth.index.swept"
CONFIGURED = "auth.index.configured"


class EventLabel(StrEnum):
    """Readable names of event types, as in `Change.event`. Stores use dotted types such as ``auth.user.created``."""

    USER_CREATED = "UserCreated"
    USER_UPDATED = "UserUpdated"
    USER_DELETED = "UserDeleted"
    SESSION_CREATED = "SessionCreated"
    SESSION_UPDATED = "SessionUpdated"
    SESSION_EXPIRY_UPDATED = "SessionExpiryUpdated"
    SESSION_DELETED = "SessionDeleted"
    ACCOUNT_CREATED = "AccountCreated"
    ACCOUNT_UPDATED = "AccountUpdated"
    ACCOUNT_DELETED = "AccountDeleted"
    VERIFICATION_CREATED = "VerificationCreated"
    VERIFICATION_CONSUMED = "VerificationConsumed"
    VERIFICATION_DELETED = "VerificationDeleted"
    ORG_CREATED = "OrgCreated"
    ORG_UPDATED = "OrgUpdated"
    ORG_DELETED = "OrgDeleted"
    MEMBER_CREATED = "MemberCreated"
    MEMBER_UPDATED = "MemberUpdated"
    MEMBER_DELETED = "MemberDeleted"
    INVITATION_CREATED = "InvitationCreated"
    INVITATION_UPDATED = "InvitationUpdated"
    INVITATION_DELETED = "InvitationDeleted"
    TWO_FACTOR_CREATED = "TwoFactorCreated"
    TWO_FACTOR_UPDATED = "TwoFactorUpdated"
    TWO_FACTOR_DELETED = "TwoFactorDeleted"
    API_KEY_CREATED = "ApiKeyCreated"
    API_KEY_UPDATED = "ApiKeyUpdated"
    API_KEY_DELETED = "ApiKeyDeleted"
    PASSKEY_CREATED = "PasskeyCreated"
    PASSKEY_UPDATED = "PasskeyUpdated"
    PASSKEY_DELETED = "PasskeyDeleted"
    FENCED = "Fenced"


def digest(*parts: str) -> str:
    """Hash in the ids of index streams: SHA-256 in hexadecimal of the parts, joined by a zero byte.

    See "Index streams" in docs/reference/stored-format.md.
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique constraint: at most one living entity of a tenant has the same values of ``attributes``.

    Attributes:
        field: name of the constraint, in stream ids and in `Conflict`.
        attributes: the attributes that are compared together.
        normalize: converts each value to the form that is compared.
        owner: name of the parent kind, if the single attribute holds the key of a parent. Deleting the parent deletes the
            entity.
    """

    field: str
    attributes: tuple[str, ...]
    normalize: Callable[[str], str] = str
    owner: str | None = None

    def value_of(self, entity: Entity | None) -> tuple[str, ...] | None:
        """Return the normalized values of ``entity``, or ``None`` if one is missing. Missing values are not constrained."""
        found = [getattr(entity, name, None) for name in self.attributes]
        return None if None in found else tuple(self.normalize(value) for value in found if value is not None)


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index: finds the entities with a given value of ``attribute``.

    Attributes:
        field: name of the index, in stream ids.
        attribute: the indexed attribute.
        owner: name of the parent kind, if the attribute holds the key of a parent. Deleting the parent deletes the entities.
        normalize: converts a value to the form that is compared.
    """

    field: str
    attribute: str
    owner: str | None = None
    normalize: Callable[[str], str] = str


@dataclass(frozen=True)
class Kind(Generic[E]):
    """One kind of entity.

    Attributes:
        name: name of the kind, in event types and errors.
        entity: the struct that payloads are decoded into.
        prefix: prefix of the ids of entity streams.
        checks: the attributes that can be given, each with the function that validates its values.
        not_found: the error that is raised if an entity does not exist.
        key: the attribute whose value follows ``prefix`` in the id of the stream.
        unique: the unique constraints.
        indexes: the secondary indexes.
        expiry: the attribute with the time of expiry, if the kind has one.
        secrets: attributes whose values are hidden in histories and errors.
        omitted_when_none: attributes that a payload omits if they are ``None``, instead of writing ``null``.
        tombstone: attributes that a tombstone repeats besides the id.
        make_key: generates the key of a new entity.
        unguarded_creation: whether a creation under a generated key is appended without a guard. Only for keys that are too
            random to collide.
        restorable: whether a deleted entity can be restored. Otherwise a deletion is final.
        kept_on_revert: attributes that keep their current values in `revert`: secrets, used codes and counters, which must
            not return, and the owner. An id that was deleted and created again may have had another owner before.
    """

    name: str
    entity: type[E]
    prefix: str
    checks: Mapping[str, Check]
    not_found: type[NotFound]
    key: str = "id"
    unique: tuple[Unique, ...] = ()
    indexes: tuple[Index, ...] = ()
    expiry: str | None = None
    secrets: frozenset[str] = frozenset()
    omitted_when_none: tuple[str, ...] = ()
    tombstone: tuple[str, ...] = ()
    make_key: Callable[[], str] = uuid_text
    unguarded_creation: bool = False
    restorable: bool = True
    kept_on_revert: tuple[str, ...] = ()
    codec: Codec[E] = field(init=False, repr=False)
    parents: tuple[tuple[str, str], ...] = field(init=False, repr=False)
    """The kinds of the parents, each with the attribute that holds the key of the parent."""
    _max_key_length: int = field(init=False, repr=False)
    _optional: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        codec = Codec(
            self.entity,
            omitted_when_none=self.omitted_when_none,
            tombstone=self.tombstone,
            secret_key=self.key in self.secrets,
        )
        object.__setattr__(self, "codec", codec)
        object.__setattr__(self, "_max_key_length", values.MAX_ID_BYTES - len(self.prefix))
        optional = frozenset(f.name for f in msgspec.structs.fields(self.entity) if f.default is None)
        object.__setattr__(self, "_optional", optional)
        parents = [(found.owner, found.attribute) for found in self.indexes if found.owner is not None]
        parents += [(found.owner, found.attributes[0]) for found in self.unique if found.owner is not None]
        object.__setattr__(self, "parents", tuple(parents))

    @property
    def types(self) -> str:
        """Prefix of the event types of this kind."""
        return f"auth.{self.name}."

    def type(self, verb: str) -> str:
        """Return the event type for ``verb``, such as ``created``."""
        return f"auth.{self.name}.{verb}"

    def stream(self, key: object) -> str:
        """Return the id of the stream of the entity with ``key``. Raises `InvalidInput` for an invalid key."""
        if type(key) is str and len(key) <= self._max_key_length and values.is_plain(key):
            return self.prefix + key
        return self.prefix + values.identifier(self.key, key, prefix=self.prefix)

    def find_stream(self, key: str) -> str | None:
        """Return the id of the stream of the entity with ``key``, or ``None`` for text that is not a valid key.

        Raises `InvalidInput` if the key is not text.
        """
        if type(key) is str and len(key) <= self._max_key_length and values.is_plain(key):
            return self.prefix + key
        values.string(self.key, key)
        try:
            return self.stream(key)
        except InvalidInput:
            return None

    def key_of(self, stream: str) -> str:
        """Return the key of the entity whose stream has the id ``stream``."""
        return stream.removeprefix(self.prefix)

    def claim_stream(self, tenant: str, unique: Unique, wanted: tuple[str, ...]) -> str:
        """Return the id of the claim stream of normalized unique values."""
        return f"{INDEX_PREFIX}{self.name}.{unique.field}:{digest(tenant, self.name, unique.field, *wanted)}"

    def index_stream(self, tenant: str, index: Index, value: str) -> str:
        """Return the id of the index stream of a value."""
        found = digest(tenant, self.name, index.field, index.normalize(value))
        return f"{INDEX_PREFIX}{self.name}.by_{index.field}:{found}"

    def checked(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Validate attributes and return the values to store. Raises `InvalidInput`.

        ``None`` is valid for attributes whose default is ``None``.
        """
        found: dict[str, Any] = {}
        for name, value in given.items():
            if value is None and name in self._optional:
                found[name] = None
            else:
                found[name] = self.checks[name](name, value)
        return found

    def decode(self, event: Event) -> E | None:
        """Return the state in ``event``, or ``None`` for a tombstone. Raises `Json` if the payload cannot be decoded."""
        return self.codec.decode(event)

    def decode_if_readable(self, event: Event) -> E | None:
        """Like `decode`, but return ``None`` for a state that cannot be decoded, and log it.

        For reads of many entities, so that one invalid event does not hide the others.
        """
        try:
            return self.codec.decode(event)
        except Json as error:
            log_suppressed("a state cannot be decoded and is skipped", error)
            return None

    def label(self, wire_type: str) -> str:
        """Return the label of an event type of this kind. Other types, such as the capitalized ones of old writers, are
        returned unchanged.
        """
        if wire_type == FENCED:
            return EventLabel.FENCED
        if not wire_type.startswith(self.types):
            return wire_type
        words = f"{self.name}_{wire_type.removeprefix(self.types)}".replace(".", "_").split("_")
        text = "".join(word.capitalize() for word in words)
        try:
            return EventLabel(text)
        except ValueError:
            return text
