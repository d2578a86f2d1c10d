"""The README holds: its snippets run as they stand, and its two commands are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import allsource_auth
from allsource_auth import errors

README = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install '.[all]' && .venv/bin/allsource-auth demo",
    "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s tests",
]


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet_runs_as_it_stands(snippet: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", snippet]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_there_on_a_line_of_its_own(command: str) -> None:
    assert README.splitlines().count(command) == 1


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_in_the_tree(name: str) -> None:
    tree = README.partition("## Errors")[2].partition("\n## ")[0]
    assert re.search(rf"^[ │├└─]*{name}\b", tree, re.MULTILINE)


def test_the_place_for_measured_figures_is_marked() -> None:
    assert re.search(r"^<!-- benchmark -->$.*^<!-- /benchmark -->$", README, re.DOTALL | re.MULTILINE)
