"""Check what the wheel and the source distribution contain.

``python tests/packaging/check_contents.py WHEEL SDIST``; `nox -s dist` builds both and runs this.
"""

from __future__ import annotations

import ast
import sys
import tarfile
import tomllib
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

ADDED_TO_SDIST = {"pyproject.toml", "PKG-INFO", ".gitignore"}
"""Files that the build backend puts into every source distribution."""

METADATA = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
"""Files that the wheel contains besides the package."""

TEST_TOOLS = {"_pytest", "hypothesis", "pytest", "tests", "trustme", "unittest"}
"""Packages that no module of the wheel may import."""


def package_files() -> set[str]:
    """The files of the package in the checkout, relative to the root."""
    found = (ROOT / "allsource_auth").rglob("*")
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file() and "__pycache__" not in path.parts}


def imported(source: bytes) -> set[str]:
    """The top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def check_metadata(metadata: Message, version: str) -> None:
    """The metadata agree with pyproject.toml."""
    project = PROJECT["project"]
    assert (metadata["Name"], metadata["Version"]) == (project["name"], version)
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == project["license"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) == len(project["dependencies"]), required
    assert metadata["Description-Content-Type"] == "text/markdown"


def check_wheel(path: Path) -> None:
    """The wheel contains the package, its metadata and nothing else."""
    version = path.name.split("-")[1]
    info = f"allsource_auth-{version}.dist-info"
    with ZipFile(path) as wheel:
        names = set(wheel.namelist())
        package = {name for name in names if not name.startswith(f"{info}/")}
        assert package == package_files(), sorted(package ^ package_files())
        unexpected = {name for name in package if not name.endswith(".py")} - {"allsource_auth/py.typed"}
        assert not unexpected, sorted(unexpected)
        assert "allsource_auth/py.typed" in package
        added = {f"{info}/{name}" for name in METADATA}
        assert names - package == added, sorted((names - package) ^ added)
        assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        check_metadata(BytesParser().parsebytes(wheel.read(f"{info}/METADATA")), version)
        for name in sorted(package):
            if name.endswith(".py"):
                tools = imported(wheel.read(name)) & TEST_TOOLS
                assert not tools, f"{name} imports {sorted(tools)}"
    print(f"{path.name}: {len(package)} files of the package, and its metadata")


def check_sdist(path: Path) -> None:
    """The source distribution contains what pyproject.toml includes, and what the build backend adds."""
    included = {name.removeprefix("/") for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    documents = included - {"allsource_auth"}
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = package_files() | documents | ADDED_TO_SDIST
    assert names == wanted, sorted(names ^ wanted)
    print(f"{path.name}: the package, and {', '.join(sorted(documents))}")


def main(wheel: str, sdist: str) -> None:
    check_wheel(Path(wheel))
    check_sdist(Path(sdist))


if __name__ == "__main__":
    main(*sys.argv[1:])
