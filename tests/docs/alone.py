"""An integration with nothing but its own extra installed: ``python tests/docs/alone.py better-auth``.

Runs those snippets of its page that need nothing else.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "how-to"

PACKAGES = {"better-auth": "better_auth", "better-auth-bridge": "fastapi_better_auth", "fastapi-users": "fastapi_users"}
"""The extras of the integrations, and what each of them brings."""

ELSE = {"better-auth": {"fastapi"}, "better-auth-bridge": set(), "fastapi-users": set()}
"""What snippets of a page may need beside the extra."""


def missing(snippet: str) -> set[str]:
    """The packages that a snippet imports and that are not installed."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    packages = {name.partition(".")[0] for name in names}
    return {package for package in packages if find_spec(package) is None}


def main(extra: str) -> None:
    there = {name for name, package in PACKAGES.items() if find_spec(package) is not None}
    assert there == {extra}, f"installed here: {sorted(there)}"
    text = (PAGES / f"{extra}.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ran = 0
    for snippet in snippets:
        lacking = missing(snippet)
        assert lacking <= ELSE[extra], f"docs/how-to/{extra}.md needs {sorted(lacking - ELSE[extra])}"
        if not lacking:
            subprocess.run([sys.executable, "-W", "error", "-c", snippet], check=True)
            ran += 1
    assert ran, f"no snippet of docs/how-to/{extra}.md needs nothing but the extra"
    print(f"docs/how-to/{extra}.md: {ran} of {len(snippets)} snippets run with the extra alone")


if __name__ == "__main__":
    main(*sys.argv[1:])
