"""The user database of fastapi-users."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from fastapi_users.db import BaseUserDatabase
from fastapi_users.exceptions import UserAlreadyExists
from pydantic_core import PydanticSerializationError, to_jsonable_python

from allsource_auth import entities, values
from allsource_auth.adapter import AllsourceAuthAdapter
from allsource_auth.errors import AccountNotFound, Conflict, InvalidInput, UserNotFound, VersionConflict
from allsource_auth.ids import uuid_text
from allsource_auth.integrations.fastapi_users.accounts import (
    CREDENTIAL,
    OAUTH_FIELDS,
    add_password,
    credential_of,
    emails_of,
    is_credential,
    oauth_account,
    oauth_fields,
    record_email,
)
from allsource_auth.integrations.fastapi_users.errors import OAuthAccountTaken, UserChanged, UserGone
from allsource_auth.integrations.fastapi_users.models import (
    NEVER_NONE,
    OWN,
    AllsourceBaseOAuthAccount,
    AllsourceBaseUser,
    convert,
    shape,
)
from allsource_auth.kinds import ACCOUNT, USER
from allsource_auth.repositories.load_session import is_banned

__all__ = ["NO_PASSWORD", "AllsourceUserDatabase"]

ID = TypeVar("ID")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
U = TypeVar("U", bound=AllsourceBaseUser[Any])

Change = Callable[[entities.User], Mapping[str, Any] | None]
"""Returns the changes of a user in the given state; ``None`` for no change."""

ADMIN = "admin"
"""The role that makes a user a superuser, as in better-auth's admin plugin."""

NO_PASSWORD = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"
"""The ``hashed_password`` of a user without a password: an Argon2 hash of zeros, for which no password is known."""

MAX_ATTEMPTS = 10
"""Maximum attempts of a transaction that fails with `VersionConflict`."""


