"""Latency of reads of the latest state of a session or a user, compared with the minimum that the read needs.

``python benchmarks/latest_state.py [--store embedded,local,core-0.23.0,core-0.27.0] [--callers 1,8,32,128] [--rates 200,500]``
``python benchmarks/latest_state.py --core URL [--query URL] [--api-key KEY] ...``

Fills a store with sessions, ten for each user, and reads all of them once to warm the caches. Then measures, in alternating
rounds, ``sessions.get``, ``users.get``, ``users.get_by_email`` and ``load_session`` of the library, and the minimum:

* embedded: ``bare``, a ``sqlite3`` select by primary key from a table with the same payloads, and a ``msgspec`` decode into the
  same struct;
* over HTTP: the request of ``sessions.get`` and the same decode, with a ``raw protocol`` on asyncio and with
  ``httpx, default settings``.

``--callers`` are closed loops, ``--rates`` open loops (`benchmarks.timing`); open loops measure the library only. Servers run
in their own processes. CPU is the time per read of all threads of this process. With ``--core`` the sessions are written to a
new tenant, or to ``ALLSOURCE_TENANT``, and are not deleted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter
from benchmarks.arguments import STORES, count, counts, stores
from benchmarks.reads import Stored, bare_http, bare_sqlite, library_reads
from benchmarks.results import facts, headline, save
from benchmarks.servers import Server, started
from benchmarks.timing import Prepare, Row, closed_loops, open_loops
from tests.support.cores import CoreMissing

WRITERS = 64
SESSIONS_OF_A_USER = 10
EMBEDDED_SESSIONS, SERVED_SESSIONS = 100_000, 10_000
EMBEDDED_READS, SERVED_READS = 20_000, 10_000

Rows = dict[str, Row]


@dataclass(frozen=True)
class Options:
    """The command line options. ``server`` is a running server; it replaces ``stores``. ``0`` means the default number."""

    stores: list[str]
    server: Server | None
    sessions: int
    reads: int
    callers: list[int]
    rates: list[int]
    seconds: float
    json: Path | None


@dataclass(frozen=True)
class Target:
    """A store with warm caches, and its reads. ``minimum``: the reads to compare with; the first is the yardstick."""

    name: str
    library: dict[str, Prepare]
    minimum: dict[str, Prepare]


async def seed(adapter: AllsourceAuthAdapter, count: int) -> Stored:
    """Sign users up and in until there are ``count`` sessions."""
    print(f"seeding {count:,} sessions ...", file=sys.stderr)
    expires = datetime.now(UTC) + timedelta(days=7)
    run = secrets.token_hex(4)  # the tenant may have users of an earlier run
    stored = Stored([], [], [])
    emails = [f"user{number}-{run}@example.org" for number in range(max(1, count // SESSIONS_OF_A_USER))]
    slots = asyncio.Semaphore(WRITERS)

    async def user(email: str) -> None:
        async with slots:
            found = await adapter.users.create(email=email, name="A user")
        stored.users.append(found.id)
        stored.emails.append(email)
        for _ in range(SESSIONS_OF_A_USER):
            async with slots:
                session = await adapter.sessions.create(
                    user_id=found.id,
                    expires_at=expires,
                    ip_address="203.0.113.7",
                    user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0",
                )
            stored.tokens.append(session.token)
            stored.owners[session.token] = found.id

    await asyncio.gather(*(user(email) for email in emails))
    return stored


async def warm(adapter: AllsourceAuthAdapter, stored: Stored) -> None:
    """Read every session once."""
    found = await adapter.sessions.get_many(stored.tokens)
    assert len(found) == len(stored.tokens)


@asynccontextmanager
async def on_file(options: Options) -> AsyncIterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "auth.db"
        async with AllsourceAuthAdapter.embedded(path, durability="normal") as adapter:
            stored = await seed(adapter, options.sessions or EMBEDDED_SESSIONS)
        with bare_sqlite(path, Path(folder) / "bare.db", stored) as bare:
            async with AllsourceAuthAdapter.embedded(path) as adapter:
                await warm(adapter, stored)
                yield Target(f"SQLite {sqlite3.sqlite_version}", library_reads(adapter, stored), {"bare": bare})


@asynccontextmanager
async def over_http(store: str, options: Options) -> AsyncIterator[Target]:
    tenant = os.environ.get("ALLSOURCE_TENANT") if options.server is not None else None
    tenant = tenant or f"benchmark-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        running = started(store, Path(folder)) if options.server is None else nullcontext(options.server)
        async with running as server:
            urls = (server.core_url, server.query_url, server.api_key)
            async with AllsourceAuthAdapter(*urls, tenant_id=tenant) as adapter:
                stored = await seed(adapter, options.sessions or SERVED_SESSIONS)
            async with (
                AllsourceAuthAdapter(*urls, tenant_id=tenant) as adapter,
                bare_http(server, tenant, stored) as bare,
            ):
                await warm(adapter, stored)
                info = await adapter.info()
                name = f"{info.server} {info.server_version}, engine {info.engine}"
                yield Target(name, library_reads(adapter, stored), bare)


async def measured(store: str, options: Options) -> dict[str, Any]:
    """The rows of one store, by number of callers and by rate."""
    embedded = store == "embedded"
    count = options.reads or (EMBEDDED_READS if embedded else SERVED_READS)
    closed: dict[str, Rows] = {}
    at_rates: dict[str, Rows] = {}
    async with on_file(options) if embedded else over_http(store, options) as target:
        for callers in options.callers:
            print(f"{store}: {count:,} reads of each kind, callers: {callers} ...", file=sys.stderr)
            closed[str(callers)] = await closed_loops(target.minimum | target.library, count=count, callers=callers)
        for rate in options.rates:
            print(f"{store}: {rate:,} reads per second of each kind ...", file=sys.stderr)
            at_rates[str(rate)] = await open_loops(target.library, rate=rate, seconds=options.seconds)
        yardstick = next(iter(target.minimum))
    return {"store": target.name, "yardstick": yardstick, "closed": closed, "open": at_rates}


def show(found: Mapping[str, Any]) -> None:
    print(f"\n{found['store']}")
    head = f"{'p50':>11} {'p90':>11} {'p99':>11} {'p99.9':>11} {'per second':>11}"
    yardstick = found["yardstick"]
    for callers, rows in found["closed"].items():
        title = "one caller" if callers == "1" else f"{callers} callers"
        print(f"{title:20} {head} {'CPU':>9}   ratio to {yardstick}: per second, p99")
        minimum = rows[yardstick]
        for name, row in rows.items():
            rate = row["per_second"] / minimum["per_second"]
            p99 = row["p99_us_median_of_rounds"] / minimum["p99_us_median_of_rounds"]
            print(
                f"{name:20} {_percentiles(row)} {row['per_second']:11,.0f} {row['cpu_us']:7.1f}us   {rate:.2f}, {p99:.2f}"
            )
    for rate, rows in found["open"].items():
        print(f"{f'{int(rate):,} per second':20} {head} {'behind':>9}   start delay, p99")
        for name, row in rows.items():
            line = f"{name:20} {_percentiles(row)} {row['per_second']:11,.0f} {row['behind']:9,}"
            print(f"{line}   {row['late_p99_us']:,.0f}us")


def _percentiles(row: Row) -> str:
    return " ".join(f"{row[name]:9,.1f}us" for name in ("p50_us", "p90_us", "p99_us", "p999_us"))


def parsed() -> Options:
    """Parse the command line. Exits if the options contradict each other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    store = parser.add_mutually_exclusive_group()
    store.add_argument(
        "--store",
        type=stores,
        default=["embedded"],
        help=f"of {', '.join(STORES)}, separated by commas (default: embedded)",
    )
    store.add_argument("--core", help="the URL of a running Allsource")
    parser.add_argument("--query", help="the URL of its Query Service")
    parser.add_argument("--api-key", default=os.environ.get("ALLSOURCE_API_KEY"), help="default: $ALLSOURCE_API_KEY")
    parser.add_argument(
        "--callers", type=counts, default=[1], help="concurrent callers, separated by commas (default: 1)"
    )
    parser.add_argument("--rates", type=counts, default=[], help="reads per second of open loops, separated by commas")
    parser.add_argument("--seconds", type=count, default=10, help="duration of each open loop (default: 10)")
    parser.add_argument(
        "--sessions", type=count, default=0, help="sessions in the store (default: 100,000, over HTTP 10,000)"
    )
    parser.add_argument("--reads", type=count, default=0, help="reads of each kind (default: 20,000, over HTTP 10,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    if given.core is None and given.query is not None:
        parser.error("--query needs --core, to which writes go")
    return Options(
        stores=given.store,
        server=None if given.core is None else Server(given.core, given.query, given.api_key),
        sessions=given.sessions,
        reads=given.reads,
        callers=given.callers,
        rates=given.rates,
        seconds=given.seconds,
        json=given.json,
    )


def main() -> None:
    options = parsed()
    stores = options.stores if options.server is None else ["given"]
    usual = {"sessions": options.sessions, "reads": options.reads}
    known = facts("latest_state", **{name: number for name, number in usual.items() if number}, stores=",".join(stores))
    print(headline(known), flush=True)
    found: dict[str, Any] = {}
    try:
        for store in stores:
            found[store] = asyncio.run(measured(store, options))
            show(found[store])
            save(options.json, known, found)
    except CoreMissing as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
