"""The entities and result types of the public API.

All structs are frozen and keyword-only. Repositories return a new object for a changed entity. The ``repr`` shows ids, flags,
numbers and times, and hides all other text, so that entities can be logged.

In JSON, field names are in camel case, like those of the Rust crate (see docs/reference/stored-format.md). Times are in UTC,
with microseconds.
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
"""A timezone-aware datetime. Entities contain it in UTC."""

HIDDEN = "***"


class Redacted(msgspec.Struct, frozen=True, kw_only=True):
    """A struct whose ``repr`` shows flags, numbers, times and the fields named in ``_shown``.

    All other values are hidden, so a new text field is hidden by default.
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
    """Base class of all entities."""

    id: str
    """Unique within its kind. A random UUID, unless the caller chose another id."""
    created_at: Instant
    """When the entity was created, in UTC."""


class User(Entity, frozen=True, kw_only=True, rename="camel"):
    """A user: a person or a machine that can sign in."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "role"})

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    name: str | None = None
    email: str | None = None
    """Unique; compared ignoring case. The spelling is kept."""
    email_verified: bool = False
    image: str | None = None
    """URL of a picture."""
    username: str | None = None
    """Unique; compared exactly."""
    display_username: str | None = None
    """The username as it is displayed; not unique."""
    two_factor_enabled: bool = False
    """Set by the application. The library does not compare it with the second factor of the user."""
    role: str | None = None
    """One role, or several separated by commas."""
    banned: bool = False
    """Whether the user is banned. `AllsourceAuthAdapter.load_session` returns ``None`` for a banned user."""
    ban_reason: str | None = None
    ban_expires: Instant | None = None
    """End of the ban; ``None`` for a permanent ban."""
    metadata: dict[str, Any] | None = None
    """A JSON object of the application. It must not contain passwords."""


class Session(Entity, frozen=True, kw_only=True, rename="camel"):
    """A session of a user on one device."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "impersonated_by", "active_organization_id"})

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    expires_at: Instant
    """The session is expired when ``expires_at <= now``."""
    token: str
    """The key of the session and the secret that authenticates it."""
    user_id: str
    """Id of the user."""
    ip_address: str | None = None
    user_agent: str | None = None
    impersonated_by: str | None = None
    """Id of the user who acts in the name of ``user_id``, such as an administrator."""
    active_organization_id: str | None = None
    """Id of the organization that the user has selected. It may have been deleted since."""


class Account(Entity, frozen=True, kw_only=True, rename="camel"):
    """A way to sign in: a password, or an account at an identity provider.

    The pair of ``provider_id`` and ``account_id`` is unique.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "provider_id"})

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    account_id: str
    """Id of the user at the provider. For passwords, the id of the user here."""
    provider_id: str
    """Name of the provider, such as ``github``; ``credential`` for passwords."""
    user_id: str
    """Id of the user."""
    access_token: str | None = None
    refresh_token: str | None = None
    id_token: str | None = None
    access_token_expires_at: Instant | None = None
    refresh_token_expires_at: Instant | None = None
    scope: str | None = None
    """The scopes that the provider has granted, as text of the application."""
    password: str | None = None
    """A password hash. The library neither creates nor interprets it."""


class Verification(Entity, frozen=True, kw_only=True, rename="camel"):
    """A single-use proof with an expiry, such as a code sent by email.

    The id, the identifier and the value are treated as secrets: some frameworks store the secret in ``value``, others in
    ``identifier``, and the Rust crate builds the id from the identifier.
    """

    _shown: ClassVar[frozenset[str]] = frozenset()

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    identifier: str
    """What is verified, such as an email address. Several verifications can have the same one."""
    value: str
    """The value that proves it, such as a code."""
    expires_at: Instant
    """The verification is expired when ``expires_at <= now``."""


class Organization(Entity, frozen=True, kw_only=True, rename="camel"):
    """An organization: a group of users."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "slug"})

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    name: str
    slug: str
    """A short name, for example in URLs. Unique; compared exactly."""
    logo: str | None = None
    """URL of a picture."""
    metadata: dict[str, Any] | None = None
    """A JSON object of the application."""


class Member(Entity, frozen=True, kw_only=True, rename="camel"):
    """A membership of a user in an organization. The pair of ``organization_id`` and ``user_id`` is unique."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "organization_id", "user_id", "role"})

    organization_id: str
    """Id of the organization."""
    user_id: str
    """Id of the user."""
    role: str = "member"
    """One role, or several separated by commas."""

    @property
    def roles(self) -> frozenset[str]:
        """The roles in ``role``."""
        return frozenset(role.strip() for role in self.role.split(","))


InvitationStatus = Literal["pending", "accepted", "rejected", "canceled"]
"""The status of an `Invitation`."""


class Invitation(Entity, frozen=True, kw_only=True, rename="camel"):
    """An invitation to join an organization."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "organization_id", "inviter_id", "role", "status"})

    organization_id: str
    """Id of the organization."""
    email: str
    """Email address of the invited person. Compared ignoring case; not unique."""
    inviter_id: str
    """Id of the user who sent the invitation."""
    expires_at: Instant
    """The invitation is expired when ``expires_at <= now``."""
    role: str = "member"
    """The role that the member will have."""
    status: InvitationStatus = "pending"
    """``"pending"``, ``"accepted"``, ``"rejected"`` or ``"canceled"``."""