class AllsourceUserDatabase(BaseUserDatabase[U, ID]):
    """A user database for a fastapi-users manager.

    It is cheap to create, so a dependency can create one per request. All of them share one adapter, which the application
    closes.

    Args:
        adapter: the adapter that stores the users.
        user_type: the application's user, a subclass of `AllsourceBaseUserUUID` or of ``AllsourceBaseUser[str]``.
        no_password: the ``hashed_password`` of a user without a password. Set it if the password helper does not accept Argon2.

    Raises `InvalidInput` if a field of ``user_type`` cannot be stored.
    """

    def __init__(self, adapter: AllsourceAuthAdapter, user_type: type[U], *, no_password: str = NO_PASSWORD) -> None:
        self._adapter = adapter
        self._type = user_type
        self._shape = shape(user_type)
        self._no_password = values.nonempty("no_password", no_password)

    async def get(self, id: ID) -> U | None:  # noqa: A002
        """Return the user with this id, or ``None``. Two concurrent reads: the user and its credential account."""
        return await self._load(str(id))

    async def get_by_email(self, email: str) -> U | None:
        """Return the user with this email (case-insensitive), or ``None``. Three reads."""
        user = await self._adapter.users.get_by_email(email)
        return None if user is None else await self._with_accounts(user, await self._accounts(user.id))

    async def get_by_oauth_account(self, oauth: str, account_id: str) -> U | None:
        """Return the user with this account of a provider, or ``None``."""
        self._shape.require_oauth()
        account = await self._adapter.accounts.get_by_provider(oauth, account_id)
        return None if account is None or oauth == CREDENTIAL else await self._load(account.user_id)

    async def create(self, create_dict: dict[str, Any]) -> U:
        """Create a user and its credential account in one transaction.

        Raises ``UserAlreadyExists`` if another user has the email (case-insensitive) or another unique value, also under
        concurrency; `InvalidInput` for a field that cannot be stored.
        """
        given = self._writable(create_dict)
        if "email" not in given:
            raise InvalidInput("email", "is missing")
        key, password = given.pop("id", None), given.pop("hashed_password", None)
        fields = self._fields(given, None)
        banned = fields.pop("banned", False)
        fields = {name: value for name, value in fields.items() if not name.startswith("ban_")}
        try:
            async with self._adapter.transaction() as tx:
                user = await tx.users.create(**fields, id=None if key is None else str(key))
                if banned:
                    user = await tx.users.update(user.id, banned=True)
                if password is not None:
                    await add_password(tx, user.id, password, id=user.id)
                # Convert the user before the commit, so that a user that the application cannot read is not stored.
                return self._read(user, password, [])
        except Conflict as conflict:
            raise UserAlreadyExists from conflict

    async def update(self, user: U, update_dict: dict[str, Any]) -> U:
        """Change the given fields atomically, and update the object ``user``.

        Raises ``UserAlreadyExists`` if another user has the email or another unique value, `UserChanged` if the password or the
        email was changed after ``user`` was read, `UserGone` if the user was deleted, `InvalidInput`.
        """
        given = self._writable(update_dict)
        if "id" in given:
            raise InvalidInput("id", "of a user cannot be changed")
        password = given.pop("hashed_password", None)
        key, known = str(user.id), user.email

        def change(before: entities.User) -> dict[str, Any] | None:
            if given.get("is_verified") and "email" not in given and before.email != known:
                raise UserChanged
            return self._fields(given, before) or None

        try:
            if password is not None:
                changed = await _retried(partial(self._set_password, user, password, change))
            else:
                changed = await self._adapter.context.collections[USER.name].change(key, change, state_dependent=False)
        except Conflict as conflict:
            raise UserAlreadyExists from conflict
        except UserNotFound:
            raise UserGone from None
        return self._refresh(user, self._read(changed, password or user.hashed_password, []))

    async def delete(self, user: U) -> None:
        """Delete a user with its sessions, accounts, memberships and keys.

        ``users.restore`` of the adapter restores the user, but not what was deleted with it.
        """
        await self._adapter.users.delete(str(user.id))

    async def add_oauth_account(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, user: U, create_dict: dict[str, Any]
    ) -> U:
        """Add an account at a provider to a user. If the user has it already, update its tokens.

        Raises `OAuthAccountTaken` if another user has the account, `UserGone` if the user was deleted, `InvalidInput`.
        """
        self._shape.require_oauth()
        key = str(user.id)
        given, email = oauth_fields(create_dict)
        try:
            # All attempts use one id. So an index entry that a failed attempt leaves on an Allsource points to the account.
            await _retried(partial(self._link, key, {**given, "id": uuid_text()}, email))
        except UserNotFound:
            raise UserGone from None
        except Conflict as conflict:
            account = await self._adapter.accounts.get_by_provider(given["provider_id"], given["account_id"])
            if account is None or account.user_id != key:
                raise OAuthAccountTaken from conflict
            await self._update_account(key, account.id, given, email)
        return await self._reload(user)

    async def update_oauth_account(  # type: ignore[override]
        self, user: U, oauth_account: AllsourceBaseOAuthAccount[Any], update_dict: dict[str, Any]
    ) -> U:
        """Store the new tokens of an account at a provider, and update the object ``oauth_account``.

        Raises `UserGone` if the user or the account was deleted, `InvalidInput`.
        """
        self._shape.require_oauth()
        whole = {name: getattr(oauth_account, name) for name in OAUTH_FIELDS} | update_dict
        given, email = oauth_fields(whole)
        if (given["provider_id"], given["account_id"]) != (oauth_account.oauth_name, oauth_account.account_id):
            raise InvalidInput("account_id", "and oauth_name of an account cannot be changed")
        noted = email == oauth_account.account_email
        try:
            await self._update_account(str(user.id), str(oauth_account.id), given, None if noted else email)
        except (UserNotFound, AccountNotFound):
            raise UserGone from None
        for name, value in update_dict.items():
            setattr(oauth_account, name, value)
        return user

    # Reading

    async def _load(self, key: str) -> U | None:
        """Return a user with its accounts. Both are read concurrently."""
        user, accounts = await _concurrently(self._adapter.users.get(key), self._accounts(key))
        return None if user is None else await self._with_accounts(user, accounts)

    async def _accounts(self, key: str) -> list[entities.Account]:
        """Return all accounts of a user if the user type has OAuth accounts, else the credential account with the user's id."""
        if self._shape.oauth:
            return await self._adapter.accounts.list_for_user(key)
        account = await self._adapter.accounts.get(key)
        return [] if account is None else [account]

    async def _with_accounts(self, user: entities.User, accounts: list[entities.Account]) -> U | None:
        if user.email is None:
            return None  # fastapi-users requires an email
        credential = next((account for account in accounts if is_credential(account, user.id)), None)
        if credential is None and not self._shape.oauth:
            credential = await self._adapter.accounts.get_by_provider(CREDENTIAL, user.id)
        return self._read(user, None if credential is None else credential.password, accounts)

    def _read(self, user: entities.User, password: str | None, accounts: list[entities.Account]) -> U:
        """Convert to the application's user type. Raises `Json` if a stored value does not fit its field."""
        metadata = user.metadata or {}
        found: dict[str, Any] = {name: metadata[name] for name in self._shape.extra if name in metadata}
        found |= {name: getattr(user, name) for name in self._shape.own}
        found |= {
            "id": user.id,
            "email": user.email,
            "hashed_password": password or self._no_password,
            "is_active": not is_banned(self._adapter.context, user),
            "is_superuser": ADMIN in _roles(user.role),
            "is_verified": user.email_verified,
        }
        if self._shape.oauth:
            emails = emails_of(user)
            others = sorted(
                (account for account in accounts if account.provider_id != CREDENTIAL),
                key=lambda account: (account.created_at, account.id),
            )
            found["oauth_accounts"] = [
                oauth_account(account, emails.get(account.id) or user.email or "") for account in others
            ]
        return convert("user", found, self._type)

    def _refresh(self, user: U, fresh: U, *, accounts: bool = False) -> U:
        """Copy the fields of ``fresh`` to ``user`` and return it, as SQLAlchemy refreshes an object of a session."""
        for name in user.__struct_fields__:
            if accounts or name != "oauth_accounts":
                setattr(user, name, getattr(fresh, name))
        return user

    async def _reload(self, user: U) -> U:
        fresh = await self._load(str(user.id))
        if fresh is None:
            raise UserGone
        return self._refresh(user, fresh, accounts=True)

    # Writing

    def _writable(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields to write. Raises `InvalidInput` for a field that cannot be written.

        ``None`` is dropped for fields that cannot be null, because schemas with optional fields send it.
        """
        found = {name: value for name, value in fields.items() if value is not None or name not in NEVER_NONE}
        for name in found:
            if name not in self._shape.writable:
                raise InvalidInput(name, f"is not a field of {self._type.__name__} that can be written")
        if "hashed_password" in found:
            values.nonempty("hashed_password", found["hashed_password"])
        return found

    def _fields(self, given: Mapping[str, Any], before: entities.User | None) -> dict[str, Any]:
        """Convert fields to checked changes of a `User`.

        ``before`` is the current state of the user, or ``None`` if the user is to be created.
        """
        found: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in given.items():
            if name == "is_verified":
                found["email_verified"] = value
            elif name == "is_active":
                active = before is None or not is_banned(self._adapter.context, before)
                if values.boolean(name, value) != active:
                    found |= {"banned": not value, "ban_reason": None, "ban_expires": None}
            elif name == "is_superuser":
                roles = _roles(None if before is None else before.role)
                if values.boolean(name, value) != (ADMIN in roles):
                    roles = [*roles, ADMIN] if value else [role for role in roles if role != ADMIN]
                    found["role"] = ",".join(roles) or None
            elif name == "email" or name in OWN:
                found[name] = value
            else:
                extra[name] = _jsonable(name, value)
        if extra:
            found["metadata"] = {**((before and before.metadata) or {}), **extra}
        return USER.checked(found)

    async def _set_password(self, user: U, password: str, change: Change) -> entities.User:
        """Replace the password of ``user`` and apply ``change`` in one transaction.

        Raises `UserChanged` if the stored password is not the one in ``user``.
        """
        key, known = str(user.id), user.hashed_password

        def replace(account: entities.Account) -> dict[str, Any]:
            if (account.password or self._no_password) != known:
                raise UserChanged
            return {"password": password}

        async with self._adapter.transaction() as tx:
            account = await credential_of(tx, key)
            # An empty change of the user, so that a user that is deleted concurrently gets no new account.
            no_change: dict[str, Any] | None = {} if account is None else None
            changed: entities.User = await tx.context.collections[USER.name].change(
                key, lambda before: change(before) or no_change, state_dependent=False
            )
            if account is not None:
                await tx.context.collections[ACCOUNT.name].change(account.id, replace)
            elif known != self._no_password:
                raise UserChanged
            else:
                await add_password(tx, key, password)
            return changed

    async def _link(self, key: str, given: Mapping[str, Any], email: str) -> None:
        async with self._adapter.transaction() as tx:
            account = await tx.accounts.create(user_id=key, **given)
            await tx.context.collections[USER.name].change(key, partial(record_email, account.id, email))

    async def _update_account(self, key: str, account: str, given: Mapping[str, Any], email: str | None) -> None:
        tokens = {name: value for name, value in given.items() if name not in ("provider_id", "account_id")}
        await self._adapter.accounts.update(account, **tokens)
        if email is not None:
            await self._adapter.context.collections[USER.name].change(
                key, partial(record_email, account, email), state_dependent=False
            )


def _roles(role: str | None) -> list[str]:
    return [found for part in (role or "").split(",") if (found := part.strip())]


def _jsonable(name: str, value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, UnicodeDecodeError):
        raise InvalidInput(name, f"is a {type(value).__name__}, which cannot be stored as JSON") from None


async def _concurrently(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Await two reads concurrently. Raises the first failure, not an exception group."""

    async def result(read: Awaitable[T]) -> T:
        return await read

    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(result(first)), group.create_task(result(second))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return one.result(), two.result()


async def _retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction and retry it on `VersionConflict`. Raises `VersionConflict` after `MAX_ATTEMPTS` attempts."""
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return await attempt()
        except VersionConflict:
            continue
    return await attempt()
