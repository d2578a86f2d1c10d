"""The mission's table as code: one declaration per kind of entity.

A kind says how its streams are called, which values are unique, in which lists it stands, whose child it is, when it
expires and what may be shown. The repositories read this table; an eleventh entity is a struct and one more declaration.
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
"""What the ids of index streams begin with: claims, lists, checkpoints, settings. A hash in them tells the tenant."""

FENCED = "auth.index.fenced"
CLAIMED = "auth.index.claimed"
RELEASED = "auth.index.released"
ADDED = "auth.index.added"
REMOVED = "auth.index.removed"
SNAPSHOT = "auth.index.snapshot"
SWEPT = "auth.index.swept"
CONFIGURED = "auth.index.configured"


class EventLabel(StrEnum):
    """The events as people read them; the dotted names travel (``auth.user.created``)."""

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
    """The hash in the names of index streams: SHA-256 of the parts joined by a zero byte (``format.md``)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Unique:
    """Values that only one living entity of a tenant may have. ``normal`` brings a value to the form that is compared.

    With ``owner``, the single attribute names an entity of that kind, and deleting it deletes the one that has the value.
    """

    field: str
    attributes: tuple[str, ...]
    normal: Callable[[str], str] = str
    owner: str | None = None

    def of(self, entity: Entity | None) -> tuple[str, ...] | None:
        """The compared values of ``entity``; ``None`` where it has none, and so takes nothing."""
        found = [getattr(entity, name, None) for name in self.attributes]
        return None if None in found else tuple(self.normal(value) for value in found if value is not None)


@dataclass(frozen=True, slots=True)
class Index:
    """A list of the entities that share ``attribute``. With ``owner``, deleting that kind's entity deletes them.

    ``normal`` brings a value to the form that is compared.
    """

    field: str
    attribute: str
    owner: str | None = None
    normal: Callable[[str], str] = str


