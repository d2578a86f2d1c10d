"""Names of index streams by ``docs/reference/stored-format.md``, computed independently of the package."""

from __future__ import annotations

import hashlib

__all__ = ["claim_stream", "hashed", "index_stream", "settings_stream", "sweep_stream"]


def hashed(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def claim_stream(field: str, value: str, *, kind: str = "user", tenant: str = "default") -> str:
    return f"auth-idx:{kind}.{field}:{hashed(tenant, kind, field, value)}"


def index_stream(user_id: str, *, tenant: str = "default") -> str:
    return f"auth-idx:session.by_user:{hashed(tenant, 'session', 'user', user_id)}"


def settings_stream(tenant: str = "default") -> str:
    return f"auth-idx:store:{hashed(tenant)}"


def sweep_stream(tenant: str = "default") -> str:
    return f"auth-idx:sweep.session:{hashed(tenant)}"
