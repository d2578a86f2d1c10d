"""Skip the tests of packages that are not installed. ``nox -s integrations`` installs all of them."""

from __future__ import annotations

from importlib.util import find_spec

from tests.docs.alone import PACKAGES

collect_ignore = [extra.replace("-", "_") for extra, package in PACKAGES.items() if find_spec(package) is None]
