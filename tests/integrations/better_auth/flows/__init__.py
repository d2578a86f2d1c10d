"""Flows of client requests, one or more for each part of the package: the options of the application, then the requests.

A flow asserts the status of each response, so that it cannot pass because both sides fail in the same way.
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
