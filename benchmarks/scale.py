"""Whether reads and writes get slower as a store grows: the same calls in stores of several sizes, in turns.

``python benchmarks/scale.py [--store embedded,core-0.23.0,core-0.27.0] [--entities 1000,10000,100000] [--json FILE]``

Half of the entities are users with emails, half are sessions. They are stored by unguarded batches and read once through.
All sizes of a store are open at the same time, so that they meet the same machine; the servers run in processes of their
own, a Core set up as docs/how-to/running-core.md recommends. What is written is a new user each time. Ratios are those of the
medians, against the smallest size, with the least and the most of the single rounds.
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
from benchmarks.reads import Stored, of_library
from benchmarks.results import facts, headline, save
from benchmarks.seeding import pour, seed_of
from benchmarks.servers import started
from benchmarks.timing import Prepare, Read, Row, in_turns
from tests.support.cores import CoreMissing

AT_ONCE = 20_000
"""Entities that are prepared in memory at a time."""


@asynccontextmanager
async def filled(name: str, entities: int) -> AsyncIterator[dict[str, Prepare]]:
    """What is timed in a store of this size."""
    stored = Stored([], [], [])
    async with AsyncExitStack() as opening:
        folder = Path(opening.enter_context(tempfile.TemporaryDirectory()))
        if name == "embedded":
            store: Any = SqliteStore(SqliteLog(folder / "auth.db", durability="normal"))
        else:
            store = opened(await opening.enter_async_context(started(name, folder)))
        adapter = await opening.enter_async_context(AllsourceAuthAdapter.with_store(store))
        for first in range(0, entities // 2, AT_ONCE // 2):
            seed = await seed_of(min(AT_ONCE, entities - 2 * first), first=first)
            # The settings are those of the first part; the others would only repeat them.
            await pour(store, [event for event in seed.events if not first or not _of_settings(event.stream)])
            stored.tokens.extend(seed.tokens)
            stored.users.extend(seed.users)
            stored.emails.extend(seed.emails)
        await adapter.users.create(id="first")  # settles the settings, and calls the feed where there is one
        for first in range(0, len(stored.tokens), AT_ONCE):
            part = stored.tokens[first : first + AT_ONCE]
            assert len(await adapter.sessions.get_many(part)) == len(part)
        yield of_library(adapter, stored) | {"users.create": _sign_up(adapter)}


def _of_settings(stream: str) -> bool:
    return stream.startswith("auth-idx:store:")


def _sign_up(adapter: AllsourceAuthAdapter) -> Prepare:
    def prepare() -> Read:
        email = f"{secrets.token_hex(8)}@example.org"
        return lambda: adapter.users.create(email=email)

    return prepare


async def sizes(name: str, entities: list[int], count: int) -> dict[str, dict[str, Row]]:
    """The rows of each call, by the number of entities."""
    async with AsyncExitStack() as opening:
        kinds: dict[str, Prepare] = {}
        for size in entities:
            found = await opening.enter_async_context(filled(name, size))
            kinds |= {f"{call}|{size}": prepare for call, prepare in found.items()}
        print(f"{name}: {count:,} calls of each kind ...", file=sys.stderr)
        rows = await in_turns(kinds, count=count)
    calls = dict.fromkeys(kind.partition("|")[0] for kind in kinds)
    found_rows = {call: {str(size): rows[f"{call}|{size}"] for size in entities} for call in calls}
    for by_size in found_rows.values():
        smallest = by_size[str(entities[0])]
        for row in by_size.values():
            row["against_smallest"] = _against(row, smallest)
    return found_rows


def _against(row: Row, smallest: Row) -> list[float]:
    """The ratio of the medians, and the least and the most in one round."""
    rounds = [a / b for a, b in zip(row["rounds"]["p50_us"], smallest["rounds"]["p50_us"], strict=True)]
    return [row["p50_us"] / smallest["p50_us"], min(rounds), max(rounds)]


def show(name: str, found: Mapping[str, Mapping[str, Row]]) -> None:
    print(f"\n{name:22} {'entities':>10} {'p50':>11} {'p99':>11}   p50 against the smallest (single rounds)")
    for call, by_size in found.items():
        for size, row in by_size.items():
            ratio, least, most = row["against_smallest"]
            figures = f"{row['p50_us']:9,.1f}us {row['p99_us']:9,.1f}us   {ratio:.2f} ({least:.2f} to {most:.2f})"
            print(f"{call:22} {int(size):10,} {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=stores, default=["embedded"], help=f"of {', '.join(STORES)}, with commas")
    parser.add_argument("--entities", type=counts, default=[1_000, 10_000, 100_000], help="with commas")
    parser.add_argument("--calls", type=count, default=2_000, help="of each kind and size (default: 2,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    entities = sorted(set(given.entities))
    if entities[0] < 2:
        parser.error("--entities: a store has a user and a session at least")
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
