"""One call of each operation with its preconditions, for the tests of costs and for benchmarks.

`OPERATIONS` has the 65 operations of the storage traits of the Rust crate, by group. `BEYOND` has further ones of this
library.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from allsource_auth import (
    Account,
    AllsourceAuthAdapter,
    ApiKey,
    Invitation,
    Member,
    Organization,
    Passkey,
    Session,
    TwoFactor,
    User,
    Verification,
)

__all__ = ["BEYOND", "OPERATIONS", "Operation", "Scene"]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ADDRESS = "203.0.113.7"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"


def in_a_week() -> datetime:
    return datetime.now(UTC) + timedelta(days=7)


class Scene:
    """Creates the preconditions of one call, with unique names. ``many``: the number of entities in a list or cascade."""

    def __init__(self, adapter: AllsourceAuthAdapter, many: int = 1) -> None:
        self.to = adapter
        self.many = many

    async def name(self) -> str:
        return uuid4().hex

    async def user(self) -> User:
        name = await self.name()
        return await self.to.users.create(email=f"{name}@example.org", username=name, name="A user")

    async def deleted_user(self) -> User:
        user = await self.user()
        await self.to.users.delete(user.id)
        return user

    async def renamed_user(self) -> tuple[str, str]:
        """The id of a user, and of the event that created it."""
        user = await self.user()
        await self.to.users.update(user.id, name="Another name")
        (created,) = await self.to.users.history(user.id, limit=1)
        return user.id, created.event_id

    async def session(self, user_id: str | None = None, expires_at: datetime | None = None) -> Session:
        return await self.to.sessions.create(
            user_id=user_id or await self.name(),
            expires_at=expires_at or in_a_week(),
            ip_address=ADDRESS,
            user_agent=AGENT,
        )

    async def session_of_user(self) -> Session:
        return await self.session((await self.user()).id)

    async def account(self, user_id: str | None = None) -> Account:
        return await self.to.accounts.create(
            user_id=user_id or (await self.user()).id, provider_id="github", account_id=await self.name(), scope="user"
        )

    async def verification(
        self, identifier: str | None = None, value: str | None = None, expires_at: datetime | None = None
    ) -> Verification:
        return await self.to.verifications.create(
            identifier=identifier or await self.name(),
            value=value or await self.name(),
            expires_at=expires_at or in_a_week(),
        )

    async def organization(self) -> Organization:
        return await self.to.organizations.create(name="An organization", slug=await self.name())

    async def member(self, organization_id: str | None = None, user_id: str | None = None) -> Member:
        return await self.to.members.create(
            organization_id=organization_id or await self.name(), user_id=user_id or await self.name(), role="owner"
        )

    async def invitation(self, organization_id: str | None = None, email: str | None = None) -> Invitation:
        return await self.to.invitations.create(
            organization_id=organization_id or await self.name(),
            email=email or f"{await self.name()}@example.org",
            inviter_id=await self.name(),
            expires_at=in_a_week(),
        )

    async def two_factor(self) -> TwoFactor:
        return await self.to.two_factors.create(user_id=await self.name(), secret=await self.name(), backup_codes="[]")

    async def api_key(self, user_id: str | None = None, **given: Any) -> ApiKey:
        return await self.to.api_keys.create(
            user_id=user_id or (await self.user()).id, key_hash=await self.name(), **given
        )

    async def limited_api_key(self) -> ApiKey:
        return await self.api_key(remaining=1_000_000)

    async def passkey(self, user_id: str | None = None) -> Passkey:
        return await self.to.passkeys.create(
            user_id=user_id or (await self.user()).id, credential_id=await self.name(), public_key=await self.name()
        )

    # Several entities with one value in common

    async def with_sessions(self) -> User:
        user = await self.user()
        for _ in range(self.many):
            await self.session(user.id)
        return user

    async def expired_sessions(self) -> None:
        for _ in range(self.many):
            await self.session(expires_at=LONG_AGO)

    async def with_accounts(self) -> User:
        user = await self.user()
        for _ in range(self.many):
            await self.account(user.id)
        return user

    async def of_one_identifier(self) -> Verification:
        identifier = await self.name()
        return [await self.verification(identifier) for _ in range(self.many)][-1]

    async def of_one_value(self) -> Verification:
        value = await self.name()
        return [await self.verification(value=value) for _ in range(self.many)][-1]

    async def expired_verifications(self) -> None:
        for _ in range(self.many):
            await self.verification(expires_at=LONG_AGO)

    async def with_organizations(self) -> User:
        user = await self.user()
        for _ in range(self.many):
            await self.member((await self.organization()).id, user.id)
        return user

    async def with_members(self) -> Organization:
        organization = await self.organization()
        for _ in range(self.many):
            await self.member(organization.id)
        return organization

    async def with_invitations(self) -> Organization:
        organization = await self.organization()
        for _ in range(self.many):
            await self.invitation(organization.id)
        return organization

    async def of_one_email(self) -> Invitation:
        email = f"{await self.name()}@example.org"
        return [await self.invitation(email=email) for _ in range(self.many)][-1]

    async def with_api_keys(self) -> User:
        user = await self.user()
        for _ in range(self.many):
            await self.api_key(user.id)
        return user

    async def expired_api_keys(self) -> None:
        user = await self.user()
        for _ in range(self.many):
            await self.api_key(user.id, expires_at=LONG_AGO)

    async def with_passkeys(self) -> User:
        user = await self.user()
        for _ in range(self.many):
            await self.passkey(user.id)
        return user

    async def users(self) -> list[str]:
        return [(await self.user()).id for _ in range(self.many)]


@dataclass(frozen=True)
class Operation:
    """One operation: ``given`` creates its preconditions, ``call`` calls it on an adapter with what ``given`` returned.

    ``silent``: the call returns ``None``. Any other returns something, so that a call without effect is noticed.
    """

    name: str
    given: Callable[[Scene], Awaitable[Any]]
    call: Callable[[AllsourceAuthAdapter, Any], Awaitable[object]]
    silent: bool = False

    def __str__(self) -> str:
        return self.name


async def _sign_up(to: AllsourceAuthAdapter, name: str) -> User:
    async with to.transaction() as tx:
        user = await tx.users.create(email=f"{name}@example.org", username=name)
        await tx.accounts.create(user_id=user.id, provider_id="credential", account_id=user.id, password="$argon2$x")
        await tx.sessions.create(user_id=user.id, expires_at=in_a_week())
    return user


async def _scanned(to: AllsourceAuthAdapter, given: object) -> list[User]:
    return [user async for user in to.users.scan()]


async def _iterated(to: AllsourceAuthAdapter, user: User) -> list[object]:
    return [change async for change in to.users.iter_history(user.id)]


OPERATIONS = {
    "User": (
        Operation(
            "create_user",
            Scene.name,
            lambda to, name: to.users.create(email=f"{name}@example.org", username=name, name="A user"),
        ),
        Operation("get_user_by_id", Scene.user, lambda to, user: to.users.get(user.id)),
        Operation("get_user_by_email", Scene.user, lambda to, user: to.users.get_by_email(user.email)),
        Operation("get_user_by_username", Scene.user, lambda to, user: to.users.get_by_username(user.username)),
        Operation("update_user", Scene.user, lambda to, user: to.users.update(user.id, name="Another name")),
        Operation("delete_user", Scene.with_sessions, lambda to, user: to.users.delete(user.id), silent=True),
        Operation("list_users", Scene.user, lambda to, _: to.users.list(sort_by="email")),
    ),
    "Session": (
        Operation(
            "create_session",
            Scene.name,
            lambda to, name: to.sessions.create(
                user_id=name, expires_at=in_a_week(), ip_address=ADDRESS, user_agent=AGENT
            ),
        ),
        Operation("get_session", Scene.session, lambda to, session: to.sessions.get(session.token)),
        Operation("get_user_sessions", Scene.with_sessions, lambda to, user: to.sessions.list_for_user(user.id)),
        Operation(
            "update_session_expiry",
            Scene.session,
            lambda to, session: to.sessions.update_expiry(session.token, in_a_week()),
        ),
        Operation("delete_session", Scene.session, lambda to, session: to.sessions.delete(session.token), silent=True),
        Operation("delete_user_sessions", Scene.with_sessions, lambda to, user: to.sessions.delete_for_user(user.id)),
        Operation("delete_expired_sessions", Scene.expired_sessions, lambda to, _: to.sessions.delete_expired()),
        Operation(
            "update_session_active_organization",
            Scene.session,
            lambda to, session: to.sessions.set_active_organization(session.token, "organization"),
        ),
    ),
    "Account": (
        Operation(
            "create_account",
            Scene.name,
            lambda to, name: to.accounts.create(user_id=name, provider_id="github", account_id=name),
        ),
        Operation(
            "get_account",
            Scene.account,
            lambda to, account: to.accounts.get_by_provider(account.provider_id, account.account_id),
        ),
        Operation("get_user_accounts", Scene.with_accounts, lambda to, user: to.accounts.list_for_user(user.id)),
        Operation("update_account", Scene.account, lambda to, account: to.accounts.update(account.id, scope="gist")),
        Operation("delete_account", Scene.account, lambda to, account: to.accounts.delete(account.id), silent=True),
    ),
    "Verification": (
        Operation(
            "create_verification",
            Scene.name,
            lambda to, name: to.verifications.create(identifier=name, value=name, expires_at=in_a_week()),
        ),
        Operation(
            "get_verification",
            Scene.of_one_identifier,
            lambda to, found: to.verifications.find(found.identifier, found.value),
        ),
        Operation(
            "get_verification_by_value",
            Scene.of_one_value,
            lambda to, found: to.verifications.get_by_value(found.value),
        ),
        Operation(
            "get_verification_by_identifier",
            Scene.of_one_identifier,
            lambda to, found: to.verifications.get_by_identifier(found.identifier),
        ),
        Operation(
            "consume_verification",
            Scene.of_one_identifier,
            lambda to, found: to.verifications.consume(found.identifier, found.value),
        ),
        Operation(
            "delete_verification", Scene.verification, lambda to, found: to.verifications.delete(found.id), silent=True
        ),
        Operation(
            "delete_expired_verifications", Scene.expired_verifications, lambda to, _: to.verifications.delete_expired()
        ),
    ),
    "Organization": (
        Operation(
            "create_organization",
            Scene.name,
            lambda to, name: to.organizations.create(name="An organization", slug=name),
        ),
        Operation("get_organization_by_id", Scene.organization, lambda to, found: to.organizations.get(found.id)),
        Operation(
            "get_organization_by_slug", Scene.organization, lambda to, found: to.organizations.get_by_slug(found.slug)
        ),
        Operation(
            "update_organization",
            Scene.organization,
            lambda to, found: to.organizations.update(found.id, name="Another name"),
        ),
        Operation(
            "delete_organization", Scene.with_members, lambda to, found: to.organizations.delete(found.id), silent=True
        ),
        Operation(
            "list_user_organizations",
            Scene.with_organizations,
            lambda to, user: to.organizations.list_for_user(user.id),
        ),
    ),
    "Member": (
        Operation("create_member", Scene.name, lambda to, name: to.members.create(organization_id=name, user_id=name)),
        Operation(
            "get_member", Scene.member, lambda to, member: to.members.find(member.organization_id, member.user_id)
        ),
        Operation("get_member_by_id", Scene.member, lambda to, member: to.members.get(member.id)),
        Operation("update_member_role", Scene.member, lambda to, member: to.members.update_role(member.id, "admin")),
        Operation("delete_member", Scene.member, lambda to, member: to.members.delete(member.id), silent=True),
        Operation(
            "list_organization_members",
            Scene.with_members,
            lambda to, found: to.members.list_for_organization(found.id),
        ),
        Operation("count_organization_members", Scene.with_members, lambda to, found: to.members.count(found.id)),
        Operation("count_organization_owners", Scene.with_members, lambda to, found: to.members.count_owners(found.id)),
    ),
    "Invitation": (
        Operation(
            "create_invitation",
            Scene.name,
            lambda to, name: to.invitations.create(
                organization_id=name, email=f"{name}@example.org", inviter_id=name, expires_at=in_a_week()
            ),
        ),
        Operation("get_invitation_by_id", Scene.invitation, lambda to, found: to.invitations.get(found.id)),
        Operation(
            "get_pending_invitation",
            Scene.of_one_email,
            lambda to, found: to.invitations.find_pending(found.organization_id, found.email),
        ),
        Operation(
            "update_invitation_status",
            Scene.invitation,
            lambda to, found: to.invitations.update_status(found.id, "accepted"),
        ),
        Operation(
            "list_organization_invitations",
            Scene.with_invitations,
            lambda to, found: to.invitations.list_for_organization(found.id),
        ),
        Operation(
            "list_user_invitations", Scene.of_one_email, lambda to, found: to.invitations.list_for_email(found.email)
        ),
    ),
    "TwoFactor": (
        Operation("create_two_factor", Scene.name, lambda to, name: to.two_factors.create(user_id=name, secret=name)),
        Operation(
            "get_two_factor_by_user_id", Scene.two_factor, lambda to, found: to.two_factors.get_by_user(found.user_id)
        ),
        Operation(
            "update_two_factor_backup_codes",
            Scene.two_factor,
            lambda to, found: to.two_factors.update_backup_codes(found.user_id, "[1]"),
        ),
        Operation(
            "delete_two_factor",
            Scene.two_factor,
            lambda to, found: to.two_factors.delete_for_user(found.user_id),
            silent=True,
        ),
    ),
    "ApiKey": (
        Operation("create_api_key", Scene.name, lambda to, name: to.api_keys.create(user_id=name, key_hash=name)),
        Operation("get_api_key_by_id", Scene.api_key, lambda to, key: to.api_keys.get(key.id)),
        Operation("get_api_key_by_hash", Scene.api_key, lambda to, key: to.api_keys.get_by_hash(key.key_hash)),
        Operation("list_api_keys_by_user", Scene.with_api_keys, lambda to, user: to.api_keys.list_for_user(user.id)),
        Operation("update_api_key", Scene.api_key, lambda to, key: to.api_keys.update(key.id, name="Another name")),
        Operation("delete_api_key", Scene.api_key, lambda to, key: to.api_keys.delete(key.id), silent=True),
        Operation("delete_expired_api_keys", Scene.expired_api_keys, lambda to, _: to.api_keys.delete_expired()),
    ),
    "Passkey": (
        Operation(
            "create_passkey",
            Scene.name,
            lambda to, name: to.passkeys.create(user_id=name, credential_id=name, public_key=name),
        ),
        Operation("get_passkey_by_id", Scene.passkey, lambda to, passkey: to.passkeys.get(passkey.id)),
        Operation(
            "get_passkey_by_credential_id",
            Scene.passkey,
            lambda to, passkey: to.passkeys.get_by_credential_id(passkey.credential_id),
        ),
        Operation("list_passkeys_by_user", Scene.with_passkeys, lambda to, user: to.passkeys.list_for_user(user.id)),
        Operation(
            "update_passkey_counter",
            Scene.passkey,
            lambda to, passkey: to.passkeys.update_counter(passkey.id, 1),
        ),
        Operation(
            "update_passkey_name", Scene.passkey, lambda to, passkey: to.passkeys.update_name(passkey.id, "A name")
        ),
        Operation("delete_passkey", Scene.passkey, lambda to, passkey: to.passkeys.delete(passkey.id), silent=True),
    ),
}

BEYOND = (
    Operation("a session with its user", Scene.session_of_user, lambda to, session: to.load_session(session.token)),
    Operation("sign-up as a transaction", Scene.name, _sign_up),
    Operation(
        "acceptance of an invitation, once",
        Scene.invitation,
        lambda to, found: to.invitations.update_status(found.id, "accepted", expected="pending"),
    ),
    Operation(
        "use of a backup code, once",
        Scene.two_factor,
        lambda to, found: to.two_factors.update_backup_codes(found.user_id, "[1]", expected="[]"),
    ),
    Operation(
        "use of a passkey, once",
        Scene.passkey,
        lambda to, passkey: to.passkeys.update_counter(passkey.id, 1, expected=0),
    ),
    Operation("use of a limited API key", Scene.limited_api_key, lambda to, key: to.api_keys.use(key.key_hash)),
    Operation(
        "change of an email",
        Scene.user,
        lambda to, user: to.users.update(user.id, email=f"new-{user.email}"),
    ),
    Operation("one by key", Scene.account, lambda to, account: to.accounts.get(account.id)),
    Operation("many by key", Scene.users, lambda to, keys: to.users.get_many(keys)),
    Operation("existence", Scene.user, lambda to, user: to.users.exists(user.id)),
    Operation("all entities", Scene.user, _scanned),
    Operation("history", Scene.user, lambda to, user: to.users.history(user.id)),
    Operation("history of any length", Scene.user, _iterated),
    Operation("state at a time", Scene.renamed_user, lambda to, past: to.users.as_of(*past)),
    Operation("restore", Scene.deleted_user, lambda to, user: to.users.restore(user.id)),
    Operation("revert", Scene.renamed_user, lambda to, past: to.users.revert(*past)),
)
