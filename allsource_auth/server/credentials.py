"""API keys and the tenants that they belong to."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers

from allsource_auth.server.replies import plain_text_error

__all__ = ["Credentials"]


class Credentials:
    """The known API keys, each with its tenant. Without any, the server is in development mode."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = [(key.encode(), tenant) for key, tenant in keys.items()]

    @property
    def dev_mode(self) -> bool:
        """Whether requests need no credential."""
        return not self._keys

    def tenant(self, key: str) -> str | None:
        """The tenant of a key; ``None`` for an unknown key."""
        given = key.encode()
        # Compare with every key in constant time, so that the time does not reveal a partial match.
        owners = [tenant for known, tenant in self._keys if hmac.compare_digest(known, given)]
        return owners[0] if owners else None

    def of_core(self, headers: Headers) -> str | None:
        """The tenant of a request to a protected path of Core; ``None`` in development mode.

        Raises `Rejected`: 401 in plain text.
        """
        if self.dev_mode:
            return None
        given = headers.get("authorization", headers.get("x-api-key"))
        if given is None:
            raise plain_text_error("Missing authorization header", 401)
        key = given.removeprefix("Bearer").strip()
        if not key:
            raise plain_text_error("Empty authorization token", 401)
        tenant = self.tenant(key)
        if tenant is None:
            reason = "Invalid API key" if key.startswith("ask_") else "Invalid token: InvalidToken"
            raise plain_text_error(reason, 401)
        return tenant

    def of_query_service(self, headers: Headers) -> str | None:
        """The tenant of a request to the Query Service; ``None`` without a known key.

        The Query Service accepts an API key in ``X-API-Key`` only; a bearer token is a JWT. Here any known key that
        does not begin with ``ask_`` represents a JWT.
        """
        key = headers.get("x-api-key")
        if key is None:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or key.startswith("ask_"):
                return None
        return self.tenant(key.strip())
