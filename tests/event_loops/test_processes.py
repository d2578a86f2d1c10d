"""Adapters across a fork, and in processes that end without closing them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows"),
]


@pytest.fixture(params=["http", "file", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "http":
        url: str = request.getfixturevalue("core_url")
        return url
    return str(tmp_path / "auth.db") if request.param == "file" else "memory"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.event_loops.programs", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_fork_leaves_an_adapter_usable_or_precisely_refused(location: str) -> None:
    program = start("fork", location)
    output, errors = program.communicate(timeout=300)
    assert (program.returncode, errors) == (0, "")
    found = {(state, choice): outcome for state, choice, outcome in map(json.loads, output.splitlines())}
    inherited_open = "works" if location.startswith("http") else "StoreClosed"
    new_while_open = "works"
    if location.endswith("auth.db"):
        inherited_open = new_while_open = "Storage forked"
    assert found == {
        ("unused", "inherited"): "works",
        ("unused", "new"): "works",
        ("open", "inherited"): inherited_open,
        ("open", "new"): new_while_open,
        ("closed", "inherited"): "StoreClosed",
        ("closed", "new"): "works",
    }


@pytest.mark.parametrize("name", ["leave-open", "leave-running"])
def test_process_that_does_not_close_its_adapter_ends_silently(location: str, name: str) -> None:
    for _ in range(5 if location.startswith("http") else 1):
        programs = [start(name, location) for _ in range(2)]
        for program in programs:
            output, errors = program.communicate(timeout=300)
            assert (program.returncode, output, errors) == (0, "", "")
