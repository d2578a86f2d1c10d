"""Two results side by side: two files, or two commits that are measured in turns.

``python benchmarks/compare.py BEFORE.json AFTER.json``
``python benchmarks/compare.py --commits BEFORE AFTER [--turns 5] -- latest_state.py --store embedded``

For every figure that both have: the ratio of after to before, and its spread. Of two files the spread is that between the
quarters of their rounds, so it holds what the machine did meanwhile only as far as it did so within a run. Two commits are
checked out and measured one after the other, again and again, by the benchmarks of this checkout; their spread is the least and
the most over the turns, and a ratio whose spread does not hold 1.00 is marked.
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

from benchmarks.results import load  # noqa: E402 - found by the line above

FIGURES = ("p50_us", "p99_us", "per_second")
MEASURING = ("benchmarks", "tests")
"""What measures; taken from this checkout for both commits."""


class Ratio(NamedTuple):
    """After against before. A spread of several turns; of two files that of their rounds."""

    name: str
    before: float
    after: float
    ratio: float
    least: float
    most: float


def rows(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of figures in results, by where it stands."""
    if not isinstance(found, dict):
        return
    if any(isinstance(found.get(name), int | float) for name in FIGURES):
        yield ", ".join(path), found
        return
    for name, inner in found.items():
        yield from rows(inner, (*path, name))


def of_files(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Ratio]:
    theirs = dict(rows(before["results"]))
    for place, row in rows(after["results"]):
        known = theirs.get(place, {})
        for name in FIGURES:
            if name in row and known.get(name):
                ratio = row[name] / known[name]
                least, most = _between_quarters(known, row, name) or (ratio, ratio)
                yield Ratio(f"{place}: {name}", known[name], row[name], ratio, least, most)


def _between_quarters(before: dict[str, Any], after: dict[str, Any], name: str) -> tuple[float, float] | None:
    """The least and the greatest ratio between the middle halves of both rounds."""
    was, now = (row.get("spread", {}).get(name) for row in (before, after))
    if was is None or now is None:
        return None
    return now[1] / was[2], now[2] / was[1]


def of_turns(turns: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[Ratio]:
    """The median of the turns' ratios, and the least and the most."""
    found = [list(of_files(before, after)) for before, after in turns]
    for same in zip(*found, strict=True):
        ratios = sorted(one.ratio for one in same)
        before, after = (statistics.median(one[place] for one in same) for place in (1, 2))
        yield Ratio(same[0].name, before, after, statistics.median(ratios), ratios[0], ratios[-1])


@contextmanager
def checked_out(commits: list[str]) -> Iterator[list[Path]]:
    """A checkout of each commit, with the benchmarks of this one."""
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(commits))]
        git = ("git", "-C", str(ROOT), "worktree")
        try:
            for commit, place in zip(commits, places, strict=True):
                subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
                for name in MEASURING:
                    shutil.rmtree(place / name, ignore_errors=True)
                    shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
            yield places
        finally:
            for place in places:
                subprocess.run([*git, "remove", "--force", str(place)], check=False, capture_output=True)


def in_turns(commits: list[str], benchmark: list[str], turns: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The results of both commits, ``turns`` times."""
    found = []
    with checked_out(commits) as places:
        for turn in range(turns):
            results = []
            for commit, place in zip(commits, places, strict=True):
                print(f"turn {turn + 1} of {turns}: {commit} ...", file=sys.stderr)
                file = place / "result.json"
                run = [sys.executable, str(place / "benchmarks" / benchmark[0]), *benchmark[1:], "--json", str(file)]
                environment = os.environ | {"PYTHONPATH": str(place)}
                done = subprocess.run(run, cwd=place, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{commit} cannot be measured:\n{done.stderr[-2000:]}")
                results.append(load(file))
            found.append((results[0], results[1]))
    return found


def show(ratios: list[Ratio]) -> None:
    if not ratios:
        raise SystemExit("the two have no figures in common")
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
    parser.add_argument("files", nargs="*", help="two files; with --commits a benchmark and its options, after --")
    parser.add_argument("--commits", nargs=2, metavar=("BEFORE", "AFTER"), help="measure two commits")
    parser.add_argument("--turns", type=int, default=5, help="how often each commit is measured (default: 5)")
    given = parser.parse_args()
    if given.commits is not None:
        if not given.files or not (ROOT / "benchmarks" / given.files[0]).is_file():
            parser.error("name one of the benchmarks after --, such as latest_state.py, and its options")
        show(list(of_turns(in_turns(given.commits, given.files, given.turns))))
        return
    if len(given.files) != 2:
        parser.error("name two files")
    try:
        before, after = (load(Path(file)) for file in given.files)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if before["benchmark"] != after["benchmark"]:
        parser.error(f"{given.files[0]} is of {before['benchmark']}, {given.files[1]} of {after['benchmark']}")
    show(list(of_files(before, after)))


if __name__ == "__main__":
    main()
