"""The Python programs on the pages of the documentation run as they stand and print what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import allsource_auth
from tests.docs.pages import PAGES, Block, comparable, files, imported, snippets, write_files

FRAMEWORKS = {"better_auth", "fastapi", "fastapi_better_auth", "fastapi_users"}


def _marks(page: Path, *programs: str) -> list[pytest.MarkDecorator]:
    """A program that needs a framework runs where the frameworks are installed."""
    needed = set().union(*(imported(program) for program in (*programs, *files(page).values())))
    return [pytest.mark.integrations] if needed & FRAMEWORKS else []


SNIPPETS = [
    pytest.param(block, marks=_marks(page, block.text), id=block.place) for page in PAGES for block in snippets(page)
]


def _run(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_most_pages_have_snippets() -> None:
    assert len({param.values[0].page for param in SNIPPETS if isinstance(param.values[0], Block)}) >= 5


@pytest.mark.parametrize("block", SNIPPETS)
def test_snippet_runs_as_it_stands(block: Block, tmp_path: Path) -> None:
    write_files(block.page, tmp_path)
    printed = _run(tmp_path, "-c", block.text)
    if block.output is not None:
        assert comparable(printed) == comparable(block.output)
