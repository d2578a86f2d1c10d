"""The databases of ``fastapi-users`` over the store: users with their password and OAuth accounts, and access tokens.

Nothing is kept twice: a user is a `User` and its credential `Account`, an access token is a `Session`, so that whatever else
reads the store (the repositories, `load_session`, better-auth) sees the same people, and the audit trail covers all of it.

| fastapi-users | here |
|---|---|
| ``email``, ``is_verified`` | the user's ``email``, ``email_verified`` |
| ``hashed_password`` | the ``password`` of the account ``("credential", user id)`` |
| ``is_active`` | not ``banned`` at this moment |
| ``is_superuser`` | ``admin`` is one of the user's ``role`` |
| OAuth account | an account with the provider's name |
| access token | a session |
| ``name``, ``image``, ``username``, ``display_username`` | the user's fields of that name |
| other fields of the application | keys of the user's ``metadata`` |

Extra: ``fastapi-users``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

try:
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse
    from fastapi_users.authentication.strategy.db import AccessTokenDatabase
    from fastapi_users.db import BaseUserDatabase
    from fastapi_users.exceptions import (
        InvalidID,
        InvalidResetPasswordToken,
        InvalidVerifyToken,
        UserAlreadyExists,
        UserNotExists,
    )
    from fastapi_users.router.common import ErrorCode
    from pydantic_core import PydanticSerializationError, to_jsonable_python
except ModuleNotFoundError as missing:
    raise ImportError("this module needs fastapi-users: pip install 'allsource-auth[fastapi-users]'") from missing

from .. import entities, values
from ..adapter import AllsourceAuthAdapter
from ..errors import (
    AccountNotFound,
    AllsourceAuthError,
    Conflict,
    Http,
    InvalidInput,
    Json,
    NotFound,
    Overloaded,
    RateLimited,
    Storage,
    Unavailable,
    UserNotFound,
    VersionConflict,
)
from ..ids import uuid_text
from ..repositories.group import Repositories
from ..repositories.load_session import is_banned

__all__ = [
    "NO_PASSWORD",
    "AllsourceAccessTokenDatabase",
    "AllsourceBaseAccessToken",
    "AllsourceBaseAccessTokenUUID",
    "AllsourceBaseOAuthAccount",
    "AllsourceBaseOAuthAccountUUID",
    "AllsourceBaseUser",
    "AllsourceBaseUserUUID",
    "AllsourceUserDatabase",
    "OAuthAccountTaken",
    "StringIDMixin",
    "UserChanged",
    "UserGone",
    "add_exception_handlers",
]

ID = TypeVar("ID")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

CREDENTIAL = "credential"
"""The provider of accounts that hold a password (section A.3 of the model)."""

ADMIN = "admin"
"""The role that makes a user a superuser, as in better-auth's admin plugin."""

NO_PASSWORD = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"
"""The ``hashed_password`` of a user who has none: a hash of zeros, which nobody knows a password for."""

OWN = ("name", "image", "username", "display_username")
"""Fields of an application's user that are fields of ours."""

DATES = ("created_at", "updated_at")
"""Fields of ours that an application's user may have to read them."""

EMAILS = "oauth_account_emails"
"""The key of a user's metadata with the emails that providers know it by, by account: accounts have no such field."""

TIMES = 10
"""How often a transaction is begun again whose state was changed by others."""

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""The expiry of a session that has none."""

RETRY_AFTER = 1
"""Seconds that a client is told to wait when the store did not say so."""


class _Shown(msgspec.Struct):
    """A struct that may be changed, and whose ``repr`` has its id and flags only."""

    def __repr__(self) -> str:
        shown = (name for name in self.__struct_fields__ if name == "id" or isinstance(getattr(self, name), bool))
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


class AllsourceBaseUser(_Shown, Generic[ID], kw_only=True):
    """A user as fastapi-users wants it. An application makes a subclass, with fields of its own if it likes.

    Fields of its own need a default, because users that others wrote do not have them; a field
    ``oauth_accounts: list[OAuthAccount] = []`` brings the OAuth accounts.
    """

    id: ID
    email: str
    hashed_password: str
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False


class AllsourceBaseUserUUID(AllsourceBaseUser[uuid.UUID], kw_only=True):
    """A user whose id is a UUID, as the library makes them: with ``fastapi_users.UUIDIDMixin`` for its manager."""


class AllsourceBaseOAuthAccount(_Shown, Generic[ID], kw_only=True):
    """A user's account at an OAuth provider. ``expires_at``: seconds since the epoch."""

    id: ID
    user_id: ID
    oauth_name: str
    access_token: str
    account_id: str
    account_email: str
    expires_at: int | None = None
    refresh_token: str | None = None


