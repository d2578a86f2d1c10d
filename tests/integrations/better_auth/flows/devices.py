"""Device authorization: a user signs in a device without a keyboard from another device."""

from __future__ import annotations

import secrets
from typing import Any

from better_auth.plugins_ext.device_authorization import DeviceAuthorizationPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.oauth_provider import OAuthProviderPlugin
from better_auth.plugins_ext.oauth_provider.device_code import OAuthDeviceAuthorizationPlugin

from tests.integrations.better_auth.flows.registry import PAST, flow, put
from tests.integrations.better_auth.flows.relying import THERE, Program
from tests.integrations.better_auth.site import Site

__all__: list[str] = []

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def _user_code() -> str:
    """Return a user code that begins with ``A7`` and contains neither 0 nor 1."""
    return f"A7{secrets.token_hex(3).upper()}".replace("0", "G").replace("1", "H")


def _now_and_then() -> Any:
    """Return a generator of user codes whose second code repeats the first."""
    made: list[str] = []

    def make() -> str:
        made.append(made[0] if len(made) == 1 else _user_code())
        return made[-1]

    return make


async def _later(site: Site, code: str) -> None:
    """Simulate that the polling interval of a device code is over."""
    await put(site, "deviceCode", "deviceCode", code, lastPolledAt=None)


@flow(
    lambda site: {
        "plugins": [
            DeviceAuthorizationPlugin(
                verification_uri="/device",
                generate_user_code=_now_and_then(),
                validate_client=lambda name: name in ("tv", "radio"),
            )
        ]
    }
)
async def device(site: Site) -> None:
    ada, eve, television = await site.browser(), await site.browser(), await site.browser()
    await ada.sign_up("ada")
    await eve.sign_up("eve")
    grant = {"grant_type": GRANT, "client_id": "tv"}
    await television.post("/device/code", 400, client_id="unknown")
    code = await television.post("/device/code", client_id="tv", scope="openid")
    poll = {**grant, "device_code": code["device_code"]}
    await television.post("/device/token", 400, **poll)
    await television.post("/device/token", 400, **poll)
    await television.post("/device/token", 400, **poll | {"client_id": "radio"})
    user_code = {"userCode": code["user_code"]}
    await television.get("/device", user_code=code["user_code"])
    await ada.post("/device/approve", 400, **user_code)  # nobody has looked at it yet
    await ada.get("/device", user_code=f"{code['user_code'][:4]}-{code['user_code'][4:].lower()}")
    await eve.get("/device", user_code=code["user_code"])
    await ada.get("/device", 400, user_code="UNKNOWN")
    await eve.post("/device/approve", 403, **user_code)
    await television.post("/device/approve", 401, **user_code)
    await ada.post("/device/approve", **user_code)
    await ada.post("/device/approve", 400, **user_code)
    await _later(site, code["device_code"])
    await television.post("/device/token", **poll)
    await television.post("/device/token", 400, **poll)
    for end in ("denied", "too late"):
        code = await television.post("/device/code", client_id="tv")
        await ada.get("/device", user_code=code["user_code"])
        if end == "denied":
            await ada.post("/device/deny", userCode=code["user_code"])
        else:
            await put(site, "deviceCode", "deviceCode", code["device_code"], expiresAt=PAST)
            await ada.get("/device", 400, user_code=code["user_code"])
            await ada.post("/device/deny", 400, userCode=code["user_code"])
        for _ in range(2):
            await television.post("/device/token", 400, **{**grant, "device_code": code["device_code"]})
    await television.post("/device/token", 400, **{**grant, "device_code": "unknown"})


@flow(lambda site: {"plugins": [DeviceAuthorizationPlugin(generate_user_code=_now_and_then())]})
async def device_with_a_code_that_is_taken(site: Site) -> None:
    television = await site.browser()
    first = await television.post("/device/code", client_id="tv")
    second = await television.post("/device/code", client_id="tv")
    assert first["user_code"] != second["user_code"]
    for code in (first, second):
        await television.get("/device", user_code=code["user_code"])


@flow(
    lambda site: {
        "plugins": [
            JWTPlugin(),
            OAuthProviderPlugin(
                login_page="/login",
                consent_page="/consent",
                scopes=["openid", "email", "offline_access"],
                resources=["https://films.example.org"],
                enforce_per_client_resources=False,
            ),
            OAuthDeviceAuthorizationPlugin(
                verification_uri="/device",
                generate_user_code=_user_code,
                validate_client=lambda name: name == "tv",
            ),
        ]
    }
)
async def device_of_a_program(site: Site) -> None:
    ada, television = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    client = await ada.post(
        "/oauth2/create-client",
        201,
        redirect_uris=[THERE],
        grant_types=["authorization_code", "refresh_token", GRANT],
        scope="openid email offline_access",
    )
    program = Program(television, client)
    films = {"resource": "https://films.example.org"}
    await program.tell("/device/code", 400, scope="openid", resource="https://else.example.org")
    await program.tell("/device/code", 400, scope="anything")
    await television.post("/device/code", 400, client_id=program.id)
    code = await program.tell("/device/code", scope="openid email offline_access", **films)
    poll = {"grant_type": GRANT, "device_code": code["device_code"]}
    await program.tell("/oauth2/token", 400, **poll)
    await program.tell("/oauth2/token", 400, **poll)
    await ada.get("/device", user_code=code["user_code"])
    await ada.post("/device/approve", userCode=code["user_code"])
    await television.post("/device/token", 400, client_id=program.id, **poll)
    other = Program(
        television,
        await ada.post("/oauth2/create-client", 201, redirect_uris=[THERE], grant_types=["authorization_code", GRANT]),
    )
    await other.tell("/oauth2/token", 400, **poll)
    await _later(site, code["device_code"])
    await program.tell("/oauth2/token", 400, **poll, resource="https://else.example.org")
    await _later(site, code["device_code"])
    tokens = await program.tell("/oauth2/token", **poll, **films)
    assert await program.introspect(tokens["access_token"])
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    await television.ask("GET", "/oauth2/userinfo", headers=headers)
    await program.refresh(tokens["refresh_token"])
    await program.tell("/oauth2/token", 400, **poll)
    # Devices that are no program of anybody get a session.
    code = await television.post("/device/code", client_id="tv")
    await ada.get("/device", user_code=code["user_code"])
    await ada.post("/device/approve", userCode=code["user_code"])
    poll["device_code"] = code["device_code"]
    await program.tell("/oauth2/token", 400, **poll)
    await television.post("/device/token", client_id="tv", **poll)
    await television.post("/device/code", 400, client_id="unknown")
    code = await program.tell("/device/code", scope="openid")
    await ada.get("/device", user_code=code["user_code"])
    await ada.post("/device/deny", userCode=code["user_code"])
    await program.tell("/oauth2/token", 400, **poll | {"device_code": code["device_code"]})
