"""Sign-ups per second on an embedded file, and the syncs that they need.

``python benchmarks/sign_up.py [--callers 32] [--sign-ups 2000] [--json FILE]``

Alternates between three ways: ``concurrent`` callers, whose appends the store combines into common commits; ``sequential``, a
single caller with one synced commit per sign-up; and ``bare sqlite3``, which inserts the same events without the library and
without checks, with one synced commit per sign-up.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter, SqliteLog, SqliteStore
from benchmarks.arguments import count
from benchmarks.results import facts, headline, save

ROUNDS = 5


async def library(path: Path, callers: int, count: int) -> tuple[float, float]:
    """Sign-ups per second and syncs per sign-up of the library."""
    log = SqliteLog(path)
    async with AllsourceAuthAdapter.with_store(SqliteStore(log)) as adapter:
        await adapter.users.create(email="first@example.org")
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                await adapter.users.create(email=f"user{number}@example.org", name="A user")

        syncs, began = log.syncs, time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        took = time.perf_counter() - began
        return count / took, (log.syncs - syncs) / count


def bare_sqlite(path: Path, source: Path, count: int) -> float:
    """Sign-ups per second of ``sqlite3`` alone, with the events in the file ``source`` and one synced commit each."""
    with sqlite3.connect(source) as original:
        schema = [
            row[0] for row in original.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        ]
        width = len(original.execute("SELECT * FROM event LIMIT 1").fetchone())
        rows = original.execute("SELECT * FROM event ORDER BY position DESC LIMIT ?", (2 * count,)).fetchall()[::-1]
    original.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for statement in schema:
        connection.execute(statement)
    marks = ",".join("?" * width)
    began = time.perf_counter()
    for first in range(0, len(rows), 2):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO event VALUES ({marks})", rows[first : first + 2])
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return count / took


def spread(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """The median, the smallest and the largest ratio of a round."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ratios), ratios[0], ratios[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--callers", type=count, default=32, help="concurrent callers (default: 32)")
    parser.add_argument("--sign-ups", type=count, default=2000, help="in each round (default: 2,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    concurrent, syncs, sequential, bare = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            path = Path(folder) / f"concurrent{number}.db"
            rate, per_sign_up = asyncio.run(library(path, options.callers, options.sign_ups))
            concurrent.append(rate)
            syncs.append(per_sign_up)
            other = Path(folder) / f"sequential{number}.db"
            sequential.append(asyncio.run(library(other, 1, options.sign_ups // 2))[0])
            bare.append(bare_sqlite(Path(folder) / f"bare{number}.db", path, options.sign_ups))
    found: dict[str, Any] = {
        "together_per_second": statistics.median(concurrent),
        "sign_ups_per_sync": 1 / statistics.median(syncs),
        "one_by_one_per_second": statistics.median(sequential),
        "against_one_by_one": spread(concurrent, sequential),
        "bare_per_second": statistics.median(bare),
        "against_bare": spread(concurrent, bare),
    }
    known = facts("sign_up", callers=options.callers, sign_ups=options.sign_ups, durability="full")
    print(headline(known))
    print(f"concurrent    {found['together_per_second']:6,.0f} per second, {found['sign_ups_per_sync']:.1f} per sync")
    for name, key, against in (
        ("sequential", "one_by_one_per_second", "against_one_by_one"),
        ("bare sqlite3", "bare_per_second", "against_bare"),
    ):
        ratio, least, most = found[against]
        comparison = f"concurrent has {ratio:.2f} times as many ({least:.2f} to {most:.2f} in {ROUNDS} rounds)"
        print(f"{name:13} {found[key]:6,.0f} per second, 1 per sync; {comparison}")
    save(options.json, known, found)


if __name__ == "__main__":
    main()
