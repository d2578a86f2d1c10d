"""What the package promises by its mere existence: its names, their documentation, its types, and a light import."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path
from typing import get_type_hints

import pytest

import allsource_auth
from allsource_auth import AllsourceAuthAdapter
from allsource_auth.engine.repository import Repository
from allsource_auth.kinds import KINDS
from allsource_auth.repositories import Repositories
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.users import Users

MODULES = [
    pytest.param(found.name, marks=[pytest.mark.integrations] if ".integrations." in found.name else [])
    for found in pkgutil.walk_packages(allsource_auth.__path__, "allsource_auth.")
]


def test_exported_names_are_there_once() -> None:
    names = allsource_auth.__all__
    assert len(set(names)) == len(names)
    assert all(hasattr(allsource_auth, name) for name in names)


def test_nothing_public_is_missing_from_the_exported_names() -> None:
    public = {
        name for name, value in vars(allsource_auth).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public <= set(allsource_auth.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_and_what_it_exports(module: str) -> None:
    if module.startswith("allsource_auth.cli"):
        pytest.importorskip("rich")
    found = importlib.import_module(module)
    assert found.__doc__
    for name in getattr(found, "__all__", ()):
        assert hasattr(found, name), f"{module} does not have {name}"


@pytest.mark.parametrize("owner", [AllsourceAuthAdapter, Users, Sessions, Repository])
def test_every_public_method_is_documented_and_typed(owner: type) -> None:
    for name, method in inspect.getmembers(owner, inspect.isroutine):
        if not name.startswith("_"):
            assert inspect.getdoc(method), f"{owner.__name__}.{name} is not documented"
            signature = inspect.signature(method)
            assert signature.return_annotation is not inspect.Signature.empty, f"{owner.__name__}.{name}"


KEYS = {"key", "keys"} | {kind.key for kind in KINDS} | {attribute for kind in KINDS for _, attribute in kind.parents}
"""Names of parameters that are the key of an entity or of its parent."""

SEVERAL_VALUES = {"create", "find", "find_pending"}
"""Methods whose parameters are several attributes of one entity."""


REPOSITORIES = [owner for name, owner in get_type_hints(Repositories).items() if name != "context"]


@pytest.mark.parametrize("owner", [AllsourceAuthAdapter, *REPOSITORIES])
def test_keys_are_positional_only(owner: type) -> None:
    found = set()
    for name, method in inspect.getmembers(owner, inspect.isfunction):
        _, *parameters = inspect.signature(method).parameters.values()
        if parameters and parameters[0].name in KEYS and not name.startswith("_") and name not in SEVERAL_VALUES:
            found.add(name)
            assert parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY, f"{owner.__name__}.{name}"
    assert found


def test_the_package_ships_its_types() -> None:
    assert files("allsource_auth").joinpath("py.typed").is_file()


def test_importing_leaves_out_what_is_not_needed_at_once() -> None:
    """Slow imports wait until they are used; an application pays for what it calls."""
    lazy = ("structlog", "httpx", "httptools", "h11", "certifi", "rich", "cyclopts", "hypothesis")
    code = f"import sys, allsource_auth; print([name for name in {lazy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_core_install_stays_small() -> None:
    core = {line.split(">")[0].strip() for line in requires("allsource-auth") or [] if "extra ==" not in line}
    assert core == {"anyio", "certifi", "httptools", "httpx", "msgspec", "structlog"}


def test_the_lowest_versions_that_are_tested_are_the_lower_bounds() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cli"], *extras["server"], *extras["truststore"]]
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", line)[0] for line in wanted)
    noxfile = (root / "noxfile.py").read_text(encoding="utf-8")
    tested = dict(re.findall(r'^    "([\w-]+)==([\d.]+)",$', noxfile, re.MULTILINE))
    assert tested.keys() == bounds.keys()
    assert all(f"{tested[name]}.".startswith(f"{bound}.") for name, bound in bounds.items())
