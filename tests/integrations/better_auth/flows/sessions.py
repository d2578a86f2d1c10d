"""What is made of a session: several, tokens, what else it says."""

from __future__ import annotations

from typing import Any

from better_auth.plugins_ext.bearer import BearerPlugin
from better_auth.plugins_ext.captcha import CaptchaPlugin
from better_auth.plugins_ext.custom_session import CustomSessionPlugin
from better_auth.plugins_ext.haveibeenpwned import HaveIBeenPwnedPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.last_login_method import LastLoginMethodPlugin
from better_auth.plugins_ext.multi_session import MultiSessionPlugin
from better_auth.plugins_ext.one_time_token import OneTimeTokenPlugin

from ..site import PASSWORD, Site
from .outside import identity_provider
from .registry import flow

__all__: list[str] = []


@flow(lambda site: {"plugins": [MultiSessionPlugin()]})
async def multi_session(site: Site) -> None:
    ada = await site.browser()
    first = await ada.sign_up("ada")
    await ada.sign_up("bob")
    await ada.get("/get-session")
    await ada.get("/multi-session/list-device-sessions")
    await ada.post("/multi-session/set-active", sessionToken=first["token"])
    await ada.get("/get-session")
    await ada.post("/multi-session/revoke", sessionToken=first["token"])
    await ada.get("/multi-session/list-device-sessions")
    await ada.post("/multi-session/set-active", 401, sessionToken=first["token"])
    await ada.post("/sign-out")
    await ada.get("/multi-session/list-device-sessions")


@flow(lambda site: {"plugins": [OneTimeTokenPlugin(), BearerPlugin()]})
async def one_time_token(site: Site) -> None:
    ada, other = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    token = (await ada.get("/one-time-token/generate"))["token"]
    session = await other.post("/one-time-token/verify", token=token)
    await other.post("/one-time-token/verify", 400, token=token)
    await other.get("/get-session")
    third = await site.browser()
    headers = {"authorization": f"Bearer {session['session']['token']}"}
    await third.ask("GET", "/get-session", headers=headers)
    await third.ask("GET", "/get-session", headers={"authorization": "Bearer unknown"})


@flow(lambda site: {"plugins": [JWTPlugin()]})
async def jwt(site: Site) -> None:
    ada = await site.browser()
    await ada.get("/token", 401)
    await ada.sign_up("ada")
    await ada.get("/token")
    await ada.get("/jwks")
    await ada.get("/get-session")


async def _greeting(given: Any, ctx: Any = None) -> dict[str, Any]:
    return {**given, "greeting": f"Hello {given['user']['name']}"}


@flow(lambda site: {"plugins": [CustomSessionPlugin(_greeting), LastLoginMethodPlugin(store_in_database=True)]})
async def custom_session_and_last_method(site: Site) -> None:
    ada = await site.browser()
    await ada.sign_up("ada")
    await ada.get("/get-session")
    await ada.post("/sign-out")
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.get("/get-session")


@flow(
    lambda site: {
        "plugins": [
            CaptchaPlugin(provider="cloudflare-turnstile", secret_key="secret"),
            HaveIBeenPwnedPlugin(),
        ],
        "http_client": identity_provider(),
    }
)
async def captcha_and_known_passwords(site: Site) -> None:
    ada = await site.browser()
    person = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
    for token in (None, "bad", "good"):
        headers = {} if token is None else {"x-captcha-response": token}
        await ada.ask("POST", "/sign-up/email", json={**person, "password": "password1234"}, headers=headers)
        answer = await ada.ask("POST", "/sign-up/email", json=person, headers=headers)
        assert (answer.status_code == 200) == (token == "good"), answer.text
    await ada.get("/get-session")