@dataclass(frozen=True)
class Kind(Generic[E]):
    """One kind of entity.

    ``checks`` has the updatable and creatable attributes and what they accept. ``make_key`` makes the key of a new
    entity. ``unguarded`` marks the kind whose keys, made here, cannot collide, and whose creation is therefore not
    guarded. Of a kind that is not ``restorable`` a removal is final. ``kept`` are attributes that `revert` leaves as they are:
    used-up codes, counters and secrets never come back, and what an id meant in an earlier life does not change whose it is.
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
    left_out: tuple[str, ...] = ()
    tombstone: tuple[str, ...] = ()
    make_key: Callable[[], str] = uuid_text
    unguarded: bool = False
    restorable: bool = True
    kept: tuple[str, ...] = ()
    codec: Codec[E] = field(init=False, repr=False)
    parents: tuple[tuple[str, str], ...] = field(init=False, repr=False)
    """The kinds whose entities this one belongs to, each with the attribute that names the parent."""
    _room: int = field(init=False, repr=False)
    _optional: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        codec = Codec(
            self.entity, left_out=self.left_out, tombstone=self.tombstone, secret_key=self.key in self.secrets
        )
        object.__setattr__(self, "codec", codec)
        object.__setattr__(self, "_room", values.MAX_ID_BYTES - len(self.prefix))
        optional = frozenset(f.name for f in msgspec.structs.fields(self.entity) if f.default is None)
        object.__setattr__(self, "_optional", optional)
        parents = [(found.owner, found.attribute) for found in self.indexes if found.owner is not None]
        parents += [(found.owner, found.attributes[0]) for found in self.unique if found.owner is not None]
        object.__setattr__(self, "parents", tuple(parents))

    @property
    def types(self) -> str:
        """What the types of this kind's events start with."""
        return f"auth.{self.name}."

    def type(self, verb: str) -> str:
        return f"auth.{self.name}.{verb}"

    def stream(self, key: object) -> str:
        """The stream of the entity with ``key``; raises `InvalidInput` for a key that no entity can have."""
        if type(key) is str and len(key) <= self._room and values.is_plain(key):
            return self.prefix + key
        return self.prefix + values.identifier(self.key, key, prefix=self.prefix)

    def find(self, key: str) -> str | None:
        """The stream of the entity with ``key``, or ``None`` where no entity can have it. Not text: `InvalidInput`."""
        if type(key) is str and len(key) <= self._room and values.is_plain(key):
            return self.prefix + key
        if not isinstance(key, str):
            raise InvalidInput(self.key, f"must be text, not {type(key).__name__}")
        try:
            return self.stream(key)
        except InvalidInput:
            return None

    def key_of(self, stream: str) -> str:
        return stream.removeprefix(self.prefix)

    def claim_stream(self, tenant: str, unique: Unique, wanted: tuple[str, ...]) -> str:
        return f"{INDEX_PREFIX}{self.name}.{unique.field}:{digest(tenant, self.name, unique.field, *wanted)}"

    def index_stream(self, tenant: str, index: Index, value: str) -> str:
        found = digest(tenant, self.name, index.field, index.normal(value))
        return f"{INDEX_PREFIX}{self.name}.by_{index.field}:{found}"

    def checked(self, given: Mapping[str, object]) -> dict[str, Any]:
        """The given attributes as they are stored; ``None`` where the entity allows it. Raises `InvalidInput`."""
        found: dict[str, Any] = {}
        for name, value in given.items():
            if value is None and name in self._optional:
                found[name] = None
            else:
                found[name] = self.checks[name](name, value)
        return found

    def decode(self, event: Event) -> E | None:
        """The state that ``event`` holds; ``None`` for a tombstone. Raises `Json`."""
        return self.codec.decode(event)

    def readable(self, event: Event) -> E | None:
        """Like `decode`, for lists: a state that cannot be decoded is left out, so that it does not hide the others."""
        try:
            return self.codec.decode(event)
        except Json as error:
            log_suppressed("a list holds a state that cannot be decoded", error)
            return None

    def label(self, wire_type: str) -> str:
        """The label of an event of this kind; capitalised types of old writers are labels already."""
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
        "email_verified": values.flag,
        "image": values.text,
        "username": values.label,
        "display_username": values.text,
        "two_factor_enabled": values.flag,
        "role": values.text,
        "banned": values.flag,
        "ban_reason": values.text,
        "ban_expires": values.instant,
        "metadata": values.user_metadata,
    },
    unique=(Unique("email", ("email",), normal=values.folded), Unique("username", ("username",))),
    left_out=("metadata",),
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
    # 256 random bits; the Rust framework accepts tokens with this prefix only (section 10 of the design).
    make_key=lambda: f"session_{secrets.token_urlsafe(32)}",
    unguarded=True,
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
    # The expiries belong to the tokens.
    kept=(
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
    checks={"identifier": values.label, "value": values.filled, "expires_at": values.instant},
    indexes=(Index("identifier", "identifier"), Index("value", "value")),
    expiry="expires_at",
    # The Rust crate's ids begin with the identifier, and frameworks keep the secret in either of them (section D.4).
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
    left_out=("metadata",),
)

MEMBER = Kind(
    name="member",
    entity=Member,
    prefix="auth-member:",
    not_found=MemberNotFound,
    checks={"organization_id": values.identifier, "user_id": values.identifier, "role": values.label},
    unique=(Unique("organization_user", ("organization_id", "user_id")),),
    indexes=(Index("organization", "organization_id", owner="org"), Index("user", "user_id", owner="user")),
    kept=("organization_id", "user_id"),
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
        Index("email", "email", normal=values.folded),
        Index("inviter", "inviter_id", owner="user"),
    ),
    kept=("organization_id", "inviter_id", "status"),
)

TWO_FACTOR = Kind(
    name="two_factor",
    entity=TwoFactor,
    prefix="auth-2fa:",
    not_found=TwoFactorNotFound,
    checks={"user_id": values.identifier, "secret": values.text, "backup_codes": values.text},
    unique=(Unique("user", ("user_id",), owner="user"),),
    secrets=frozenset({"secret", "backup_codes"}),
    kept=("user_id", "secret", "backup_codes"),
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
        "enabled": values.flag,
        "rate_limit_enabled": values.flag,
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
    kept=("user_id", "key_hash", "remaining", "request_count", "last_request", "last_refill_at"),
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
        "backed_up": values.flag,
        "transports": values.text,
    },
    unique=(Unique("credential", ("credential_id",)),),
    indexes=(Index("user", "user_id", owner="user"),),
    left_out=("transports",),
    kept=("user_id", "credential_id", "public_key", "counter"),
)


def shown(stream: str) -> str:
    """A stream's id as it may be shown: without the key where that is a secret."""
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
"""Every kind that the library knows."""
