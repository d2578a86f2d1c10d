"""The kinds of entities, one declaration each.

A `Kind` declares the names of the streams and events, the unique values, the indexes, the parents, the expiry and the secret
attributes of an entity. The engine and the repositories read these declarations. A new kind of entity needs a struct in
``entities.py`` and one declaration here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar, get_args

import msgspec

from allsource_auth import values
from allsource_auth.codec import Codec
from allsource_auth.entities import (
    HIDDEN,
    Account,
    ApiKey,
    Entity,
    Invitation,
    InvitationStatus,
    Member,
    Organization,
    Passkey,
    Session,
    TwoFactor,
    User,
    Verification,
)
from allsource_auth.errors import (
    AccountNotFound,
    ApiKeyNotFound,
    InvalidInput,
    InvitationNotFound,
    Json,
    MemberNotFound,
    NotFound,
    OrganizationNotFound,
    PasskeyNotFound,
    SessionNotFound,
    TwoFactorNotFound,
    UserNotFound,
    VerificationNotFound,
)
from allsource_auth.ids import uuid_text
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event

__all__ = [
    "ACCOUNT",
    "API_KEY",
    "INVITATION",
    "KINDS",
    "MEMBER",
    "ORGANIZATION",
    "PASSKEY",
    "SESSION",
    "TWO_FACTOR",
    "USER",
    "VERIFICATION",
    "EventLabel",
    "Index",
    "Kind",
    "Unique",
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


USER = Kind(
    name="user",
    entity=User,
    prefix="auth-user:",
    not_found=UserNotFound,
    checks={
        "name": values.text,
        "email": values.label,
        "email_verified": values.boolean,
        "image": values.text,
        "username": values.label,
        "display_username": values.text,
        "two_factor_enabled": values.boolean,
        "role": values.text,
        "banned": values.boolean,
        "ban_reason": values.text,
        "ban_expires": values.instant,
        "metadata": values.user_metadata,
    },
    unique=(Unique("email", ("email",), normalize=values.normalize_email), Unique("username", ("username",))),
    omitted_when_none=("metadata",),
)

SESSION = Kind(
    name="session",
    entity=Session,
    prefix="auth-session:",
    not_found=SessionNotFound,
    key="token",
    checks={
        "id": values.identifier,
        "user_id": values.identifier,
        "expires_at": values.instant,
        "ip_address": values.text,
        "user_agent": values.text,
        "impersonated_by": values.text,
        "active_organization_id": values.text,
    },
    indexes=(Index("user", "user_id", owner="user"),),
    expiry="expires_at",
    secrets=frozenset({"token"}),
    # 256 random bits. The Rust framework accepts only tokens with this prefix.
    make_key=lambda: f"session_{secrets.token_urlsafe(32)}",
    unguarded_creation=True,
    restorable=False,
)


ACCOUNT = Kind(
    name="account",
    entity=Account,
    prefix="auth-account:",
    not_found=AccountNotFound,
    checks={
        "user_id": values.identifier,
        "provider_id": values.label,
        "account_id": values.label,
        "access_token": values.text,
        "refresh_token": values.text,
        "id_token": values.text,
        "access_token_expires_at": values.instant,
        "refresh_token_expires_at": values.instant,
        "scope": values.text,
        "password": values.text,
    },
    unique=(Unique("provider_account", ("provider_id", "account_id")),),
    indexes=(Index("user", "user_id", owner="user"),),
    secrets=frozenset({"access_token", "refresh_token", "id_token", "password"}),
    tombstone=("provider_id", "account_id"),
    # The times of expiry belong to the tokens.
    kept_on_revert=(
        "user_id",
        "provider_id",
        "account_id",
        "access_token",
        "refresh_token",
        "id_token",
        "access_token_expires_at",
        "refresh_token_expires_at",
        "password",
    ),
)

VERIFICATION = Kind(
    name="verification",
    entity=Verification,
    prefix="auth-verification:",
    not_found=VerificationNotFound,
    checks={"identifier": values.label, "value": values.nonempty, "expires_at": values.instant},
    indexes=(Index("identifier", "identifier"), Index("value", "value")),
    expiry="expires_at",
    # Frameworks store the secret in the value or in the identifier, and ids of the Rust crate begin with the identifier.
    secrets=frozenset({"id", "identifier", "value"}),
    tombstone=("identifier",),
    restorable=False,
)

ORGANIZATION = Kind(
    name="org",
    entity=Organization,
    prefix="auth-org:",
    not_found=OrganizationNotFound,
    checks={"name": values.text, "slug": values.label, "logo": values.text, "metadata": values.json_object},
    unique=(Unique("slug", ("slug",)),),
    omitted_when_none=("metadata",),
)

MEMBER = Kind(
    name="member",
    entity=Member,
    prefix="auth-member:",
    not_found=MemberNotFound,
    checks={"organization_id": values.identifier, "user_id": values.identifier, "role": values.label},
    unique=(Unique("organization_user", ("organization_id", "user_id")),),
    indexes=(Index("organization", "organization_id", owner="org"), Index("user", "user_id", owner="user")),
    kept_on_revert=("organization_id", "user_id"),
)

INVITATION = Kind(
    name="invitation",
    entity=Invitation,
    prefix="auth-invitation:",
    not_found=InvitationNotFound,
    checks={
        "organization_id": values.identifier,
        "email": values.label,
        "inviter_id": values.identifier,
        "expires_at": values.instant,
        "role": values.label,
        "status": values.one_of(*get_args(InvitationStatus)),
    },
    indexes=(
        Index("organization", "organization_id", owner="org"),
        Index("email", "email", normalize=values.normalize_email),
        Index("inviter", "inviter_id", owner="user"),
    ),
    kept_on_revert=("organization_id", "inviter_id", "status"),
)

TWO_FACTOR = Kind(
    name="two_factor",
    entity=TwoFactor,
    prefix="auth-2fa:",
    not_found=TwoFactorNotFound,
    checks={"user_id": values.identifier, "secret": values.text, "backup_codes": values.text},
    unique=(Unique("user", ("user_id",), owner="user"),),
    secrets=frozenset({"secret", "backup_codes"}),
    kept_on_revert=("user_id", "secret", "backup_codes"),
)

API_KEY = Kind(
    name="api_key",
    entity=ApiKey,
    prefix="auth-apikey:",
    not_found=ApiKeyNotFound,
    checks={
        "user_id": values.identifier,
        "key_hash": values.label,
        "name": values.text,
        "start": values.text,
        "prefix": values.text,
        "refill_interval": values.count,
        "refill_amount": values.count,
        "last_refill_at": values.instant,
        "enabled": values.boolean,
        "rate_limit_enabled": values.boolean,
        "rate_limit_time_window": values.count,
        "rate_limit_max": values.count,
        "request_count": values.count,
        "remaining": values.count,
        "last_request": values.instant,
        "expires_at": values.instant,
        "permissions": values.text,
        "metadata": values.text,
    },
    unique=(Unique("key", ("key_hash",)),),
    indexes=(Index("user", "user_id", owner="user"),),
    expiry="expires_at",
    secrets=frozenset({"key_hash"}),
    kept_on_revert=("user_id", "key_hash", "remaining", "request_count", "last_request", "last_refill_at"),
)

PASSKEY = Kind(
    name="passkey",
    entity=Passkey,
    prefix="auth-passkey:",
    not_found=PasskeyNotFound,
    checks={
        "user_id": values.identifier,
        "credential_id": values.label,
        "public_key": values.text,
        "name": values.text,
        "counter": values.count,
        "device_type": values.label,
        "backed_up": values.boolean,
        "transports": values.text,
    },
    unique=(Unique("credential", ("credential_id",)),),
    indexes=(Index("user", "user_id", owner="user"),),
    omitted_when_none=("transports",),
    kept_on_revert=("user_id", "credential_id", "public_key", "counter"),
)


def redacted_stream(stream: str) -> str:
    """Return a stream id for error messages and logs. A key that is a secret is replaced by a marker."""
    for kind in KINDS:
        if kind.key in kind.secrets and stream.startswith(kind.prefix):
            return kind.prefix + HIDDEN
    return stream


KINDS: tuple[Kind[Any], ...] = (
    USER,
    SESSION,
    ACCOUNT,
    VERIFICATION,
    ORGANIZATION,
    MEMBER,
    INVITATION,
    TWO_FACTOR,
    API_KEY,
    PASSKEY,
)
"""The kinds of the library. Integrations may declare more, see "Kinds of applications" in docs/reference/stored-format.md."""
