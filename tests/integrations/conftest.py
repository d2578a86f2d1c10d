"""Where a package is not installed, the tests that need it are not collected; ``nox -s integrations`` installs all of them."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = {"better_auth": "better_auth", "better_auth_bridge": "fastapi_better_auth", "fastapi_users": "fastapi_users"}
"""The folders here, and the package that each needs."""

collect_ignore = [folder for folder, package in NEEDED.items() if find_spec(package) is None]
