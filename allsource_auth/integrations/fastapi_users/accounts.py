"""A user's password and OAuth accounts as our accounts, and the emails of the latter in the user's metadata."""

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
    "with_email",
]

CREDENTIAL = "credential"
"""The provider of accounts that hold a password (section A.3 of the model)."""

OAUTH_FIELDS = ("oauth_name", "account_id", "account_email", "access_token", "refresh_token", "expires_at")


def is_credential(account: entities.Account, key: str) -> bool:
    return account.provider_id == CREDENTIAL and account.user_id == key


async def credential_of(repositories: Repositories, key: str) -> entities.Account | None:
    """The account with a user's password: under the user's id, as sign-ups here store it, else as others do."""
    account = await repositories.accounts.get(key)
    if account is not None and is_credential(account, key):
        return account
    return await repositories.accounts.get_by_provider(CREDENTIAL, key)


async def add_password(tx: Repositories, key: str, password: str, *, id: str | None = None) -> None:  # noqa: A002
    await tx.accounts.create(user_id=key, provider_id=CREDENTIAL, account_id=key, password=password, id=id)


def oauth_fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """An OAuth account as fields of our account, and the email that the provider knows."""
    if others := set(given) - set(OAUTH_FIELDS):
        raise InvalidInput(min(others), "is not a field of an OAuth account that can be written")
    if given["oauth_name"] == CREDENTIAL:
        raise InvalidInput(
            "oauth_name", f"must not be {CREDENTIAL!r}, which is what accounts with a password are called"
        )
    expires_at = given.get("expires_at")
    if expires_at is not None:
        expires_at = datetime.fromtimestamp(values.count("expires_at", expires_at), UTC)
    found = {
        "provider_id": given["oauth_name"],
        "account_id": given["account_id"],
        "access_token": given["access_token"],
        "refresh_token": given.get("refresh_token"),
        "access_token_expires_at": expires_at,
    }
    return found, values.text("account_email", given["account_email"])


def oauth_account(account: entities.Account, email: str) -> dict[str, Any]:
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


def with_email(account: str, email: str, before: entities.User) -> dict[str, Any] | None:
    """The change that notes the email of an account; ``None`` where it is noted."""
    emails = emails_of(before)
    if emails.get(account) == email:
        return None
    return {"metadata": {**(before.metadata or {}), EMAILS: {**emails, account: email}}}


def emails_of(user: entities.User) -> dict[str, Any]:
    found = (user.metadata or {}).get(EMAILS)
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}
