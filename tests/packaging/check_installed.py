"""Check the wheel where nothing but its own dependencies is installed: it imports, and it stores a user.

Run by the interpreter of that environment: ``python -I -W error tests/packaging/check_installed.py``. `nox -s dist` does so.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

import allsource_auth

EXTRAS = {
    "better_auth",
    "cyclopts",
    "fastapi_better_auth",
    "fastapi_users",
    "hdrh",
    "rich",
    "starlette",
    "truststore",
    "uvicorn",
    "websockets",
}
"""Packages that only extras install."""

WITH_EXTRAS = ("allsource_auth.cli.", "allsource_auth.integrations.", "allsource_auth.server")
"""Modules that may need an extra."""


def check_environment() -> None:
    """The package comes from site-packages, and no extra is installed."""
    assert Path(allsource_auth.__file__).is_relative_to(sys.prefix), allsource_auth.__file__
    assert not EXTRAS & set(packages_distributions()), sorted(EXTRAS & set(packages_distributions()))
    assert files("allsource_auth").joinpath("py.typed").is_file()


def check_imports() -> int:
    """Every public name and every module that needs no extra can be imported; returns the number of these modules."""
    for name in allsource_auth.__all__:
        getattr(allsource_auth, name)
    imported = 0
    for module in pkgutil.walk_packages(allsource_auth.__path__, "allsource_auth.", onerror=lambda name: None):
        if not module.name.startswith(WITH_EXTRAS):
            importlib.import_module(module.name)
            imported += 1
    return imported


def check_command() -> None:
    """The command says which extra it needs."""
    command = Path(sys.executable).with_name("allsource-auth")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert "allsource-auth[cli]" in done.stderr, done.stderr


async def check_main_job() -> None:
    """The embedded store works."""
    async with allsource_auth.AllsourceAuthAdapter.embedded() as adapter:
        with allsource_auth.audit(actor="check"):
            user = await adapter.users.create(email="ada@example.org")
        assert await adapter.users.get_by_email("ADA@example.org") == user
        (created,) = await adapter.users.history(user.id)
        assert created.actor == "check"


def main() -> None:
    check_environment()
    imported = check_imports()
    check_command()
    asyncio.run(check_main_job())
    print(f"the wheel alone: {len(allsource_auth.__all__)} public names and {imported} modules import")


if __name__ == "__main__":
    main()
