"""Whose key a request carries."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers

from allsource_auth.server.answers import malformed

__all__ = ["Credentials"]


class Credentials:
    """The API keys that are known, each with its tenant; none at all is dev mode."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = [(key.encode(), tenant) for key, tenant in keys.items()]

    @property
    def dev_mode(self) -> bool:
        """Whether no credential is asked for."""
        return not self._keys

    def tenant(self, key: str) -> str | None:
        """The tenant of a key; ``None`` for an unknown one."""
        given = key.encode()
        # All are compared, so that the time says nothing of which one is nearly right.
        owners = [tenant for known, tenant in self._keys if hmac.compare_digest(known, given)]
        return owners[0] if owners else None

    def of_core(self, headers: Headers) -> str | None:
        """The tenant of a request to a protected path of Core (section 3.1 of the contract); ``None`` in dev mode.

        Raises `Refused`: 401, plain text.
        """
        if self.dev_mode:
            return None
        given = headers.get("authorization", headers.get("x-api-key"))
        if given is None:
            raise malformed("Missing authorization header", 401)
        key = given.removeprefix("Bearer").strip()
        if not key:
            raise malformed("Empty authorization token", 401)
        tenant = self.tenant(key)
        if tenant is None:
            raise malformed("Invalid API key" if key.startswith("ask_") else "Invalid token: InvalidToken", 401)
        return tenant

    def of_query_service(self, headers: Headers) -> str | None:
        """The tenant of a request to the Query Service (section 14.2 of the contract); ``None``: not a known one.

        A bearer token is a JWT there, never an API key; here, any known key that does not look like one stands for it.
        """
        key = headers.get("x-api-key")
        if key is None:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or key.startswith("ask_"):
                return None
        return self.tenant(key.strip())
