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

from importlib import import_module

try:
    import_module("fastapi_users")
except ModuleNotFoundError as _missing:
    raise ImportError("this module needs fastapi-users: pip install 'allsource-auth[fastapi-users]'") from _missing

from allsource_auth.integrations.fastapi_users.errors import (
    OAuthAccountTaken,
    UserChanged,
    UserGone,
    add_exception_handlers,
)
from allsource_auth.integrations.fastapi_users.models import (
    AllsourceBaseAccessToken,
    AllsourceBaseAccessTokenUUID,
    AllsourceBaseOAuthAccount,
    AllsourceBaseOAuthAccountUUID,
    AllsourceBaseUser,
    AllsourceBaseUserUUID,
    StringIDMixin,
)
from allsource_auth.integrations.fastapi_users.tokens import AllsourceAccessTokenDatabase
from allsource_auth.integrations.fastapi_users.users import NO_PASSWORD, AllsourceUserDatabase

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