class AllsourceBaseOAuthAccountUUID(AllsourceBaseOAuthAccount[uuid.UUID], kw_only=True):
    """An OAuth account with UUIDs."""


class AllsourceBaseAccessToken(_Shown, Generic[ID], kw_only=True):
    """A session as fastapi-users wants it. A subclass may have more of a session's fields, such as ``impersonated_by``."""

    token: str
    user_id: ID
    created_at: datetime
    expires_at: datetime
    ip_address: str | None = None
    user_agent: str | None = None


class AllsourceBaseAccessTokenUUID(AllsourceBaseAccessToken[uuid.UUID], kw_only=True):
    """A session of a user whose id is a UUID."""


Wish = Callable[[entities.User], Mapping[str, Any] | None]
"""What is to change of a user in this state; ``None`` for nothing."""

U = TypeVar("U", bound=AllsourceBaseUser[Any])
AT = TypeVar("AT", bound=AllsourceBaseAccessToken[Any])


class StringIDMixin:
    """For the manager of users whose ids are any text, such as those that better-auth makes."""

    def parse_id(self, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidID
        return value


class UserGone(UserNotExists, HTTPException):
    """The user was deleted while it was being changed; 404 where fastapi-users does not answer itself."""

    def __init__(self) -> None:
        HTTPException.__init__(self, 404, "USER_GONE")


class UserChanged(InvalidResetPasswordToken, InvalidVerifyToken, HTTPException):
    """What a change rests on was changed by somebody else since the user was read; nothing was stored.

    A new password replaces the one that the user had when it was read, and a verification is of the email that it had then. So
    a token to reset a password works once, also for those who use it at the same time, a login that renews an old hash never
    brings the old password back, and no email is verified by the token of another. fastapi-users answers 400
    with its code for a bad token; elsewhere it is 409.
    """

    def __init__(self) -> None:
        HTTPException.__init__(self, 409, "USER_CHANGED")


class OAuthAccountTaken(UserAlreadyExists, HTTPException):
    """Another user has this account of the provider; 400 ``OAUTH_USER_ALREADY_EXISTS`` from both of the OAuth routers."""

    def __init__(self) -> None:
        HTTPException.__init__(self, 400, ErrorCode.OAUTH_USER_ALREADY_EXISTS)


class AllsourceUserDatabase(BaseUserDatabase[U, ID]):
    """The users of an adapter, for a fastapi-users manager.

    Cheap to make, so a dependency may make one for each request; all may share one adapter, which the application closes.

    Args:
        adapter: where the users are.
        user_type: the application's user, a subclass of `AllsourceBaseUserUUID` or of ``AllsourceBaseUser[str]``.
        no_password: the ``hashed_password`` of a user without one; for a password helper that does not read Argon2.

    Raises `InvalidInput` for a user type whose fields cannot be kept.
    """

    def __init__(self, adapter: AllsourceAuthAdapter, user_type: type[U], *, no_password: str = NO_PASSWORD) -> None:
        self._adapter = adapter
        self._type = user_type
        self._shape = _shape(user_type)
        self._no_password = values.filled("no_password", no_password)

    async def get(self, id: ID) -> U | None:  # noqa: A002
        """The user with this id, or ``None``. Two reads at the same time, of the user and of its credential account."""
        return await self._load(str(id))

    async def get_by_email(self, email: str) -> U | None:
        """The user with this email, in any capitals, or ``None``. Three reads."""
        user = await self._adapter.users.get_by_email(email)
        return None if user is None else await self._whole(user, await self._accounts(user.id))

    async def get_by_oauth_account(self, oauth: str, account_id: str) -> U | None:
        """The user with this account of a provider, or ``None``."""
        self._shape.require_oauth()
        account = await self._adapter.accounts.get_by_provider(oauth, account_id)
        return None if account is None or oauth == CREDENTIAL else await self._load(account.user_id)

    async def create(self, create_dict: dict[str, Any]) -> U:
        """Sign a user up: the user and its credential account in one transaction.

        Raises ``UserAlreadyExists`` if somebody has the email (in any capitals) or another unique value, also if they came
        at the same moment; `InvalidInput` for a field that cannot be stored.
        """
        given = self._given(create_dict)
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
                    await _add_password(tx, user.id, password, id=user.id)
                # Before anything is sent, so that what the application cannot read is never stored.
                return self._read(user, password, [])
        except Conflict as conflict:
            raise UserAlreadyExists from conflict

    async def update(self, user: U, update_dict: dict[str, Any]) -> U:
        """Change the given fields, all of them or none; ``user`` itself is brought up to date.

        Raises ``UserAlreadyExists`` for an email, or another unique value, that somebody has; `UserChanged`, `UserGone`;
        `InvalidInput`.
        """
        given = self._given(update_dict)
        if "id" in given:
            raise InvalidInput("id", "of a user cannot be changed")
        password = given.pop("hashed_password", None)
        key, known = str(user.id), user.email

        def wish(before: entities.User) -> dict[str, Any] | None:
            if given.get("is_verified") and "email" not in given and before.email != known:
                raise UserChanged
            return self._fields(given, before) or None

        try:
            if password is not None:
                changed = await _again(partial(self._set_password, user, password, wish))
            else:
                changed = await self._adapter.users._change(key, wish, once=False)
        except Conflict as conflict:
            raise UserAlreadyExists from conflict
        except UserNotFound:
            raise UserGone from None
        return self._refreshed(user, self._read(changed, password or user.hashed_password, []))

    async def delete(self, user: U) -> None:
        """Delete a user with everything that is its own: sessions, accounts, memberships, keys. It can be restored."""
        await self._adapter.users.delete(str(user.id))

    async def add_oauth_account(self, user: U, create_dict: dict[str, Any]) -> U:
        """Give a user an account at a provider. One that it has already is brought up to date.

        Raises `OAuthAccountTaken` if another user has it, `UserGone`, `InvalidInput`.
        """
        self._shape.require_oauth()
        key = str(user.id)
        given, email = _oauth_fields(create_dict)
        try:
            # One id for all attempts: what a refused one leaves on Allsource, an entry of a list, then leads to the account.
            await _again(partial(self._link, key, {**given, "id": uuid_text()}, email))
        except UserNotFound:
            raise UserGone from None
        except Conflict as conflict:
            account = await self._adapter.accounts.get_by_provider(given["provider_id"], given["account_id"])
            if account is None or account.user_id != key:
                raise OAuthAccountTaken from conflict
            await self._renew(key, account.id, given, email)
        return await self._reloaded(user)

    async def update_oauth_account(  # type: ignore[override]
        self, user: U, oauth_account: AllsourceBaseOAuthAccount[Any], update_dict: dict[str, Any]
    ) -> U:
        """Store the new tokens of an account at a provider; ``oauth_account`` itself is brought up to date.

        Raises `UserGone`, also if the account is gone; `InvalidInput`.
        """
        self._shape.require_oauth()
        whole = {name: getattr(oauth_account, name) for name in OAUTH_FIELDS} | update_dict
        given, email = _oauth_fields(whole)
        if (given["provider_id"], given["account_id"]) != (oauth_account.oauth_name, oauth_account.account_id):
            raise InvalidInput("account_id", "and oauth_name of an account cannot be changed")
        noted = email == oauth_account.account_email
        try:
            await self._renew(str(user.id), str(oauth_account.id), given, None if noted else email)
        except (UserNotFound, AccountNotFound):
            raise UserGone from None
        for name, value in update_dict.items():
            setattr(oauth_account, name, value)
        return user

    # Reading

    async def _load(self, key: str) -> U | None:
        """The user with its accounts, read at the same time."""
        user, accounts = await _both(self._adapter.users.get(key), self._accounts(key))
        return None if user is None else await self._whole(user, accounts)

    async def _accounts(self, key: str) -> list[entities.Account]:
        """All accounts of a user if the user type shows them, else the one where a sign-up here puts the password."""
        if self._shape.oauth:
            return await self._adapter.accounts.list_for_user(key)
        account = await self._adapter.accounts.get(key)
        return [] if account is None else [account]

    async def _whole(self, user: entities.User, accounts: list[entities.Account]) -> U | None:
        if user.email is None:
            return None  # without an email it is none to fastapi-users
        credential = next((account for account in accounts if _is_credential(account, user.id)), None)
        if credential is None and not self._shape.oauth:
            credential = await self._adapter.accounts.get_by_provider(CREDENTIAL, user.id)
        return self._read(user, None if credential is None else credential.password, accounts)

    def _read(self, user: entities.User, password: str | None, accounts: list[entities.Account]) -> U:
        """The application's user. Raises `Json` where a stored value does not fit its field."""
        metadata = user.metadata or {}
        found: dict[str, Any] = {name: metadata[name] for name in self._shape.extra if name in metadata}
        found |= {name: getattr(user, name) for name in self._shape.own}
        found |= {
            "id": user.id,
            "email": user.email,
            "hashed_password": password or self._no_password,
            "is_active": not is_banned(self._adapter._core, user),
            "is_superuser": ADMIN in _roles(user.role),
            "is_verified": user.email_verified,
        }
        if self._shape.oauth:
            emails = _emails(user)
            others = sorted(
                (account for account in accounts if account.provider_id != CREDENTIAL),
                key=lambda account: (account.created_at, account.id),
            )
            found["oauth_accounts"] = [
                _oauth_account(account, emails.get(account.id) or user.email or "") for account in others
            ]
        return _converted("user", found, self._type)

    def _refreshed(self, user: U, fresh: U, *, accounts: bool = False) -> U:
        """``user`` itself with what ``fresh`` has, as an object of a session of SQLAlchemy would be."""
        for name in user.__struct_fields__:
            if accounts or name != "oauth_accounts":
                setattr(user, name, getattr(fresh, name))
        return user

    async def _reloaded(self, user: U) -> U:
        fresh = await self._load(str(user.id))
        if fresh is None:
            raise UserGone
        return self._refreshed(user, fresh, accounts=True)

    # Writing

    def _given(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields to write, without those that are ``None`` and cannot be: schemas with optional fields send them."""
        found = {name: value for name, value in fields.items() if value is not None or name not in NEVER_NONE}
        for name in found:
            if name not in self._shape.writable:
                raise InvalidInput(name, f"is not a field of {self._type.__name__} that can be written")
        if "hashed_password" in found:
            values.filled("hashed_password", found["hashed_password"])
        return found

    def _fields(self, given: Mapping[str, Any], before: entities.User | None) -> dict[str, Any]:
        """What of our user's fields is to change, checked, if it is ``before`` now (``None``: it is to be created)."""
        found: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in given.items():
            if name == "is_verified":
                found["email_verified"] = value
            elif name == "is_active":
                active = before is None or not is_banned(self._adapter._core, before)
                if values.flag(name, value) != active:
                    found |= {"banned": not value, "ban_reason": None, "ban_expires": None}
            elif name == "is_superuser":
                roles = _roles(None if before is None else before.role)
                if values.flag(name, value) != (ADMIN in roles):
                    roles = [*roles, ADMIN] if value else [role for role in roles if role != ADMIN]
                    found["role"] = ",".join(roles) or None
            elif name == "email" or name in OWN:
                found[name] = value
            else:
                extra[name] = _jsonable(name, value)
        if extra:
            found["metadata"] = {**((before and before.metadata) or {}), **extra}
        return self._adapter.users.kind.checked(found)

    async def _set_password(self, user: U, password: str, wish: Wish) -> entities.User:
        """Replace the password that ``user`` has, and change what ``wish`` says, in one transaction."""
        key, known = str(user.id), user.hashed_password

        def replace(account: entities.Account) -> dict[str, Any]:
            if (account.password or self._no_password) != known:
                raise UserChanged
            return {"password": password}

        async with self._adapter.transaction() as tx:
            account = await _credential(tx, key)
            # A new account takes the user along, so that one who is deleted in this very moment gets none.
            least: dict[str, Any] | None = {} if account is None else None
            changed = await tx.users._change(key, lambda before: wish(before) or least, once=False)
            if account is not None:
                await tx.accounts._change(account.id, replace)
            elif known != self._no_password:
                raise UserChanged
            else:
                await _add_password(tx, key, password)
            return changed

    async def _link(self, key: str, given: Mapping[str, Any], email: str) -> None:
        async with self._adapter.transaction() as tx:
            account = await tx.accounts.create(user_id=key, **given)
            await tx.users._change(key, partial(_with_email, account.id, email))

    async def _renew(self, key: str, account: str, given: Mapping[str, Any], email: str | None) -> None:
        tokens = {name: value for name, value in given.items() if name not in ("provider_id", "account_id")}
        await self._adapter.accounts.update(account, **tokens)
        if email is not None:
            await self._adapter.users._change(key, partial(_with_email, account, email), once=False)


class AllsourceAccessTokenDatabase(AccessTokenDatabase[AT]):
    """The sessions of an adapter, for ``fastapi_users.authentication.strategy.DatabaseStrategy``.

    Args:
        adapter: where the sessions are.
        access_token_type: `AllsourceBaseAccessTokenUUID`, or a subclass of it or of ``AllsourceBaseAccessToken[str]``.
        lifetime_seconds: when a session expires, for whoever else reads the store and for ``sessions.delete_expired``; give
            the strategy the same. ``None``: never.

    Raises `InvalidInput`.
    """

    def __init__(
        self, adapter: AllsourceAuthAdapter, access_token_type: type[AT], *, lifetime_seconds: int | None
    ) -> None:
        if lifetime_seconds is not None and values.count("lifetime_seconds", lifetime_seconds) == 0:
            raise InvalidInput("lifetime_seconds", "must be at least 1, or None for ever")
        self._adapter = adapter
        self._type = access_token_type
        self._lifetime = None if lifetime_seconds is None else timedelta(seconds=lifetime_seconds)
        unknown = set(access_token_type.__struct_fields__) - set(entities.Session.__struct_fields__)
        if unknown:
            raise InvalidInput("access_token_type", f"has fields that a session does not have: {_names(unknown)}")

    async def get_by_token(self, token: str, max_age: datetime | None = None) -> AT | None:
        """The session with this token; ``None`` if there is none, it has expired, or it is older than ``max_age``. One read."""
        session = await self._adapter.sessions.get(token)
        if session is None or session.expires_at <= self._adapter._core.now():
            return None
        if max_age is not None and session.created_at < values.instant("max_age", max_age):
            return None
        return self._read(session)

    async def create(self, create_dict: dict[str, Any]) -> AT:
        """Begin a session: ``user_id``, and optionally ``token``, ``expires_at`` and other fields of a session.

        Raises `Conflict` for a token that exists or existed, `InvalidInput`.
        """
        if "user_id" not in create_dict:
            raise InvalidInput("user_id", "is missing")
        given = {**create_dict, "user_id": str(create_dict["user_id"])}
        given.setdefault("expires_at", self._expiry(self._adapter._core.now()))
        self._refuse_others(given, SESSION_FIELDS)
        return self._read(await self._adapter.sessions.create(**given))

    async def update(self, access_token: AT, update_dict: dict[str, Any]) -> AT:
        """Change a session; ``access_token`` itself is brought up to date. A new ``created_at`` moves the expiry with it.

        Raises `SessionNotFound`, `InvalidInput`.
        """
        self._refuse_others(update_dict, SESSION_CHANGES)
        changes = dict(update_dict)
        if "created_at" in changes:
            changes["created_at"] = values.instant("created_at", changes["created_at"])
            changes.setdefault("expires_at", self._expiry(changes["created_at"]))
        kind = self._adapter.sessions.kind
        checked = kind.checked({name: value for name, value in changes.items() if name != "created_at"})
        checked |= {"created_at": changes["created_at"]} if "created_at" in changes else {}
        verb = "expiry_updated" if "expires_at" in checked else "updated"
        session = await self._adapter.sessions._change(access_token.token, lambda _: checked, verb=verb, once=False)
        fresh = self._read(session)
        for name in fresh.__struct_fields__:
            setattr(access_token, name, getattr(fresh, name))
        return access_token

    async def delete(self, access_token: AT) -> None:
        """Revoke a session, for good. A missing one stays missing."""
        await self._adapter.sessions.delete(access_token.token)

    def _expiry(self, begin: datetime) -> datetime:
        return NEVER if self._lifetime is None else begin + self._lifetime

    def _read(self, session: entities.Session) -> AT:
        found = {name: getattr(session, name) for name in self._type.__struct_fields__}
        return _converted("session", found, self._type)

    def _refuse_others(self, given: Mapping[str, Any], allowed: frozenset[str]) -> None:
        if others := set(given) - allowed:
            raise InvalidInput(min(others), "is not a field of a session that can be written here")


def add_exception_handlers(app: FastAPI) -> None:
    """Have an application answer the store's errors, where fastapi-users does not, with what they mean to a client.

    404 for what was deleted meanwhile, 409 for what others have taken or were faster to change, 422 for what cannot be stored,
    503 with ``Retry-After`` while the store cannot be reached or has too much to do. ``{"detail": code}``, never a value. All
    other errors stay errors of the server (500).
    """
    for error, (status, code) in ANSWERS.items():
        app.add_exception_handler(error, partial(_answer, status, code))


ANSWERS: dict[type[AllsourceAuthError], tuple[int, str]] = {
    NotFound: (404, "NOT_FOUND"),
    Conflict: (409, "CONFLICT"),
    VersionConflict: (409, "CONFLICT"),
    InvalidInput: (422, "INVALID_INPUT"),
    Http: (503, "STORE_UNAVAILABLE"),
    Unavailable: (503, "STORE_UNAVAILABLE"),
    RateLimited: (503, "STORE_UNAVAILABLE"),
    Overloaded: (503, "STORE_UNAVAILABLE"),
    Storage: (503, "STORE_UNAVAILABLE"),
}


async def _answer(status: int, code: str, request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Storage) and error.reason != "locked":
        raise error  # waiting does not help
    headers = {}
    if status == 503:
        told = error.retry_after if isinstance(error, RateLimited) else None
        headers["Retry-After"] = str(max(RETRY_AFTER, round(told or 0)))
    return JSONResponse({"detail": code}, status, headers)


# What a user type is made of

NEVER_NONE = frozenset({"id", "email", "hashed_password", "password", "is_active", "is_superuser", "is_verified"})

BASE = frozenset(AllsourceBaseUser.__struct_fields__)

UNUSABLE = frozenset(entities.User.__struct_fields__) - BASE - {*OWN, *DATES} | values.PASSWORD_KEYS - BASE | {EMAILS}
"""What an application may not call a field of its own: the store's fields behind the flags, and passwords."""


class _Shape(NamedTuple):
    """The fields of a user type: those of ours, those in metadata, those that can be written; whether it has OAuth accounts."""

    own: tuple[str, ...]
    extra: tuple[str, ...]
    writable: frozenset[str]
    oauth: bool

    def require_oauth(self) -> None:
        if not self.oauth:
            raise NotImplementedError(
                "the user type has no OAuth accounts: give it a field `oauth_accounts: list[OAuthAccount] = []`"
            )


def _shape(user_type: type[AllsourceBaseUser[Any]]) -> _Shape:
    if not (isinstance(user_type, type) and issubclass(user_type, AllsourceBaseUser)):
        raise InvalidInput("user_type", "must be a subclass of AllsourceBaseUser")
    names = [name for name in user_type.__struct_fields__ if name not in BASE and name != "oauth_accounts"]
    if unusable := UNUSABLE.intersection(names):
        raise InvalidInput(
            "user_type", f"cannot have a field called {_names(unusable)}, which the store has for other things"
        )
    own = tuple(name for name in names if name in OWN or name in DATES)
    extra = tuple(name for name in names if name not in own)
    return _Shape(own, extra, BASE.union(names).difference(DATES), "oauth_accounts" in user_type.__struct_fields__)


SESSION_FIELDS = frozenset(entities.Session.__struct_fields__) - {"id", *DATES}
SESSION_CHANGES = SESSION_FIELDS - {"token", "user_id"} | {"created_at"}

OAUTH_FIELDS = ("oauth_name", "account_id", "account_email", "access_token", "refresh_token", "expires_at")


def _names(found: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(found))


def _roles(role: str | None) -> list[str]:
    return [found for part in (role or "").split(",") if (found := part.strip())]


def _jsonable(name: str, value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, UnicodeDecodeError):
        raise InvalidInput(name, f"is a {type(value).__name__}, which cannot be stored as JSON") from None


def _converted(what: str, found: dict[str, Any], wanted: type[T]) -> T:
    path = None
    try:
        return msgspec.convert(found, wanted)
    except msgspec.ValidationError as error:
        # The text may quote a value, so it is not chained; its end names the field.
        path = str(error).rpartition("at `")[2].rstrip("`") if "at `" in str(error) else None
    raise Json(f"a stored {what} cannot be read as {wanted.__name__}" + (f" at {path}" if path else ""), path=path)


# Accounts


def _is_credential(account: entities.Account, key: str) -> bool:
    return account.provider_id == CREDENTIAL and account.user_id == key


async def _credential(repositories: Repositories, key: str) -> entities.Account | None:
    """The account with a user's password: under the user's id, as sign-ups here store it, else as others do."""
    account = await repositories.accounts.get(key)
    if account is not None and _is_credential(account, key):
        return account
    return await repositories.accounts.get_by_provider(CREDENTIAL, key)


async def _add_password(tx: Repositories, key: str, password: str, *, id: str | None = None) -> None:  # noqa: A002
    await tx.accounts.create(user_id=key, provider_id=CREDENTIAL, account_id=key, password=password, id=id)


def _oauth_fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
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


def _oauth_account(account: entities.Account, email: str) -> dict[str, Any]:
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


def _with_email(account: str, email: str, before: entities.User) -> dict[str, Any] | None:
    """The change that notes the email of an account; ``None`` where it is noted."""
    emails = _emails(before)
    if emails.get(account) == email:
        return None
    return {"metadata": {**(before.metadata or {}), EMAILS: {**emails, account: email}}}


def _emails(user: entities.User) -> dict[str, Any]:
    found = (user.metadata or {}).get(EMAILS)
    return found if isinstance(found, dict) else {}


# Waiting


async def _both(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Two reads at the same time; the first failure as it is."""

    async def result(read: Awaitable[T]) -> T:
        return await read

    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(result(first)), group.create_task(result(second))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return one.result(), two.result()


async def _again(attempt: Callable[[], Awaitable[T]]) -> T:
    """A transaction that is begun again when others changed what it rests on. Raises `VersionConflict` after ten times."""
    for _ in range(TIMES - 1):
        try:
            return await attempt()
        except VersionConflict:
            continue
    return await attempt()
