"""The classes of the application: users with added fields, OAuth accounts, access tokens."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from enum import Enum

import msgspec

from allsource_auth.integrations.fastapi_users import (
    AllsourceBaseAccessTokenUUID,
    AllsourceBaseOAuthAccountUUID,
    AllsourceBaseUser,
    AllsourceBaseUserUUID,
)

__all__ = ["AccessToken", "Colour", "OAuthAccount", "OAuthUser", "Rich", "Text", "User"]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class User(AllsourceBaseUserUUID):
    first_name: str | None = None


class Rich(AllsourceBaseUserUUID):
    """Fields of `User` and added fields of various types."""

    name: str | None = None
    username: str | None = None
    created_at: datetime | None = None
    born: date | None = None
    colour: Colour = Colour.RED
    friends: list[uuid.UUID] = msgspec.field(default_factory=list)
    settings: dict[str, int] = msgspec.field(default_factory=dict)


class Text(AllsourceBaseUser[str]):
    pass


class OAuthAccount(AllsourceBaseOAuthAccountUUID):
    pass


class OAuthUser(AllsourceBaseUserUUID):
    first_name: str | None = None
    oauth_accounts: list[OAuthAccount] = msgspec.field(default_factory=list)


class AccessToken(AllsourceBaseAccessTokenUUID):
    active_organization_id: str | None = None
