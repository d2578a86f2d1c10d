"""Result files: the figures that the tables and plots need, with machine, versions, commit and options."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from allsource_auth import __version__

__all__ = ["facts", "headline", "load", "save"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("msgspec", "httptools", "httpx", "uvloop")
PLOTTED_AS_CURVES = ("latest_state",)
"""The benchmarks whose percentile curves are stored."""

DIGITS = 4
"""Significant digits of a stored figure."""

MIN_ROUNDS_OF_SPREAD = 4

Facts = dict[str, Any]


def facts(benchmark: str, **options: Any) -> Facts:
    """The machine, the versions, the commit and the date of a run, and its ``options``."""
    return {
        "benchmark": benchmark,
        "version": __version__,
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "versions": {
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            **{name: found for name in PACKAGES if (found := _version(name)) is not None},
        },
        "options": options,
    }


def headline(known: Facts) -> str:
    """The facts in one line."""
    options = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known["options"].items())
    commit = "" if known["commit"] is None else f" ({known['commit']})"
    python = known["versions"]["Python"]
    return (
        f"{known['benchmark']}: {options}; {known['machine']}, Python {python}; "
        f"allsource_auth {known['version']}{commit}; {known['date']}"
    )


def save(path: Path | None, known: Facts, results: Mapping[Any, Any]) -> None:
    """Write the figures to ``path``, if one is given.

    Figures of single rounds are not stored, only their `spread`. Curves are stored only if they are plotted. Every innermost
    mapping is on one line.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        curves = known["benchmark"] in PLOTTED_AS_CURVES
        path.write_text(_text(known | {"results": _stored(results, curves)}) + "\n")


def spread(rounds: Sequence[float]) -> list[float]:
    """The 10th, 25th, 75th and 90th percentile over the rounds of a benchmark; empty for fewer than four rounds."""
    if len(rounds) < MIN_ROUNDS_OF_SPREAD:
        return []
    tenth = len(rounds) // 10
    ordered = sorted(rounds)
    low, _, high = statistics.quantiles(ordered, n=4)
    return [ordered[tenth], low, high, ordered[-1 - tenth]]


def _stored(value: Any, curves: bool) -> Any:
    if isinstance(value, Mapping):
        found = {str(key): _stored(inner, curves) for key, inner in value.items() if key not in ("rounds", "curve")}
        if "rounds" in value:
            spreads = {figure: _stored(spread(rounds), curves) for figure, rounds in value["rounds"].items()}
            found["spread"] = {figure: numbers for figure, numbers in spreads.items() if numbers}
        if curves and "curve" in value:
            found["curve"] = _stored(value["curve"], curves)
        return found
    if isinstance(value, list | tuple):
        return [_stored(inner, curves) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _text(value: Any, depth: int = 0) -> str:
    if not isinstance(value, Mapping) or not any(isinstance(inner, Mapping) for inner in value.values()):
        return json.dumps(value)
    margin = " " * (depth + 1)
    lines = (f"{margin}{json.dumps(key)}: {_text(inner, depth + 1)}" for key, inner in value.items())
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def load(path: Path) -> dict[str, Any]:
    """Read a file that `save` wrote. Raises ``ValueError`` if the file has another format."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not {"benchmark", "results"} <= found.keys():
        raise ValueError(f"{path} is not a result file of a benchmark")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this checkout, followed by ``-dirty`` if files have changed; ``None`` outside a checkout."""
    try:
        run = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*")
        done = subprocess.run(run, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
