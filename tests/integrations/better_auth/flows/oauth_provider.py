"""The application as an OAuth provider: clients, consent, tokens, resources."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any
from urllib.parse import urlsplit

import jwt as pyjwt
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.oauth_provider import OAuthProviderPlugin
from better_auth.plugins_ext.oauth_provider.resources import seed_resources
from better_auth.types import AuthRequest, Ctx
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from jwt.utils import base64url_encode

from tests.integrations.better_auth.flows.outside import identity_provider, jwks
from tests.integrations.better_auth.flows.outside import signed as signed_by_client
from tests.integrations.better_auth.flows.registry import PAST, flow, note, put, query
from tests.integrations.better_auth.flows.relying import THERE, Program, as_server
from tests.integrations.better_auth.site import BASE, PASSWORD, Browser, Site

__all__: list[str] = []


def _provider(**options: Any) -> Any:
    given: dict[str, Any] = {
        "login_page": "/login",
        "consent_page": "/consent",
        "scopes": ["openid", "profile", "email", "offline_access"],
    }
    return OAuthProviderPlugin(**given | options)


async def _client(person: Browser, **more: Any) -> dict[str, Any]:
    given = {
        "redirect_uris": [THERE],
        "client_name": "App",
        "scope": "openid profile email offline_access",
        "grant_types": ["authorization_code", "refresh_token"],
    }
    made: dict[str, Any] = await person.post("/oauth2/create-client", 201, **given | more)
    return made


@flow(lambda site: {"plugins": [JWTPlugin(), _provider(allow_dynamic_client_registration=True)]})
async def oauth_provider(site: Site) -> None:
    ada, eve, nobody = await site.browser(), await site.browser(), await site.browser()
    await ada.sign_up("ada")
    await eve.sign_up("eve")
    for name in ("openid-configuration", "oauth-authorization-server"):
        await nobody.get(f"/.well-known/{name}")
        await nobody.post(f"/.well-known/{name}", 405)
    await nobody.post("/oauth2/create-client", 401, redirect_uris=[THERE])
    client = await _client(ada, contacts=["a@example.org"], logo_uri="https://app.example.org/logo.png")
    this = {"client_id": client["client_id"]}
    program = Program(nobody, client)
    await ada.get("/oauth2/get-clients")
    await ada.get("/oauth2/get-client", **this)
    await ada.get("/oauth2/public-client", **this)
    await ada.get("/oauth2/public-client", 404, client_id="unknown")
    await nobody.get("/oauth2/public-client", 401, **this)
    await ada.post("/oauth2/update-client", **this, update={"client_name": "Renamed", "contacts": []})
    for path in ("/oauth2/update-client", "/oauth2/client/rotate-secret", "/oauth2/delete-client"):
        await eve.post(path, 401, **this, update={"client_name": "Stolen"})
        await ada.post(path, 404, client_id="unknown", update={})
    assert (await program.shown(nobody)).startswith("/login?")
    code = await program.code(ada, prompt="consent")
    tokens = await program.redeem(code)
    bearer = {"authorization": f"Bearer {tokens['access_token']}"}
    for method in ("GET", "POST"):
        answer = await nobody.ask(method, "/oauth2/userinfo", headers=bearer)
        assert answer.json()["email"] == "ada@example.org"
    await nobody.ask("POST", "/oauth2/userinfo", data={"access_token": tokens["access_token"]})
    assert await program.introspect(tokens["access_token"])
    assert await program.introspect(tokens["refresh_token"], token_type_hint="refresh_token")
    assert not await program.introspect("unknown")
    await program.redeem(code, 400)  # a code is used once; that takes back what came of it
    await nobody.ask("GET", "/oauth2/userinfo", headers=bearer)
    assert not await program.introspect(tokens["access_token"])
    # A request may be a form as well.
    answer = await ada.ask("POST", "/oauth2/authorize", data=program.asking())
    tokens = await program.redeem(query(answer.headers["location"])["code"])
    again = await program.refresh(tokens["refresh_token"])
    await program.refresh(tokens["refresh_token"], 400)  # so is a token for others; that takes back all
    await program.refresh(again["refresh_token"], 400)
    assert not await program.introspect(again["access_token"])
    # What is not needed any more is given back.
    tokens = await program.tokens(ada, prompt="none")
    await program.tell("/oauth2/revoke", token=tokens["access_token"])
    assert not await program.introspect(tokens["access_token"])
    tokens = await program.refresh(tokens["refresh_token"], scope="openid email")
    await program.tell("/oauth2/revoke", token=tokens["refresh_token"], token_type_hint="refresh_token")
    assert not await program.introspect(tokens["access_token"])
    await program.tell("/oauth2/revoke", token=tokens["refresh_token"], token_type_hint="refresh_token")
    await program.tell("/oauth2/revoke", token="unknown")
    for wrong in ({"code_verifier": "w" * 64}, {"redirect_uri": f"{THERE}/else"}):
        await program.redeem(await program.code(ada), 401 if "code_verifier" in wrong else 400, **wrong)
    late = await program.code(ada)
    for row in await site.auth.adapter.find_many("verification"):
        await put(site, "verification", "id", row["id"], expiresAt=PAST)
    await program.redeem(late, 400)
    # Tokens end, and those of a session that is over.
    tokens = await program.tokens(ada, scope="openid")
    other = await program.tokens(ada)
    for row in await site.auth.adapter.find_many("oauthAccessToken"):
        if row["refreshId"] is None:
            await put(site, "oauthAccessToken", "id", row["id"], expiresAt=PAST)
    assert not await program.introspect(tokens["access_token"])
    assert await program.introspect(other["access_token"])
    await ada.post("/sign-out")
    assert not await program.introspect(other["access_token"])
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await program.refresh(other["refresh_token"])
    # The end of a client.
    rotated = await ada.post("/oauth2/client/rotate-secret", **this)
    await program.refresh("any", 400)
    program.secret = rotated["client_secret"]
    await program.refresh("any", 400)
    consents = await ada.get("/oauth2/get-consents")
    consent = {"id": consents[0]["id"]}
    for path in ("/oauth2/update-consent", "/oauth2/delete-consent"):
        await eve.post(path, 401, **consent)
        await ada.post(path, 404, id="unknown")
    await eve.get("/oauth2/get-consent", 401, **consent)
    await ada.get("/oauth2/get-consent", 404, id="unknown")
    await ada.post("/oauth2/update-consent", 400, **consent, update={"scopes": ["anything"]})
    await ada.post("/oauth2/update-consent", **consent, update={"scopes": ["openid"]})
    await ada.get("/oauth2/get-consent", **consent)
    place = await program.shown(ada)
    assert place.startswith("/consent")
    await ada.post("/oauth2/consent", accept=True, oauth_query=urlsplit(place).query)
    await ada.get("/oauth2/get-consents")
    await ada.post("/oauth2/delete-consent", **consent)
    await ada.get("/oauth2/get-consents")
    await put(site, "oauthClient", "clientId", client["client_id"], disabled=True)
    await ada.get("/oauth2/public-client", 404, **this)
    await program.shown(ada)
    await ada.post("/oauth2/delete-client", **this)
    await ada.get("/oauth2/get-client", 404, **this)
    await ada.get("/oauth2/get-clients")


def _more(given: dict[str, Any]) -> bool:
    """Whether the user must select an organization after signing in."""
    return "profile" in given["scopes"]


@flow(
    lambda site: {
        "plugins": [
            JWTPlugin(),
            _provider(
                allow_public_client_prelogin=True,
                select_account={"page": "/choose", "shouldRedirect": lambda given: False},
                signup={"page": "/join", "shouldRedirect": lambda given: given["user"]["name"] == "Newcomer"},
                post_login={
                    "page": "/organizations",
                    "shouldRedirect": _more,
                    "consentReferenceId": lambda given: "a company" if _more(given) else None,
                },
            ),
        ]
    }
)
async def oauth_pages(site: Site) -> None:
    """The pages of an authorization: sign-in, selection of the account, consent."""
    ada, person = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    program = Program(await site.browser(), await _client(ada))
    small = {"scope": "openid"}
    # The page for signing in shows whom it is for, and goes on where it was.
    place = await program.shown(person, **small)
    oauth_query = urlsplit(place).query
    await person.post("/oauth2/public-client-prelogin", client_id=program.id, oauth_query=oauth_query)
    await person.post("/oauth2/public-client-prelogin", 401, client_id=program.id)
    await person.post(
        "/oauth2/public-client-prelogin", 400, client_id=program.id, oauth_query=oauth_query.replace("openid", "email")
    )
    answer = await person.post("/sign-in/email", email="ada@example.org", password=PASSWORD, oauth_query=oauth_query)
    assert answer["url"].startswith("/consent?")
    oauth_query = urlsplit(answer["url"]).query
    denied = await person.post("/oauth2/consent", accept=False, oauth_query=oauth_query)
    assert "error=access_denied" in denied["url"]
    await person.post("/oauth2/consent", 400, accept=True, scope="openid email", oauth_query=oauth_query)
    await person.post("/oauth2/consent", 400, accept=True)
    agreed = await person.post("/oauth2/consent", accept=True, oauth_query=oauth_query)
    await program.redeem(query(agreed["url"])["code"])
    # Which account, and whether there is one.
    for prompt, done, page in (("select_account", "selected", "/choose"), ("create", "created", "/join")):
        place = await program.shown(person, **small, prompt=prompt)
        assert place.startswith(page)
        answer = await person.post("/oauth2/continue", **{done: True}, oauth_query=urlsplit(place).query)
        await program.redeem(query(answer["url"])["code"])
    await person.post("/oauth2/continue", 400, oauth_query=urlsplit(place).query)
    await person.post("/oauth2/continue", 400, selected=True)
    # What else has to be chosen; the consent is for that choice.
    place = await program.shown(person)
    assert place.startswith("/organizations")
    answer = await person.post("/oauth2/continue", postLogin=True, oauth_query=urlsplit(place).query)
    note(site, "not yet", answer["url"].partition("?")[0])
    place = await program.shown(person, prompt="consent", scope="openid email")
    answer = await person.post("/oauth2/consent", accept=True, scope="openid", oauth_query=urlsplit(place).query)
    await program.redeem(query(answer["url"])["code"])
    await person.get("/oauth2/get-consents")
    # Somebody has to sign in once more, or has done so just now.
    place = await program.shown(person, **small, prompt="login")
    assert place.startswith("/login")
    answer = await person.post(
        "/sign-in/email", email="ada@example.org", password=PASSWORD, oauth_query=urlsplit(place).query
    )
    await program.redeem(query(answer["url"])["code"])
    await program.tokens(person, **small, max_age="600")
    session = (await person.get("/get-session"))["session"]
    await put(site, "session", "id", session["id"], createdAt=PAST)
    assert (await program.shown(person, **small, max_age="600")).startswith("/login")
    assert "login_required" in await program.shown(person, **small, max_age="600", prompt="none")
    assert "interaction_required" in await program.shown(person, prompt="none")
    await person.post("/update-user", name="Newcomer")
    assert (await program.shown(person, **small)).startswith("/join")
    await person.post("/update-user", name="Ada")
    assert "invalid_scope" in await program.shown(person, scope="openid anything")
    claims = json.dumps({"userinfo": {"email": {"essential": True}}})
    await ada.get("/oauth2/get-consents")
    place = await program.shown(ada, **small, claims=claims)
    assert place.startswith("/consent")  # the claim was not agreed to
    answer = await ada.post("/oauth2/consent", accept=True, oauth_query=urlsplit(place).query)
    tokens = await program.redeem(query(answer["url"])["code"])
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    assert (await program.browser.ask("GET", "/oauth2/userinfo", headers=headers)).json()["email"] == "ada@example.org"
    await ada.get("/oauth2/get-consents")


ORDERS, STOCK = "https://orders.example.org", "https://stock.example.org"
POSSESSED = ec.generate_private_key(ec.SECP256R1())


def _proof(path: str, number: int, access_token: str | None = None) -> dict[str, str]:
    """The header with a DPoP proof: the sender of the request has the private key."""
    jwk = json.loads(ECAlgorithm.to_jwk(POSSESSED.public_key()))
    claims = {"htm": "POST", "htu": f"{BASE}/api/auth{path}", "jti": f"proof {number}", "iat": int(time.time())}
    if access_token is not None:
        claims["ath"] = base64url_encode(hashlib.sha256(access_token.encode()).digest()).decode()
    header = {"typ": "dpop+jwt", "jwk": {name: jwk[name] for name in ("kty", "crv", "x", "y")}}
    return {"dpop": pyjwt.encode(claims, POSSESSED, algorithm="ES256", headers=header)}


@flow(
    lambda site: {
        "plugins": [
            JWTPlugin(),
            _provider(
                scopes=["openid", "profile", "email", "offline_access", "orders:read", "orders:write"],
                allow_dynamic_client_registration=True,
                client_registration_default_scopes=["openid", "orders:read"],
                client_registration_default_resources=[ORDERS],
                client_registration_allowed_resources=[STOCK],
                client_privileges=lambda given: True,
                refresh_token_reuse_interval=60,
                resources=[
                    {
                        "identifier": ORDERS,
                        "name": "Orders",
                        "allowedScopes": ["openid", "orders:read", "offline_access"],
                    },
                    {"identifier": STOCK, "accessTokenTtl": 60, "customClaims": {"shop": [1, {"a": None}]}},
                ],
                resource_seed_mode="merge",
            ),
        ]
    }
)
async def oauth_resources(site: Site) -> None:
    """Resources with rules of their own, and clients that may request tokens for them."""
    ada = await site.browser()
    await ada.sign_up("ada")
    provider = site.auth.plugins[1]
    registered = await ada.post(
        "/oauth2/register",
        201,
        redirect_uris=[THERE],
        client_name="Dynamic",
        resources=[STOCK],
        grant_types=["authorization_code", "refresh_token"],
    )
    await ada.post("/oauth2/register", 400, redirect_uris=[THERE], resources=["https://else.example.org"])
    await (await site.browser()).post("/oauth2/register", 401, redirect_uris=[THERE])
    made = await as_server(
        site,
        ada,
        provider.admin_create_client,
        redirect_uris=[THERE],
        grant_types=["authorization_code", "refresh_token", "client_credentials"],
        scope="openid offline_access orders:read orders:write",
        client_credentials_scopes=["orders:read"],
        skip_consent=True,
        metadata={"team": "blue"},
    )
    await as_server(
        site,
        ada,
        provider.admin_update_client,
        client_id=made["client_id"],
        update={"client_credentials_scopes": ["orders:read", "orders:write"], "client_name": "Machine"},
    )
    program, machine = Program(await site.browser(), registered), Program(await site.browser(), made)
    # Operators keep the list of resources.
    third = "https://third.example.org/a b"
    new = {"identifier": third, "name": "Third", "allowedScopes": [], "metadata": {"a": 1}, "refreshTokenTtl": 3600}
    await as_server(site, ada, provider.admin_create_oauth_resource, **new)
    await as_server(site, ada, provider.admin_create_oauth_resource, **new)
    await as_server(
        site, ada, provider.admin_update_oauth_resource, third, name="No 3", allowedScopes=None, metadata=None
    )
    await as_server(site, ada, provider.admin_update_oauth_resource, "https://no.example.org", name="None")
    await as_server(site, ada, provider.admin_get_oauth_resource, third.replace(" ", "%20"))
    for _ in range(2):
        await as_server(site, ada, provider.admin_link_client_resource, third, machine.id)
    await as_server(site, ada, provider.admin_link_client_resource, ORDERS, "unknown")
    await as_server(site, ada, provider.admin_list_oauth_resources)
    # A machine asks for itself.
    credentials = {"grant_type": "client_credentials"}
    answer = await machine.tell("/oauth2/token", **credentials, scope="orders:read", resource=ORDERS)
    assert await machine.introspect(answer["access_token"])
    assert not await Program(program.browser, registered).introspect("unknown")
    assert await program.introspect(answer["access_token"])  # it is linked to what the token is for
    answer = await machine.tell("/oauth2/token", **credentials)
    assert not await program.introspect(answer["access_token"])
    await machine.tell("/oauth2/token", 400, **credentials, resource=STOCK)
    await machine.tell("/oauth2/token", 400, **credentials, scope="openid")
    await program.tell("/oauth2/token", 400, **credentials)
    # Somebody lets a program have what is theirs.
    asked = {"scope": "openid orders:read", "resource": ORDERS}
    tokens = await program.tokens(ada, **asked)
    assert await program.introspect(tokens["access_token"])
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    assert (await program.browser.ask("POST", "/oauth2/userinfo", headers=headers)).status_code == 200
    await program.tell("/oauth2/revoke", 400, token=tokens["access_token"])
    await program.tokens(ada, **asked)
    await program.shown(ada, **asked | {"resource": third})
    await program.redeem(await program.code(ada, **asked), 400, resource=STOCK)
    await ada.get("/oauth2/get-consents")
    # A token for others that is asked for twice in a short time gives the same.
    asked = {"scope": "openid offline_access orders:read", "resource": ORDERS}
    tokens = await machine.tokens(ada, **asked)
    first = await machine.refresh(tokens["refresh_token"])
    second = await machine.refresh(tokens["refresh_token"])
    assert first["access_token"] == second["access_token"]
    await machine.refresh(tokens["refresh_token"], 400, scope="openid")
    for row in await site.auth.adapter.find_many("oauthRefreshToken"):
        await put(site, "oauthRefreshToken", "id", row["id"], expiresAt=PAST)
    await machine.refresh(first["refresh_token"], 400)
    # Tokens that only the owner of a key can use.
    await as_server(
        site,
        ada,
        provider.admin_update_client,
        client_id=machine.id,
        update={"dpop_bound_access_tokens": True},
    )
    asked = {"scope": "openid offline_access"}
    await machine.redeem(await machine.code(ada, **asked), 400)
    proof = _proof("/oauth2/token", 1)
    tokens = await machine.redeem(await machine.code(ada, **asked), headers=proof)
    assert tokens["token_type"] == "DPoP"
    await machine.redeem(await machine.code(ada, **asked), 400, headers=proof)
    assert await machine.introspect(tokens["access_token"])
    for number in (2, 2, 3):
        headers = {"authorization": f"DPoP {tokens['access_token']}"}
        headers |= _proof("/oauth2/userinfo", number, tokens["access_token"])
        await machine.browser.ask("POST", "/oauth2/userinfo", headers=headers)
    await machine.refresh(tokens["refresh_token"], 400)
    await machine.refresh(tokens["refresh_token"], headers=_proof("/oauth2/token", 4))
    # The end of a resource is the end of the tokens for it.
    await as_server(site, ada, provider.admin_update_oauth_resource, ORDERS, disabled=True)
    await machine.tell(
        "/oauth2/token", 400, **credentials, scope="orders:read", resource=ORDERS, headers=_proof("/oauth2/token", 5)
    )
    await as_server(site, ada, provider.admin_unlink_client_resource, ORDERS, machine.id)
    await as_server(site, ada, provider.admin_delete_oauth_resource, ORDERS)
    await as_server(site, ada, provider.admin_delete_oauth_resource, ORDERS)
    await as_server(site, ada, provider.admin_list_oauth_resources)
    note(site, "seed_resources", await seed_resources(Ctx(auth=site.auth, request=AuthRequest("POST", "/")), provider))
    note(site, "links", await site.auth.adapter.count("oauthClientResource"))


async def _by_reference(given: dict[str, Any]) -> dict[str, Any] | None:
    """Resolve the URI of a pushed authorization request."""
    if given["requestUri"] != "urn:request:1":
        return None
    return Program.asking(_Named(given["clientId"]), scope="openid")


class _Named(Program):
    def __init__(self, name: str) -> None:
        self.id = name


@flow(
    lambda site: {
        "plugins": [
            _provider(
                disable_jwt_plugin=True,
                allow_dynamic_client_registration=True,
                allow_unauthenticated_client_registration=True,
                client_registration_client_secret_expiration="1h",
                validate_initial_access_token=lambda given: (
                    given["initialAccessToken"] == "welcome" and {"referenceId": "us"}
                ),
                client_reference=lambda session: "us" if session["user"]["name"] == "Ada" else None,
                pairwise_secret="a secret for the names of people, of thirty-two",
                prefix={"opaqueAccessToken": "at_", "refreshToken": "rt_", "clientSecret": "cs_"},
                store_tokens={"hash": lambda token, kind: f"{kind}:{token}"},
                request_uri_resolver=_by_reference,
                custom_user_info_claims=lambda given: {"verified_by": "us"},
                cached_trusted_clients={"trusted"},
                resources=[{"identifier": STOCK, "customClaims": {"shop": 1}}],
                enforce_per_client_resources=False,
            ),
        ],
        "http_client": identity_provider(),
    }
)
async def oauth_without_signing(site: Site) -> None:
    """Without signing keys: access tokens are opaque, and ID tokens are signed with the secret of the client."""
    ada, bob, nobody = await site.browser(), await site.browser(), await site.browser()
    await ada.sign_up("ada")
    await bob.sign_up("bob")
    client = await _client(ada)
    program = Program(nobody, client)
    await ada.get("/oauth2/get-clients")
    await ada.get("/oauth2/get-client", client_id=program.id)
    await bob.get("/oauth2/get-client", 401, client_id=program.id)
    tokens = await program.tokens(ada)
    assert await program.introspect(tokens["access_token"])
    tokens = await program.refresh(tokens["refresh_token"])
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    await nobody.ask("GET", "/oauth2/userinfo", headers=headers)
    place = await program.shown(ada, request_uri="urn:request:1")
    await program.redeem(query(place)["code"])
    assert "invalid_request_uri" in await program.shown(ada, request_uri="urn:request:2")
    await ada.post("/oauth2/client/rotate-secret", client_id=program.id)
    await program.refresh(tokens["refresh_token"], 401)
    tokens = await Program(nobody, await _client(bob)).tokens(bob, resource=STOCK)
    await nobody.ask("GET", "/oauth2/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"})
    # Programs that come by themselves.
    given = {"redirect_uris": [THERE], "token_endpoint_auth_method": "none", "subject_type": "pairwise"}
    other = Program(nobody, await nobody.post("/oauth2/register", 201, **given))
    tokens = await other.tokens(bob, scope="openid")
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    await nobody.ask("GET", "/oauth2/userinfo", headers=headers)
    await nobody.post("/oauth2/register", 400, redirect_uris=[THERE], grant_types=["client_credentials"])
    for token in ("welcome", "go away"):
        await nobody.ask(
            "POST",
            "/oauth2/register",
            json={"redirect_uris": [THERE], "client_name": "Invited"},
            headers={"authorization": f"Bearer {token}"},
        )
    await ada.get("/oauth2/get-clients")
    # One that proves with a key who it is.
    signing = Program(
        nobody,
        await _client(bob, token_endpoint_auth_method="private_key_jwt", jwks=jwks()),
    )
    audience = f"{BASE}/api/auth/oauth2/token"

    async def prove(expect: int, name: str, code: str) -> None:
        claims = {"sub": signing.id, "jti": name}
        proof = {
            "client_assertion": signed_by_client(claims | {"exp": int(time.time()) + 60}, signing.id, audience),
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }
        await signing.redeem(code, expect, **proof)

    await prove(200, "one", await signing.code(bob))
    await prove(400, "one", await signing.code(bob))
    await prove(200, "two", await signing.code(bob))
    await ada.post("/oauth2/delete-client", 401, client_id=signing.id)
    await bob.post("/oauth2/delete-client", client_id=signing.id)
