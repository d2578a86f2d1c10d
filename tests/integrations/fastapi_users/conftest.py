"""Every test here needs fastapi-users; where it is not installed, none is collected (``nox -s integrations`` installs it)."""

from __future__ import annotations

from importlib.util import find_spec

from tests.integrations.stores import adapter, clock, site, target, watch

__all__ = ["adapter", "clock", "collect_ignore_glob", "site", "target", "watch"]

collect_ignore_glob = [] if find_spec("fastapi_users") else ["test_*.py"]
