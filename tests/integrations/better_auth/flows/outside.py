"""Who answers when the application asks somebody: an identity provider, and services that know something."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["IDP", "PEOPLE", "identity_provider", "jwks", "signed"]


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
