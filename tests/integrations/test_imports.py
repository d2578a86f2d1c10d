"""The library imports no package of an integration, and each integration requires only its own package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import allsource_auth
from tests.docs.alone import PACKAGES

pytestmark = pytest.mark.integrations

OWN = {extra.replace("-", "_"): package for extra, package in PACKAGES.items()}
"""The modules of the integrations, with the package that each plugs into."""

OTHERS = (
    "fastapi_users_db_sqlalchemy",
    "httpx_oauth",
    "sqlalchemy",
    "redis",
    "uvicorn",
    "websockets",
    "rich",
)

REFUSE = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_library_imports_no_package_of_an_integration() -> None:
    names = [*OWN.values(), *OTHERS, "fastapi", "pydantic", "starlette"]
    done = _run(f"import sys, allsource_auth; print([name for name in {names!r} if name in sys.modules])")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


@pytest.mark.parametrize("module", OWN)
def test_a_module_needs_only_its_own_package(module: str) -> None:
    missing = {*OWN.values(), *OTHERS} - {OWN[module]}
    done = _run(REFUSE.format(missing=missing) + f"importlib.import_module('allsource_auth.integrations.{module}')")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", OWN)
def test_import_error_names_the_missing_extra(module: str) -> None:
    done = _run(
        REFUSE.format(missing={OWN[module]}) + f"importlib.import_module('allsource_auth.integrations.{module}')"
    )
    assert done.returncode == 1
    extra = module.replace("_", "-")
    assert done.stderr.splitlines()[-1].endswith(f"pip install 'allsource-auth[{extra}]'")
