"""The declarations of the ten kinds. A new kind needs a struct in ``entities.py`` and one declaration here."""

from __future__ import annotations

import secrets
from typing import Any, get_args

from allsource_auth import values
from allsource_auth.entities import (
    HIDDEN,
    Account,
    ApiKey,
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
    InvitationNotFound,
    MemberNotFound,
    OrganizationNotFound,
    PasskeyNotFound,
    SessionNotFound,
    TwoFactorNotFound,
    UserNotFound,
    VerificationNotFound,
)
from allsource_auth.kind import Index, Kind, Unique

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
    "redacted_stream",
]

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


def redacted_stream(stream: str) -> str:
    """Return a stream id for error messages and logs. A key that is a secret is replaced by a marker."""
    for kind in KINDS:
        if kind.key in kind.secrets and stream.startswith(kind.prefix):
            return kind.prefix + HIDDEN
    return stream
