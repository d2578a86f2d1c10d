"""Errors of the databases, and exception handlers that convert errors of the store to HTTP responses."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi_users.exceptions import InvalidResetPasswordToken, InvalidVerifyToken, UserAlreadyExists, UserNotExists
from fastapi_users.router.common import ErrorCode

from allsource_auth.errors import (
    AllsourceAuthError,
    Conflict,
    Http,
    InvalidInput,
    NotFound,
    Overloaded,
    RateLimited,
    Storage,
    Unavailable,
    VersionConflict,
)

__all__ = ["OAuthAccountTaken", "UserChanged", "UserGone", "add_exception_handlers"]

MIN_RETRY_AFTER = 1
"""Minimum ``Retry-After`` of a 503, in seconds."""


class UserGone(UserNotExists, HTTPException):
    """The user was deleted before the change was stored.

    The response is 404, unless a router of fastapi-users handles the exception.
    """

    def __init__(self) -> None:
        HTTPException.__init__(self, 404, "USER_GONE")


class UserChanged(InvalidResetPasswordToken, InvalidVerifyToken, HTTPException):
    """The password or email was changed after the user was read. Nothing was stored.

    A new password replaces only the password that was read, and a verification applies only to the email that was read:

    * A token to reset a password is single-use, also under concurrency.
    * A login that upgrades an old hash cannot restore an old password.
    * The token for one email cannot verify another.

    The routers of fastapi-users respond with 400 and their code for a bad token. Elsewhere the response is 409.
    """

    def __init__(self) -> None:
        HTTPException.__init__(self, 409, "USER_CHANGED")


class OAuthAccountTaken(UserAlreadyExists, HTTPException):
    """Another user has this account of the provider. Both OAuth routers respond with 400 ``OAUTH_USER_ALREADY_EXISTS``."""

    def __init__(self) -> None:
        HTTPException.__init__(self, 400, ErrorCode.OAUTH_USER_ALREADY_EXISTS)


def add_exception_handlers(app: FastAPI) -> None:
    """Add exception handlers that convert errors of the store to responses, where fastapi-users does not handle them.

    | Status | Error |
    |---|---|
    | 404 | `NotFound`: the entity was deleted |
    | 409 | `Conflict`, `VersionConflict`: a value is taken, or a concurrent write came first |
    | 422 | `InvalidInput` |
    | 503 with ``Retry-After`` | the store is unreachable or overloaded, or its file is locked |

    The body is ``{"detail": code}``; it never contains a value. All other errors remain server errors (500).
    """
    for error, (status, code) in RESPONSES.items():
        app.add_exception_handler(error, partial(_respond, status, code))


RESPONSES: dict[type[AllsourceAuthError], tuple[int, str]] = {
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


async def _respond(status: int, code: str, request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Storage) and error.reason != "locked":
        raise error  # a retry would not help
    headers: dict[str, str] = {}
    if status == 503:
        retry_after = error.retry_after if isinstance(error, RateLimited) else None
        headers["Retry-After"] = str(max(MIN_RETRY_AFTER, round(retry_after or 0)))
    return JSONResponse({"detail": code}, status, headers)
