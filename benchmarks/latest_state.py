"""How long it takes to read the latest state of a session, against the least that is needed for it.

``python benchmarks/latest_state.py [--store sqlite|local|core-0.23.0|core-0.27.0] [--sessions N] [--reads N] [--json FILE]``
``python benchmarks/latest_state.py --core URL [--query URL] [--api-key KEY] [--callers 1,16]``

A store is filled with sessions, ten for each user, and read once through, so that it is warm. Then, in turns in one run, so
that all meet the same machine, come ``sessions.get``, ``users.get_by_email`` and ``load_session`` of the library, and

* on a file, with one caller: ``bare``, a ``sqlite3`` select by primary key from a table of the same payloads plus a
  ``msgspec`` decode into the same struct;
* over HTTP, with each number of ``--callers``: the same request as that of ``sessions.get`` and the same decode by
  ``httpx as it comes``, and by the bare engines of the library, ``pyreqwest`` and ``httpx on aiohttp``.

The servers run in processes of their own. Closed loops; CPU is what a read costs this process, all of its threads. With
``--core`` the sessions are written into a tenant of their own, or into ``ALLSOURCE_TENANT``, and stay there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import secrets
import sqlite3
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter, __version__
from benchmarks.reads import Stored, bare_http, bare_sqlite, of_library
from benchmarks.servers import NAMES, Server, started
from benchmarks.timing import in_turns
from tests.support.cores import CoreMissing

WRITERS = 64
SESSIONS_OF_A_USER = 10

Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Options:
    """What was asked for. ``server`` is one that runs already; then ``store`` does not count."""

    store: str
    server: Server | None
    sessions: int
    reads: int
    callers: list[int]
    json: Path | None

    @property
    def embedded(self) -> bool:
        return self.server is None and self.store == "sqlite"


async def seed(adapter: AllsourceAuthAdapter, count: int) -> Stored:
    """Sign users up and in, until there are ``count`` sessions."""
    print(f"seeding {count} sessions ...", file=sys.stderr)
    expires = datetime.now(UTC) + timedelta(days=7)
    mark = secrets.token_hex(4)  # a tenant may have been seeded before
    tokens: list[str] = []
    emails = [f"user{number}-{mark}@example.org" for number in range(max(1, count // SESSIONS_OF_A_USER))]
    places = asyncio.Semaphore(WRITERS)

    async def user(email: str) -> None:
        async with places:
            found = await adapter.users.create(email=email, name="A user")
        for _ in range(SESSIONS_OF_A_USER):
            async with places:
                session = await adapter.sessions.create(
                    user_id=found.id,
                    expires_at=expires,
                    ip_address="203.0.113.7",
                    user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0",
                )
            tokens.append(session.token)

    await asyncio.gather(*(user(email) for email in emails))
    return Stored(tokens, emails)


async def warm(adapter: AllsourceAuthAdapter, stored: Stored) -> None:
    """Read every session once."""
    found = await adapter.sessions.get_many(stored.tokens)
    assert len(found) == len(stored.tokens)


async def on_file(options: Options) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "auth.db"
        async with AllsourceAuthAdapter.embedded(path, durability="normal") as adapter:
            stored = await seed(adapter, options.sessions)
        with bare_sqlite(path, Path(folder) / "bare.db", stored) as bare:
            async with AllsourceAuthAdapter.embedded(path) as adapter:
                await warm(adapter, stored)
                return await in_turns({"bare": bare} | of_library(adapter, stored), count=options.reads)


async def over_http(options: Options) -> tuple[str, dict[int, Rows]]:
    """Which server answered, and the rows by the number of callers."""
    tenant = os.environ.get("ALLSOURCE_TENANT") if options.server is not None else None
    tenant = tenant or f"benchmark-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        running = started(options.store, Path(folder)) if options.server is None else nullcontext(options.server)
        async with running as server:
            urls = (server.core_url, server.query_url, server.api_key)
            async with AllsourceAuthAdapter(*urls, tenant_id=tenant) as adapter:
                stored = await seed(adapter, options.sessions)
            async with (
                AllsourceAuthAdapter(*urls, tenant_id=tenant) as adapter,
                bare_http(server, tenant, stored) as bare,
            ):
                await warm(adapter, stored)
                info = await adapter.info()
                kinds = bare | of_library(adapter, stored)
                found: dict[int, Rows] = {}
                for callers in options.callers:
                    print(f"{options.reads} reads of each kind, {callers} at a time ...", file=sys.stderr)
                    found[callers] = rows = await in_turns(kinds, count=options.reads, callers=callers)
                    for row in rows.values():
                        row["against_httpx"] = row["per_second"] / rows["httpx as it comes"]["per_second"]
    return f"{info.server} {info.server_version}, engine {info.engine}", found


def show_file(rows: Rows) -> None:
    print(f"{'':20} {'p50':>9} {'p90':>9} {'p99':>9} {'p99.9':>9} {'per second':>11}   p99 against bare")
    for name, row in rows.items():
        ratio = row["p99_us_median_of_rounds"] / rows["bare"]["p99_us_median_of_rounds"]
        print(f"{name:20} {_percentiles(row)} {row['per_second']:11,.0f}   {ratio:.2f}")


def show_http(found: dict[int, Rows]) -> None:
    for callers, rows in found.items():
        title = "one caller" if callers == 1 else f"{callers} callers"
        print(
            f"{title:20} {'p50':>9} {'p90':>9} {'p99':>9} {'p99.9':>9} {'per second':>11} {'CPU':>9}"
            "   per second against httpx as it comes"
        )
        for name, row in rows.items():
            ratio = f"{row['against_httpx']:.2f}"
            print(f"{name:20} {_percentiles(row)} {row['per_second']:11,.0f} {row['cpu_us']:7.1f}us   {ratio}")


def _percentiles(row: dict[str, float]) -> str:
    return " ".join(f"{row[name]:7.1f}us" for name in ("p50_us", "p90_us", "p99_us", "p999_us"))


def parsed() -> Options:
    """The options. Ends the process where they do not fit together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--store", choices=("sqlite", *NAMES), default="sqlite", help="started here (default: sqlite)")
    place.add_argument("--core", help="the URL of an Allsource that runs")
    parser.add_argument("--query", help="the URL of its Query Service")
    parser.add_argument("--api-key", default=os.environ.get("ALLSOURCE_API_KEY"), help="default: $ALLSOURCE_API_KEY")
    parser.add_argument("--callers", type=_counts, help="how many at a time, over HTTP (default: 1,16)")
    parser.add_argument("--sessions", type=_count, help="default: 100,000, over HTTP 10,000")
    parser.add_argument("--reads", type=_count, help="of each kind (default: 20,000, over HTTP 10,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    if given.core is None and given.query is not None:
        parser.error("--query needs --core, which takes the writes")
    server = None if given.core is None else Server(given.core, given.query, given.api_key)
    embedded = server is None and given.store == "sqlite"
    if embedded and given.callers is not None:
        parser.error("--callers is for stores over HTTP")
    return Options(
        store=given.store,
        server=server,
        sessions=given.sessions or (100_000 if embedded else 10_000),
        reads=given.reads or (20_000 if embedded else 10_000),
        callers=given.callers or [1, 16],
        json=given.json,
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def main() -> None:
    options = parsed()
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    today = datetime.now(UTC).date().isoformat()
    facts: dict[str, Any] = {"benchmark": "latest_state", "sessions": options.sessions, "date": today}
    if options.embedded:
        rows = asyncio.run(on_file(options))
        machine = f"{machine}, SQLite {sqlite3.sqlite_version}"
        print(
            f"latest state, {options.sessions} sessions, one caller; {machine}; allsource_auth {__version__}; {today}"
        )
        show_file(rows)
        facts |= {"machine": machine, "results": rows}
    else:
        try:
            server, found = asyncio.run(over_http(options))
        except CoreMissing as missing:
            sys.exit(str(missing))
        machine = f"{os.cpu_count()} cores, {machine}"
        print(f"latest state, {options.sessions} sessions; {server}; {machine}; allsource_auth {__version__}; {today}")
        show_http(found)
        facts |= {"machine": machine, "server": server, "results": found}
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
