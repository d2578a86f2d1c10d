"""Sessions: several per browser, tokens, added fields."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from better_auth.plugins_ext.bearer import BearerPlugin
from better_auth.plugins_ext.captcha import CaptchaPlugin
from better_auth.plugins_ext.custom_session import CustomSessionPlugin
from better_auth.plugins_ext.haveibeenpwned import HaveIBeenPwnedPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.last_login_method import LastLoginMethodPlugin
from better_auth.plugins_ext.multi_session import MultiSessionPlugin
from better_auth.plugins_ext.one_time_token import OneTimeTokenPlugin

from tests.integrations.better_auth.flows.outside import identity_provider
from tests.integrations.better_auth.flows.registry import PAST, flow, note, put
from tests.integrations.better_auth.site import PASSWORD, Site

__all__: list[str] = []


async def _greeting(given: Any, ctx: Any = None) -> dict[str, Any]:
    return {**given, "greeting": f"Hello {given['user']['name']}"}


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


@flow(
    lambda site: {
        "plugins": [
            MultiSessionPlugin(maximum_sessions=2),
            CustomSessionPlugin(_greeting, should_mutate_list_device_sessions_endpoint=True),
        ]
    }
)
async def multi_session_of_some(site: Site) -> None:
    ada = await site.browser()
    first = await ada.sign_up("ada")
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)  # takes the place of the first
    await ada.post("/multi-session/set-active", 401, sessionToken=first["token"])
    await ada.get("/list-sessions")
    await ada.sign_up("bob")
    last = await ada.sign_up("eve")
    await ada.get("/multi-session/list-device-sessions")
    await ada.get("/get-session")
    await ada.post("/multi-session/revoke", 401, sessionToken=last["token"])
    sessions = await ada.get("/multi-session/list-device-sessions")
    token = sessions[0]["session"]["token"]
    await ada.post("/multi-session/set-active", sessionToken=token)
    await put(site, "session", "token", sessions[1]["session"]["token"], expiresAt=PAST)
    await ada.post("/multi-session/set-active", 401, sessionToken=sessions[1]["session"]["token"])
    await ada.post("/multi-session/revoke", sessionToken=token)
    await ada.get("/multi-session/list-device-sessions")
    await ada.get("/get-session")
    note(site, "session", await site.auth.adapter.count("session"))


@flow(
    lambda site: {
        "plugins": [
            OneTimeTokenPlugin(
                store_token="hashed", set_ott_header_on_new_session=True, disable_set_session_cookie=True, expires_in=1
            )
        ]
    }
)
async def one_time_token_of_each_session(site: Site) -> None:
    ada, other = await site.browser(), await site.browser()
    answer = await ada.ask(
        "POST", "/sign-up/email", json={"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
    )
    await other.post("/one-time-token/verify", token=answer.headers["set-ott"])
    await other.get("/get-session")
    for end in (False, True):
        token = (await ada.get("/one-time-token/generate"))["token"]
        if end:
            await ada.post("/sign-out")
        else:
            for row in await site.auth.adapter.find_many("verification"):
                await put(site, "verification", "id", row["id"], expiresAt=PAST)
        await other.post("/one-time-token/verify", 400, token=token)


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


@flow(
    lambda site: {
        "plugins": [
            JWTPlugin(
                key_pair_config={"alg": "ES256"},
                disable_private_key_encryption=True,
                rotation_interval=3600,
                jwks_path="/keys",
                issuer="https://issuer.example.org",
                audience=["one", "two"],
                expiration_time="1h",
                define_payload=lambda session: {"name": session["user"]["name"]},
                get_subject=lambda session: session["user"]["email"],
            )
        ]
    }
)
async def jwt_with_keys_that_change(site: Site) -> None:
    ada = await site.browser()
    plugin = site.auth.plugins[0]
    await ada.sign_up("ada")
    first = (await ada.get("/token"))["token"]
    for ago in (timedelta(days=1), timedelta(days=31)):
        for row in await site.auth.adapter.find_many("jwks"):
            await put(site, "jwks", "id", row["id"], expiresAt=datetime.now(UTC) - ago)
        second = (await ada.get("/token"))["token"]
        await ada.get("/keys")
        for token in (first, second, "no token"):
            note(site, "verify_jwt", await plugin.verify_jwt(token, issuer="https://issuer.example.org"))
    note(
        site, "sign_jwt", await plugin.sign_jwt(payload={"sub": "a", "iat": 1}, override_options={"expiration_time": 9})
    )


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
