"""One entity of each kind, created with the required arguments only, and its streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from allsource_auth import AllsourceAuthAdapter
from tests.support.canaries import token
from tests.support.clocks import START
from tests.support.names import hashed

__all__ = ["SAMPLES", "Sample", "list_of", "sample_of"]

LATER = START + timedelta(days=7)
AT_START = "2026-11-23T12:00:00.000000Z"

Touch = Callable[[AllsourceAuthAdapter, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Sample:
    """A kind for the tests of all kinds.

    ``given``: the required arguments of `create`. ``touch`` updates an entity, and ``touched`` are the members that change
    in its payload (verifications have no updates). ``optional``: the keys that are omitted without a value. ``lists``: the
    methods that list entities, each with the attribute that is its argument.
    """

    name: str
    repository: str
    prefix: str
    given: dict[str, Any] = field(default_factory=dict)
    touch: Touch | None = None
    touched: dict[str, Any] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    key: str = "id"
    lists: tuple[tuple[str, str], ...] = ()
    restorable: bool = True

    def of(self, adapter: AllsourceAuthAdapter) -> Any:
        return getattr(adapter, self.repository)

    async def create(self, adapter: AllsourceAuthAdapter, **given: Any) -> Any:
        return await self.of(adapter).create(**{**self.given, **given})

    def key_of(self, entity: Any) -> str:
        found: str = getattr(entity, self.key)
        return found

    def stream(self, entity: Any) -> str:
        return self.prefix + self.key_of(entity)

    def __str__(self) -> str:
        return self.name


SAMPLES = (
    Sample(
        "user",
        "users",
        "auth-user:",
        touch=lambda adapter, user: adapter.users.update(user.id, name="new"),
        touched={"name": "new", "updatedAt": AT_START},
        optional=frozenset({"metadata"}),
    ),
    Sample(
        "session",
        "sessions",
        "auth-session:",
        {"user_id": "u", "expires_at": LATER},
        touch=lambda adapter, session: adapter.sessions.set_active_organization(session.token, "o"),
        touched={"activeOrganizationId": "o", "updatedAt": AT_START},
        key="token",
        lists=(("list_for_user", "user_id"),),
        restorable=False,
    ),
    Sample(
        "account",
        "accounts",
        "auth-account:",
        {"user_id": "u", "provider_id": "github", "account_id": "a"},
        touch=lambda adapter, account: adapter.accounts.update(account.id, scope="new"),
        touched={"scope": "new", "updatedAt": AT_START},
        lists=(("list_for_user", "user_id"),),
    ),
    Sample(
        "verification",
        "verifications",
        "auth-verification:",
        {"identifier": token("i"), "value": token("v"), "expires_at": LATER},
        restorable=False,
    ),
    Sample(
        "org",
        "organizations",
        "auth-org:",
        {"name": "Acme", "slug": "acme"},
        touch=lambda adapter, organization: adapter.organizations.update(organization.id, name="new"),
        touched={"name": "new", "updatedAt": AT_START},
        optional=frozenset({"metadata"}),
    ),
    Sample(
        "member",
        "members",
        "auth-member:",
        {"organization_id": "o", "user_id": "u"},
        touch=lambda adapter, member: adapter.members.update_role(member.id, "new"),
        touched={"role": "new"},
        lists=(("list_for_organization", "organization_id"),),
    ),
    Sample(
        "invitation",
        "invitations",
        "auth-invitation:",
        {"organization_id": "o", "email": "guest@example.org", "inviter_id": "u", "expires_at": LATER},
        touch=lambda adapter, invitation: adapter.invitations.update_status(invitation.id, "rejected"),
        touched={"status": "rejected"},
        lists=(("list_for_organization", "organization_id"), ("list_for_email", "email")),
    ),
    Sample(
        "two_factor",
        "two_factors",
        "auth-2fa:",
        {"user_id": "u", "secret": token("s")},
        touch=lambda adapter, factor: adapter.two_factors.update_backup_codes(factor.user_id, "new"),
        touched={"backupCodes": "new", "updatedAt": AT_START},
    ),
    Sample(
        "api_key",
        "api_keys",
        "auth-apikey:",
        {"user_id": "u", "key_hash": token("h")},
        touch=lambda adapter, key: adapter.api_keys.update(key.id, name="new"),
        touched={"name": "new", "updatedAt": AT_START},
        lists=(("list_for_user", "user_id"),),
    ),
    Sample(
        "passkey",
        "passkeys",
        "auth-passkey:",
        {"user_id": "u", "credential_id": "c", "public_key": "p"},
        touch=lambda adapter, passkey: adapter.passkeys.update_name(passkey.id, "new"),
        touched={"name": "new"},
        optional=frozenset({"transports"}),
        lists=(("list_for_user", "user_id"),),
    ),
)


def sample_of(kind: str) -> Sample:
    return next(sample for sample in SAMPLES if sample.name == kind)


def list_of(kind: str, field: str, value: str, *, tenant: str = "default") -> str:
    """The index stream of a list, by ``docs/reference/stored-format.md``."""
    return f"auth-idx:{kind}.by_{field}:{hashed(tenant, kind, field, value)}"
