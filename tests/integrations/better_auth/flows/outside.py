"""Simulated external services: an identity provider, leaked-password and captcha services."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

__all__ = ["IDP", "PEOPLE", "identity_provider", "jwks", "signed"]
IDP = "https://idp.example.org"
KEY = rsa.generate_private_key(65537, 2048)
PEOPLE: dict[str, dict[str, Any]] = {
    "one": {"sub": "1", "name": "Octo", "email": "octo@example.org", "email_verified": True},
    "two": {"sub": "2", "name": "Ada", "email": "ada@idp.example.org", "email_verified": True},
    "bob": {
        "sub": "3",
        "name": "Robert",
        "email": "bob@example.org",
        "email_verified": True,
        "picture": f"{IDP}/bob.png",
    },
    "eve": {"sub": "4", "name": "Eve", "email": "eve@idp.example.org", "email_verified": False},
    "ann": {"sub": "6", "name": "Ann", "email": "ann@idp.example.org", "email_verified": True},
    "carl": {"sub": "7", "name": "Carl", "email": "carl@idp.example.org", "email_verified": True},
    "nobody": {"sub": "5", "id": "5", "name": "Nobody"},
}

DISCOVERED = {
    "issuer": IDP,
    "authorization_endpoint": f"{IDP}/authorize",
    "token_endpoint": f"{IDP}/token",
    "userinfo_endpoint": f"{IDP}/userinfo",
    "jwks_uri": f"{IDP}/jwks",
    "end_session_endpoint": f"{IDP}/leave",
    "id_token_signing_alg_values_supported": ["RS256"],
    "token_endpoint_auth_methods_supported": ["client_secret_post"],
}


def signed(claims: dict[str, Any], issuer: str, audience: str) -> str:
    now = int(time.time())
    given = {"iss": issuer, "aud": audience, "iat": now, "exp": now + 600, **claims}
    token: str = pyjwt.encode(given, KEY, algorithm="RS256", headers={"kid": "k"})
    return token


def jwks() -> dict[str, Any]:
    public = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
    return {"keys": [{**public, "kid": "k", "alg": "RS256", "use": "sig"}]}


def identity_provider(*, expires_in: int | None = None) -> httpx.AsyncClient:
    """An HTTP client that answers as an identity provider. The authorization code is the name of one of `PEOPLE`.

    With ``expires_in`` its access tokens expire, and it issues refresh tokens.
    """
    given: Counter[str] = Counter()
    logouts: list[str] = []

    def tokens(form: dict[str, list[str]]) -> httpx.Response:
        refreshing = form["grant_type"] == ["refresh_token"]
        who, _, nonce = form["refresh_token" if refreshing else "code"][0].partition("-" if refreshing else ".")
        if who not in PEOPLE:
            return httpx.Response(400, json={"error": "invalid_grant"})
        given[who] += 1
        claims = PEOPLE[who] | ({"nonce": nonce} if nonce and not refreshing else {})
        answer: dict[str, Any] = {
            "access_token": f"{who}-{given[who]}",
            "token_type": "bearer",
            "scope": "openid" if refreshing else "openid email",
            "id_token": signed(claims, IDP, "client"),
        }
        if expires_in is not None:
            answer |= {
                "expires_in": expires_in,
                "refresh_token": f"{who}-again-{given[who]}",
                "refresh_token_expires_in": 600,
            }
        return httpx.Response(200, json=answer)

    def answer(request: httpx.Request) -> httpx.Response:
        path, host = request.url.path, request.url.host
        if path == "/token":
            return tokens(parse_qs(request.content.decode()))
        if path == "/userinfo":
            return httpx.Response(200, json=PEOPLE[request.headers["authorization"].split()[-1].partition("-")[0]])
        if path in ("/jwks", "/oauth2/v3/certs"):
            return httpx.Response(200, json=jwks())
        if path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=DISCOVERED)
        if path == "/logged-out":  # back-channel logout of a client
            logouts.append(request.content.decode())
            return httpx.Response(200 if len(logouts) == 1 else 503)
        if path.startswith("/range/"):  # leaked passwords by the prefix of their hash
            known = hashlib.sha1(b"password1234").hexdigest().upper()  # the service uses SHA-1
            return httpx.Response(200, text=f"{known[5:]}:42\r\n" if path.endswith(known[:5]) else "")
        if "turnstile" in path or "challenges" in host:
            return httpx.Response(200, json={"success": "good" in request.content.decode()})
        return httpx.Response(404)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))