class TwoFactor(Entity, frozen=True, kw_only=True, rename="camel"):
    """The second factor of a user. A user has at most one."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id"})

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    secret: str
    """The shared secret, for example of TOTP."""
    user_id: str
    """Id of the user. Unique."""
    backup_codes: str | None = None
    """The unused backup codes, as text in a format of the application."""


class ApiKey(Entity, frozen=True, kw_only=True, rename="camel"):
    """An API key of a user, with optional expiry, quota, refill and rate limit. Only a hash of the key is stored.

    `ApiKeys.use` checks these limits and counts a use.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "prefix"})

    updated_at: Instant
    """When the entity was changed last, in UTC."""
    key_hash: str = msgspec.field(name="key")
    """A hash of the key. Unique."""
    user_id: str
    """Id of the user."""
    name: str | None = None
    start: str | None = None
    """The first characters of the key, to recognize it in a list."""
    prefix: str | None = None
    """The prefix of the key. It is shown in the ``repr``."""
    refill_interval: int | None = None
    """Milliseconds after which ``remaining`` is set to ``refill_amount``. Set both or neither."""
    refill_amount: int | None = None
    """Number of uses after a refill."""
    last_refill_at: Instant | None = None
    """When the last refill took place, in UTC; ``None`` before the first one, which counts from ``created_at``."""
    enabled: bool = True
    """Whether the key can be used."""
    rate_limit_enabled: bool = False
    """Whether the rate limit applies. It needs ``rate_limit_time_window`` and ``rate_limit_max``."""
    rate_limit_time_window: int | None = None
    """Length of the time window in milliseconds. The count restarts when this time has passed since the last use."""
    rate_limit_max: int | None = None
    """Maximum number of uses in a time window."""
    request_count: int | None = None
    """Number of uses in the current time window."""
    remaining: int | None = None
    """Number of uses that are left; ``None`` for no limit."""
    last_request: Instant | None = None
    """When the key was used last, in UTC. Written at most once a minute for a key without limits."""
    expires_at: Instant | None = None
    """The key is expired when ``expires_at <= now``; ``None`` if it never expires."""
    permissions: str | None = None
    """Permissions as JSON text of the application."""
    metadata: str | None = None
    """JSON text of the application."""


class Passkey(Entity, frozen=True, kw_only=True, rename="camel"):
    """A WebAuthn credential of a user."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "device_type"})

    public_key: str
    """The public key, in an encoding of the application."""
    user_id: str
    """Id of the user."""
    credential_id: str = msgspec.field(name="credentialID")
    """The credential id of the authenticator, in an encoding of the application. Unique."""
    name: str | None = None
    counter: int = 0
    """The signature counter that the authenticator reported last."""
    device_type: str = "singleDevice"
    """``singleDevice`` or ``multiDevice``, as in WebAuthn. Other texts are accepted."""
    backed_up: bool = False
    """Whether the authenticator reports the credential as backed up."""
    transports: str | None = None
    """The transports of the authenticator, separated by commas."""


Denial = Literal["not_found", "disabled", "expired", "usage_exceeded", "rate_limited"]
"""Why an API key cannot be used."""


class ApiKeyUse(Redacted, frozen=True, kw_only=True):
    """The result of `ApiKeys.use`: whether the key can be used now, and if not, why."""

    _shown: ClassVar[frozenset[str]] = frozenset({"reason"})

    allowed: bool
    """Whether the key can be used. If so, the use was counted."""
    reason: Denial | None = None
    """Why the key cannot be used; ``None`` if it can.

    ``"not_found"``: no key has this hash, or its user was deleted. ``"disabled"``, ``"expired"``: see `ApiKey`.
    ``"usage_exceeded"``: no use is left. ``"rate_limited"``: too many uses in the time window.
    """
    api_key: ApiKey | None = None
    """The key after the use; ``None`` if it was not found."""
    remaining: int | None = None
    """Number of uses that are left; ``None`` for no limit, or if the key was not found."""
    try_again_in: timedelta | None = None
    """Time until a refill or the end of the time window allows another use; ``None`` if neither will."""


class SessionWithUser(Redacted, frozen=True, kw_only=True):
    """A valid session and its user."""

    session: Session
    """The session."""
    user: User
    """The user of the session."""


class Page(msgspec.Struct, Generic[E], frozen=True, kw_only=True):
    """A page of a list of entities."""

    items: list[E]
    """The entities of this page."""
    total: int
    """Number of all matching entities, on all pages."""
    limit: int
    """Maximum number of entities of a page, as requested."""
    offset: int
    """Number of matching entities before this page, as requested."""

    def __repr__(self) -> str:
        return f"Page({len(self.items)} items, total={self.total}, limit={self.limit}, offset={self.offset})"
