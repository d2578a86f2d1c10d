"""A FastAPI application with better_auth for sign-in and an event log as its database.

Serve it with ``uvicorn examples.better_auth_app:app``. ``python examples/better_auth_app.py`` sends requests to the application
without a server. It needs ``allsource-auth[better-auth]``, fastapi and uvicorn.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from better_auth import BetterAuth, EmailAndPassword
from better_auth.integrations.fastapi import BetterAuthFastAPI
from fastapi import Depends, FastAPI

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, AtomicSignUp

BASE_URL = "http://localhost:8000"

store = AllsourceAuthAdapter.embedded(os.environ.get("AUTH_FILE"))
auth = BetterAuth(
    secret=os.environ.get("AUTH_SECRET", "32 characters that nobody else knows"),
    base_url=BASE_URL,
    email_and_password=EmailAndPassword(enabled=True),
    adapter=AllsourceDatabaseAdapter(store),
    plugins=[AtomicSignUp()],
)
binding = BetterAuthFastAPI(auth)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with store:
        yield


async def me(session: Any = Depends(binding.require_session)) -> Any:  # noqa: B008 - the form that FastAPI uses
    return session["user"]


app = FastAPI(lifespan=lifespan)
app.include_router(binding.router)
app.add_api_route("/me", me)


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with store, httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers={"origin": BASE_URL}) as client:
        ada = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}
        answer = await client.post("/api/auth/sign-up/email", json=ada)
        print(answer.status_code, (await client.get("/me")).json())
        print(await store.users.get_by_email("ADA@example.org"))


if __name__ == "__main__":
    asyncio.run(main())
