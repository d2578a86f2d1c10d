"""Filling a store before a measurement: users with emails, each with a session, and an API key with many uses.

The library writes the entities to a store in memory. The same events are then appended to the measured store in large batches
without guards, which is faster.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from allsource_auth import AllsourceAuthAdapter, EventStore, NewEvent, SqliteLog, SqliteStore
from tests.support.wrappers import CountingStore

__all__ = ["Seed", "append_all", "seed_of"]

BATCH = 500
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
KEY_HASH = "hash-of-a-busy-key"


@dataclass(frozen=True)
class Seed:
    """Events of the tenant ``default``, and the keys of their entities. ``tokens``: of sessions that have not expired."""

    events: list[NewEvent]
    entities: int
    users: list[str]
    emails: list[str]
    tokens: list[str]

    def __repr__(self) -> str:
        return f"Seed({self.entities} entities, {len(self.events)} events)"


async def seed_of(entities: int, *, first: int = 0, expired: int = 0, uses: int = 0) -> Seed:
    """A seed: half of the entities are users, half are sessions.

    ``expired``: how many of the sessions have expired. ``uses``: how often a limited API key has been used (0: no key).
    ``first``: the number in the first user's email, so that a store can take several seeds.
    """
    _log(f"preparing {entities:,} entities ...")
    store = CountingStore(SqliteStore(SqliteLog(None)))
    in_a_week = datetime.now(UTC) + timedelta(days=7)
    users, emails, tokens = [], [], []
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        for number in range(first, first + entities // 2):
            email = f"person{number}@example.org"
            user = await adapter.users.create(email=email, name="A user")
            expires_at = LONG_AGO if number - first < expired else in_a_week
            session = await adapter.sessions.create(user_id=user.id, expires_at=expires_at)
            users.append(user.id)
            emails.append(email)
            if number - first >= expired:
                tokens.append(session.token)
        if uses:
            await adapter.api_keys.create(user_id=users[-1], key_hash=KEY_HASH, remaining=1_000_000_000)
        for _ in range(uses):
            await adapter.api_keys.use(KEY_HASH)
        events = [msgspec.structs.replace(event, guard=None) for batch in store.appends for event in batch]
    return Seed(events, entities, users, emails, tokens)


async def append_all(store: EventStore, events: Sequence[NewEvent]) -> None:
    """Append the events in order, without guards."""
    _log(f"storing {len(events):,} events ...")
    for first in range(0, len(events), BATCH):
        await store.append(events[first : first + BATCH])


def _log(line: str) -> None:
    print(line, file=sys.stderr)
