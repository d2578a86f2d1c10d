"""Measurements that depend on the size of a store: look-ups, and guarded writes to the archive of Core 0.27."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from allsource_auth import AllsourceAuthAdapter, AllsourceStore
from benchmarks.reads import random_calls
from benchmarks.seeding import KEY_HASH, Seed, append_all, seed_of
from benchmarks.servers import Server, started
from benchmarks.timing import ROUNDS, Call, Prepare, closed_loops

__all__ = ["NAME", "SMALL", "archived", "look_ups", "opened"]

NAME = "core-0.27.0"
SMALL = 1_000
USES = 10_000
MEMORY = 4 << 30
"""Bytes in memory that filling a store needs."""
NEW_KEY_HASH = "hash-of-a-new-key"

Rows = dict[str, dict[str, float]]


def opened(server: Server) -> AllsourceStore:
    """A store on the server, for the tenant of the seeds."""
    return AllsourceStore(server.core_url, server.query_url, server.api_key)


async def look_ups(
    large: tuple[AllsourceAuthAdapter, Seed], small: tuple[AllsourceAuthAdapter, Seed], *, count: int
) -> Rows:
    """``count`` reads of each kind on both stores, in alternating rounds, and the ratio of the medians."""
    kinds: dict[str, Prepare] = {}
    for size, (adapter, seed) in (("large", large), ("small", small)):
        reads: dict[str, tuple[Callable[[str], Awaitable[object]], Sequence[str]]] = {
            "users.get": (adapter.users.get, seed.users),
            "users.get_by_email": (adapter.users.get_by_email, seed.emails),
            "load_session": (adapter.load_session, seed.tokens),
            "sessions.list_for_user": (adapter.sessions.list_for_user, seed.users),
        }
        kinds |= {f"{name}, {size}": random_calls(keys, read) for name, (read, keys) in reads.items()}
    rows = await closed_loops(kinds, count=count)
    names = list(dict.fromkeys(name.partition(",")[0] for name in kinds))
    return {
        name: {
            "large_p50_us": rows[f"{name}, large"]["p50_us"],
            "large_p99_us": rows[f"{name}, large"]["p99_us"],
            "small_p50_us": rows[f"{name}, small"]["p50_us"],
            "small_p99_us": rows[f"{name}, small"]["p99_us"],
            "ratio_of_p50": rows[f"{name}, large"]["p50_us"] / rows[f"{name}, small"]["p50_us"],
        }
        for name in names
    }


async def archived(folder: Path, *, entities: int, sweep: int, count: int) -> dict[str, Any]:
    """Fill a durable Core 0.27, and measure it on two copies of its data, with default and with recommended settings.

    Creations are also measured on a store of `SMALL` entities.
    """
    seed = await seed_of(entities, expired=sweep, uses=USES)
    few = await seed_of(SMALL)
    for contents, copies in ((seed, ("recommended", "default")), (few, ("small",))):
        with tempfile.TemporaryDirectory(dir=_fast_folder()) as filled:
            async with started(NAME, Path(filled)) as server:
                await _fill(server, contents)
            for copy in copies:
                shutil.copytree(filled, folder / copy)
    print("measuring after a restart ...", file=sys.stderr)
    async with (
        _restarted(folder / "default", recommended=False) as default,
        _restarted(folder / "recommended") as recommended,
        _restarted(folder / "small") as small,
    ):
        both = {"default settings": default, "recommended settings": recommended}
        kinds: dict[str, Prepare] = {}
        size = 2 * (count + 2 * ROUNDS)
        for name, adapter in both.items():
            # Each token is used once, because only the first guarded append to a stream is slow.
            tokens = iter(seed.tokens[:size])
            kinds |= {f"{what}, {name}": prepare for what, prepare in _writes(adapter, tokens).items()}
        kinds |= {f"{what}, small": prepare for what, prepare in _creations(small).items()}
        rows = await closed_loops(kinds, count=count)
        writes: dict[str, Rows] = {}
        for kind, row in rows.items():
            what, _, name = kind.rpartition(", ")
            writes.setdefault(what, {})[name] = row
        sweeps = {
            "default settings": await _swept(default, max(1, sweep // 20)),  # all of them take minutes
            "recommended settings": await _swept(recommended, sweep),
        }
        unused = Seed(seed.events, seed.entities, seed.users, seed.emails, seed.tokens[size:])
        found = await look_ups((recommended, unused), (small, few), count=count * 10)
        info = await recommended.info()
    return {
        "server": f"{info.server} {info.server_version}, engine {info.engine}",
        "events": len(seed.events),
        "writes": writes,
        "sweeps": sweeps,
        "look_ups": found,
    }


def _fast_folder() -> str | None:
    """A folder in memory to fill a store in, if there is room, because Core syncs each event. It is measured on disk."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY else None


async def _fill(server: Server, seed: Seed) -> None:
    store = opened(server)
    try:
        await append_all(store, seed.events)
    finally:
        await store.close()


@asynccontextmanager
async def _restarted(folder: Path, *, recommended: bool = True) -> AsyncIterator[AllsourceAuthAdapter]:
    async with (
        started(NAME, folder, recommended=recommended) as server,
        AllsourceAuthAdapter.with_store(opened(server)) as adapter,
    ):
        # The first write of an adapter reads the settings of the store and the feed.
        await adapter.api_keys.create(user_id="user", key_hash=NEW_KEY_HASH, remaining=1_000_000_000)
        yield adapter


def _creations(adapter: AllsourceAuthAdapter) -> dict[str, Prepare]:
    """Writes to new streams. Creating a user is guarded; creating a session with a generated token is not."""

    def sign_up() -> Call:
        email = f"{secrets.token_hex(8)}@example.org"
        return lambda: adapter.users.create(email=email)

    def sign_in() -> Call:
        user_id, expires_at = secrets.token_hex(8), datetime.now(UTC) + timedelta(days=8)
        return lambda: adapter.sessions.create(user_id=user_id, expires_at=expires_at)

    return {"users.create with an email": sign_up, "sessions.create": sign_in}


def _writes(adapter: AllsourceAuthAdapter, tokens: Iterator[str]) -> dict[str, Prepare]:
    """Writes to new streams, and guarded writes to archived streams."""

    def revoke() -> Call:
        token = next(tokens)

        async def delete() -> bool:
            await adapter.sessions.delete(token)
            return True

        return delete

    def refresh() -> Call:
        token, expires_at = next(tokens), datetime.now(UTC) + timedelta(days=8)
        return lambda: adapter.sessions.update_expiry(token, expires_at)

    def use(key_hash: str) -> Prepare:
        return lambda: lambda: adapter.api_keys.use(key_hash)

    return _creations(adapter) | {
        "sessions.delete, archived": revoke,
        "sessions.update_expiry, archived": refresh,
        f"api_keys.use, {USES:,} events": use(KEY_HASH),
        "api_keys.use, a new key": use(NEW_KEY_HASH),
    }


async def _swept(adapter: AllsourceAuthAdapter, limit: int) -> dict[str, float]:
    began = time.perf_counter()
    removed = await adapter.sessions.delete_expired(limit=limit)
    took = time.perf_counter() - began
    assert removed == limit
    return {"removed": removed, "seconds": took, "per_second": removed / took}
