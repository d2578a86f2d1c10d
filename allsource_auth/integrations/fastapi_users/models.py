"""What applications declare: their user, OAuth account and access token, and what may be in them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from fastapi_users.exceptions import InvalidID

from allsource_auth import entities, values
from allsource_auth.errors import InvalidInput, Json

__all__ = [
    "DATES",
    "EMAILS",
    "NEVER_NONE",
    "OWN",
    "AllsourceBaseAccessToken",
    "AllsourceBaseAccessTokenUUID",
    "AllsourceBaseOAuthAccount",
    "AllsourceBaseOAuthAccountUUID",
    "AllsourceBaseUser",
    "AllsourceBaseUserUUID",
    "Shape",
    "StringIDMixin",
    "converted",
    "names",
    "shape",
]

ID = TypeVar("ID")
T = TypeVar("T")

OWN = ("name", "image", "username", "display_username")
"""Fields of an application's user that are fields of ours."""

DATES = ("created_at", "updated_at")
"""Fields of ours that an application's user may have to read them."""

EMAILS = "oauth_account_emails"
"""The key of a user's metadata with the emails that providers know it by, by account: accounts have no such field."""


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


class StringIDMixin:
    """For the manager of users whose ids are any text, such as those that better-auth makes."""

    def parse_id(self, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidID
        return value


NEVER_NONE = frozenset({"id", "email", "hashed_password", "password", "is_active", "is_superuser", "is_verified"})

BASE = frozenset(AllsourceBaseUser.__struct_fields__)

UNUSABLE = frozenset(entities.User.__struct_fields__) - BASE - {*OWN, *DATES} | values.PASSWORD_KEYS - BASE | {EMAILS}
"""What an application may not call a field of its own: the store's fields behind the flags, and passwords."""


class Shape(NamedTuple):
    """The fields of a user type: those of ours, those in metadata, those that can be written; whether it has OAuth accounts."""

    own: tuple[str, ...]
    extra: tuple[str, ...]
    writable: frozenset[str]
    oauth: bool

    def require_oauth(self) -> None:
        """Raises `InvalidInput` for a user type without OAuth accounts."""
        if not self.oauth:
            raise InvalidInput(
                "user_type", "has no OAuth accounts: give it a field `oauth_accounts: list[OAuthAccount] = []`"
            )


def shape(user_type: object) -> Shape:
    """What a user type is made of. Raises `InvalidInput` for one whose fields cannot be kept."""
    if not (isinstance(user_type, type) and issubclass(user_type, AllsourceBaseUser)):
        raise InvalidInput("user_type", "must be a subclass of AllsourceBaseUser")
    fields = [name for name in user_type.__struct_fields__ if name not in BASE and name != "oauth_accounts"]
    if unusable := UNUSABLE.intersection(fields):
        raise InvalidInput(
            "user_type", f"cannot have a field called {names(unusable)}, which the store has for other things"
        )
    own = tuple(name for name in fields if name in OWN or name in DATES)
    extra = tuple(name for name in fields if name not in own)
    return Shape(own, extra, BASE.union(fields).difference(DATES), "oauth_accounts" in user_type.__struct_fields__)


def names(found: set[str] | frozenset[str]) -> str:
    """Names of fields, for people."""
    return ", ".join(sorted(found))


def converted(what: str, found: dict[str, Any], wanted: type[T]) -> T:
    """What is stored, as the application's type. Raises `Json` naming the field that does not fit."""
    path = None
    try:
        return msgspec.convert(found, wanted)
    except msgspec.ValidationError as error:
        # The text may quote a value, so it is not chained; its end names the field.
        path = str(error).rpartition("at `")[2].rstrip("`") if "at `" in str(error) else None
    raise Json(f"a stored {what} cannot be read as {wanted.__name__}" + (f" at {path}" if path else ""), path=path)
