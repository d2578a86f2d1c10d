"""A FastAPI application with fastapi-users that stores its users here: ``python examples/fastapi_users_app.py``."""

import asyncio
import uuid
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport
from fastapi_users.authentication.strategy.db import DatabaseStrategy

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations import fastapi_users as allsource

WEEK = 7 * 24 * 3600
adapter = AllsourceAuthAdapter.embedded()  # AllsourceAuthAdapter.from_env() in production
User = allsource.AllsourceBaseUserUUID
Token = allsource.AllsourceBaseAccessTokenUUID


class Users(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = verification_token_secret = "CHANGE ME, and keep it out of the code"  # noqa: S105


def users() -> Users:
    return Users(allsource.AllsourceUserDatabase(adapter, User))


def strategy() -> DatabaseStrategy[User, uuid.UUID, Token]:
    tokens = allsource.AllsourceAccessTokenDatabase(adapter, Token, lifetime_seconds=WEEK)
    return DatabaseStrategy(tokens, lifetime_seconds=WEEK)


backend = AuthenticationBackend("bearer", BearerTransport("login"), strategy)
people = FastAPIUsers[User, uuid.UUID](users, [backend])
app = FastAPI()
allsource.add_exception_handlers(app)
app.include_router(people.get_register_router(schemas.BaseUser[uuid.UUID], schemas.BaseUserCreate))
app.include_router(people.get_auth_router(backend))


@app.get("/hello")
async def hello(user: Annotated[User, Depends(people.current_user(active=True))]) -> str:
    return f"hello {user.email}"


async def main() -> None:
    async with adapter, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        ada = {"email": "ada@example.org", "password": "Lady Lovelace"}
        both = await asyncio.gather(*(client.post("/register", json=ada) for _ in range(2)))
        print("status of two concurrent sign-ups:", sorted(reply.status_code for reply in both))
        reply = await client.post("/login", data={"username": ada["email"], "password": ada["password"]})
        client.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"
        print((await client.get("/hello")).json())
        print((await adapter.users.list()).total, "user in the store")


asyncio.run(main())
