"""Latency of each of the 65 operations, and of some that combine them, with the number of reads and events.

``python benchmarks/operations.py [--store embedded,local,core-0.23.0,core-0.27.0] [--entities N] [--calls N] [--json FILE]``
``python benchmarks/operations.py --archive [--entities N] [--sweep N] [--calls N] [--json FILE]``

Measures several stores alternately. Each is first filled with ``--entities``, half users, half sessions. Each operation is then
called once to count its reads, appends and events, and ``--calls`` times to measure it, reads five times as often; one caller
calls all operations in random order. The entities that a call needs are created right before it, which is not measured; lists
have three entities. With more than 1,000 entities, look-ups are also compared with a store of 1,000. All stores are durable;
the embedded store is a file with ``durability="full"``.

``--archive`` fills a Core 0.27.0 with 100,000 entities, starts it twice on copies of its data, and measures both alternately:
with the default settings, and with those of docs/how-to/running-core.md. It also measures creations in a store of 1,000. It
takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter, EventStore, SqliteLog, SqliteStore
from allsource_auth.cli.measuring import Latency
from benchmarks.archive import NAME, SMALL, archived, look_ups, opened
from benchmarks.arguments import STORES, count, stores
from benchmarks.results import facts, headline, save
from benchmarks.seeding import Seed, append_all, seed_of
from benchmarks.servers import started
from tests.support.cores import CoreMissing
from tests.support.operations import BEYOND, OPERATIONS, Operation, Scene
from tests.support.wrappers import CountingStore

LISTED = 3
READ_CALLS = 5
"""Calls of a read on the entities that were created for it."""

MAX_SECONDS = 5.0
"""Total duration after which an operation of a store is not called again. It then has fewer calls than the others."""

ALL = [operation for operations in (*OPERATIONS.values(), BEYOND) for operation in operations]


@dataclass
class Measured:
    """The results of an operation on one store: its reads, appends and events, and the latency of its calls."""

    reads: int
    scans: int
    appends: int
    events: int
    latency: Latency = field(default_factory=Latency)
    nanoseconds: int = 0

    def row(self) -> dict[str, float]:
        return {
            "reads": self.reads,
            "scans": self.scans,
            "appends": self.appends,
            "events": self.events,
            "calls": self.latency.calls,
            "p50_us": self.latency.microseconds(50),
            "p99_us": self.latency.microseconds(99),
        }


@dataclass
class Target:
    """A measured store, with one adapter that is measured and one whose calls are counted."""

    adapter: AllsourceAuthAdapter
    counting: AllsourceAuthAdapter
    counted: CountingStore
    results: dict[str, Measured] = field(default_factory=dict)

    async def count(self, operation: Operation) -> None:
        """Call the operation once and count its reads, appends and events."""
        given = await operation.given(Scene(self.counting, LISTED))
        self.counted.forget()
        await operation.call(self.counting, given)
        events = sum(len(batch) for batch in self.counted.appends)
        self.results[operation.name] = Measured(
            len(self.counted.reads), len(self.counted.scans), len(self.counted.appends), events
        )

    async def time(self, operation: Operation) -> None:
        """Measure one call of the operation, or several of a read."""
        measured = self.results[operation.name]
        if measured.nanoseconds > MAX_SECONDS * 1e9:
            return
        given = await operation.given(Scene(self.adapter, LISTED))
        for _ in range(1 if measured.events else READ_CALLS):
            began = time.perf_counter_ns()
            result = await operation.call(self.adapter, given)
            took = time.perf_counter_ns() - began
            measured.latency.add(took)
            measured.nanoseconds += took
            assert bool(result) is not operation.silent, f"{operation} had no effect"


@asynccontextmanager
async def filled(name: str, folder: Path, seed: Seed) -> AsyncIterator[Target]:
    """Open the store with this name and fill it with the seed."""
    folder.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        store: EventStore
        if name == "embedded":
            store = SqliteStore(SqliteLog(folder / "auth.db"))
        else:
            store = opened(await stack.enter_async_context(started(name, folder)))
        stack.push_async_callback(store.close)
        await append_all(store, seed.events)
        counted = CountingStore(store)
        target = Target(AllsourceAuthAdapter.with_store(store), AllsourceAuthAdapter.with_store(counted), counted)
        for adapter in (target.adapter, target.counting):
            await adapter.users.create()  # the first write of an adapter also reads the settings
        yield target


async def every_operation(names: list[str], *, entities: int, calls: int) -> dict[str, Any]:
    """The results of each store."""
    seed = await seed_of(entities)
    order = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:

            async def fill(name: str, size: str, contents: Seed) -> Target:
                return await stack.enter_async_context(filled(name, Path(folder, size, name), contents))

            targets = {name: await fill(name, "store", seed) for name in names}
            for target in targets.values():
                for operation in ALL:
                    await target.count(operation)
            print(f"{calls} calls of each operation ...", file=sys.stderr)
            for _ in range(calls):
                for operation in order.sample(ALL, len(ALL)):
                    for target in order.sample(list(targets.values()), len(targets)):
                        await target.time(operation)
            few = await seed_of(SMALL) if entities > SMALL else None
            found: dict[str, Any] = {}
            for name, target in targets.items():
                info = await target.adapter.info()
                found[name] = {
                    "store": f"SQLite {sqlite3.sqlite_version}"
                    if name == "embedded"
                    else f"{info.server} {info.server_version}, engine {info.engine}",
                    "operations": {operation: measured.row() for operation, measured in target.results.items()},
                }
                if few is not None:
                    small = await fill(name, "small", few)
                    found[name]["look_ups"] = await look_ups(
                        (target.adapter, seed), (small.adapter, few), count=calls * READ_CALLS * 10
                    )
    return found


def show(found: dict[str, Any]) -> None:
    for name, figures in found.items():
        print(f"\n{name}: {figures['store']}")
        print(f"{'':36} {'reads':>6} {'scans':>6} {'appends':>8} {'events':>7} {'p50':>11} {'p99':>11} {'calls':>6}")
        for operation, row in figures["operations"].items():
            print(
                f"{operation:36} {row['reads']:6} {row['scans']:6} {row['appends']:8} {row['events']:7}"
                f" {row['p50_us']:9,.0f}us {row['p99_us']:9,.0f}us {row['calls']:6}"
            )
        if "look_ups" in figures:
            show_look_ups(figures["look_ups"])


def show_look_ups(rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{'look-ups':36} {'large p50':>11} {'p99':>11} {f'{SMALL:,} p50':>11} {'p99':>11}   ratio to {SMALL:,}")
    for name, row in rows.items():
        times = (row[f"{size}_{which}_us"] for size in ("large", "small") for which in ("p50", "p99"))
        print(f"{name:36} {' '.join(f'{value:9,.0f}us' for value in times)}   {row['ratio_of_p50']:.2f}")


def show_archive(found: dict[str, Any]) -> None:
    print(f"{found['server']}; {found['events']:,} events")
    print(
        f"\n{'':36} {'default p50':>11} {'p99':>11} {'recommended':>11} {'p99':>11}   default settings to recommended"
    )
    for name, both in found["writes"].items():
        default, recommended = both["default settings"], both["recommended settings"]
        times = (row[which] for row in (default, recommended) for which in ("p50_us", "p99_us"))
        print(
            f"{name:36} {' '.join(f'{value:9,.0f}us' for value in times)}   {default['p50_us'] / recommended['p50_us']:.1f}"
        )
        if "small" in both:
            small = both["small"]["p50_us"]
            ratios = f"{default['p50_us'] / small:.1f} default, {recommended['p50_us'] / small:.1f} recommended"
            print(f"{'':36} {small:9,.0f}us with {SMALL:,} entities; ratios to it: {ratios}")
    for name, row in found["sweeps"].items():
        print(f"sweep, {name}: {row['removed']:,} in {row['seconds']:.1f} s, {row['per_second']:,.0f} per second")
    show_look_ups(found["look_ups"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument(
        "--store", type=stores, default=["embedded"], help=f"of {', '.join(STORES)}, separated by commas"
    )
    measured.add_argument("--archive", action="store_true", help=f"measure {NAME} with a large archive after a restart")
    parser.add_argument("--entities", type=count, help="entities in the store (default: 1,000, with --archive 100,000)")
    parser.add_argument("--calls", type=count, help="calls of each operation (default: 50, with --archive 40)")
    parser.add_argument("--sweep", type=count, default=10_000, help="expired sessions in the archive (default: 10,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    entities = given.entities or (100_000 if given.archive else SMALL)
    calls = given.calls or (40 if given.archive else 50)
    if given.archive and entities < 2 * given.sweep + 8 * calls + SMALL:
        parser.error("--entities is too small for --sweep and --calls")
    known = facts("operations", archive=given.archive, entities=entities, calls=calls, lists_of=LISTED)
    print(headline(known), flush=True)
    try:
        if given.archive:
            with tempfile.TemporaryDirectory() as folder:
                found = asyncio.run(archived(Path(folder), entities=entities, sweep=given.sweep, count=calls))
            show_archive(found)
        else:
            found = asyncio.run(every_operation(given.store, entities=entities, calls=calls))
            show(found)
    except CoreMissing as missing:
        sys.exit(str(missing))
    save(given.json, known, found)


if __name__ == "__main__":
    main()
