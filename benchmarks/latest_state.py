"""How long it takes to read the latest state of a session, against the least that SQLite and msgspec need for it.

``python benchmarks/latest_state.py [--sessions 100000] [--reads 20000] [--json FILE]``

A file with 100,000 sessions is made and read once through, so that it is warm. Then, in turns in one run, so that both meet
the same machine: ``bare``, a ``sqlite3`` select by primary key from a table of the same payloads plus a ``msgspec`` decode
into the same struct; and ``sessions.get``, ``users.get_by_email``, ``load_session`` of the library. One caller, closed loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from hdrh.histogram import HdrHistogram

from allsource_auth import AllsourceAuthAdapter, Session, __version__

ROUNDS = 20
WRITERS = 64


def histogram() -> HdrHistogram:
    """Nanoseconds, up to ten seconds, three digits."""
    return HdrHistogram(1, 10_000_000_000, 3)


async def seed(path: Path, count: int) -> tuple[list[str], list[str]]:
    """Sign in ``count`` times; the tokens, and the emails of the users."""
    expires = datetime.now(UTC) + timedelta(days=7)
    tokens: list[str] = []
    emails = [f"user{number}@example.org" for number in range(max(1, count // 10))]
    places = asyncio.Semaphore(WRITERS)

    async with AllsourceAuthAdapter.embedded(path, durability="normal") as adapter:

        async def user(email: str) -> None:
            async with places:
                found = await adapter.users.create(email=email, name="A user")
            for _ in range(10):
                async with places:
                    session = await adapter.sessions.create(
                        user_id=found.id,
                        expires_at=expires,
                        ip_address="203.0.113.7",
                        user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0",
                    )
                tokens.append(session.token)

        await asyncio.gather(*(user(email) for email in emails))
    return tokens, emails


def bare_copy(path: Path, copy: Path) -> None:
    """The newest payload of every session in a table of its own, by token as the primary key."""
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        target.execute("PRAGMA journal_mode=WAL")
        target.execute("CREATE TABLE session (token TEXT PRIMARY KEY, payload TEXT) WITHOUT ROWID")
        rows = source.execute("SELECT substr(stream, 14), payload FROM event WHERE stream LIKE 'auth-session:%'")
        target.executemany("INSERT INTO session VALUES (?, ?)", rows)
    source.close()
    target.commit()
    target.close()


Read = Callable[[], Awaitable[object]]


async def measured(reads: dict[str, Callable[[], Read]], count: int) -> dict[str, dict[str, float]]:
    """p50 to p99.9 in microseconds and reads per second, and how far the p99 of single rounds spread."""
    found = {name: histogram() for name in reads}
    spread: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(ROUNDS):
        for name, prepare in reads.items():
            single = histogram()
            for _ in range(count // ROUNDS):
                read = prepare()
                began = time.perf_counter_ns()
                result = await read()
                took = time.perf_counter_ns() - began
                assert result is not None
                single.record_value(took)
            found[name].add(single)
            spread[name].append(single.get_value_at_percentile(99) / 1000)
    return {
        name: {
            "p50_us": hist.get_value_at_percentile(50) / 1000,
            "p90_us": hist.get_value_at_percentile(90) / 1000,
            "p99_us": hist.get_value_at_percentile(99) / 1000,
            "p999_us": hist.get_value_at_percentile(99.9) / 1000,
            "p99_us_median_of_rounds": statistics.median(spread[name]),
            "per_second": 1e9 / hist.get_mean_value(),
        }
        for name, hist in found.items()
    }


async def run(sessions: int, reads: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "auth.db", Path(folder) / "bare.db"
        print(f"seeding {sessions} sessions ...", file=sys.stderr)
        tokens, emails = await seed(path, sessions)
        bare_copy(path, copy)
        connection = sqlite3.connect(copy, isolation_level=None)
        decode = msgspec.json.Decoder(Session).decode
        choice = random.Random(7).choice

        def bare() -> Read:
            token = choice(tokens)

            async def read() -> Session:
                (payload,) = connection.execute("SELECT payload FROM session WHERE token = ?", (token,)).fetchone()
                return decode(payload)

            return read

        async with AllsourceAuthAdapter.embedded(path) as adapter:

            def get() -> Read:
                token = choice(tokens)
                return lambda: adapter.sessions.get(token)

            def by_email() -> Read:
                email = choice(emails)
                return lambda: adapter.users.get_by_email(email)

            def load() -> Read:
                token = choice(tokens)
                return lambda: adapter.load_session(token)

            for token in tokens:  # warm: every page was read once by both
                await adapter.sessions.get(token)
                connection.execute("SELECT payload FROM session WHERE token = ?", (token,)).fetchone()
            kinds = {"bare": bare, "sessions.get": get, "users.get_by_email": by_email, "load_session": load}
            found = await measured(kinds, reads)
        connection.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=20_000, help="of each kind")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    found = asyncio.run(run(options.sessions, options.reads))
    bare = found["bare"]
    machine = f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    today = datetime.now(UTC).date().isoformat()
    print(f"latest state, {options.sessions} sessions, one caller; {machine}; allsource_auth {__version__}; {today}")
    print(f"{'':20} {'p50':>9} {'p90':>9} {'p99':>9} {'p99.9':>9} {'per second':>11}   p99 against bare")
    for name, row in found.items():
        ratio = row["p99_us_median_of_rounds"] / bare["p99_us_median_of_rounds"]
        print(
            f"{name:20} {row['p50_us']:7.1f}us {row['p90_us']:7.1f}us {row['p99_us']:7.1f}us {row['p999_us']:7.1f}us"
            f" {row['per_second']:11,.0f}   {ratio:.2f}"
        )
    if options.json:
        facts = {"benchmark": "latest_state", "sessions": options.sessions, "machine": machine, "date": today}
        options.json.write_text(json.dumps(facts | {"results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
