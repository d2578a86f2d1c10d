"""Whether reads and writes get slower as a store grows: the same calls on stores of several sizes, in alternating rounds.

``python benchmarks/scale.py [--store embedded,core-0.23.0,core-0.27.0] [--entities 1000,10000,100000] [--json FILE]``

Half of the entities are users with emails, half are sessions. They are appended in batches without guards, and all sessions are
read once. The stores of all sizes are open at the same time. Servers run in their own processes; Core has the settings that
docs/how-to/running-core.md recommends. Each write creates a user. Ratios are those of the medians to the smallest size, with
the smallest and the largest ratio of a round.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter, SqliteLog, SqliteStore
from benchmarks.archive import opened
from benchmarks.arguments import STORES, count, counts, stores
from benchmarks.reads import Stored, library_reads
from benchmarks.results import facts, headline, save
from benchmarks.seeding import append_all, seed_of
from benchmarks.servers import started
from benchmarks.timing import Call, Prepare, Row, closed_loops
from tests.support.cores import CoreMissing

SEED_SIZE = 20_000
"""Entities of one seed; a seed is prepared in memory."""


@asynccontextmanager
async def filled(name: str, entities: int) -> AsyncIterator[dict[str, Prepare]]:
    """The calls to measure on a store of this size."""
    stored = Stored([], [], [])
    async with AsyncExitStack() as opening:
        folder = Path(opening.enter_context(tempfile.TemporaryDirectory()))
        if name == "embedded":
            store: Any = SqliteStore(SqliteLog(folder / "auth.db", durability="normal"))
        else:
            store = opened(await opening.enter_async_context(started(name, folder)))
        adapter = await opening.enter_async_context(AllsourceAuthAdapter.with_store(store))
        for first in range(0, entities // 2, SEED_SIZE // 2):
            seed = await seed_of(min(SEED_SIZE, entities - 2 * first), first=first)
            # Every seed contains the settings of the store; they are appended once.
            await append_all(store, [event for event in seed.events if not first or not _of_settings(event.stream)])
            stored.tokens.extend(seed.tokens)
            stored.users.extend(seed.users)
            stored.emails.extend(seed.emails)
        await adapter.users.create(
            id="first"
        )  # the first write of an adapter reads the settings, and the feed if there is one
        for first in range(0, len(stored.tokens), SEED_SIZE):
            part = stored.tokens[first : first + SEED_SIZE]
            assert len(await adapter.sessions.get_many(part)) == len(part)
        yield library_reads(adapter, stored) | {"users.create": _sign_up(adapter)}


def _of_settings(stream: str) -> bool:
    return stream.startswith("auth-idx:store:")


def _sign_up(adapter: AllsourceAuthAdapter) -> Prepare:
    def prepare() -> Call:
        email = f"{secrets.token_hex(8)}@example.org"
        return lambda: adapter.users.create(email=email)

    return prepare


async def sizes(name: str, entities: list[int], count: int) -> dict[str, dict[str, Row]]:
    """The rows of each call by number of entities."""
    async with AsyncExitStack() as opening:
        kinds: dict[str, Prepare] = {}
        for size in entities:
            found = await opening.enter_async_context(filled(name, size))
            kinds |= {f"{call}|{size}": prepare for call, prepare in found.items()}
        print(f"{name}: {count:,} calls of each kind ...", file=sys.stderr)
        rows = await closed_loops(kinds, count=count)
    calls = dict.fromkeys(kind.partition("|")[0] for kind in kinds)
    by_call = {call: {str(size): rows[f"{call}|{size}"] for size in entities} for call in calls}
    for by_size in by_call.values():
        smallest = by_size[str(entities[0])]
        for row in by_size.values():
            row["against_smallest"] = _against(row, smallest)
    return by_call


def _against(row: Row, smallest: Row) -> list[float]:
    """The ratio of the medians, and the smallest and the largest ratio of a round."""
    rounds = [a / b for a, b in zip(row["rounds"]["p50_us"], smallest["rounds"]["p50_us"], strict=True)]
    return [row["p50_us"] / smallest["p50_us"], min(rounds), max(rounds)]


def show(name: str, found: Mapping[str, Mapping[str, Row]]) -> None:
    print(f"\n{name:22} {'entities':>10} {'p50':>11} {'p99':>11}   p50 relative to the smallest store (rounds)")
    for call, by_size in found.items():
        for size, row in by_size.items():
            ratio, least, most = row["against_smallest"]
            figures = f"{row['p50_us']:9,.1f}us {row['p99_us']:9,.1f}us   {ratio:.2f} ({least:.2f} to {most:.2f})"
            print(f"{call:22} {int(size):10,} {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--store", type=stores, default=["embedded"], help=f"of {', '.join(STORES)}, separated by commas"
    )
    parser.add_argument(
        "--entities",
        type=counts,
        default=[1_000, 10_000, 100_000],
        help="sizes, separated by commas (default: 1000,10000,100000)",
    )
    parser.add_argument("--calls", type=count, default=2_000, help="calls of each kind and size (default: 2,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    entities = sorted(set(given.entities))
    if entities[0] < 2:
        parser.error("--entities: the smallest number is 2, a user and a session")
    known = facts("scale", calls=given.calls, stores=",".join(given.store))
    print(headline(known), flush=True)
    results: dict[str, Any] = {}
    try:
        for name in given.store:
            results[name] = asyncio.run(sizes(name, entities, given.calls))
            show(name, results[name])
            save(given.json, known, results)
    except CoreMissing as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
