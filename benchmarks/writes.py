"""The measured writes: sign-ins by the library, and the events of a sign-in, sent by the raw protocol."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from allsource_auth import Acknowledged, AllsourceAuthAdapter, NewEvent, Session, SqliteLog, SqliteStore
from allsource_auth.store.allsource.wire import WireFormat
from benchmarks.raw_http import RawHttp
from benchmarks.reads import Stored, credentials
from benchmarks.servers import Server
from benchmarks.timing import Call, Prepare
from tests.support.wrappers import CountingStore

__all__ = ["batches", "sign_ins"]

WEEK = timedelta(days=7)


def sign_ins(adapter: AllsourceAuthAdapter, stored: Stored) -> Prepare:
    """``sessions.create`` for users in random order."""
    choice = random.Random(7).choice

    def prepare() -> Call:
        user_id = choice(stored.users)

        async def create() -> Session:
            session = await adapter.sessions.create(user_id=user_id, expires_at=datetime.now(UTC) + WEEK)
            assert session.user_id == user_id, "another user's session was created"
            return session

        return create

    return prepare


@asynccontextmanager
async def batches(server: Server, tenant: str, stored: Stored) -> AsyncIterator[Prepare]:
    """The events of a sign-in with a new token, to the same index streams, sent as one batch by the raw protocol."""
    written = await _sign_in_events(tenant, stored.users)
    choice, wire = random.Random(7).choice, WireFormat(tenant)
    raw = RawHttp(server.core_url, credentials(server))

    def prepare() -> Call:
        token, events = choice(written)
        new = f"session_{secrets.token_urlsafe(32)}"
        path, body = wire.append([_renamed(event, token, new) for event in events])

        async def send() -> list[Acknowledged]:
            return wire.acknowledged(await raw.post(path, body), len(events))

        return send

    try:
        yield prepare
    finally:
        await raw.close()


async def _sign_in_events(tenant: str, users: Sequence[str]) -> list[tuple[str, list[NewEvent]]]:
    """For each user the token of a session and the events that creating it appends."""
    store = CountingStore(SqliteStore(SqliteLog(None), tenant))
    found = []
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        for user_id in users:
            store.forget()
            session = await adapter.sessions.create(user_id=user_id, expires_at=datetime.now(UTC) + WEEK)
            found.append((session.token, store.appends[-1]))
    return found


def _renamed(event: NewEvent, old: str, new: str) -> NewEvent:
    stream, payload = event.stream.replace(old, new), event.payload.replace(old.encode(), new.encode())
    return msgspec.structs.replace(event, stream=stream, payload=payload)
