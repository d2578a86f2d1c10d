"""The user database and access-token database of ``fastapi-users``, on an `AllsourceAuthAdapter`.

A user is a `User` and its credential `Account`, an access token is a `Session`. No data is duplicated. So the repositories,
`load_session` and better-auth read the same users and sessions, and the audit trail covers all writes.

| fastapi-users | here |
|---|---|
| ``email``, ``is_verified`` | the user's ``email``, ``email_verified`` |
| ``hashed_password`` | the ``password`` of the account ``("credential", user id)`` |
| ``is_active`` | not ``banned``, or the ban has expired |
| ``is_superuser`` | ``admin`` is among the roles in the user's ``role`` |
| OAuth account | an account with the provider's name |
| access token | a session |
| ``name``, ``image``, ``username``, ``display_username`` | the user's fields of that name |
| other fields of the application | keys of the user's ``metadata`` |

Requires the extra ``fastapi-users``.
"""

from __future__ import annotations

from importlib import import_module

try:
    import_module("fastapi_users")
except ModuleNotFoundError as _missing:
    raise ImportError("this module requires fastapi-users: pip install 'allsource-auth[fastapi-users]'") from _missing

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
