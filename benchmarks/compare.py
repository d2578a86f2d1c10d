"""Compare two results: of two files, or of two commits that are measured alternately.

``python benchmarks/compare.py BEFORE.json AFTER.json``
``python benchmarks/compare.py --commits BEFORE AFTER [--turns 5] -- latest_state.py --store embedded``

Prints the ratio of after to before, and its spread, for every figure that both results have. The spread of two files comes from
the quartiles of their rounds; it does not cover changes of the machine between the two runs. Two commits are checked out and
measured alternately several times, both with the benchmarks of this checkout. Their spread is the smallest and the largest
ratio of all turns. A ratio whose spread does not contain 1.00 is marked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import load  # noqa: E402 - needs the path above

FIGURES = ("p50_us", "p99_us", "per_second")
MEASURING = ("benchmarks", "tests", "allsource_auth/cli/measuring.py")
"""The code that measures. Both commits are measured with that of this checkout."""


class Ratio(NamedTuple):
    """A figure before and after, their ratio, and the spread of the ratio."""

    name: str
    before: float
    after: float
    ratio: float
    least: float
    most: float


def rows(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of figures in the results, with its path."""
    if not isinstance(found, dict):
        return
    if any(isinstance(found.get(name), int | float) for name in FIGURES):
        yield ", ".join(path), found
        return
    for name, inner in found.items():
        yield from rows(inner, (*path, name))


def of_files(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Ratio]:
    """The ratios of two results, with the spread of their rounds."""
    rows_before = dict(rows(before["results"]))
    for name_of_row, row in rows(after["results"]):
        known = rows_before.get(name_of_row, {})
        for name in FIGURES:
            if name in row and known.get(name):
                ratio = row[name] / known[name]
                least, most = _between_quarters(known, row, name) or (ratio, ratio)
                yield Ratio(f"{name_of_row}: {name}", known[name], row[name], ratio, least, most)


def _between_quarters(before: dict[str, Any], after: dict[str, Any], name: str) -> tuple[float, float] | None:
    """The smallest and the largest ratio between the interquartile ranges of the rounds."""
    was, now = (row.get("spread", {}).get(name) for row in (before, after))
    if was is None or now is None:
        return None
    return now[1] / was[2], now[2] / was[1]


def of_turns(turns: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[Ratio]:
    """The median of the ratios of all turns, and the smallest and the largest ratio."""
    found = [list(of_files(before, after)) for before, after in turns]
    for same in zip(*found, strict=True):
        ratios = sorted(one.ratio for one in same)
        before, after = (statistics.median(getattr(one, side) for one in same) for side in ("before", "after"))
        yield Ratio(same[0].name, before, after, statistics.median(ratios), ratios[0], ratios[-1])


@contextmanager
def checked_out(commits: list[str]) -> Iterator[list[Path]]:
    """Check out each commit, with the measuring code of this checkout."""
    with tempfile.TemporaryDirectory() as folder:
        checkouts = [Path(folder) / str(number) for number in range(len(commits))]
        git = ("git", "-C", str(ROOT), "worktree")
        try:
            for commit, checkout in zip(commits, checkouts, strict=True):
                subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), commit], check=True)
                for name in MEASURING:
                    if (ROOT / name).is_file():
                        shutil.copy(ROOT / name, checkout / name)
                        continue
                    shutil.rmtree(checkout / name, ignore_errors=True)
                    shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
            yield checkouts
        finally:
            for checkout in checkouts:
                subprocess.run([*git, "remove", "--force", str(checkout)], check=False, capture_output=True)


def measure_commits(
    commits: list[str], benchmark: list[str], turns: int
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The results of both commits for each turn."""
    found = []
    with checked_out(commits) as checkouts:
        for turn in range(turns):
            results = []
            for commit, checkout in zip(commits, checkouts, strict=True):
                print(f"turn {turn + 1} of {turns}: {commit} ...", file=sys.stderr)
                file = checkout / "result.json"
                run = [sys.executable, str(checkout / "benchmarks" / benchmark[0]), *benchmark[1:], "--json", str(file)]
                environment = os.environ | {"PYTHONPATH": str(checkout)}
                done = subprocess.run(run, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"the benchmark failed with {commit}:\n{done.stderr[-2000:]}")
                results.append(load(file))
            found.append((results[0], results[1]))
    return found


def show(ratios: list[Ratio]) -> None:
    if not ratios:
        raise SystemExit("the two results have no figures in common")
    width = max(len(one.name) for one in ratios)
    print(f"{'':{width}} {'before':>12} {'after':>12}   ratio (spread)")
    for one in ratios:
        mark = "" if one.least <= 1 <= one.most else "  *"
        print(
            f"{one.name:{width}} {one.before:12,.1f} {one.after:12,.1f}   "
            f"{one.ratio:.2f} ({one.least:.2f} to {one.most:.2f}){mark}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", nargs="*", help="two result files; with --commits a benchmark and its options, after --"
    )
    parser.add_argument("--commits", nargs=2, metavar=("BEFORE", "AFTER"), help="measure two commits")
    parser.add_argument("--turns", type=int, default=5, help="how often each commit is measured (default: 5)")
    given = parser.parse_args()
    if given.commits is not None:
        if not given.files or not (ROOT / "benchmarks" / given.files[0]).is_file():
            parser.error("name a benchmark and its options after --, such as latest_state.py")
        show(list(of_turns(measure_commits(given.commits, given.files, given.turns))))
        return
    if len(given.files) != 2:
        parser.error("name two result files")
    try:
        before, after = (load(Path(file)) for file in given.files)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if before["benchmark"] != after["benchmark"]:
        parser.error(f"{given.files[0]} has results of {before['benchmark']}, {given.files[1]} of {after['benchmark']}")
    show(list(of_files(before, after)))


if __name__ == "__main__":
    main()
