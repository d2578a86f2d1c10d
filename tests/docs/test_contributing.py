"""CONTRIBUTING.md and the workflow name sessions and files that exist; links of the documents lead to files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT.joinpath(".github", "workflows", "tests.yml").read_text(encoding="utf-8")


def read(name: str) -> str:
    return ROOT.joinpath(name).read_text(encoding="utf-8")


def sessions() -> list[str]:
    """The functions of noxfile.py that are decorated as a session."""
    functions = [node for node in ast.parse(read("noxfile.py")).body if isinstance(node, ast.FunctionDef)]
    return [found.name for found in functions if any("nox.session" in ast.unparse(d) for d in found.decorator_list)]


def test_table_of_sessions_has_each_session_once() -> None:
    table = re.findall(r"^\| `(\w+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    assert sorted(table) == sorted(sessions())


def test_workflow_runs_sessions_that_exist() -> None:
    named = re.findall(r"nox -s (\w+)", WORKFLOW)
    for group in re.findall(r"sessions?: \[(.+)\]", WORKFLOW):
        named += re.split(r"[ ,]+", group)
    assert len(named) > 5
    assert set(named) <= set(sessions())


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_to_files_of_the_repository(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)", read(name)):
        assert ROOT.joinpath(link).is_file(), link


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", ".github/pull_request_template.md"])
def test_named_files_and_folders_exist(name: str) -> None:
    """A path in backticks is relative to the root or to the package; a bare name is that of a file anywhere in the package."""
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml))`", read(name))
    assert named
    package = ROOT / "allsource_auth"
    for path in named:
        found = [folder / path for folder in (ROOT, package) if (folder / path).exists()]
        assert found or ("/" not in path and list(package.rglob(path))), path


def test_layout_names_every_module_and_folder_of_the_package_that_it_shows() -> None:
    layout = re.search(r"^allsource_auth/\n((?:  \S.*\n)+)", read("CONTRIBUTING.md"), re.MULTILINE)
    assert layout is not None
    shown = {line.split()[0].rstrip("/") for line in layout[1].splitlines()}
    there = {path.name for path in (ROOT / "allsource_auth").iterdir()}
    assert shown <= there
    folders = {path.name for path in (ROOT / "allsource_auth").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders <= shown
