"""What every benchmark says about itself, and the file that its figures go to."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from allsource_auth import __version__

__all__ = ["facts", "headline", "load", "save"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("msgspec", "pyreqwest", "httpx", "aiohttp", "uvloop")

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
    """One line of it, for people."""
    options = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known["options"].items())
    commit = "" if known["commit"] is None else f" ({known['commit']})"
    python = known["versions"]["Python"]
    return (
        f"{known['benchmark']}: {options}; {known['machine']}, Python {python}; "
        f"allsource_auth {known['version']}{commit}; {known['date']}"
    )


def save(path: Path | None, known: Facts, results: Mapping[Any, Any]) -> None:
    """Write the figures to a file, if there is one to write to."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | {"results": results}, indent=1) + "\n")


def load(path: Path) -> dict[str, Any]:
    """A file that `save` wrote. Raises ``ValueError`` for another one."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not {"benchmark", "results"} <= found.keys():
        raise ValueError(f"{path} holds no results of a benchmark")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code that runs; with a mark if it was changed since; ``None`` outside of a checkout."""
    try:
        run = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*")
        done = subprocess.run(run, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
