"""CONTRIBUTING.md and the workflow name the sessions of noxfile.py, and links of the documents lead somewhere."""

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
