"""A simulated OAuth client (relying party) of the application: the requests of its server and its redirects."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import urlsplit

from better_auth.types import AuthRequest, AuthResponse, Ctx, dump_json

from tests.integrations.better_auth.flows.registry import note, query
from tests.integrations.better_auth.site import Browser, Site

__all__ = ["THERE", "Program", "as_server"]

THERE = "https://app.example.org/callback"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


class Program:
    """An OAuth client. It authenticates with its secret, if it has one."""

    def __init__(self, browser: Browser, registered: dict[str, Any]) -> None:
        self.browser, self.id, self.secret = browser, registered["client_id"], registered.get("client_secret")

    def asking(self, **more: Any) -> dict[str, Any]:
        """Return the parameters of an authorization request."""
        given = {
            "client_id": self.id,
            "redirect_uri": THERE,
            "response_type": "code",
            "scope": "openid profile email offline_access",
            "state": "a state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (given | more).items() if value is not None}

    async def shown(self, person: Browser, **more: Any) -> str:
        """Send an authorization request. Return the redirect."""
        answer = await person.get("/oauth2/authorize", 302, **self.asking(**more))
        return str(answer.headers["location"])

    async def code(self, person: Browser, **more: Any) -> str:
        """Authorize with consent. Return the authorization code."""
        place = await self.shown(person, **more)
        if place.startswith("/consent"):
            place = (await person.post("/oauth2/consent", accept=True, oauth_query=urlsplit(place).query))["url"]
        assert place.startswith(THERE), place
        return query(place)["code"]

    async def tell(self, path: str, expect: int = 200, /, headers: Any = None, **form: Any) -> dict[str, Any]:
        """Post a form, authenticated as this client, or with only the client id if it has no secret."""
        if self.secret is None:
            options: dict[str, Any] = {"data": {"client_id": self.id, **form}}
        else:
            options = {"data": form, "auth": (self.id, self.secret)}
        answer = await self.browser.ask("POST", path, headers=headers or {}, **options)
        assert answer.status_code == expect, (path, answer.status_code, answer.text)
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    async def redeem(self, code: str, expect: int = 200, /, **more: Any) -> dict[str, Any]:
        """Exchange a code for tokens."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": THERE, "code_verifier": VERIFIER}
        return await self.tell("/oauth2/token", expect, **form | more)

    async def tokens(self, person: Browser, **more: Any) -> dict[str, Any]:
        return await self.redeem(await self.code(person, **more))

    async def refresh(self, token: str, expect: int = 200, /, **more: Any) -> dict[str, Any]:
        return await self.tell("/oauth2/token", expect, grant_type="refresh_token", refresh_token=token, **more)

    async def introspect(self, token: str, **more: Any) -> bool:
        """Return whether a token is active."""
        return bool((await self.tell("/oauth2/introspect", token=token, **more))["active"])


async def as_server(site: Site, browser: Browser, function: Any, *arguments: Any, **body: Any) -> Any:
    """Call a function of a plugin without a route, with the session of a browser. Return its result."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    request = AuthRequest(
        method="POST",
        path="/",
        headers={"cookie": cookies, "content-type": "application/json"},
        body=dump_json(body),
    )
    answer = await function(Ctx(auth=site.auth, request=request), *arguments)
    result = answer.body if isinstance(answer, AuthResponse) else answer
    note(site, function.__name__, result)
    return result
