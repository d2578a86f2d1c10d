"""Single sign-on through the identity provider of a company."""

from __future__ import annotations

from typing import Any

from better_auth.plugins_ext.generic_oauth import GenericOAuthConfig, GenericOAuthPlugin
from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.plugins_ext.sso import SSOPlugin
from better_auth.schema import Field

from tests.integrations.better_auth.flows.outside import IDP, identity_provider
from tests.integrations.better_auth.flows.registry import PAST, flow, put, query, where
from tests.integrations.better_auth.site import BASE, Browser, Site

__all__: list[str] = []


async def _public(*host: Any) -> list[str]:
    return ["203.0.113.7"]


async def _signed_in(
    browser: Browser, who: str, expect: str = "/home", *, at: str = "/sso/callback", **given: Any
) -> None:
    """Sign in at the identity provider as ``who``. Asserts that the redirect leads to ``expect``."""
    start = await browser.post("/sign-in/sso", callbackURL="/home", errorCallbackURL="/oops", **given)
    answer = await browser.get(at, 302, state=query(start["url"])["state"], code=who)
    assert answer.headers["location"].removeprefix(BASE).startswith(expect), answer.headers["location"]
    await browser.get("/get-session")


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


def _texts(site: Site) -> Any:
    """Return a resolver of TXT records. A flow adds the records of a domain to ``site.sent``."""

    def resolve(name: str) -> list[str]:
        return [one["text"] for one in site.sent if one.get("at") == name]

    return resolve


def _guard(mutation: dict[str, Any], given: dict[str, Any]) -> None:
    if mutation.get("isAuthenticationBoundaryChange"):
        raise PermissionError


@flow(
    lambda site: {
        "plugins": [
            SSOPlugin(
                domain_verification={"enabled": True},
                redirect_uri="/sso/callback",
                dns_resolver=_texts(site),
                resolve_host=_public,
                trust_email_verified=True,
                provision_user=site.post_office("provisioned"),
                organization_provisioning={"defaultRole": "admin"},
                guard_provider_mutation=_guard,
                providers_limit=3,
                schema={"ssoProvider": {"additionalFields": {"plan": Field("string")}}},
            ),
            OrganizationPlugin(),
            GenericOAuthPlugin(
                config=[
                    GenericOAuthConfig(
                        provider_id="elsewhere",
                        client_id="client",
                        client_secret="secret",
                        discovery_url=f"{IDP}/.well-known/openid-configuration",
                    )
                ]
            ),
        ],
        "http_client": identity_provider(),
        "trusted_origins": [IDP],
    }
)
async def sso_with_proven_domains(site: Site) -> None:
    root, eve = await site.browser(), await site.browser()
    await root.sign_up("root")
    await eve.sign_up("eve")
    organization = {"organizationId": (await root.post("/organization/create", name="Example", slug="example"))["id"]}
    given = {
        "providerId": "idp",
        "issuer": IDP,
        "domain": "idp.example.org,other.example.org",
        "oidcConfig": {"clientId": "client", "clientSecret": "secret"},
        "plan": "gold",
    }
    await eve.post("/sso/register", 400, **given, **organization)
    made = await root.post("/sso/register", **given, **organization)
    await root.post("/sso/register", 422, **given)
    this = {"providerId": "idp"}
    await root.post("/sign-in/sso", 401, **this, callbackURL="/home")
    # The domains are proven, all of them or none.
    await root.post("/sso/verify-domain", 502, **this)
    asked = await root.post("/sso/request-domain-verification", 201, **this)
    assert asked["domainVerificationToken"] == made["domainVerificationToken"]
    for path in ("/sso/request-domain-verification", "/sso/verify-domain"):
        await eve.post(path, 403, **this)
        await root.post(path, 404, providerId="unknown")
    text = f"_better-auth-token-idp={asked['domainVerificationToken']}"
    site.sent.append({"at": "_better-auth-token-idp.idp.example.org", "text": text})
    await root.post("/sso/verify-domain", 502, **this)
    site.sent.append({"at": "_better-auth-token-idp.other.example.org", "text": asked["domainVerificationToken"]})
    await root.post("/sso/verify-domain", 204, **this)
    for path in ("/sso/request-domain-verification", "/sso/verify-domain"):
        await root.post(path, 409, **this)
    await root.get("/sso/get-provider", **this)
    # Whoever comes from there belongs to the organization.
    two, ann, carl = await site.browser(), await site.browser(), await site.browser()
    await _signed_in(two, "two", email="ada@idp.example.org")
    await _signed_in(two, "two", organizationSlug="example")
    await two.get("/organization/list")
    await root.post("/organization/invite-member", email="carl@idp.example.org", role="member", **organization)
    for browser, who in ((ann, "ann"), (carl, "carl"), (await site.browser(), "one")):
        start = await browser.post("/sign-in/social", provider="elsewhere", callbackURL="/home")
        back = query(start["url"])
        await browser.get("/callback/elsewhere", 302, state=back["state"], code=f"{who}.{back['nonce']}")
        await browser.get("/organization/list")
    await root.get("/organization/list-members", **organization)
    # A domain that changes has to be proven again.
    await root.post("/sso/update-provider", 409, **this, issuer="https://else.example.org")
    await root.post("/sso/update-provider", **this, plan="silver")
    await root.post("/sso/update-provider", **this, domain="idp.example.org")
    await root.post("/sign-in/sso", 401, domain="idp.example.org", callbackURL="/home")
    await put(site, "verification", "identifier", "_better-auth-token-idp", expiresAt=PAST)
    await root.post("/sso/verify-domain", 404, **this)
    again = await root.post("/sso/request-domain-verification", 201, **this)
    assert again["domainVerificationToken"] != asked["domainVerificationToken"]
    await root.post("/sso/verify-domain", 502, **this)
    site.sent.append({"at": "_better-auth-token-idp.idp.example.org", "text": again["domainVerificationToken"]})
    await root.post("/sso/verify-domain", 204, **this)
    await _signed_in(two, "two", domain="sub.idp.example.org")
    await root.get("/sso/callback", 302, state="unknown", code="two")
    await root.get("/sso/callback", 302, code="two")
    await root.get("/sso/providers")
    await eve.get("/sso/providers")
    await eve.post("/sso/delete-provider", 403, **this)
    await root.post("/sso/delete-provider", **this)
    await two.get("/list-accounts")
    await two.post("/sign-in/sso", 404, **this)


