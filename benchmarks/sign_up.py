"""How many sign-ups a second an embedded file takes, and how many syncs they cost.

``python benchmarks/sign_up.py [--callers 32] [--sign-ups 2000] [--json FILE]``

In turns in one run: ``together``, concurrent callers who sign users up, whose commits the store gathers; ``one by one``, the
same with a single caller, so that every sign-up is a synced commit of its own; and ``bare sqlite3``, the events that the
library wrote, written again without it, checked by nobody, in one synced commit per sign-up.
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


def bare_sqlite(path: Path, source: Path, count: int) -> float:
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


def spread(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """The ratio of each round: median, least, most."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ratios), ratios[0], ratios[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--callers", type=count, default=32)
    parser.add_argument("--sign-ups", type=count, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    together, syncs, alone, bare = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            made = Path(folder) / f"together{turn}.db"
            rate, per = asyncio.run(library(made, options.callers, options.sign_ups))
            together.append(rate)
            syncs.append(per)
            alone.append(asyncio.run(library(Path(folder) / f"alone{turn}.db", 1, options.sign_ups // 2))[0])
            bare.append(bare_sqlite(Path(folder) / f"bare{turn}.db", made, options.sign_ups))
    found: dict[str, Any] = {
        "together_per_second": statistics.median(together),
        "sign_ups_per_sync": 1 / statistics.median(syncs),
        "one_by_one_per_second": statistics.median(alone),
        "against_one_by_one": spread(together, alone),
        "bare_per_second": statistics.median(bare),
        "against_bare": spread(together, bare),
    }
    known = facts("sign_up", callers=options.callers, sign_ups=options.sign_ups, durability="full")
    print(headline(known))
    print(
        f"together      {found['together_per_second']:6,.0f} per second, {found['sign_ups_per_sync']:.1f} for each sync"
    )
    for name, key, against in (
        ("one by one", "one_by_one_per_second", "against_one_by_one"),
        ("bare sqlite3", "bare_per_second", "against_bare"),
    ):
        ratio, least, most = found[against]
        said = f"together is {ratio:.2f} times that ({least:.2f} to {most:.2f} over {ROUNDS} rounds)"
        print(f"{name:13} {found[key]:6,.0f} per second, 1 for each sync; {said}")
    save(options.json, known, found)


if __name__ == "__main__":
    main()
