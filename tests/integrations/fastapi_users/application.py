"""A FastAPI application with all routers of fastapi-users, on an adapter. Emails are collected in a list.

``uvicorn tests.integrations.fastapi_users.application:served --factory`` serves it on the store set in the environment.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from argon2 import Type
from fastapi import Depends, FastAPI, Request
from fastapi_users import BaseUserManager, FastAPIUsers, InvalidPasswordException, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, CookieTransport
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.password import PasswordHelper
from httpx_oauth.oauth2 import BaseOAuth2, OAuth2Token
from pwdlib import PasswordHash
from pwdlib.hashers import HasherProtocol
from pwdlib.hashers.argon2 import Argon2Hasher

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.fastapi_users import (
    AllsourceAccessTokenDatabase,
    AllsourceUserDatabase,
    add_exception_handlers,
)
from tests.integrations.fastapi_users.people import AccessToken, OAuthUser

__all__ = ["ACCOUNTS", "LIFETIME", "SECRET", "Mail", "application", "quick_hashes", "served"]

SECRET = "not so secret, but long enough for a test of tokens"
LIFETIME = 3600

ACCOUNTS = {"ada": ("service-ada", "ada.private@example.org"), "ghost": ("service-ghost", None)}
"""Accounts of the OAuth provider, by authorization code: account id and email."""

Mail = list[tuple[str, str, str]]
"""Sent emails: subject, recipient, token."""


class UserRead(schemas.BaseUser[uuid.UUID], schemas.BaseOAuthAccountMixin):
    first_name: str | None = None


class UserCreate(schemas.BaseUserCreate):
    first_name: str | None = None


class UserUpdate(schemas.BaseUserUpdate):
    first_name: str | None = None


class Provider(BaseOAuth2[dict[str, Any]]):
    """A simulated OAuth provider. The authorization code and the token are keys of `ACCOUNTS`."""

    def __init__(self) -> None:
        super().__init__(
            "id", "secret", "https://provider.example/authorize", "https://provider.example/token", name="service"
        )

    async def get_access_token(self, code: str, redirect_uri: str, code_verifier: str | None = None) -> OAuth2Token:
        return OAuth2Token({"access_token": code, "expires_at": 1_900_000_000, "refresh_token": None})

    async def get_id_email(self, token: str) -> tuple[str, str | None]:
        return ACCOUNTS[token]


def quick_hashes(*, time_cost: int = 1, also: HasherProtocol | None = None) -> PasswordHelper:
    """Return a fast Argon2 helper. ``also`` is an additional hasher for existing hashes."""
    argon2 = Argon2Hasher(time_cost=time_cost, memory_cost=8, parallelism=1, type=Type.ID)
    return PasswordHelper(PasswordHash((argon2,) if also is None else (argon2, also)))


class Manager(UUIDIDMixin, BaseUserManager[OAuthUser, uuid.UUID]):
    reset_password_token_secret = SECRET
    verification_token_secret = SECRET

    def __init__(self, users: AllsourceUserDatabase[OAuthUser, uuid.UUID], helper: PasswordHelper, mail: Mail) -> None:
        super().__init__(users, helper)
        self.mail = mail

    async def validate_password(self, password: str, user: schemas.BaseUserCreate | OAuthUser) -> None:
        if len(password) < 8:
            raise InvalidPasswordException(reason="too short")

    async def on_after_register(self, user: OAuthUser, request: Request | None = None) -> None:
        self.mail.append(("welcome", user.email, ""))

    async def on_after_forgot_password(self, user: OAuthUser, token: str, request: Request | None = None) -> None:
        self.mail.append(("reset", user.email, token))

    async def on_after_request_verify(self, user: OAuthUser, token: str, request: Request | None = None) -> None:
        self.mail.append(("verify", user.email, token))


def application(adapter: AllsourceAuthAdapter, mail: Mail, helper: PasswordHelper | None = None) -> FastAPI:
    helper = helper or quick_hashes()

    async def managers() -> AsyncIterator[Manager]:
        yield Manager(AllsourceUserDatabase(adapter, OAuthUser), helper, mail)

    def strategy() -> DatabaseStrategy[OAuthUser, uuid.UUID, AccessToken]:
        tokens = AllsourceAccessTokenDatabase(adapter, AccessToken, lifetime_seconds=LIFETIME)
        return DatabaseStrategy(tokens, lifetime_seconds=LIFETIME)

    bearer = AuthenticationBackend("bearer", BearerTransport("auth/bearer/login"), strategy)
    cookie = AuthenticationBackend("cookie", CookieTransport(cookie_secure=False), strategy)
    users = FastAPIUsers[OAuthUser, uuid.UUID](managers, [bearer, cookie])
    provider = Provider()

    app = FastAPI()
    add_exception_handlers(app)
    app.include_router(users.get_auth_router(bearer), prefix="/auth/bearer")
    app.include_router(users.get_auth_router(cookie, requires_verification=True), prefix="/auth/cookie")
    app.include_router(users.get_register_router(UserRead, UserCreate), prefix="/auth")
    app.include_router(users.get_reset_password_router(), prefix="/auth")
    app.include_router(users.get_verify_router(UserRead), prefix="/auth")
    app.include_router(users.get_users_router(UserRead, UserUpdate), prefix="/users")
    app.include_router(users.get_oauth_router(provider, bearer, SECRET), prefix="/auth/service")
    app.include_router(
        users.get_oauth_associate_router(provider, UserRead, SECRET),
        prefix="/auth/associate/service",
    )
    current = users.current_user(active=True)

    @app.get("/hello")
    async def hello(user: OAuthUser = Depends(current)) -> str:  # noqa: B008 - how FastAPI does it
        return f"hello {user.first_name}"

    return app


def served() -> FastAPI:
    """Return the application on the store set in the environment."""
    adapter = AllsourceAuthAdapter.from_env()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with adapter:
            yield

    app = application(adapter, [])
    app.router.lifespan_context = lifespan
    return app
