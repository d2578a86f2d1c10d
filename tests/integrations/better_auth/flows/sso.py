"""Companies that sign their people in themselves."""

from __future__ import annotations

from typing import Any

from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.plugins_ext.sso import SSOPlugin

from ..site import Site
from .outside import IDP, identity_provider
from .registry import flow, query

__all__: list[str] = []


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
