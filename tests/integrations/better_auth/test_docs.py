"""docs/better-auth.md holds: its snippets run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import allsource_auth

pytestmark = pytest.mark.integrations

TEXT = Path(__file__).parents[3].joinpath("docs", "better-auth.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs_as_it_stands(snippet: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", snippet]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
