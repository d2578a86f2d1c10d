"""The snippets of the integrations' pages run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import allsource_auth

pytestmark = pytest.mark.integrations

PAGES = ("better-auth", "better-auth-bridge", "fastapi-users")
PACKAGES = ("better_auth", "aiosqlite", "webauthn", "dns", "fastapi_users", "httpx_oauth", "fastapi_better_auth")
ROOT = Path(__file__).parents[2]


def _snippets(page: str) -> list[str]:
    text = ROOT.joinpath("docs", "how-to", f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run_as_they_stand(page: str, tmp_path: Path) -> None:
    snippets = _snippets(page)
    assert snippets
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    for snippet in snippets:
        command = [sys.executable, "-W", "error", "-c", snippet]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_the_readme_leads_to_each_page(page: str) -> None:
    assert f"(docs/how-to/{page}.md)" in ROOT.joinpath("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "package", ["better_auth", "aiosqlite", "webauthn", "dns", "fastapi_users", "httpx_oauth", "fastapi_better_auth"]
)
def test_the_packages_are_here(package: str) -> None:
    """Without them the tests of an integration are not collected, and nobody would miss them."""
    assert find_spec(package) is not None
