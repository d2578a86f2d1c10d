"""Logout of OAuth clients: requested by a client, and notified to the clients."""

from __future__ import annotations

from typing import Any

from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.oauth_provider import OAuthProviderPlugin

from tests.integrations.better_auth.flows.outside import identity_provider
from tests.integrations.better_auth.flows.registry import flow, put, query
from tests.integrations.better_auth.flows.relying import THERE, Program, as_server
from tests.integrations.better_auth.site import BASE, PASSWORD, Browser, Site

__all__: list[str] = []

BYE = "https://app.example.org/bye"
NAVIGATION = {"accept": "text/html"}


async def _leave(
    browser: Browser, method: str, expect: int, /, headers: dict[str, str] | None = None, **given: Any
) -> str:
    """Send a logout request. Return the location of the redirect, or an empty string."""
    name = "params" if method == "GET" else "data"
    answer = await browser.ask(method, "/oauth2/end-session", headers=headers or {}, **{name: given})
    assert answer.status_code == expect, (given, answer.status_code, answer.text)
    return str(answer.headers.get("location", ""))


@flow(
    lambda site: {
        "plugins": [
            # The package names itself with https wherever a program looks at it.
            JWTPlugin(issuer=f"{BASE.replace('http', 'https')}/api/auth"),
            OAuthProviderPlugin(
                login_page="/login", consent_page="/consent", scopes=["openid", "email", "offline_access"]
            ),
        ],
        "http_client": identity_provider(),
    }
)
async def oauth_logout(site: Site) -> None:
    ada, phone, nobody = await site.browser(), await site.browser(), await site.browser()
    await ada.sign_up("ada")

    async def enter(browser: Browser) -> dict[str, Any]:
        """Sign in to the application, then to the client."""
        await browser.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
        return await program.tokens(browser, scope="openid email")

    made = await as_server(
        site,
        ada,
        site.auth.plugins[1].admin_create_client,
        redirect_uris=[THERE],
        grant_types=["authorization_code", "refresh_token"],
        scope="openid email offline_access",
        post_logout_redirect_uris=[BYE],
        backchannel_logout_uri="https://app.example.org/logged-out",
        backchannel_logout_session_required=True,
        enable_end_session=True,
        skip_consent=True,
    )
    program = Program(nobody, made)
    # With what the program knows of the session.
    tokens, lasting = await enter(ada), await program.tokens(ada, scope="openid offline_access")
    elsewhere = await enter(phone)
    hint = {"id_token_hint": tokens["id_token"]}
    await _leave(ada, "GET", 401, id_token_hint="no token", client_id=program.id)
    await _leave(ada, "GET", 400, id_token_hint="no token")
    place = await _leave(ada, "GET", 302, **hint, post_logout_redirect_uri=BYE, state="bye")
    assert place == f"{BYE}?state=bye"
    await ada.get("/get-session")
    for token, good in ((tokens, False), (lasting, False), (elsewhere, True)):
        assert await program.introspect(token["access_token"]) == good
    await program.refresh(lasting["refresh_token"])  # which outlives sessions
    await phone.get("/get-session")
    await _leave(phone, "GET", 200, NAVIGATION, **hint)  # is of another session; somebody has to agree
    await _leave(nobody, "GET", 302, **hint, post_logout_redirect_uri=BYE)
    await _leave(nobody, "POST", 200, id_token_hint=elsewhere["id_token"], post_logout_redirect_uri=f"{BYE}/else")
    await phone.get("/get-session")
    assert not await program.introspect(elsewhere["access_token"])
    # Without that the person is asked.
    await enter(phone)
    await _leave(phone, "POST", 400)
    await _leave(phone, "POST", 400, client_id="unknown")
    await _leave(phone, "POST", 200, NAVIGATION, client_id=program.id, post_logout_redirect_uri=BYE, state="asked")
    await phone.post("/oauth2/end-session/confirm", 400)
    answer = await phone.ask("POST", "/oauth2/end-session/confirm", data={"action": "confirm"}, headers=NAVIGATION)
    assert answer.headers["location"] == f"{BYE}?state=asked"
    await phone.get("/get-session")
    await phone.post("/oauth2/end-session/confirm", 400, action="confirm")
    await _leave(nobody, "GET", 400)
    await _leave(nobody, "GET", 200, NAVIGATION)
    # The client is also notified of sessions that end in another way.
    tokens = await enter(phone)
    await phone.post("/sign-out")
    assert not await program.introspect(tokens["access_token"])
    tokens = await enter(phone)
    lasting = await program.tokens(phone, scope="openid offline_access")
    await phone.post("/revoke-sessions")
    await program.refresh(lasting["refresh_token"])
    tokens = await enter(phone)
    await put(site, "oauthClient", "clientId", program.id, enableEndSession=False)
    await _leave(phone, "GET", 401, id_token_hint=tokens["id_token"])
    await put(site, "oauthClient", "clientId", program.id, disabled=True)
    await _leave(phone, "GET", 400, id_token_hint=tokens["id_token"])
    await phone.get("/get-session")
    assert query(place) == {"state": "bye"}
