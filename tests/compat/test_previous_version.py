"""The previous minor version and this one take turns on one store; both see the same, and neither finds anything wrong.

The wheel in this folder is the previous state of the library. The two versions run in processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import allsource_auth
from tests.support import cores

HERE = Path(__file__).parent
PROGRAM = HERE / "program.py"
(WHEEL,) = HERE.glob("*.whl")
PREVIOUS = WHEEL.name.split("-")[1]
CURRENT = allsource_auth.__version__

Run = Callable[[str, str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a phase of the program with a version on a place; returns what the program saw."""
    previous = tmp_path_factory.mktemp("previous")
    with ZipFile(WHEEL) as wheel:
        wheel.extractall(previous)
    folders = {PREVIOUS: previous, CURRENT: Path(allsource_auth.__file__).parents[1]}

    def run(version: str, phase: str, place: str) -> dict[str, Any]:
        environment = os.environ | {"PYTHONPATH": str(folders[version])}
        done = subprocess.run(
            [sys.executable, str(PROGRAM), phase, place], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["version"] == version
        seen: dict[str, Any] = found["seen"]
        return seen

    return run


def take_turns(run: Run, place: str, first: str, second: str) -> None:
    """``first`` fills the store; then the versions continue in turns, and each sees what the other has written."""
    rounds = [run(first, "create", place)]
    rounds += [run(version, "continue", place) for version in (second, first, second)]
    for number, seen in enumerate(rounds):
        assert seen["findings"] == []
        assert seen["taken"] == "email"
        assert (seen["found"], seen["loaded"], seen["gone"]) == ("ada", "ada", True)
        assert seen["sessions"] == [f"session_{number:03}" for number in range(60, 70)]
        assert seen["metadata"] == {"plan": "pro"}
        assert (seen["account"], seen["two_factor"], seen["passkey"], seen["verification"]) == ("acc", "2fa", "pk", "v")
        assert seen["remaining"] == [5 - number]
        assert seen["name"] == ("+" * number or None)
        assert seen["history"] == [["UserCreated", "sign-up"]] + [["UserUpdated", "support"]] * number
        assert seen["first"] == "ada@example.org"
    assert all(before["events"] < after["events"] for before, after in pairwise(rounds))


def test_the_previous_version_differs_from_this_one() -> None:
    assert PREVIOUS != CURRENT


@pytest.mark.parametrize("first", [PREVIOUS, CURRENT])
def test_versions_take_turns_on_a_file(run: Run, tmp_path: Path, first: str) -> None:
    take_turns(run, str(tmp_path / "auth.db"), first, PREVIOUS if first == CURRENT else CURRENT)


@pytest.mark.core
@pytest.mark.parametrize("core", [cores.OLDEST, cores.NEWEST])
@pytest.mark.parametrize("first", [PREVIOUS, CURRENT])
async def test_versions_take_turns_on_a_core(run: Run, tmp_path: Path, first: str, core: str) -> None:
    async with cores.running(core, data=tmp_path / "core") as running:
        take_turns(run, running.url, first, PREVIOUS if first == CURRENT else CURRENT)


def test_previous_version_refuses_a_newer_event_format(run: Run, tmp_path: Path) -> None:
    place = str(tmp_path / "auth.db")
    run(CURRENT, "create", place)
    raise_format = (
        "import asyncio, sys\n"
        "from allsource_auth import AllsourceAuthAdapter\n"
        "from allsource_auth.engine import store_settings\n"
        "store_settings.EVENT_FORMAT = 2\n"
        "async def main():\n"
        "    async with AllsourceAuthAdapter.embedded(sys.argv[1]) as adapter:\n"
        "        print((await adapter.upgrade()).after)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", raise_format, place], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"
    for version in (PREVIOUS, CURRENT):
        with pytest.raises(AssertionError, match="InvalidInput"):
            run(version, "continue", place)
