"""An integration with nothing but its own extra installed: ``python tests/docs/alone.py better-auth``.

Runs those snippets of its page that need nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.docs.pages import ROOT, imported, snippets

PACKAGES = {"better-auth": "better_auth", "better-auth-bridge": "fastapi_better_auth", "fastapi-users": "fastapi_users"}
"""The extras of the integrations, and what each of them brings."""

ELSE = {"better-auth": {"fastapi"}, "better-auth-bridge": set(), "fastapi-users": set()}
"""What snippets of a page may need beside the extra."""


def missing(snippet: str) -> set[str]:
    """The packages that a snippet imports and that are not installed."""
    return {package for package in imported(snippet) if find_spec(package) is None}


def main(extra: str) -> None:
    there = {name for name, package in PACKAGES.items() if find_spec(package) is not None}
    assert there == {extra}, f"installed here: {sorted(there)}"
    page = ROOT / "docs" / "how-to" / f"{extra}.md"
    found = snippets(page)
    ran = 0
    for block in found:
        lacking = missing(block.text)
        assert lacking <= ELSE[extra], f"{block.place} needs {sorted(lacking - ELSE[extra])}"
        if not lacking:
            subprocess.run([sys.executable, "-W", "error", "-c", block.text], check=True)
            ran += 1
    assert ran, f"no snippet of {page.name} needs nothing but the extra"
    print(f"{page.name}: {ran} of {len(found)} snippets run with the extra alone")


if __name__ == "__main__":
    main(*sys.argv[1:])
