"""Requests with the cookies of a TypeScript better-auth, verified from the store."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi_better_auth import AdminUser, BetterAuth, CookieVerifier, OriginCheck, Session, SharedSecret

from allsource_auth import AllsourceAuthAdapter, Unavailable
from allsource_auth import Session as StoredSession
from allsource_auth.integrations.better_auth_bridge import AllsourceSessionStore
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.wrappers import FailingStore

pytestmark = pytest.mark.integrations

SECRET = "9f3c1d77a5e04b62b8d1e6f20c4a9b35e7d8"
ORIGIN = "https://app.example.org"
COOKIE = "better-auth.session_token"


@pytest.fixture
def clock() -> ManualClock:
    """The verifier uses the system clock."""
    return ManualClock(datetime.now(UTC))


def signed(token: str, secret: str = SECRET) -> dict[str, str]:
    """Return the cookie that a TypeScript better-auth sets for a session with this token."""
    signature = base64.b64encode(hmac.new(secret.encode(), token.encode(), hashlib.sha256).digest()).decode()
    return {"Cookie": f"{COOKIE}={quote(f'{token}.{signature}', safe='')}"}


def over(adapter: AllsourceAuthAdapter) -> httpx.AsyncClient:
    store = AllsourceSessionStore(adapter)
    origins = OriginCheck(allowed_origins=[ORIGIN])
    verifier = CookieVerifier(secret=SharedSecret(SECRET), store=store, csrf=origins, secure_cookies=False)
    auth = BetterAuth(verifiers=[verifier])
    app = FastAPI()

    @app.get("/me")
    @app.post("/me")
    async def me(session: Session[AdminUser] = Depends(auth.current_session(user_model=AdminUser))) -> dict[str, Any]:  # noqa: B008
        user = session.user
        return {
            "id": user.id,
            "email": user.email,
            "role": user.role,
            "by": session.impersonated_by,
            "agent": session.raw["userAgent"],
        }

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def session(adapter: AllsourceAuthAdapter, clock: ManualClock) -> StoredSession:
    ada = await adapter.users.create(email=email("Ada"), name="Ada", role="admin")
    return await adapter.sessions.create(
        user_id=ada.id, expires_at=clock() + timedelta(days=7), user_agent="a browser", impersonated_by="root"
    )


async def test_signed_cookie_identifies_its_user(adapter: AllsourceAuthAdapter, session: StoredSession) -> None:
    async with over(adapter) as client:
        for _ in range(2):
            reply = await client.get("/me", headers=signed(session.token))
            assert reply.status_code == 200
            assert reply.json() == {
                "id": session.user_id,
                "email": email("Ada"),
                "role": "admin",
                "by": "root",
                "agent": "a browser",
            }
        for headers in ({}, signed(session.token, "another secret of the same length, more"), signed("unknown")):
            assert (await client.get("/me", headers=headers)).status_code == 401
        cross_site = {"Origin": "https://evil.example", **signed(session.token)}
        assert (await client.post("/me", headers=cross_site)).status_code == 403
        assert (await client.post("/me", headers={"Origin": ORIGIN, **signed(session.token)})).status_code == 200


async def test_invalid_sessions_are_refused(
    adapter: AllsourceAuthAdapter, session: StoredSession, clock: ManualClock
) -> None:
    headers = signed(session.token)

    async def status() -> int:
        return (await client.get("/me", headers=headers)).status_code

    async with over(adapter) as client:
        assert await status() == 200
        await adapter.users.update(session.user_id, banned=True)
        assert await status() == 401
        await adapter.users.update(session.user_id, ban_expires=clock() - timedelta(seconds=1))
        assert await status() == 200
        await adapter.sessions.update_expiry(session.token, clock() - timedelta(seconds=1))
        assert await status() == 401
        await adapter.sessions.update_expiry(session.token, clock() + timedelta(days=1))
        assert await status() == 200
        await adapter.sessions.delete(session.token)
        assert await status() == 401
        other = await adapter.sessions.create(
            user_id=session.user_id, expires_at=clock() + timedelta(days=1), user_agent=""
        )
        headers = signed(other.token)
        assert await status() == 200
        await adapter.users.delete(session.user_id)
        assert await status() == 401


async def test_outage_is_refused_and_logged_once(caplog: pytest.LogCaptureFixture, clock: ManualClock) -> None:
    async with AllsourceAuthAdapter.embedded() as beneath:
        store = FailingStore(beneath._store)
        adapter = AllsourceAuthAdapter.with_store(store)
        ada = await adapter.users.create(email=email("Ada"))
        session = await adapter.sessions.create(
            user_id=ada.id, expires_at=clock() + timedelta(days=1), user_agent="a browser"
        )
        async with over(adapter) as client:
            headers = signed(session.token)
            assert (await client.get("/me", headers=headers)).status_code == 200
            store.failure = Unavailable("the server cannot serve the request now")
            with caplog.at_level(logging.WARNING, logger="fastapi_better_auth"):
                for _ in range(3):
                    assert (await client.get("/me", headers=headers)).status_code == 401
            lines = [record.getMessage() for record in caplog.records if record.name == "fastapi_better_auth"]
            assert len(lines) == 1
            assert "Unavailable" in lines[0]
            assert session.token not in caplog.text
            store.failure = None
            assert (await client.get("/me", headers=headers)).status_code == 200
