"""The flows in which somebody else signs people in, or in which this application signs them in for others."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt as pyjwt
from better_auth.plugins_ext.captcha import CaptchaPlugin
from better_auth.plugins_ext.generic_oauth import GenericOAuthConfig, GenericOAuthPlugin
from better_auth.plugins_ext.haveibeenpwned import HaveIBeenPwnedPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.oauth_popup import OAuthPopupPlugin
from better_auth.plugins_ext.oauth_provider import OAuthProviderPlugin
from better_auth.plugins_ext.oauth_proxy import OAuthProxyPlugin
from better_auth.plugins_ext.one_tap import OneTapPlugin
from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.plugins_ext.sso import SSOPlugin
from cryptography.hazmat.primitives.asymmetric import rsa

from .flows import flow
from .site import BASE, PASSWORD, Site

__all__: list[str] = []

IDP = "https://idp.example.org"
KEY = rsa.generate_private_key(65537, 2048)
PEOPLE = {
    "one": {"sub": "1", "name": "Octo", "email": "octo@example.org", "email_verified": True},
    "two": {"sub": "2", "name": "Ada", "email": "ada@idp.example.org", "email_verified": True},
}


def signed(claims: dict[str, Any], issuer: str, audience: str) -> str:
    now = int(time.time())
    given = {"iss": issuer, "aud": audience, "iat": now, "exp": now + 600, **claims}
    token: str = pyjwt.encode(given, KEY, algorithm="RS256", headers={"kid": "k"})
    return token


def jwks() -> dict[str, Any]:
    public = json.loads(pyjwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
    return {"keys": [{**public, "kid": "k", "alg": "RS256", "use": "sig"}]}


def identity_provider() -> httpx.AsyncClient:
    """Somebody who signs people in: whoever comes with the code of a person is that person."""
    nonces: dict[str, str] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        path, host = request.url.path, request.url.host
        if path == "/token":
            code, _, nonce = parse_qs(request.content.decode())["code"][0].partition(".")
            nonces[code] = nonce
            claims = PEOPLE[code] | ({"nonce": nonce} if nonce else {})
            return httpx.Response(
                200, json={"access_token": code, "token_type": "bearer", "id_token": signed(claims, IDP, "client")}
            )
        if path == "/userinfo":
            return httpx.Response(200, json=PEOPLE[request.headers["authorization"].split()[-1]])
        if path in ("/jwks", "/oauth2/v3/certs"):
            return httpx.Response(200, json=jwks())
        if path.startswith("/range/"):  # passwords that are known, by the first digits of their hashes
            known = hashlib.sha1(b"password1234").hexdigest().upper()  # what the service speaks
            return httpx.Response(200, text=f"{known[5:]}:42\r\n" if path.endswith(known[:5]) else "")
        if "turnstile" in path or "challenges" in host:
            given = request.content.decode()
            return httpx.Response(200, json={"success": "good" in given})
        return httpx.Response(404)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


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
            SSOPlugin(domain_verification={"enabled": False}, resolve_host=_public, trust_email_verified=True),
            OrganizationPlugin(),
        ],
        "http_client": identity_provider(),
        "trusted_origins": [IDP],
    }
)
async def sso(site: Site) -> None:
    root, octo = await site.browser(), await site.browser()
    await root.sign_up("root")
    organization = await root.post("/organization/create", name="Example", slug="example")
    config = {
        "clientId": "client",
        "clientSecret": "secret",
        "authorizationEndpoint": f"{IDP}/authorize",
        "tokenEndpoint": f"{IDP}/token",
        "userInfoEndpoint": f"{IDP}/userinfo",
        "jwksEndpoint": f"{IDP}/jwks",
        "skipDiscovery": True,
    }
    given = {"providerId": "idp", "issuer": IDP, "domain": "idp.example.org", "oidcConfig": config}
    await octo.post("/sso/register", 401, **given)
    await root.post("/sso/register", **given, organizationId=organization["id"])
    await root.ask("POST", "/sso/register", json=given)
    await root.get("/sso/providers")
    await root.get("/sso/get-provider", providerId="idp")
    await root.ask("POST", "/sso/update-provider", json={"providerId": "idp", "domain": "example.com"})
    await root.ask("POST", "/sso/update-provider", json={"providerId": "idp", "domain": "idp.example.org"})
    for who in ("two", "two"):
        start = await octo.post("/sign-in/sso", providerId="idp", callbackURL="/home")
        asked = query(start["url"])
        code = f"{who}.{asked.get('nonce', '')}"
        await octo.get("/sso/callback/idp", 302, state=asked["state"], code=code)
        assert (await octo.get("/get-session"))["user"]["name"] == "Ada"
    await octo.ask("POST", "/sign-in/sso", json={"email": "ada@idp.example.org", "callbackURL": "/home"})
    await octo.ask("POST", "/sign-in/sso", json={"providerId": "unknown", "callbackURL": "/home"})
    await octo.get("/sso/callback/idp", 302, state="unknown", code="one")
    await root.ask("POST", "/sso/update-provider", json={"providerId": "idp", "issuer": "https://other.example.org"})
    await root.post("/sso/delete-provider", providerId="idp")
    await root.get("/sso/providers")


async def _public(*host: Any) -> list[str]:
    return ["203.0.113.7"]


@flow(
    lambda site: {
        "plugins": [
            JWTPlugin(),
            OAuthProviderPlugin(
                login_page="/login",
                consent_page="/consent",
                allow_dynamic_client_registration=True,
                scopes=["openid", "profile", "email", "offline_access"],
            ),
        ]
    }
)
async def oauth_provider(site: Site) -> None:
    ada, program = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    there = "https://app.example.org/callback"
    client = await ada.post(
        "/oauth2/create-client",
        201,
        grant_types=["authorization_code", "refresh_token"],
        redirect_uris=[there],
        client_name="App",
        scope="openid profile email offline_access",
    )
    await ada.get("/oauth2/get-clients")
    await ada.get("/oauth2/get-client", client_id=client["client_id"])
    await ada.ask(
        "POST", "/oauth2/update-client", json={"client_id": client["client_id"], "update": {"client_name": "Renamed"}}
    )
    verifier = "v" * 64
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "client_id": client["client_id"],
        "redirect_uri": there,
        "response_type": "code",
        "scope": "openid profile email offline_access",
        "state": "a state",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "prompt": "consent",
    }
    await program.ask("GET", "/oauth2/authorize", params=asked)
    shown = await ada.ask("GET", "/oauth2/authorize", params=asked)
    oauth_query = urlsplit(shown.headers["location"]).query
    consented = await ada.post("/oauth2/consent", accept=True, oauth_query=oauth_query)
    code = query(consented.get("url") or consented.get("redirect_uri") or consented.get("redirectURI"))["code"]
    secret = (client["client_id"], client["client_secret"])
    exchange = {"grant_type": "authorization_code", "code": code, "redirect_uri": there, "code_verifier": verifier}
    answer = await program.ask("POST", "/oauth2/token", data=exchange, auth=secret)
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    await program.ask("POST", "/oauth2/token", data=exchange, auth=secret)  # a code is used once
    bearer = {"authorization": f"Bearer {tokens['access_token']}"}
    await program.ask("GET", "/oauth2/userinfo", headers=bearer)
    for token in (tokens["access_token"], "unknown"):
        await program.ask("POST", "/oauth2/introspect", data={"token": token}, auth=secret)
    await ada.get("/oauth2/get-consents")
    # The use of the code a second time has taken back what came of it; so once more.
    again = await ada.ask("GET", "/oauth2/authorize", params={**asked, "prompt": "none"})
    code = query(again.headers["location"]).get("code", "none")
    answer = await program.ask("POST", "/oauth2/token", data={**exchange, "code": code}, auth=secret)
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answer = await program.ask("POST", "/oauth2/token", data=refresh, auth=secret)
    assert answer.status_code == 200, answer.text
    await program.ask("POST", "/oauth2/token", data=refresh, auth=secret)
    await program.ask("POST", "/oauth2/revoke", data={"token": answer.json()["access_token"]}, auth=secret)
    await program.ask("POST", "/oauth2/introspect", data={"token": answer.json()["access_token"]}, auth=secret)
    rotated = await ada.ask("POST", "/oauth2/client/rotate-secret", json={"client_id": client["client_id"]})
    assert rotated.status_code == 200, rotated.text
    registered = await ada.ask("POST", "/oauth2/register", json={"redirect_uris": [there], "client_name": "Dynamic"})
    assert registered.status_code in (200, 201), registered.text
    consents = await ada.get("/oauth2/get-consents")
    await ada.ask("POST", "/oauth2/delete-consent", json={"id": consents[0]["id"]})
    await ada.ask("POST", "/oauth2/delete-client", json={"client_id": client["client_id"]})
    await ada.get("/oauth2/get-clients")


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
