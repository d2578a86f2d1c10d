"""Base classes for the user, OAuth account and access token of an application, and the checks of their fields."""

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
    "convert",
    "names",
    "shape",
]

ID = TypeVar("ID")
T = TypeVar("T")

OWN = ("name", "image", "username", "display_username")
"""Fields of the application's user that are stored in the same field of `User`."""

DATES = ("created_at", "updated_at")
"""Fields of `User` that the application's user may declare. They are read-only."""

EMAILS = "oauth_account_emails"
"""The key in a user's metadata that holds the emails of its OAuth accounts, by account id. An `Account` has no such field."""


class _ReprWithoutSecrets(msgspec.Struct):
    """A mutable struct whose ``repr`` shows only the id and the flags."""

    def __repr__(self) -> str:
        shown = (name for name in self.__struct_fields__ if name == "id" or isinstance(getattr(self, name), bool))
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


class AllsourceBaseUser(_ReprWithoutSecrets, Generic[ID], kw_only=True):
    """The user model of fastapi-users. An application declares a subclass and may add fields.

    Added fields need a default, because users that were written elsewhere do not have them. A field
    ``oauth_accounts: list[OAuthAccount] = []`` adds the OAuth accounts.
    """

    id: ID
    email: str
    hashed_password: str
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False


class AllsourceBaseUserUUID(AllsourceBaseUser[uuid.UUID], kw_only=True):
    """A user whose id is a UUID, the default of the library. Use ``fastapi_users.UUIDIDMixin`` for the manager."""


class AllsourceBaseOAuthAccount(_ReprWithoutSecrets, Generic[ID], kw_only=True):
    """A user's account at an OAuth provider. ``expires_at`` is in seconds since the epoch."""

    id: ID
    user_id: ID
    oauth_name: str
    access_token: str
    account_id: str
    account_email: str
    expires_at: int | None = None
    refresh_token: str | None = None


class AllsourceBaseOAuthAccountUUID(AllsourceBaseOAuthAccount[uuid.UUID], kw_only=True):
    """An OAuth account whose ids are UUIDs."""


class AllsourceBaseAccessToken(_ReprWithoutSecrets, Generic[ID], kw_only=True):
    """The access-token model of fastapi-users. A subclass may add other fields of `Session`, such as ``impersonated_by``."""

    token: str
    user_id: ID
    created_at: datetime
    expires_at: datetime
    ip_address: str | None = None
    user_agent: str | None = None


class AllsourceBaseAccessTokenUUID(AllsourceBaseAccessToken[uuid.UUID], kw_only=True):
    """A session of a user whose id is a UUID."""


class StringIDMixin:
    """A mixin for the manager of users whose ids are arbitrary text, such as those of better-auth."""

    def parse_id(self, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidID
        return value


NEVER_NONE = frozenset({"id", "email", "hashed_password", "password", "is_active", "is_superuser", "is_verified"})

BASE = frozenset(AllsourceBaseUser.__struct_fields__)

UNUSABLE = frozenset(entities.User.__struct_fields__) - BASE - {*OWN, *DATES} | values.PASSWORD_KEYS - BASE | {EMAILS}
"""Names that an added field must not have: other fields of `User`, and passwords."""


class Shape(NamedTuple):
    """The fields of a user type.

    Attributes:
        own: added fields that are stored in fields of `User`.
        extra: added fields that are stored in the metadata.
        writable: all fields that can be written.
        oauth: whether it has OAuth accounts.
    """

    own: tuple[str, ...]
    extra: tuple[str, ...]
    writable: frozenset[str]
    oauth: bool

    def require_oauth(self) -> None:
        """Raise `InvalidInput` if the user type has no OAuth accounts."""
        if not self.oauth:
            raise InvalidInput(
                "user_type", "has no OAuth accounts: give it a field `oauth_accounts: list[OAuthAccount] = []`"
            )


def shape(user_type: object) -> Shape:
    """Return the fields of a user type. Raises `InvalidInput` if a field cannot be stored."""
    if not (isinstance(user_type, type) and issubclass(user_type, AllsourceBaseUser)):
        raise InvalidInput("user_type", "must be a subclass of AllsourceBaseUser")
    fields = [name for name in user_type.__struct_fields__ if name not in BASE and name != "oauth_accounts"]
    if unusable := UNUSABLE.intersection(fields):
        raise InvalidInput("user_type", f"cannot have fields with the reserved names {names(unusable)}")
    own = tuple(name for name in fields if name in OWN or name in DATES)
    extra = tuple(name for name in fields if name not in own)
    return Shape(own, extra, BASE.union(fields).difference(DATES), "oauth_accounts" in user_type.__struct_fields__)


def names(found: set[str] | frozenset[str]) -> str:
    """Return names of fields as text for an error message."""
    return ", ".join(sorted(found))


def convert(what: str, found: dict[str, Any], wanted: type[T]) -> T:
    """Convert stored values to a type of the application. Raises `Json` naming the field that does not fit."""
    path = None
    try:
        return msgspec.convert(found, wanted)
    except msgspec.ValidationError as error:
        # The message may quote a value, so the error is not chained. The end of the message names the field.
        path = str(error).rpartition("at `")[2].rstrip("`") if "at `" in str(error) else None
    raise Json(f"a stored {what} cannot be read as {wanted.__name__}" + (f" at {path}" if path else ""), path=path)
