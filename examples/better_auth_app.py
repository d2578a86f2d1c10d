"""A FastAPI application whose sign-in is better_auth and whose database is a log of events.

Serve it: ``uvicorn examples.better_auth_app:app``; run it: ``python examples/better_auth_app.py`` is its own first client.
It needs ``allsource-auth[better-auth]``, fastapi and uvicorn.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from better_auth import BetterAuth, EmailAndPassword
from better_auth.integrations.fastapi import BetterAuthFastAPI
from better_auth.plugins_ext.username import UsernamePlugin
from fastapi import Depends, FastAPI

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter

HERE = "http://localhost:8000"

store = AllsourceAuthAdapter.embedded(os.environ.get("AUTH_FILE"))  # or AllsourceAuthAdapter("http://localhost:3900")
auth = BetterAuth(
    secret=os.environ.get("AUTH_SECRET", "a secret for trying it out, of 32 characters or more"),
    base_url=HERE,
    email_and_password=EmailAndPassword(enabled=True),
    plugins=[UsernamePlugin()],
    adapter=AllsourceDatabaseAdapter(store),
)
binding = BetterAuthFastAPI(auth)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with store:
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(binding.router)
signed_in = Depends(binding.require_session)


@app.get("/me")
async def me(session: Any = signed_in) -> dict[str, Any]:
    return {"name": session["user"]["name"], "username": session["user"]["username"]}


async def first_client() -> None:
    transport = httpx.ASGITransport(app)
    async with store, httpx.AsyncClient(transport=transport, base_url=HERE, headers={"origin": HERE}) as client:
        ada = {"name": "Ada", "email": "ada@example.org", "username": "ada", "password": "correct horse battery"}
        for _ in range(2):
            print(
                (await client.post("/api/auth/sign-up/email", json=ada)).status_code, (await client.get("/me")).json()
            )
        print(await store.users.get_by_username("ada"))


if __name__ == "__main__":
    asyncio.run(first_client())
