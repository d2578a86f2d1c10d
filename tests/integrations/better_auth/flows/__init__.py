"""What the clients of an application do, one flow for each part of the package: the options, and the requests in their order.

A flow says which status it expects, so that both sides failing alike is no success.
"""

from __future__ import annotations

from tests.integrations.better_auth.flows import (
    administration,
    codes,
    core,
    devices,
    oauth_logout,
    oauth_provider,
    organization,
    sessions,
    signing_in,
    social,
    sso,
)
from tests.integrations.better_auth.flows.registry import FLOWS

__all__ = [
    "FLOWS",
    "administration",
    "codes",
    "core",
    "devices",
    "oauth_logout",
    "oauth_provider",
    "organization",
    "sessions",
    "signing_in",
    "social",
    "sso",
]
