"""Without PostgreSQL the benchmark ends with an error that has the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import postgres
from benchmarks.postgres import PostgresMissing, running


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No PostgreSQL, and an empty folder as PATH; returns the folder, in which a test can write its ``apt-get``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setattr(postgres, "INSTALLED", tmp_path / "postgresql")
    monkeypatch.setenv("PATH", str(programs))
    return programs


def as_root(monkeypatch: pytest.MonkeyPatch, *, root: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)


def apt_get(programs: Path, script: str) -> None:
    program = programs / "apt-get"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def error_of_start(tmp_path: Path) -> str:
    """The message of the error with which the start of a server fails."""
    with pytest.raises(PostgresMissing) as caught, running(tmp_path / "server", connections=1):
        pass
    return str(caught.value)


def test_missing_root_rights_are_reported(
    nothing_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_root(monkeypatch, root=False)
    apt_get(nothing_installed, "exit 0")
    assert error_of_start(tmp_path).endswith("only root can install it: apt-get install postgresql-15")


def test_missing_apt_get_is_reported(nothing_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=True)
    assert error_of_start(tmp_path).endswith("no apt-get to install Debian's postgresql-15")


def test_last_line_of_apt_get_is_reported(
    nothing_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_root(monkeypatch, root=True)
    apt_get(nothing_installed, 'test "$1" = update || { echo "E: Unable to locate package $3" >&2; exit 100; }')
    expected = "`apt-get install -y postgresql-15` failed: E: Unable to locate package postgresql-15"
    assert error_of_start(tmp_path).endswith(expected)


def test_newest_installed_version_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "INSTALLED", tmp_path)
    for number in ("9", "15", "10"):
        (tmp_path / number / "bin").mkdir(parents=True)
        (tmp_path / number / "bin" / "initdb").touch()
    assert postgres._newest() == tmp_path / "15" / "bin"
