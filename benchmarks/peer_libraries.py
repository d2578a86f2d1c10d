"""The counterparts of ``load_session`` in ``better_auth`` and ``fastapi-users``, set up as their documentation shows.

Each is filled with users and sessions, and then looks up the user of a session by the session's token. Both use SQLAlchemy with
one connection for each caller, so that no caller waits for a connection.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from better_auth import BetterAuth
from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
from better_auth.types import AuthRequest
from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import (
    SQLAlchemyAccessTokenDatabase,
    SQLAlchemyBaseAccessTokenTableUUID,
)
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks.postgres import ACCOUNT, PostgreSQL
from benchmarks.reads import random_calls
from benchmarks.timing import Prepare

__all__ = ["in_file", "on_server", "with_better_auth", "with_fastapi_users"]

WEEK = 7 * 24 * 3600
ADDRESS = "203.0.113.7"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"


def in_file(path: Path) -> URL:
    return URL.create("sqlite+aiosqlite", database=str(path))


def on_server(server: PostgreSQL, database: str) -> URL:
    return URL.create("postgresql+asyncpg", ACCOUNT, database=database, query={"host": str(server.socket)})


@asynccontextmanager
async def _engine(url: URL, connections: int) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, hide_parameters=True)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def with_better_auth(url: URL, emails: list[str], each: int, connections: int) -> AsyncIterator[Prepare]:
    """Calls of ``BetterAuth.load_session``, which its dependencies for web frameworks use. ``each``: sessions of a user.

    The token is a bearer token, which has no signature to check, unlike a cookie. The data is written through the internal
    adapter, because signing up hashes a password for each user.
    """
    async with _engine(url, connections) as engine:
        adapter = SQLAlchemyAdapter(engine)
        auth = BetterAuth(secret=secrets.token_urlsafe(32), adapter=adapter)
        await adapter.create_tables()
        owners: dict[str, str] = {}

        async def seed(_: object) -> None:
            for email in emails:
                user = await auth.internal.create_user({"email": email, "name": "A user"})
                for _ in range(each):
                    session = await auth.internal.create_session(user["id"], ip_address=ADDRESS, user_agent=AGENT)
                    owners[session["token"]] = user["id"]

        await adapter.transaction(seed)

        async def load(token: str) -> object:
            headers = {"authorization": f"Bearer {token}"}
            found = await auth.load_session(AuthRequest(method="GET", path="/get-session", headers=headers))
            assert found is not None, "the session was not found"
            assert found["session"]["token"] == token, "another session was found"
            assert found["user"]["id"] == owners[token], "another user was found"
            return found

        yield random_calls(list(owners), load)


class _Base(DeclarativeBase):
    pass


class _User(SQLAlchemyBaseUserTableUUID, _Base):
    pass


class _AccessToken(SQLAlchemyBaseAccessTokenTableUUID, _Base):
    pass


class _Users(UUIDIDMixin, BaseUserManager[_User, uuid.UUID]):
    pass


@asynccontextmanager
async def with_fastapi_users(url: URL, emails: list[str], each: int, connections: int) -> AsyncIterator[Prepare]:
    """Calls of ``DatabaseStrategy.read_token`` with what a request creates for it: a database session and a user manager.

    It looks up the row of the token and the row of the user, and returns the user. The data is written to the tables, because
    the manager hashes a password for each user and the strategy commits each token.
    """
    async with _engine(url, connections) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        owners: dict[str, uuid.UUID] = {}
        async with sessions.begin() as session:
            users = [_User(id=uuid.uuid4(), email=email, hashed_password="not a hash") for email in emails]
            session.add_all(users)
            await session.flush()  # a token refers to a user's row
            owners.update({secrets.token_urlsafe(): user.id for user in users for _ in range(each)})
            session.add_all(_AccessToken(token=token, user_id=owner) for token, owner in owners.items())

        async def load(token: str) -> object:
            async with sessions() as session:
                strategy: DatabaseStrategy[_User, uuid.UUID, _AccessToken] = DatabaseStrategy(
                    SQLAlchemyAccessTokenDatabase(session, _AccessToken), lifetime_seconds=WEEK
                )
                user = await strategy.read_token(token, _Users(SQLAlchemyUserDatabase(session, _User)))
            assert user is not None, "the session was not found"
            assert user.id == owners[token], "another user was found"
            return user

        yield random_calls(list(owners), load)
