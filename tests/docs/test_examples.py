"""The examples run, and what they claim holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import allsource_auth

EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("*.py"))


def _marks(example: Path) -> list[pytest.MarkDecorator]:
    """An example of an integration needs the package that it plugs into."""
    return [pytest.mark.integrations] if "allsource_auth.integrations" in example.read_text(encoding="utf-8") else []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("example", [pytest.param(path, marks=_marks(path), id=path.name) for path in EXAMPLES])
def test_example_runs(example: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60
