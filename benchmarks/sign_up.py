"""How many sign-ups a second an embedded file takes, and how many syncs they cost.

``python benchmarks/sign_up.py [--callers 32] [--sign-ups 2000] [--json FILE]``

In turns in one run: ``library``, concurrent callers who sign users up, whose commits the store gathers; and ``one by one``,
the same events of the same plans written with ``sqlite3`` in one synced commit per sign-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from allsource_auth import AllsourceAuthAdapter, SqliteLog, SqliteStore, __version__

ROUNDS = 5


async def library(path: Path, callers: int, count: int) -> tuple[float, float]:
    """Sign-ups per second, and syncs per sign-up."""
    log = SqliteLog(path)
    async with AllsourceAuthAdapter.with_store(SqliteStore(log)) as adapter:
        await adapter.users.create(email="first@example.org")
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                await adapter.users.create(email=f"user{number}@example.org", name="A user")

        synced, began = log.syncs, time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        took = time.perf_counter() - began
        return count / took, (log.syncs - synced) / count


def one_by_one(path: Path, source: Path, count: int) -> float:
    """Sign-ups per second when each is a synced commit of its own, with the events that the library wrote."""
    with sqlite3.connect(source) as made:
        schema = [row[0] for row in made.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
        width = len(made.execute("SELECT * FROM event LIMIT 1").fetchone())
        rows = made.execute("SELECT * FROM event ORDER BY position DESC LIMIT ?", (2 * count,)).fetchall()[::-1]
    made.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for statement in schema:
        connection.execute(statement)
    places = ",".join("?" * width)
    began = time.perf_counter()
    for first in range(0, len(rows), 2):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO event VALUES ({places})", rows[first : first + 2])
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return count / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--sign-ups", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ours, syncs, theirs = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            made = Path(folder) / f"library{turn}.db"
            rate, per = asyncio.run(library(made, options.callers, options.sign_ups))
            ours.append(rate)
            syncs.append(per)
            theirs.append(one_by_one(Path(folder) / f"single{turn}.db", made, options.sign_ups))
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    found = {
        "library_per_second": statistics.median(ours),
        "one_by_one_per_second": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
        "sign_ups_per_sync": 1 / statistics.median(syncs),
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    today = datetime.now(UTC).date().isoformat()
    print(f"sign-ups, {options.callers} callers, durability full; {machine}; allsource_auth {__version__}; {today}")
    print(
        f"library      {found['library_per_second']:8,.0f} per second, {found['sign_ups_per_sync']:.1f} for each sync"
    )
    print(f"one by one   {found['one_by_one_per_second']:8,.0f} per second, 1 for each sync")
    print(f"ratio {found['ratio']:.2f} ({found['ratio_least']:.2f} to {found['ratio_most']:.2f} over {ROUNDS} rounds)")
    if options.json:
        options.json.write_text(
            json.dumps({"benchmark": "sign_up", "machine": machine, "date": today} | found, indent=2)
        )


if __name__ == "__main__":
    main()
