"""Verify the cookies of a TypeScript better-auth: ``python examples/better_auth_bridge_app.py``.

It needs ``allsource-auth[better-auth-bridge]``. The example creates the session itself, in place of the TypeScript server.
"""

import asyncio
import base64
import hashlib
import hmac
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import quote

import httpx
from fastapi import Depends, FastAPI
from fastapi_better_auth import BetterAuth, CookieVerifier, OriginCheck, Session, SharedSecret, User

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth_bridge import AllsourceSessionStore

SECRET = os.environ.get("BETTER_AUTH_SECRET", "8Vf0mQx2cJ7tLr5wKz9aYb3nHd6sGp1e")
# In production AllsourceAuthAdapter.from_env(), with the store that the TypeScript server writes.
adapter = AllsourceAuthAdapter.embedded()
verifier = CookieVerifier(
    secret=SharedSecret(SECRET),
    store=AllsourceSessionStore(adapter),
    csrf=OriginCheck(allowed_origins=["https://app.example.org"]),
)
auth = BetterAuth(verifiers=[verifier])
app = FastAPI()


@app.get("/hello")
async def hello(session: Annotated[Session[User], Depends(auth.current_session())]) -> str:
    return f"hello {session.user.email}"


def signed(token: str) -> dict[str, str]:
    """The session cookie that the TypeScript server would set."""
    signature = base64.b64encode(hmac.new(SECRET.encode(), token.encode(), hashlib.sha256).digest()).decode()
    return {"Cookie": "__Secure-better-auth.session_token=" + quote(f"{token}.{signature}", safe="")}


async def main() -> None:
    async with adapter, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://api") as client:
        ada = await adapter.users.create(email="ada@example.org", name="Ada")
        session = await adapter.sessions.create(user_id=ada.id, expires_at=datetime.now(UTC) + timedelta(days=7))
        cookie = signed(session.token)
        print("signed in:", (await client.get("/hello", headers=cookie)).json())
        await adapter.users.update(ada.id, banned=True)
        print("banned:", (await client.get("/hello", headers=cookie)).status_code)
        await adapter.users.update(ada.id, banned=False)
        await adapter.sessions.delete(session.token)
        print("signed out:", (await client.get("/hello", headers=cookie)).status_code)


asyncio.run(main())
