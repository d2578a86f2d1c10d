"""A FastAPI application with every router of fastapi-users, on an adapter; and the mail that it would have sent.

``uvicorn tests.integrations.fastapi_users.application:served --factory`` serves it on the store that the environment names.
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
"""Who the OAuth provider knows, by the code that it sends them back with: id and email."""

Mail = list[tuple[str, str, str]]
"""What was sent: the subject, to whom, and the token in it."""


class UserRead(schemas.BaseUser[uuid.UUID], schemas.BaseOAuthAccountMixin):
    first_name: str | None = None


class UserCreate(schemas.BaseUserCreate):
    first_name: str | None = None


class UserUpdate(schemas.BaseUserUpdate):
    first_name: str | None = None


class Provider(BaseOAuth2[dict[str, Any]]):
    """An OAuth provider that needs no network: its code is the name of one of its people, and so is its token."""

    def __init__(self) -> None:
        super().__init__(
            "id", "secret", "https://provider.example/authorize", "https://provider.example/token", name="service"
        )

    async def get_access_token(self, code: str, redirect_uri: str, code_verifier: str | None = None) -> OAuth2Token:
        return OAuth2Token({"access_token": code, "expires_at": 1_900_000_000, "refresh_token": None})

    async def get_id_email(self, token: str) -> tuple[str, str | None]:
        return ACCOUNTS[token]


def quick_hashes(*, time_cost: int = 1, also: HasherProtocol | None = None) -> PasswordHelper:
    """Argon2 that takes no time, so that the store and not the hash is what is waited for; ``also`` reads other hashes."""
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
    """The application on the store that the environment names."""
    adapter = AllsourceAuthAdapter.from_env()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with adapter:
            yield

    app = application(adapter, [])
    app.router.lifespan_context = lifespan
    return app
