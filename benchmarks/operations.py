"""How long each of the 65 operations takes, and what goes beyond them, with the reads and events that it costs.

``python benchmarks/operations.py [--store embedded,local,core-0.23.0,core-0.27.0] [--entities N] [--calls N] [--json FILE]``
``python benchmarks/operations.py --archive [--entities N] [--sweep N] [--calls N] [--json FILE]``

Several stores are measured in turns in one run. Each is filled with ``--entities`` first, half users, half sessions. Then each
operation is called once while its reads, appends and events are counted, and ``--calls`` times while its time is taken, reads
five times as often; all operations in turns, one caller. What a call needs is made right before it and not timed; lists have
three entities. With more than 1,000 entities look-ups are timed in a store of 1,000 as well, in turns. All stores are durable:
the embedded one is a file with ``durability="full"``.

``--archive`` fills a Core 0.27.0 with 100,000 entities, restarts it in two ways, on copies of its data, and measures both in
turns: with the default settings, and with those of docs/how-to/running-core.md. It also measures creations in a store of 1,000.
It takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import math
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
from benchmarks.archive import NAME, SMALL, archived, look_ups, opened
from benchmarks.arguments import STORES, count, stores
from benchmarks.results import facts, headline, save
from benchmarks.seeding import Seed, pour, seed_of
from benchmarks.servers import started
from tests.support.cores import CoreMissing
from tests.support.operations import BEYOND, OPERATIONS, Operation, Scene
from tests.support.wrappers import CountingStore

LISTED = 3
AGAIN = 5
"""How often a read is repeated on what was made for it."""

SECONDS = 5.0
"""After so long in all an operation of a store is called no more; then it has fewer calls than the others."""

EVERY = [operation for operations in (*OPERATIONS.values(), BEYOND) for operation in operations]


@dataclass
class Measured:
    """An operation on one store: what one call costs, and how long each took, in nanoseconds."""

    reads: int
    scans: int
    appends: int
    events: int
    took: list[int] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        ordered = sorted(self.took)
        return {
            "reads": self.reads,
            "scans": self.scans,
            "appends": self.appends,
            "events": self.events,
            "calls": len(ordered),
            "p50_us": ordered[math.ceil(0.5 * len(ordered)) - 1] / 1000,
            "p99_us": ordered[math.ceil(0.99 * len(ordered)) - 1] / 1000,
        }


@dataclass
class Target:
    """A store under measurement."""

    adapter: AllsourceAuthAdapter
    counting: AllsourceAuthAdapter
    counted: CountingStore
    found: dict[str, Measured] = field(default_factory=dict)

    async def count(self, operation: Operation) -> None:
        given = await operation.given(Scene(self.counting, LISTED))
        self.counted.forget()
        await operation.call(self.counting, given)
        events = sum(len(batch) for batch in self.counted.appends)
        self.found[operation.name] = Measured(
            len(self.counted.reads), len(self.counted.scans), len(self.counted.appends), events
        )

    async def time(self, operation: Operation) -> None:
        """Call it once; a read some more times, on the same."""
        measured = self.found[operation.name]
        if sum(measured.took) > SECONDS * 1e9:
            return
        given = await operation.given(Scene(self.adapter, LISTED))
        for _ in range(1 if measured.events else AGAIN):
            began = time.perf_counter_ns()
            result = await operation.call(self.adapter, given)
            measured.took.append(time.perf_counter_ns() - began)
            assert bool(result) is not operation.silent, f"{operation} has not done its work"


@asynccontextmanager
async def filled(name: str, folder: Path, seed: Seed) -> AsyncIterator[Target]:
    """The store with this name, with the seed in it."""
    folder.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        store: EventStore
        if name == "embedded":
            store = SqliteStore(SqliteLog(folder / "auth.db"))
        else:
            store = opened(await stack.enter_async_context(started(name, folder)))
        stack.push_async_callback(store.close)
        await pour(store, seed.events)
        counted = CountingStore(store)
        target = Target(AllsourceAuthAdapter.with_store(store), AllsourceAuthAdapter.with_store(counted), counted)
        for adapter in (target.adapter, target.counting):
            await adapter.users.create()  # the first write of an adapter also settles the settings
        yield target


async def every_operation(names: list[str], *, entities: int, calls: int) -> dict[str, Any]:
    """The figures of each store."""
    seed = await seed_of(entities)
    turns = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:

            async def fill(name: str, size: str, what: Seed) -> Target:
                return await stack.enter_async_context(filled(name, Path(folder, size, name), what))

            targets = {name: await fill(name, "store", seed) for name in names}
            for target in targets.values():
                for operation in EVERY:
                    await target.count(operation)
            print(f"{calls} calls of each operation ...", file=sys.stderr)
            for _ in range(calls):
                for operation in turns.sample(EVERY, len(EVERY)):
                    for target in turns.sample(list(targets.values()), len(targets)):
                        await target.time(operation)
            few = await seed_of(SMALL) if entities > SMALL else None
            found: dict[str, Any] = {}
            for name, target in targets.items():
                info = await target.adapter.info()
                found[name] = {
                    "store": f"SQLite {sqlite3.sqlite_version}"
                    if name == "embedded"
                    else f"{info.server} {info.server_version}, engine {info.engine}",
                    "operations": {operation: measured.row() for operation, measured in target.found.items()},
                }
                if few is not None:
                    small = await fill(name, "small", few)
                    found[name]["look_ups"] = await look_ups(
                        (target.adapter, seed), (small.adapter, few), count=calls * AGAIN * 10
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
    print(
        f"\n{'look-ups':36} {'large p50':>11} {'p99':>11} {f'{SMALL:,} p50':>11} {'p99':>11}   large against {SMALL:,}"
    )
    for name, row in rows.items():
        times = (row[f"{size}_{which}_us"] for size in ("large", "small") for which in ("p50", "p99"))
        print(f"{name:36} {' '.join(f'{value:9,.0f}us' for value in times)}   {row['ratio_of_p50']:.2f}")


def show_archive(found: dict[str, Any]) -> None:
    print(f"{found['server']}; {found['events']:,} events")
    print(f"\n{'':36} {'default p50':>11} {'p99':>11} {'recommended':>11} {'p99':>11}   default against recommended")
    for name, both in found["writes"].items():
        plain, warmed = both["default settings"], both["recommended settings"]
        times = (row[which] for row in (plain, warmed) for which in ("p50_us", "p99_us"))
        print(f"{name:36} {' '.join(f'{value:9,.0f}us' for value in times)}   {plain['p50_us'] / warmed['p50_us']:.1f}")
        if "small" in both:
            least = both["small"]["p50_us"]
            ratios = f"{plain['p50_us'] / least:.1f} default, {warmed['p50_us'] / least:.1f} recommended"
            print(f"{'':36} {least:9,.0f}us with {SMALL:,} entities; against it {ratios}")
    for name, row in found["sweeps"].items():
        print(f"a sweep, {name}: {row['removed']:,} in {row['seconds']:.1f} s, {row['per_second']:,.0f} per second")
    show_look_ups(found["look_ups"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--store", type=stores, default=["embedded"], help=f"of {', '.join(STORES)}, with commas")
    what.add_argument("--archive", action="store_true", help=f"measure {NAME} with an archive, after a restart")
    parser.add_argument("--entities", type=count, help="in the store before (default: 1,000, of an archive 100,000)")
    parser.add_argument("--calls", type=count, help="of each operation (default: 50, on an archive 40)")
    parser.add_argument("--sweep", type=count, default=10_000, help="expired sessions in an archive (default: 10,000)")
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
