"""The console script: missing packages, lazy imports, version and help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import allsource_auth
from allsource_auth import __version__
from allsource_auth.cli import main

COMMANDS = ("demo", "serve", "check", "reindex", "bench")

MISSING = [
    ("demo", "cyclopts", "cli"),
    ("demo", "rich", "cli"),
    ("demo", "hdrh", "cli"),
    ("bench --data {data}", "hdrh", "cli"),
    ("serve --port 0 --query-port 0", "starlette", "server"),
    ("serve --port 0 --query-port 0", "uvicorn", "server"),
    ("serve --port 0 --query-port 0", "websockets", "server"),
]
"""A command, a package that cannot be imported, and the extra that installs it."""

RUN_WITHOUT_PACKAGES = """
import sys
import allsource_auth.cli
assert not {"cyclopts", "rich", "hdrh", "starlette", "uvicorn", "websockets"} & set(sys.modules)
imported = dict(sys.modules)
for line in sys.argv[1:]:
    package, *arguments = line.split()
    sys.modules[package] = None
    print(allsource_auth.cli.main(arguments))
    sys.modules.clear()
    sys.modules.update(imported)
"""
"""Prints the exit code of each command. One process for all of them, in which no command has imported anything before."""


def test_missing_package_is_reported_in_one_line_with_its_extra(tmp_path: Path) -> None:
    data = tmp_path / "auth.db"
    data.touch()
    lines = [f"{package} {command.format(data=data)}" for command, package, _ in MISSING]
    environment = os.environ | {"PYTHONPATH": str(Path(allsource_auth.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", RUN_WITHOUT_PACKAGES, *lines]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.split() == ["2"] * len(MISSING), done.stderr
    parts = {"cli": "the command line", "server": "the local Allsource"}
    assert done.stderr.splitlines() == [
        f"allsource-auth: {parts[extra]} needs more packages; install allsource-auth[{extra}]"
        for _, _, extra in MISSING
    ]


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_help_lists_the_commands_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(command in output for command in COMMANDS)
    assert main(["demo", "--help"]) == 0
    output = capsys.readouterr().out
    assert all(option in output for option in ("--data", "--users", "--json"))
