"""The application signs people in for others: clients, consent, tokens, logout, devices."""

from __future__ import annotations

import base64
import hashlib
import secrets
from urllib.parse import urlsplit

from better_auth.plugins_ext.device_authorization import DeviceAuthorizationPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.oauth_provider import OAuthProviderPlugin

from ..site import Site
from .registry import flow, query, where

__all__: list[str] = []


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


def _user_code() -> str:
    """One that can be told from a word."""
    return f"A7{secrets.token_hex(3).upper()}"


@flow(lambda site: {"plugins": [DeviceAuthorizationPlugin(verification_uri="/device", generate_user_code=_user_code)]})
async def device(site: Site) -> None:
    ada, television = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "tv"}
    code = await television.post("/device/code", client_id="tv", scope="openid")
    poll = {**grant, "device_code": code["device_code"]}
    await television.post("/device/token", 400, **poll)
    await television.post("/device/token", 400, **poll)
    await ada.get("/device", user_code=code["user_code"])
    await ada.get("/device", 400, user_code="UNKNOWN")
    await ada.post("/device/approve", userCode=code["user_code"])
    await ada.post("/device/approve", 400, userCode=code["user_code"])
    # Five seconds later
    await site.auth.adapter.update("deviceCode", [where("deviceCode", code["device_code"])], {"lastPolledAt": None})
    await television.post("/device/token", **poll)
    await television.post("/device/token", 400, **poll)
    code = await television.post("/device/code", client_id="tv")
    await ada.get("/device", user_code=code["user_code"])
    await ada.post("/device/deny", userCode=code["user_code"])
    await television.post("/device/token", 400, **{**grant, "device_code": code["device_code"]})
    await television.post("/device/token", 400, **{**grant, "device_code": "unknown"})
