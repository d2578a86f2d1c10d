"""The order of dependence in the package: a module imports only from its own layer and the layers below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import allsource_auth

PACKAGE = Path(allsource_auth.__file__).parent

LAYERS = (
    {"errors", "ids", "logs", "values", "version", "config", "per_loop"},
    {"store"},
    {"entities", "codec", "audit", "kind", "kinds"},
    {"engine"},
    {"repositories"},
    {"transactions", "maintenance"},
    {"adapter"},
    {"", "integrations", "cli"},
)
"""The layers from the bottom to the top. A name is a module or a package; the empty name is the package itself."""

SIDE = {"server": {"server", "store", "errors", "ids", "logs", "values", "version", "config"}}
"""Packages beside the layers, with what they may import."""

IN_ORDER = ("engine", "store", "repositories", "maintenance", "transactions", "server", "cli")
"""Packages whose modules must not import one another in a circle."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """All modules of the package by their dotted name below it, parsed."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix("__init__").removesuffix("."), ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(modules())


def imported(module: ast.Module) -> set[str]:
    """The modules of the package that a module imports, also for its annotations only."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            found |= {
                f"{base}.{alias.name}" if _below(f"{base}.{alias.name}") in MODULES else base for alias in node.names
            }
    return {_below(name) for name in found if name == "allsource_auth" or name.startswith("allsource_auth.")}


def _below(name: str) -> str:
    return name.removeprefix("allsource_auth").removeprefix(".")


def layer_of(name: str) -> int | None:
    top = name.partition(".")[0]
    return next((number for number, names in enumerate(LAYERS) if top in names), None)


def test_every_module_has_a_layer() -> None:
    assert [name for name in MODULES if layer_of(name) is None and name.partition(".")[0] not in SIDE] == []


@pytest.mark.parametrize("name", [name for name in MODULES if layer_of(name) is not None])
def test_module_imports_only_from_its_layer_and_below(name: str) -> None:
    layer = layer_of(name)
    assert layer is not None
    for other in imported(MODULES[name]):
        found = layer_of(other)
        if name.startswith("cli"):
            assert found is not None or other.partition(".")[0] in SIDE, f"{name} imports {other}"
        else:
            assert found is not None, f"{name} imports {other}"
            assert found <= layer, f"{name} imports {other}, which is in a higher layer"


@pytest.mark.parametrize("package", SIDE)
def test_package_beside_the_layers_stands_on_the_store_alone(package: str) -> None:
    for name, module in MODULES.items():
        if name.partition(".")[0] == package:
            tops = {other.partition(".")[0] for other in imported(module)}
            assert tops <= SIDE[package], f"{name} imports {tops - SIDE[package]}"


@pytest.mark.parametrize("package", IN_ORDER)
def test_modules_of_a_package_do_not_import_in_a_circle(package: str) -> None:
    inside = {name: imported(module) for name, module in MODULES.items() if name.partition(".")[0] == package}
    left = {name: others & inside.keys() - {name} for name, others in inside.items()}
    while free := [name for name, others in left.items() if not others]:
        left = {name: others - set(free) for name, others in left.items() if name not in free}
    assert left == {}
