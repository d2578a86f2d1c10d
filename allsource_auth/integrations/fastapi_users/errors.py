"""What the databases raise, and what an application answers."""

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

RETRY_AFTER = 1
"""Seconds that a client is told to wait when the store did not say so."""


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
    headers: dict[str, str] = {}
    if status == 503:
        told = error.retry_after if isinstance(error, RateLimited) else None
        headers["Retry-After"] = str(max(RETRY_AFTER, round(told or 0)))
    return JSONResponse({"detail": code}, status, headers)
