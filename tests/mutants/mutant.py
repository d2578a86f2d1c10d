"""What a mutant is, where the list of them is, and how a mutant is applied to the source text of its module."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["MUTANTS", "ROOT", "SESSIONS", "Mutant", "Unapplicable"]

ROOT = Path(__file__).parents[2]
"""The checkout."""

SESSIONS = {
    "tests": "not crash and not long and not core and not modes and not matrix and not integrations",
    "protocol": "long and not matrix",
    "crash": "crash",
    "core": "(core or modes) and not matrix and not integrations",
}
"""The nox sessions that can notice a mutant, each with the marker expression of its tests."""


class Unapplicable(Exception):
    """The code is no longer what the mutant describes; adapt the mutant."""


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One planted bug.

    ``safeguard`` is what the bug removes. ``function`` is the qualified name of a function in ``module``, such as
    ``Claims._fence``, or ``Repository.restore.decide`` for one inside another. ``text`` occurs in the function exactly once;
    ``replacement`` takes its place. ``tests`` are pytest paths and node ids; at least one of them fails with the bug.
    ``session`` is the nox session that runs them.
    """

    name: str
    safeguard: str
    module: str
    function: str
    text: str
    replacement: str
    tests: tuple[str, ...]
    session: str = "tests"

    def file(self, root: Path) -> Path:
        """The file of the module below ``root``. Raises `Unapplicable`."""
        path = root.joinpath(*self.module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not file.exists():
            raise Unapplicable(f"{self.name}: there is no module {self.module}")
        return file

    def applied(self, source: str) -> str:
        """``source``, the text of the module, with the bug. Raises `Unapplicable`."""
        functions = [node for name, node in _functions(ast.parse(source)) if name == self.function]
        if len(functions) != 1:
            raise Unapplicable(f"{self.name}: {self.module} has {len(functions)} functions {self.function}, not one")
        lines = source.splitlines(keepends=True)
        start, end = functions[0].lineno - 1, functions[0].end_lineno
        body = "".join(lines[start:end])
        if (found := body.count(self.text)) != 1:
            raise Unapplicable(f"{self.name}: {self.function} of {self.module} has the text {found} times, not once")
        lines[start:end] = [body.replace(self.text, self.replacement)]
        return "".join(lines)


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below ``node`` with its qualified name."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{child.name}".removeprefix(".")
            if not isinstance(child, ast.ClassDef):
                yield name, child
        yield from _functions(child, name)


def _read() -> tuple[Mutant, ...]:
    with Path(__file__).with_name("mutants.toml").open("rb") as file:
        return msgspec.convert(tomllib.load(file)["mutant"], tuple[Mutant, ...])


MUTANTS = _read()
