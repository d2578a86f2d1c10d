"""Building Cores into the cache folder, with a fake ``cargo`` that records its arguments."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import cores

CARGO = """\
PATH=/usr/bin:/bin
echo "$*" >> "$CALLS"
while [ $# -gt 0 ]; do
  case "$1" in --root) root="$2" ;; --version) version="$2" ;; esac
  shift
done
mkdir -p "$root/bin" "$CARGO_TARGET_DIR"
touch "$CARGO_TARGET_DIR/compiled"
[ "$version" = "$FAILS" ] && { touch "$root/bin/half"; exit 101; }
echo '#!/bin/sh' > "$root/bin/allsource-core"
chmod +x "$root/bin/allsource-core"
"""

ROOT = Path(__file__).parents[3]
Program = Callable[[str, str], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALLSOURCE_AUTH_CORES", str(tmp_path / "cores"))
    return tmp_path / "cores"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Adds a shell script to a PATH that contains nothing else."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAILS", "none")

    def add(name: str, script: str) -> None:
        (directory / name).write_text(f"#!/bin/sh\n{script}")
        (directory / name).chmod(0o755)

    return add


@pytest.fixture
def rust(program: Program) -> None:
    program("rustc", "echo 'rustc 1.92.0 (of this suite)'")
    program("cargo", CARGO)


def cargo_calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.usefixtures("rust")
def test_missing_versions_are_built(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cores.main(["build"]) == 0
    for version in (cores.OLDEST, cores.NEWEST):
        assert cores.find(version) == folder / version / "bin" / "allsource-core"
        assert cores.required(version) == cores.find(version)
    assert [line.split()[:4] for line in cargo_calls(tmp_path)] == [
        ["install", "allsource-core", "--version", version] for version in (cores.OLDEST, cores.NEWEST)
    ]
    assert all("--locked" in line for line in cargo_calls(tmp_path))
    assert sorted(path.name for path in folder.iterdir()) == [".lock", cores.OLDEST, cores.NEWEST]
    assert f"Building Allsource Core {cores.NEWEST}" in capfd.readouterr().out


@pytest.mark.usefixtures("rust")
def test_built_version_is_not_built_again(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cores.main(["build", cores.NEWEST]) == 0
    assert cores.main(["build", cores.NEWEST]) == 0
    assert len(cargo_calls(tmp_path)) == 1
    assert "Everything is built." in capfd.readouterr().out
    assert cores.main(["list"]) == 0
    listed = capfd.readouterr().out.splitlines()
    assert listed == [f"{cores.OLDEST}  not built", f"{cores.NEWEST}  {cores.find(cores.NEWEST)}"]


@pytest.mark.usefixtures("rust")
def test_failed_build_leaves_no_executable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAILS", cores.NEWEST)
    assert cores.main(["build"]) == 1
    assert "could not be built: cargo exited with 101" in capfd.readouterr().err
    assert cores.find(cores.OLDEST) is not None
    assert cores.find(cores.NEWEST) is None
    assert (folder / ".target" / "compiled").exists(), "compiled dependencies are kept for the next build"
    monkeypatch.setenv("FAILS", "none")
    assert cores.main(["build"]) == 0
    assert cores.find(cores.NEWEST) is not None
    assert not (folder / cores.NEWEST / "bin" / "half").exists()
    assert not (folder / ".target").exists()


def test_build_without_cargo_says_what_to_install(
    folder: Path, program: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    program("rustc", "echo 'rustc 1.95.0'")
    assert cores.main(["build"]) == 1
    assert "cargo is not on the path" in (message := capfd.readouterr().err)
    assert "Rust 1.92 or newer, from rustup" in message
    assert not folder.exists()


def test_old_rust_is_rejected_before_the_build(
    folder: Path, program: Program, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program("rustc", "echo 'rustc 1.91.3 (old)'")
    program("cargo", CARGO)
    assert cores.main(["build"]) == 1
    assert "rustc 1.91.3 (old) is too old" in capfd.readouterr().err
    assert cargo_calls(tmp_path) == []


@pytest.mark.usefixtures("rust")
async def test_concurrent_build_waits_for_the_lock(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    with cores._exclusive(folder):
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.support.cores", "build"),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert second.stdout is not None
        assert await second.stdout.readline() == b"Waiting for another build.\n"
        compiled = folder / ".target"
        for version in (cores.OLDEST, cores.NEWEST):
            cores._build(str(tmp_path / "path" / "cargo"), folder, version, compiled)
    await second.communicate()
    assert second.returncode == 0
    assert len(cargo_calls(tmp_path)) == 2


def test_folder_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALLSOURCE_AUTH_CORES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cores.folder() == tmp_path / "allsource-auth" / "cores"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cores.folder() == Path.home() / ".cache" / "allsource-auth" / "cores"
    monkeypatch.setenv("ALLSOURCE_AUTH_CORES", str(tmp_path / "mine"))
    assert cores.folder() == tmp_path / "mine"
