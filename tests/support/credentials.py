"""The kinds that authenticate a user: how an entity is created, found, changed and stored.

Every secret contains a canary. Verifications do not belong to a user and are not included.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from allsource_auth import (
    AccountNotFound,
    AllsourceAuthAdapter,
    ApiKeyNotFound,
    NotFound,
    PasskeyNotFound,
    TwoFactorNotFound,
)
from tests.support.canaries import CANARY, email
from tests.support.clocks import START

__all__ = ["CREDENTIALS", "Credential"]

LATER = START + timedelta(days=30)


@dataclass(frozen=True)
class Credential:
    """One kind.

    ``unique`` returns the arguments of the unique value for a number. ``required`` and ``optional`` are further arguments
    of a creation besides the user; ``defaults`` are the values of omitted ones. ``find`` looks an entity up by its unique
    value. ``change`` is an update, and ``changed`` its result. ``field`` is the name of the unique value in a `Conflict`.
    ``events`` is the number of events that a creation writes.
    """

    kind: str
    repository: str
    prefix: str
    not_found: type[NotFound]
    field: str
    unique: Callable[[int], dict[str, Any]]
    required: Mapping[str, Any]
    optional: Mapping[str, Any]
    defaults: Mapping[str, Any]
    secrets: tuple[str, ...]
    find: Callable[[AllsourceAuthAdapter, Any], Awaitable[Any]]
    change: Callable[[AllsourceAuthAdapter, Any], Awaitable[Any]]
    changed: Mapping[str, Any]
    events: int
    beside: Mapping[str, str]
    """The members of a tombstone besides the id, by the attribute that they are taken from."""

    def of(self, adapter: AllsourceAuthAdapter) -> Any:
        return getattr(adapter, self.repository)

    async def make(self, adapter: AllsourceAuthAdapter, number: int = 0, **given: Any) -> Any:
        """Create an entity with the required arguments and those given."""
        return await self.of(adapter).create(**{"user_id": "u", **self.unique(number), **self.required, **given})

    def stream(self, entity: Any) -> str:
        return f"{self.prefix}{entity.id}"


ACCOUNT = Credential(
    kind="account",
    repository="accounts",
    prefix="auth-account:",
    not_found=AccountNotFound,
    field="provider_account",
    unique=lambda number: {"provider_id": "github", "account_id": email(f"a{number}")},
    required={},
    optional={
        "access_token": f"access-{CANARY}",
        "refresh_token": f"refresh-{CANARY}",
        "id_token": f"id-{CANARY}",
        "access_token_expires_at": LATER,
        "refresh_token_expires_at": LATER + timedelta(days=1),
        "scope": "read:user",
        "password": f"$argon2id${CANARY}",
    },
    defaults=dict.fromkeys(
        (
            "access_token",
            "refresh_token",
            "id_token",
            "access_token_expires_at",
            "refresh_token_expires_at",
            "scope",
            "password",
        )
    ),
    secrets=("access_token", "refresh_token", "id_token", "password"),
    find=lambda adapter, account: adapter.accounts.get_by_provider(account.provider_id, account.account_id),
    change=lambda adapter, account: adapter.accounts.update(account.id, scope="new"),
    changed={"scope": "new"},
    events=3,
    beside={"provider_id": "providerId", "account_id": "accountId"},
)

TWO_FACTOR = Credential(
    kind="two_factor",
    repository="two_factors",
    prefix="auth-2fa:",
    not_found=TwoFactorNotFound,
    field="user",
    unique=lambda number: {"user_id": f"user-{number}"},
    required={"secret": f"JBSWY3DP{CANARY}"},
    optional={"backup_codes": f'["{CANARY}-1","{CANARY}-2"]'},
    defaults={"backup_codes": None},
    secrets=("secret", "backup_codes"),
    find=lambda adapter, factor: adapter.two_factors.get_by_user(factor.user_id),
    change=lambda adapter, factor: adapter.two_factors.update_backup_codes(factor.user_id, f"new-{CANARY}"),
    changed={"backup_codes": f"new-{CANARY}"},
    events=2,
    beside={},
)

API_KEY = Credential(
    kind="api_key",
    repository="api_keys",
    prefix="auth-apikey:",
    not_found=ApiKeyNotFound,
    field="key",
    unique=lambda number: {"key_hash": f"sha256-{CANARY}-{number}"},
    required={},
    optional={
        "name": "ci",
        "start": "rs_abc",
        "prefix": "rs_",
        "refill_interval": 60_000,
        "refill_amount": 5,
        "enabled": False,
        "rate_limit_enabled": True,
        "rate_limit_time_window": 1_000,
        "rate_limit_max": 10,
        "remaining": 100,
        "expires_at": LATER,
        "permissions": '{"repo":["read"]}',
        "metadata": '{"team":"a"}',
    },
    defaults={
        "name": None,
        "start": None,
        "prefix": None,
        "refill_interval": None,
        "refill_amount": None,
        "enabled": True,
        "rate_limit_enabled": False,
        "rate_limit_time_window": None,
        "rate_limit_max": None,
        "remaining": None,
        "expires_at": None,
        "permissions": None,
        "metadata": None,
        "request_count": 0,
        "last_request": None,
        "last_refill_at": None,
    },
    secrets=("key_hash",),
    find=lambda adapter, key: adapter.api_keys.get_by_hash(key.key_hash),
    change=lambda adapter, key: adapter.api_keys.update(key.id, name="new"),
    changed={"name": "new"},
    events=3,
    beside={},
)

PASSKEY = Credential(
    kind="passkey",
    repository="passkeys",
    prefix="auth-passkey:",
    not_found=PasskeyNotFound,
    field="credential",
    unique=lambda number: {"credential_id": f"credential-{number}"},
    required={"public_key": f"pQECAyYgASFYIA-{CANARY}"},
    optional={
        "name": "laptop",
        "counter": 3,
        "device_type": "multiDevice",
        "backed_up": True,
        "transports": "internal,hybrid",
    },
    defaults={"name": None, "counter": 0, "device_type": "singleDevice", "backed_up": False, "transports": None},
    secrets=(),
    find=lambda adapter, passkey: adapter.passkeys.get_by_credential_id(passkey.credential_id),
    change=lambda adapter, passkey: adapter.passkeys.update_name(passkey.id, "new"),
    changed={"name": "new"},
    events=3,
    beside={},
)

CREDENTIALS = (ACCOUNT, TWO_FACTOR, API_KEY, PASSKEY)
