"""Accounts of others: who signs people in elsewhere signs them in here."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from better_auth.plugins_ext.generic_oauth import GenericOAuthConfig, GenericOAuthPlugin
from better_auth.plugins_ext.oauth_popup import OAuthPopupPlugin
from better_auth.plugins_ext.oauth_proxy import OAuthProxyPlugin
from better_auth.plugins_ext.one_tap import OneTapPlugin

from ..site import BASE, PASSWORD, Site
from .outside import IDP, PEOPLE, identity_provider, signed
from .registry import flow, query

__all__: list[str] = []


def _github(site: Site) -> dict[str, Any]:
    people = {"one": (1, "Octo", "octo@example.org"), "two": (2, "Ada", "ada@example.org")}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/login/oauth/access_token":
            code = parse_qs(request.content.decode())["code"][0]
            return httpx.Response(200, json={"access_token": code, "scope": "user", "token_type": "bearer"})
        number, name, email = people[request.headers["authorization"].split()[-1]]
        if request.url.path == "/user/emails":
            return httpx.Response(200, json=[{"email": email, "primary": True, "verified": True}])
        return httpx.Response(200, json={"id": number, "login": name, "name": name, "email": email, "avatar_url": None})

    return {
        "social_providers": {"github": {"client_id": "id", "client_secret": "secret"}},
        "http_client": httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    }


@flow(_github)
async def social(site: Site) -> None:
    octo, ada = await site.browser(), await site.browser()

    async def come_back(browser: Any, url: str, code: str) -> None:
        await browser.get("/callback/github", 302, state=parse_qs(urlsplit(url).query)["state"][0], code=code)

    for _ in range(2):
        start = await octo.post("/sign-in/social", provider="github", callbackURL="/home")
        await come_back(octo, start["url"], "one")
        await octo.get("/get-session")
    await octo.get("/callback/github", 302, state="unknown", code="one")
    accounts = await octo.get("/list-accounts")
    await octo.post("/get-access-token", accountId=accounts[0]["id"])
    await octo.get("/account-info", accountId=accounts[0]["id"])
    await octo.post("/unlink-account", 400, accountId=accounts[0]["id"])
    await octo.post("/set-password", newPassword=PASSWORD)
    await octo.post("/unlink-account", accountId=accounts[0]["id"])
    await octo.get("/list-accounts")
    await ada.sign_up("ada")
    start = await ada.post("/link-social", provider="github", callbackURL="/home")
    await come_back(ada, start["url"], "two")
    await ada.get("/list-accounts")


def _generic(site: Site) -> dict[str, Any]:
    config = GenericOAuthConfig(
        provider_id="idp",
        client_id="client",
        client_secret="secret",
        authorization_url=f"{IDP}/authorize",
        token_url=f"{IDP}/token",
        user_info_url=f"{IDP}/userinfo",
        scopes=["openid"],
    )
    return {"plugins": [GenericOAuthPlugin(config=[config])], "http_client": identity_provider()}


@flow(_generic)
async def generic_oauth(site: Site) -> None:
    octo = await site.browser()
    for _ in range(2):
        start = await octo.post("/sign-in/social", provider="idp", callbackURL="/home", newUserCallbackURL="/welcome")
        await octo.get("/callback/idp", 302, state=query(start["url"])["state"], code="one")
        assert (await octo.get("/get-session"))["user"]["name"] == "Octo"
    await octo.get("/list-accounts")
    await octo.get("/callback/idp", 302, state="unknown", code="one")


@flow(lambda site: {"plugins": [OneTapPlugin(client_id="client")], "http_client": identity_provider()})
async def one_tap(site: Site) -> None:
    octo = await site.browser()
    await octo.post("/one-tap/callback", 400, idToken="no token")
    token = signed(PEOPLE["one"], "https://accounts.google.com", "client")
    for _ in range(2):
        await octo.post("/one-tap/callback", idToken=token)
        await octo.get("/get-session")
    await octo.get("/list-accounts")


@flow(
    lambda site: {
        "plugins": [
            OAuthPopupPlugin(),
            OAuthProxyPlugin(production_url=BASE, current_url=BASE),
            *_generic(site)["plugins"],
        ],
        "http_client": identity_provider(),
    }
)
async def oauth_popup_and_proxy(site: Site) -> None:
    octo = await site.browser()
    await octo.ask(
        "GET", "/oauth-popup/start", params={"provider": "idp", "origin": BASE, "openerOrigin": BASE, "nonce": "n" * 32}
    )
    start = await octo.post("/sign-in/social", provider="idp", callbackURL="/home")
    await octo.get("/callback/idp", 302, state=query(start["url"])["state"], code="one")
    await octo.get("/get-session")
    await octo.ask("GET", "/oauth-proxy-callback", params={"callbackURL": "/home", "profile": "nothing"})
