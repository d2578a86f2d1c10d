"""Conversion of passwords and OAuth accounts to `Account` entities.

The email of an OAuth account is stored in the metadata of its user, because an `Account` has no field for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from allsource_auth import entities, values
from allsource_auth.errors import InvalidInput
from allsource_auth.integrations.fastapi_users.models import EMAILS
from allsource_auth.repositories import Repositories

__all__ = [
    "CREDENTIAL",
    "OAUTH_FIELDS",
    "add_password",
    "credential_of",
    "emails_of",
    "is_credential",
    "oauth_account",
    "oauth_fields",
    "record_email",
]

CREDENTIAL = "credential"
"""The ``provider_id`` of accounts that hold a password; the ``account_id`` is the id of the user."""

OAUTH_FIELDS = ("oauth_name", "account_id", "account_email", "access_token", "refresh_token", "expires_at")


def is_credential(account: entities.Account, key: str) -> bool:
    return account.provider_id == CREDENTIAL and account.user_id == key


async def credential_of(repositories: Repositories, key: str) -> entities.Account | None:
    """Return the account with a user's password, or ``None``.

    A sign-up through this module gives the account the id of the user, so it is found by key. Other accounts are found by
    provider.
    """
    account = await repositories.accounts.get(key)
    if account is not None and is_credential(account, key):
        return account
    return await repositories.accounts.get_by_provider(CREDENTIAL, key)


async def add_password(tx: Repositories, key: str, password: str, *, id: str | None = None) -> None:  # noqa: A002
    await tx.accounts.create(user_id=key, provider_id=CREDENTIAL, account_id=key, password=password, id=id)


def oauth_fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Convert an OAuth account of fastapi-users. Return the fields of an `Account`, and the email at the provider.

    Raises `InvalidInput` for an unknown field, for the provider ``credential`` and for an invalid expiry or email.
    """
    if unknown := set(given) - set(OAUTH_FIELDS):
        raise InvalidInput(min(unknown), "is not a field of an OAuth account that can be written")
    if given["oauth_name"] == CREDENTIAL:
        raise InvalidInput("oauth_name", f"must not be {CREDENTIAL!r}, the provider of accounts with a password")
    expires_at = given.get("expires_at")
    if expires_at is not None:
        expires_at = datetime.fromtimestamp(values.count("expires_at", expires_at), UTC)
    fields = {
        "provider_id": given["oauth_name"],
        "account_id": given["account_id"],
        "access_token": given["access_token"],
        "refresh_token": given.get("refresh_token"),
        "access_token_expires_at": expires_at,
    }
    return fields, values.text("account_email", given["account_email"])


def oauth_account(account: entities.Account, email: str) -> dict[str, Any]:
    """Convert an `Account` to the fields of an OAuth account of fastapi-users."""
    expires_at = account.access_token_expires_at
    return {
        "id": account.id,
        "user_id": account.user_id,
        "oauth_name": account.provider_id,
        "access_token": account.access_token or "",
        "account_id": account.account_id,
        "account_email": email,
        "expires_at": None if expires_at is None else int(expires_at.timestamp()),
        "refresh_token": account.refresh_token,
    }


def record_email(account: str, email: str, user: entities.User) -> dict[str, Any] | None:
    """Return the change of ``user`` that stores the email of an account, or ``None`` if it is stored already."""
    emails = emails_of(user)
    if emails.get(account) == email:
        return None
    return {"metadata": {**(user.metadata or {}), EMAILS: {**emails, account: email}}}


def emails_of(user: entities.User) -> dict[str, Any]:
    """Return the emails of a user's OAuth accounts, by account id."""
    emails = (user.metadata or {}).get(EMAILS)
    return cast("dict[str, object]", emails) if isinstance(emails, dict) else {}
