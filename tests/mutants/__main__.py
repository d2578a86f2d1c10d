"""Apply the mutants, each to its own copy of the checkout, and run the tests that must notice them.

    python -m tests.mutants [NAME ...] [--list] [--jobs N]

First the same tests run on an unchanged copy, where they must pass. The exit code is 0 if every mutant is noticed, 1 if one
survives, and 2 if a mutant cannot be applied, its tests cannot run, or they fail without it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.mutant import MUTANTS, ROOT, SESSIONS, Mutant, Unapplicable

COPIED = ("allsource_auth", "tests", "pyproject.toml")
"""What the tests need of the checkout."""

LIMIT = 120.0
"""Seconds for the tests of one mutant. They take a few; a mutant that makes them run longer is taken for noticed."""

VARIABLES = {"protocol": {"ALLSOURCE_AUTH_EXPLORE": "some"}}
"""The environment variables that a nox session sets for its tests."""

_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A run of pytest: its exit code (``None`` after the time limit), the first test that failed, and the whole output."""

    code: int | None
    failed: str
    seconds: float
    output: str


@contextmanager
def copied() -> Generator[Path]:
    """A temporary copy of the checkout."""
    with TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        for part in COPIED:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, folder / part)
        yield folder


def run_tests(folder: Path, session: str, tests: Iterable[str], *, limit: float) -> Run:
    """Run those of ``tests`` that belong to a nox session, in a copy of the checkout, until one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", SESSIONS[session], *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | VARIABLES.get(session, {})
    began = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        code: int | None = None
        try:
            output, _ = process.communicate(timeout=limit)
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the processes that the tests have started as well
            output, _ = process.communicate()
    failed = _FAILED.search(output)
    return Run(code, failed.group(1) if failed else "", time.monotonic() - began, output)


def run_mutant(mutant: Mutant) -> Run:
    """Run the tests of a mutant on a copy of the checkout that has it."""
    with copied() as folder:
        file = mutant.file(folder)
        file.write_text(mutant.applied(file.read_text()))
        return run_tests(folder, mutant.session, mutant.tests, limit=LIMIT)


def run_unchanged(mutants: Sequence[Mutant]) -> list[Run]:
    """Run the tests of all ``mutants``, each once, on an unchanged copy of the checkout."""
    runs = []
    with copied() as folder:
        for session in dict.fromkeys(mutant.session for mutant in mutants):
            tests = dict.fromkeys(test for mutant in mutants if mutant.session == session for test in mutant.tests)
            runs.append(run_tests(folder, session, tests, limit=10 * LIMIT))
    return runs


def judged(run: Run) -> tuple[str, int]:
    """What to print about the run of a mutant, and the exit code that it calls for."""
    if run.code is None:
        return f"time limit of {LIMIT:.0f} s: the tests hang", 0
    if run.code == 1:
        return run.failed, 0
    if run.code == 0:
        return "NOT NOTICED", 1
    return f"ERROR: pytest exited with {run.code}", 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Check that the tests notice planted bugs."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the mutants to run; all by default")
    parser.add_argument("--list", action="store_true", help="list the mutants, their sessions and what they remove")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time; by default one per core"
    )
    given = parser.parse_args(arguments)
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"unknown mutant {', '.join(unknown)}; --list shows all")
    mutants = [known[name] for name in given.names] or list(MUTANTS)
    width = max(len(mutant.name) for mutant in mutants)
    if given.list:
        for mutant in mutants:
            print(f"{mutant.name:{width}}  {mutant.session:8}  {mutant.safeguard}")
        return 0
    try:
        for mutant in mutants:
            mutant.applied(mutant.file(ROOT).read_text())
    except Unapplicable as error:
        parser.error(str(error))
    for run in run_unchanged(mutants):
        if run.code != 0:
            print(run.output)
            parser.error("these tests must pass without a mutant")
    worst = 0
    print(f"{'NAME':{width}}  SECONDS  NOTICED BY", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        for mutant, run in zip(mutants, pool.map(run_mutant, mutants), strict=True):
            words, code = judged(run)
            print(f"{mutant.name:{width}}  {run.seconds:7.1f}  {words}", flush=True)
            if code == 2:
                print(run.output, flush=True)
            worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
