"""Every test here needs fastapi-better-auth-bridge; where it is not installed, none is collected (``nox -s integrations``)."""

from __future__ import annotations

from importlib.util import find_spec

from tests.integrations.stores import adapter, clock, site, target, watch

__all__ = ["adapter", "clock", "collect_ignore_glob", "site", "target", "watch"]

collect_ignore_glob = [] if find_spec("fastapi_better_auth") else ["test_*.py"]
