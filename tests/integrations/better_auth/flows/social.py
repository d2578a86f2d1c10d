"""Sign-in with accounts of OAuth providers."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from better_auth.config import AccountLinking, AccountOptions, EmailVerification, UserOptions
from better_auth.plugins_ext.bearer import BearerPlugin
from better_auth.plugins_ext.generic_oauth import GenericOAuthConfig, GenericOAuthPlugin
from better_auth.plugins_ext.oauth_popup import OAuthPopupPlugin
from better_auth.plugins_ext.oauth_proxy import OAuthProxyPlugin
from better_auth.plugins_ext.one_tap import OneTapPlugin
from better_auth.schema import Field

from tests.integrations.better_auth.flows.outside import IDP, PEOPLE, identity_provider, signed
from tests.integrations.better_auth.flows.registry import PAST, flow, put, query, token_of
from tests.integrations.better_auth.site import BASE, PASSWORD, Browser, Site

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


def _idp(**options: Any) -> GenericOAuthConfig:
    given: dict[str, Any] = {
        "provider_id": "idp",
        "client_id": "client",
        "client_secret": "secret",
        "authorization_url": f"{IDP}/authorize",
        "token_url": f"{IDP}/token",
        "user_info_url": f"{IDP}/userinfo",
        "scopes": ["openid"],
    }
    return GenericOAuthConfig(**given | options)


def _generic(site: Site, *plugins: Any, expires_in: int | None = None, **options: Any) -> dict[str, Any]:
    return {
        "plugins": [GenericOAuthPlugin(config=[_idp(**options)]), *plugins],
        "http_client": identity_provider(expires_in=expires_in),
    }


async def _signed_in(browser: Browser, who: str, expect: str = "/home", **given: Any) -> httpx.Response:
    """Sign in at the identity provider as ``who``. Return the redirect of the callback."""
    start = await browser.post("/sign-in/social", provider="idp", callbackURL="/home", **given)
    return await _back(browser, start["url"], who, expect)


async def _back(browser: Browser, url: str, who: str, expect: str = "/home") -> httpx.Response:
    asked = query(url)
    code = f"{who}.{asked['nonce']}" if "nonce" in asked else who
    answer: httpx.Response = await browser.get("/callback/idp", 302, state=asked["state"], code=code)
    assert answer.headers["location"].removeprefix(BASE).startswith(expect), answer.headers["location"]
    return answer


@flow(_generic)
async def generic_oauth(site: Site) -> None:
    octo = await site.browser()
    for expect in ("/welcome", "/home"):
        await _signed_in(octo, "one", expect, newUserCallbackURL="/welcome")
        assert (await octo.get("/get-session"))["user"]["name"] == "Octo"
    await octo.get("/list-accounts")
    await octo.get("/callback/idp", 302, state="unknown", code="one")
    await octo.get("/callback/idp", 302, code="one")
    await _signed_in(octo, "nobody", "/oops?error=email_not_found", errorCallbackURL="/oops")
    await _signed_in(octo, "somebody", "/oops?error=invalid_code", errorCallbackURL="/oops")


async def _refreshed(site: Site) -> None:
    octo, eve = await site.browser(), await site.browser()
    start = await octo.post("/sign-in/social", provider="idp", callbackURL="/home")
    # As those come back who are sent with a form.
    form = {"state": query(start["url"])["state"], "code": "one"}
    answer = await octo.ask("POST", "/callback/idp", data=form)
    assert answer.headers["location"].endswith("/home")
    await octo.ask("POST", "/callback/idp", data=form)
    account = {"accountId": (await octo.get("/list-accounts"))[0]["id"]}
    answers = [await octo.post("/get-access-token", **account) for _ in range(2)]
    assert [one["accessToken"] for one in answers] == ["one-2", "one-3"]
    assert (await octo.post("/refresh-token", **account))["accessToken"] == "one-4"
    await octo.get("/account-info", **account)
    await octo.get("/list-accounts")
    await _signed_in(octo, "one")
    await octo.post("/get-access-token", **account)
    await eve.sign_up("eve")
    for path in ("/get-access-token", "/refresh-token"):
        await eve.post(path, 400, **account)
        await octo.post(path, 400, accountId="unknown")
    await put(site, "account", "id", account["accountId"], refreshToken="who knows", accessTokenExpiresAt=PAST)
    await octo.post("/get-access-token", 400, **account)
    await octo.post("/refresh-token", 400, **account)
    await put(site, "account", "id", account["accountId"], refreshToken=None)
    await octo.post("/refresh-token", 400, **account)
    await octo.post("/get-access-token", **account)


@flow(lambda site: _generic(site, expires_in=1))
async def tokens_refreshed(site: Site) -> None:
    await _refreshed(site)


@flow(lambda site: _generic(site, expires_in=1) | {"account": AccountOptions(encrypt_oauth_tokens=True)})
async def tokens_encrypted(site: Site) -> None:
    await _refreshed(site)


@flow(
    lambda site: {
        "plugins": [GenericOAuthPlugin(config=[_idp()], legacy_routes=True)],
        "http_client": identity_provider(expires_in=3600),
        "account": AccountOptions(
            legacy_account_selection=True, account_linking=AccountLinking(allow_different_emails=True)
        ),
    }
)
async def addresses_of_before(site: Site) -> None:
    """Routes and parameters for older clients."""
    octo, ada = await site.browser(), await site.browser()
    for method, name in (("GET", "params"), ("POST", "data")):
        start = await octo.post("/sign-in/oauth2", providerId="idp", callbackURL="/home")
        given = {"state": query(start["url"])["state"], "code": "one"}
        answer = await octo.ask(method, "/oauth2/callback/idp", **{name: given})
        assert answer.headers["location"].endswith("/home")
        await octo.get("/get-session")
    await octo.post("/get-access-token", providerId="idp")
    await octo.post("/refresh-token", providerId="idp", accountId="1")
    await octo.post("/refresh-token", 400, providerId="idp", accountId="2")
    await octo.get("/account-info", accountId="1", providerId="idp")
    await octo.get("/account-info", accountId=(await octo.get("/list-accounts"))[0]["id"])
    await octo.get("/account-info", 400, accountId="2")
    await octo.post("/unlink-account", 400, providerId="idp")
    await ada.sign_up("ada")
    start = await ada.post("/oauth2/link", providerId="idp", callbackURL="/home")
    await ada.get("/oauth2/callback/idp", 302, state=query(start["url"])["state"], code="two")
    await ada.get("/list-accounts")
    await ada.post("/unlink-account", providerId="idp")
    await ada.post("/unlink-account", 400, providerId="idp")
    await ada.get("/list-accounts")


@flow(
    lambda site: (
        _generic(site, override_user_info=True, map_profile_to_user=lambda profile: {"theme": f"of {profile['sub']}"})
        | {
            "social_providers": {"google": {"client_id": "client", "client_secret": "secret"}},
            "account": AccountOptions(
                account_linking=AccountLinking(
                    update_user_info_on_link=True, allow_different_emails=True, allow_unlinking_all=True
                )
            ),
            "user": UserOptions(additional_fields={"theme": Field("string")}),
        }
    )
)
async def linked_accounts(site: Site) -> None:
    bob, ada = await site.browser(), await site.browser()
    bob_id = (await bob.sign_up("bob"))["user"]["id"]
    other = await site.browser()
    await _signed_in(other, "bob", "/oops?error=account_not_linked", errorCallbackURL="/oops")
    await put(site, "user", "id", bob_id, emailVerified=True)
    await _signed_in(other, "bob")
    await other.get("/get-session")
    await other.get("/list-accounts")
    await put(site, "user", "id", bob_id, emailVerified=False, name="Bobby", theme=None)
    await _signed_in(other, "bob")
    await other.get("/get-session")

    async def link(who: str, expect: str = "/home") -> None:
        start = await ada.post(
            "/link-social", provider="idp", callbackURL="/home", errorCallbackURL="/oops", scopes=["calendar"]
        )
        await _back(ada, start["url"], who, expect)
        await ada.get("/list-accounts")
        await ada.get("/get-session")

    await ada.sign_up("ada")
    await link("two")
    await link("two")
    await link("bob", "/oops?error=account_already_linked")
    await link("eve", "/oops?error=unable_to_link_account")
    # With a token that the client has from its own sign-in.
    octo = await site.browser()

    def token(who: str) -> dict[str, str]:
        return {"token": signed(PEOPLE[who], "https://accounts.google.com", "client"), "accessToken": who}

    await octo.post("/sign-in/social", 401, provider="google", idToken={"token": "no token"})
    for _ in range(2):
        await octo.post("/sign-in/social", provider="google", idToken=token("one"))
        await octo.get("/list-accounts")
    await ada.post("/link-social", 409, provider="google", idToken=token("one"))
    for _ in range(2):
        await ada.post("/link-social", provider="google", idToken=token("two"))
    accounts = await ada.get("/list-accounts")
    for account in accounts:
        await ada.post("/unlink-account", accountId=account["id"])
    await ada.get("/list-accounts")
    await ada.get("/get-session")


@flow(
    lambda site: {
        "plugins": [
            GenericOAuthPlugin(
                config=[
                    _idp(
                        discovery_url=f"{IDP}/.well-known/openid-configuration",
                        authorization_url=None,
                        token_url=None,
                        disable_implicit_sign_up=True,
                        require_email_verification=True,
                        allow_idp_initiated=True,
                    )
                ]
            )
        ],
        "http_client": identity_provider(expires_in=3600),
        "email_verification": EmailVerification(
            send_verification_email=site.post_office("user", "url", "token"), send_on_sign_in=True
        ),
    }
)
async def identity_provider_that_is_discovered(site: Site) -> None:
    octo, eve = await site.browser(), await site.browser()
    await _signed_in(octo, "one", "/oops?error=signup_disabled", errorCallbackURL="/oops")
    await _signed_in(octo, "one", requestSignUp=True)
    await octo.get("/get-session")
    other = await site.browser()
    bounced = await other.get("/callback/idp", 302, code="whoever")
    await _back(other, bounced.headers["location"], "one", "")
    await other.get("/get-session")
    for _ in range(2):
        await _signed_in(eve, "eve", "/oops?error=email_not_verified", errorCallbackURL="/oops", requestSignUp=True)
        await eve.get("/get-session")
    assert len(site.sent) == 2
    await eve.get("/verify-email", token=token_of(site.sent[-1]["url"]))
    await _signed_in(eve, "eve")
    await eve.get("/get-session")
    # The identity provider ends its own session, too.
    assert (await octo.post("/sign-out", callbackURL="/bye"))["url"].startswith(f"{IDP}/leave")
    await octo.get("/get-session")


@flow(lambda site: {"plugins": [OneTapPlugin(client_id="client")], "http_client": identity_provider()})
async def one_tap(site: Site) -> None:
    octo = await site.browser()
    await octo.post("/one-tap/callback", 400, idToken="no token")
    token = signed(PEOPLE["one"], "https://accounts.google.com", "client")
    for _ in range(2):
        await octo.post("/one-tap/callback", idToken=token)
        await octo.get("/get-session")
    await octo.get("/list-accounts")


@flow(lambda site: _generic(site, OAuthPopupPlugin(), BearerPlugin()))
async def oauth_popup(site: Site) -> None:
    octo = await site.browser()
    asked = {"provider": "idp", "popupOrigin": BASE, "popupNonce": "n" * 32, "callbackURL": "/home"}
    await octo.get("/oauth-popup/start", 403, **asked | {"popupOrigin": "https://evil.example.org"})
    await octo.get("/oauth-popup/start", **asked | {"provider": "unknown"})
    for code, member in (("one", "token"), ("nobody", "error"), ("one", "token")):
        start = await octo.get("/oauth-popup/start", 302, **asked, additionalData='{"from": "popup", "link": {}}')
        page = await octo.get("/callback/idp", state=query(start.headers["location"])["state"], code=code)
        assert f'"{member}"' in page.text
    await octo.get("/get-session")
    await octo.get("/list-accounts")


@flow(
    lambda site: (
        _generic(site, OAuthProxyPlugin(production_url="https://production.example.org", current_url=BASE))
        | {"account": AccountOptions(account_linking=AccountLinking(allow_different_emails=True))}
    )
)
async def oauth_proxy(site: Site) -> None:
    """One application has both roles: the production site of the redirect URI, and the site that the user visits."""
    octo, ada = await site.browser(), await site.browser()

    async def through(browser: Browser, url: str, who: str) -> str:
        """Send the callback to the production site. Return the path that it redirects to."""
        browser.client.cookies.delete("better-auth.state")
        answer = await browser.get("/callback/idp", 302, state=query(url)["state"], code=who)
        return str(answer.headers["location"]).removeprefix(f"{BASE}/api/auth")

    async def arrive(browser: Browser, place: str, expect: str = "/home") -> None:
        answer = await browser.get(place.partition("?")[0], 302, **query(place))
        assert answer.headers["location"].removeprefix(BASE).startswith(expect), answer.headers["location"]

    for path in ("/callback/idp/oauth-proxy", "/oauth-proxy-callback"):
        start = await octo.post("/sign-in/social", provider="idp", callbackURL="/home", errorCallbackURL="/oops")
        place = await through(octo, start["url"], "one")
        assert place.startswith("/callback/idp/oauth-proxy?")
        place = place.replace("/callback/idp/oauth-proxy", path)
        await arrive(octo, place)
        await arrive(octo, place, "/oops?error=state_mismatch")
        assert (await octo.get("/get-session"))["user"]["name"] == "Octo"
    await octo.get("/list-accounts")
    await arrive(
        octo, "/oauth-proxy-callback?callbackURL=/home&profile=nothing", "/api/auth/error?error=invalid_profile"
    )
    await arrive(octo, "/callback/idp/oauth-proxy?callbackURL=/home", "/api/auth/error?error=missing_profile")
    start = await octo.post("/sign-in/social", provider="idp", callbackURL="/home", errorCallbackURL="/oops")
    place = await through(octo, start["url"], "one")
    await arrive(octo, place.replace("/callback/idp", "/callback/other"), "/oops?error=provider_mismatch")
    await ada.sign_up("ada")
    for who, expect in (("two", "/home"), ("one", "/oops?error=account_already_linked")):
        start = await ada.post("/link-social", provider="idp", callbackURL="/home", errorCallbackURL="/oops")
        await arrive(ada, await through(ada, start["url"], who), expect)
        await ada.get("/list-accounts")
    # Who asks in production already goes straight.
    await octo.ask("POST", "/sign-in/social", json={"provider": "idp"}, headers={"x-skip-oauth-proxy": "1"})
