"""The examples run, and what they claim holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

import allsource_auth

EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


INTEGRATED = {"better_auth_app.py"}
"""Those that need a package which the library is integrated with: the session ``integrations`` runs them."""


def _marked(example: Path) -> ParameterSet:
    marks = (pytest.mark.integrations,) if example.name in INTEGRATED else ()
    return pytest.param(example, marks=marks, id=example.name)


@pytest.mark.parametrize("example", [_marked(example) for example in EXAMPLES])
def test_example_runs(example: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60
