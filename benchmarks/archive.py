"""What depends on how much there is: look-ups in a large store and a small one, guarded writes to the archive of Core 0.27."""

from __future__ import annotations

import random
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
from benchmarks.seeding import KEY_HASH, Seed, pour, seed_of
from benchmarks.servers import Server, started
from benchmarks.timing import ROUNDS, Prepare, Read, in_turns

__all__ = ["NAME", "SMALL", "archived", "look_ups", "opened"]

NAME = "core-0.27.0"
SMALL = 1_000
USES = 10_000
ROOM = 4 << 30
NEW_KEY_HASH = "hash-of-a-new-key"

Rows = dict[str, dict[str, float]]


def opened(server: Server) -> AllsourceStore:
    """A store on the server, of the tenant that seeds are for."""
    return AllsourceStore(server.core_url, server.query_url, server.api_key)


async def look_ups(
    large: tuple[AllsourceAuthAdapter, Seed], small: tuple[AllsourceAuthAdapter, Seed], *, count: int
) -> Rows:
    """``count`` reads of each kind in both stores, in turns; with the ratio of the medians."""
    kinds: dict[str, Prepare] = {}
    for size, (adapter, seed) in (("large", large), ("small", small)):
        reads: dict[str, tuple[Callable[[str], Awaitable[object]], Sequence[str]]] = {
            "users.get": (adapter.users.get, seed.users),
            "users.get_by_email": (adapter.users.get_by_email, seed.emails),
            "load_session": (adapter.load_session, seed.tokens),
            "sessions.list_for_user": (adapter.sessions.list_for_user, seed.users),
        }
        kinds |= {f"{name}, {size}": _drawn(read, keys) for name, (read, keys) in reads.items()}
    rows = await in_turns(kinds, count=count)
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


def _drawn(read: Callable[[str], Awaitable[object]], keys: Sequence[str]) -> Prepare:
    choice = random.Random(7).choice

    def prepare() -> Read:
        key = choice(keys)
        return lambda: read(key)

    return prepare


async def archived(folder: Path, *, entities: int, sweep: int, count: int) -> dict[str, Any]:
    """A durable Core 0.27 that was filled, restarted on two copies of its data: with default and with recommended settings."""
    seed = await seed_of(entities, expired=sweep, uses=USES)
    few = await seed_of(SMALL)
    for kept, places in ((seed, ("recommended", "default")), (few, ("small",))):
        with tempfile.TemporaryDirectory(dir=_quick()) as made:
            async with started(NAME, Path(made)) as server:
                await _filled(server, kept)
            for place in places:
                shutil.copytree(made, folder / place)
    print("restarted; measuring ...", file=sys.stderr)
    async with (
        _restarted(folder / "default", recommended=False) as plain,
        _restarted(folder / "recommended") as warmed,
        _restarted(folder / "small") as small,
    ):
        both = {"default settings": plain, "recommended settings": warmed}
        kinds: dict[str, Prepare] = {}
        size = 2 * (count + 2 * ROUNDS)
        for name, adapter in both.items():
            tokens = iter(seed.tokens[:size])  # each once: only the first guarded append to a stream is slow
            kinds |= {f"{what}, {name}": prepare for what, prepare in _writes(adapter, tokens).items()}
        kinds |= {f"{what}, small": prepare for what, prepare in _creations(small).items()}
        rows = await in_turns(kinds, count=count)
        writes: dict[str, Rows] = {}
        for kind, row in rows.items():
            what, _, name = kind.rpartition(", ")
            writes.setdefault(what, {})[name] = row
        sweeps = {
            "default settings": await _swept(plain, max(1, sweep // 20)),  # all of them would take minutes
            "recommended settings": await _swept(warmed, sweep),
        }
        left = Seed(seed.events, seed.entities, seed.users, seed.emails, seed.tokens[size:])
        found = await look_ups((warmed, left), (small, few), count=count * 10)
        info = await warmed.info()
    return {
        "server": f"{info.server} {info.server_version}, engine {info.engine}",
        "events": len(seed.events),
        "writes": writes,
        "sweeps": sweeps,
        "look_ups": found,
    }


def _quick() -> str | None:
    """Where a store is filled: in memory if there is room, as Core syncs each event; it is measured on the disk."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > ROOM else None


async def _filled(server: Server, seed: Seed) -> None:
    store = opened(server)
    try:
        await pour(store, seed.events)
    finally:
        await store.close()


@asynccontextmanager
async def _restarted(folder: Path, *, recommended: bool = True) -> AsyncIterator[AllsourceAuthAdapter]:
    async with (
        started(NAME, folder, recommended=recommended) as server,
        AllsourceAuthAdapter.with_store(opened(server)) as adapter,
    ):
        # The adapter's first write settles its settings and calls the feed.
        await adapter.api_keys.create(user_id="somebody", key_hash=NEW_KEY_HASH, remaining=1_000_000_000)
        yield adapter


def _creations(adapter: AllsourceAuthAdapter) -> dict[str, Prepare]:
    """Writes to new streams: a user's are guarded, those of a session with a token made here are not."""

    def sign_up() -> Read:
        email = f"{secrets.token_hex(8)}@example.org"
        return lambda: adapter.users.create(email=email)

    def sign_in() -> Read:
        user_id, expires_at = secrets.token_hex(8), datetime.now(UTC) + timedelta(days=8)
        return lambda: adapter.sessions.create(user_id=user_id, expires_at=expires_at)

    return {"users.create with an email": sign_up, "sessions.create": sign_in}


def _writes(adapter: AllsourceAuthAdapter, tokens: Iterator[str]) -> dict[str, Prepare]:
    """Those, and guarded writes to streams that were archived."""

    def revoke() -> Read:
        token = next(tokens)

        async def revoked() -> bool:
            await adapter.sessions.delete(token)
            return True

        return revoked

    def refresh() -> Read:
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
