"""The entities as users of the library see them, and the shapes of results.

Every struct here is frozen and keyword-only. Its ``repr`` shows what identifies and dates it and hides the rest, so that
an entity may be logged. To change an entity, call its repository; a changed one comes back as a new object.

Field names in JSON are the camelCase ones that the Rust crate writes (``rust-interop.md``); times are UTC, in microseconds.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

__all__ = [
    "Account",
    "ApiKey",
    "ApiKeyUse",
    "Denial",
    "Entity",
    "Instant",
    "Invitation",
    "InvitationStatus",
    "Member",
    "Organization",
    "Page",
    "Passkey",
    "Session",
    "SessionWithUser",
    "TwoFactor",
    "User",
    "Verification",
]

E = TypeVar("E")

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A timezone-aware moment; entities hold it in UTC."""

HIDDEN = "***"


class Redacted(msgspec.Struct, frozen=True, kw_only=True):
    """A struct whose ``repr`` shows flags, numbers, times and the fields named in ``_shown``, and hides everything else.

    A field that somebody adds later is hidden until it is named: the safe side is the default.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id"})

    def __repr__(self) -> str:
        def shown(name: str) -> str:
            value = getattr(self, name)
            if isinstance(value, datetime):
                return value.isoformat()
            if value is None or isinstance(value, bool | int | float | timedelta | Redacted) or name in self._shown:
                return repr(value)
            return HIDDEN

        fields = ", ".join(f"{name}={shown(name)}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"


class Entity(Redacted, frozen=True, kw_only=True, rename="camel"):
    """What all entities have in common: an id, a time of creation, and a ``repr`` that keeps secrets."""

    id: str
    created_at: Instant


class User(Entity, frozen=True, kw_only=True, rename="camel"):
    """A person or a machine that can have sessions (section A.1 of the model).

    ``email`` is unique ignoring case and keeps its spelling; ``username`` is unique as it is written.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "role"})

    updated_at: Instant
    name: str | None = None
    email: str | None = None
    email_verified: bool = False
    image: str | None = None
    username: str | None = None
    display_username: str | None = None
    two_factor_enabled: bool = False
    role: str | None = None
    banned: bool = False
    ban_reason: str | None = None
    ban_expires: Instant | None = None
    metadata: dict[str, Any] | None = None


class Session(Entity, frozen=True, kw_only=True, rename="camel"):
    """A signed-in user on one device (section A.2 of the model). ``token`` is the secret that the device holds."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "impersonated_by", "active_organization_id"})

    updated_at: Instant
    expires_at: Instant
    token: str
    user_id: str
    ip_address: str | None = None
    user_agent: str | None = None
    impersonated_by: str | None = None
    active_organization_id: str | None = None


class Account(Entity, frozen=True, kw_only=True, rename="camel"):
    """A way to sign in: a password (``provider_id`` "credential") or an account at a provider (section A.3 of the model).

    The pair of ``provider_id`` and ``account_id`` is unique. ``password`` is a hash; the store never looks into it.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "provider_id"})

    updated_at: Instant
    account_id: str
    provider_id: str
    user_id: str
    access_token: str | None = None
    refresh_token: str | None = None
    id_token: str | None = None
    access_token_expires_at: Instant | None = None
    refresh_token_expires_at: Instant | None = None
    scope: str | None = None
    password: str | None = None


class Verification(Entity, frozen=True, kw_only=True, rename="camel"):
    """A value that proves something once, until it expires (section A.4 of the model).

    Some frameworks keep the secret in ``value``, others in ``identifier``, and the Rust crate makes the id of the identifier;
    so all three are hidden.
    """

    _shown: ClassVar[frozenset[str]] = frozenset()

    updated_at: Instant
    identifier: str
    value: str
    expires_at: Instant


class Organization(Entity, frozen=True, kw_only=True, rename="camel"):
    """A group of users (section A.5 of the model). ``slug`` is unique as it is written."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "slug"})

    updated_at: Instant
    name: str
    slug: str
    logo: str | None = None
    metadata: dict[str, Any] | None = None


class Member(Entity, frozen=True, kw_only=True, rename="camel"):
    """A user's membership of an organization (section A.6 of the model). ``role`` may name several, separated by commas."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "organization_id", "user_id", "role"})

    organization_id: str
    user_id: str
    role: str = "member"

    @property
    def roles(self) -> frozenset[str]:
        """The single roles."""
        return frozenset(role.strip() for role in self.role.split(","))


InvitationStatus = Literal["pending", "accepted", "rejected", "canceled"]


class Invitation(Entity, frozen=True, kw_only=True, rename="camel"):
    """An offer to join an organization (section A.7 of the model). ``email`` is compared ignoring case."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "organization_id", "inviter_id", "role", "status"})

    organization_id: str
    email: str
    inviter_id: str
    expires_at: Instant
    role: str = "member"
    status: InvitationStatus = "pending"


class TwoFactor(Entity, frozen=True, kw_only=True, rename="camel"):
    """A user's second factor, at most one (section A.8 of the model). ``backup_codes`` is text in the application's form."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id"})

    updated_at: Instant
    secret: str
    user_id: str
    backup_codes: str | None = None


class ApiKey(Entity, frozen=True, kw_only=True, rename="camel"):
    """A key that programs authenticate with (section A.9 of the model); only its hash is kept, which is unique.

    ``refill_interval`` and ``rate_limit_time_window`` are milliseconds. ``remaining`` ``None``: unlimited; ``expires_at``
    ``None``: never. ``permissions`` and ``metadata`` are JSON text.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "prefix"})

    updated_at: Instant
    key_hash: str = msgspec.field(name="key")
    user_id: str
    name: str | None = None
    start: str | None = None
    prefix: str | None = None
    refill_interval: int | None = None
    refill_amount: int | None = None
    last_refill_at: Instant | None = None
    enabled: bool = True
    rate_limit_enabled: bool = False
    rate_limit_time_window: int | None = None
    rate_limit_max: int | None = None
    request_count: int | None = None
    remaining: int | None = None
    last_request: Instant | None = None
    expires_at: Instant | None = None
    permissions: str | None = None
    metadata: str | None = None


class Passkey(Entity, frozen=True, kw_only=True, rename="camel"):
    """A WebAuthn credential (section A.10 of the model). ``credential_id`` is unique."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "device_type"})

    public_key: str
    user_id: str
    credential_id: str = msgspec.field(name="credentialID")
    name: str | None = None
    counter: int = 0
    device_type: str = "singleDevice"
    backed_up: bool = False
    transports: str | None = None


Denial = Literal["not_found", "disabled", "expired", "usage_exceeded", "rate_limited"]


class ApiKeyUse(Redacted, frozen=True, kw_only=True):
    """Whether a key may be used now, and if not, why.

    ``api_key`` is the key as it is after the use; ``None`` only for ``not_found``. ``remaining``: uses that are left, ``None``
    for no limit. ``try_again_in``: after which time a refill and the end of the rate window allow it again, where they do.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"reason"})

    allowed: bool
    reason: Denial | None = None
    api_key: ApiKey | None = None
    remaining: int | None = None
    try_again_in: timedelta | None = None


class SessionWithUser(Redacted, frozen=True, kw_only=True):
    """A session that is valid now, and its user."""

    session: Session
    user: User


class Page(msgspec.Struct, Generic[E], frozen=True, kw_only=True):
    """A part of a list: ``total`` counts everything that matches, before ``limit`` and ``offset``."""

    items: list[E]
    total: int
    limit: int
    offset: int

    def __repr__(self) -> str:
        return f"Page({len(self.items)} items, total={self.total}, limit={self.limit}, offset={self.offset})"