async def _resolve(given: dict[str, Any], tools: dict[str, Any]) -> dict[str, Any]:
    """Link an account to the user with the same name, whatever its email."""
    name = given["providerUser"]["name"]
    if name == "Carl":
        return {"action": "reject", "code": "not_welcome", "message": "Not Carl"}
    user = await tools["database"].find_one("user", [where("name", name)])
    return {"action": "link", "userId": user["id"], "profile": "update"} if user else {"action": "continue"}


@flow(
    lambda site: {
        "plugins": [
            SSOPlugin(
                default_sso=[
                    {
                        "providerId": "company",
                        "domain": "idp.example.org",
                        "oidcConfig": {
                            "issuer": IDP,
                            "clientId": "client",
                            "clientSecret": "secret",
                            "allowIdpInitiated": True,
                            "pkce": True,
                            "discoveryEndpoint": f"{IDP}/.well-known/openid-configuration",
                        },
                    }
                ],
                resolve_host=_public,
                resolve_user=_resolve,
                trust_email_verified=True,
            )
        ],
        "http_client": identity_provider(),
        "trusted_origins": [IDP],
    }
)
async def sso_that_says_who_it_is(site: Site) -> None:
    ann, carl, root = await site.browser(), await site.browser(), await site.browser()
    await root.sign_up("root")
    here = {"at": "/sso/callback/company"}
    await ann.sign_up("ann")
    other = await site.browser()
    for _ in range(2):
        await _signed_in(other, "ann", **here, domain="idp.example.org")
        await other.get("/list-accounts")
    await _signed_in(carl, "carl", "/oops?error=not_welcome", **here, providerId="company")
    bounced = await carl.get("/sso/callback/company", 302, code="whoever")
    await carl.get("/sso/callback/company", 302, state=query(bounced.headers["location"])["state"], code="two")
    await carl.get("/get-session")
    # The account is taken from the one user, and given to another of the name: that is refused.
    await put(site, "user", "email", "ann@idp.example.org", name="Anna")
    await put(site, "user", "email", "root@example.org", name="Ann")
    await _signed_in(other, "ann", "/oops?error=account_ownership_conflict", **here, domain="idp.example.org")
    await root.get("/list-accounts")
    await root.post("/sso/register", 422, providerId="company", issuer=IDP, domain="example.com")
