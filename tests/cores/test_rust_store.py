"""A store that the Rust crate has written: single events without metadata and guard.

After a restart, an unguarded append to an archived stream counts from 1 again, on every version of Core, and the counter stays
below the number of events from then on (``docs/reference/allsource-api.md``, "Restarts").
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, NewEvent, SessionNotFound, UserNotFound
from tests.cores.conftest import at
from tests.support.clocks import START, ManualClock
from tests.support.cores import Core, running
from tests.support.events import RUST_EVENTS, payload, rust_event, stored

pytestmark = pytest.mark.core

LATER = START + timedelta(days=7)
CHANGED_USER = "auth-user:4c75d1c4-17b8-4073-880e-6b6573af7653"
PLAIN_USER = "auth-user:b074a936-c5b2-4a18-9d2b-663cff8484b1"
DELETED_USER = "auth-user:f6b46733-6f3f-4015-b786-e1a2d69d98c3"
PLAIN_SESSION = "auth-session:session_4ee5ac69-9523-4c84-9f55-bd8d7f387f1b"
CHANGED_SESSION = "auth-session:session_d878e0e5-9e55-4927-9e01-902387b49f23"

RUST: list[dict[str, Any]] = [json.loads(line) for line in RUST_EVENTS.read_text().splitlines()]
UNKNOWN = {"fromTheFuture": {"n": [1, 2.5, None], "text": "é"}, "legacy": True}


def key(stream: str) -> str:
    return stream.partition(":")[2]


def of(stream: str) -> list[dict[str, Any]]:
    return [event for event in RUST if event["entity_id"] == stream]


@dataclass
class RustStore:
    """A Core with events of the Rust crate, a store and an adapter on it."""

    core: Core
    store: AllsourceStore
    adapter: AllsourceAuthAdapter

    async def rust_writes(self, stream: str, payload: dict[str, Any]) -> None:
        """Append another event as the Rust crate does, to a stream of it."""
        await self.store.append([rust_event({**of(stream)[-1], "payload": payload})])

    async def payloads(self, stream: str) -> list[Any]:
        return [payload(event) for event in await stored(self.store, stream)]


@asynccontextmanager
async def rust_store(version: str, data: Path) -> AsyncIterator[RustStore]:
    async with running(version, data=data) as core, at(core, clock=ManualClock()) as adapter:
        store = AllsourceStore(core.url)
        for event in RUST:
            new: NewEvent = rust_event(event)
            assert (new.guard, new.metadata) == (None, b"null")
            await store.append([new])
        yield RustStore(core, store, adapter)
        await store.close()


@pytest.fixture(params=[0, 2], ids=["in the log", "archived"])
async def rust(request: pytest.FixtureRequest, version: str, tmp_path: Path) -> AsyncIterator[RustStore]:
    """The events are in the log, or in the archive of a Core that was restarted."""
    async with rust_store(version, tmp_path) as rust:
        for _ in range(request.param):
            await rust.core.restart()
        yield rust


async def test_rust_events_are_read_by_key_and_history(rust: RustStore) -> None:
    streams = dict.fromkeys(event["entity_id"] for event in RUST)
    for stream in [stream for stream in streams if stream.startswith(("auth-user:", "auth-session:"))]:
        is_user = stream.startswith("auth-user:")
        changes: list[Any]
        if is_user:
            found: Any = await rust.adapter.users.get(key(stream))
            changes = list(await rust.adapter.users.history(key(stream)))
        else:
            found = await rust.adapter.sessions.get(key(stream))
            changes = list(await rust.adapter.sessions.history(key(stream)))
        newest = of(stream)[-1]["payload"]
        assert [change.wire_type for change in changes] == [event["event_type"] for event in of(stream)]
        assert changes[-1].state == found
        assert (found is None) == newest.get("_deleted", False)
        if found is not None and is_user:
            assert (found.id, found.email, found.name) == (newest["id"], newest["email"], newest["name"])
        elif found is not None:
            assert (found.id, found.token, found.user_id) == (newest["id"], key(stream), newest["userId"])


async def test_rust_user_is_updated_deleted_and_restored(rust: RustStore) -> None:
    users, user_id = rust.adapter.users, key(CHANGED_USER)
    await users.update(user_id, role="admin")
    await users.update(user_id, email="mine@example.org")
    assert await users.get_by_email("MINE@example.org") == await users.get(user_id)
    await users.delete(user_id)
    assert await users.get(user_id) is None
    with pytest.raises(UserNotFound):
        await users.update(user_id, role="x")
    back = await users.restore(user_id)
    assert (back.role, back.email) == ("admin", "mine@example.org")
    created, changed = of(CHANGED_USER)
    ours = [(change.event, change.seq) for change in await users.history(user_id)]
    assert ours == [
        ("UserCreated", None),
        ("UserUpdated", None),
        ("UserUpdated", 3),
        ("UserUpdated", 4),
        ("UserDeleted", 5),
        ("UserUpdated", 6),
    ]
    assert (await rust.payloads(CHANGED_USER))[:2] == [created["payload"], changed["payload"]]


async def test_rust_session_is_extended_and_revoked(rust: RustStore) -> None:
    sessions, token = rust.adapter.sessions, key(CHANGED_SESSION)
    assert (await sessions.update_expiry(token, LATER)).expires_at == LATER
    await sessions.delete(token)
    assert await sessions.get(token) is None
    with pytest.raises(SessionNotFound):
        await sessions.update_expiry(token, LATER)


async def test_unknown_keys_are_kept(rust: RustStore) -> None:
    for stream in (PLAIN_USER, PLAIN_SESSION):
        await rust.rust_writes(stream, {**of(stream)[-1]["payload"], **UNKNOWN})
    await rust.adapter.users.update(key(PLAIN_USER), name="Ada")
    await rust.adapter.sessions.update_expiry(key(PLAIN_SESSION), LATER)
    user, session = [(await rust.payloads(stream))[-1] for stream in (PLAIN_USER, PLAIN_SESSION)]
    assert user == of(PLAIN_USER)[-1]["payload"] | UNKNOWN | {"name": "Ada", "updatedAt": user["updatedAt"]}
    changes = {"expiresAt": "2026-11-30T12:00:00.000000Z", "updatedAt": session["updatedAt"]}
    assert session == of(PLAIN_SESSION)[-1]["payload"] | UNKNOWN | changes
    await rust.adapter.users.delete(key(PLAIN_USER))
    await rust.adapter.users.restore(key(PLAIN_USER))
    restored = (await rust.payloads(PLAIN_USER))[-1]
    assert {name: restored[name] for name in UNKNOWN} == UNKNOWN


async def test_rust_tombstone_is_restored(rust: RustStore) -> None:
    back = await rust.adapter.users.restore(key(DELETED_USER))
    assert await rust.adapter.users.get_by_email(str(back.email)) == back
    assert (await rust.payloads(DELETED_USER))[:2] == [event["payload"] for event in of(DELETED_USER)]


@pytest.mark.parametrize("fresh", [False, True], ids=["connected", "fresh"])
async def test_alternating_writers_of_one_user_across_restarts(version: str, fresh: bool, tmp_path: Path) -> None:
    async with rust_store(version, tmp_path) as rust:
        rust_state = of(PLAIN_USER)[-1]["payload"]
        for number in range(5):
            await rust.core.restart()
            await rust.core.restart()
            await rust.rust_writes(PLAIN_USER, rust_state | {"role": f"rust {number}"})
            if fresh:
                async with at(rust.core) as adapter:
                    user = await adapter.users.update(key(PLAIN_USER), name=f"ours {number}")
            else:
                user = await rust.adapter.users.update(key(PLAIN_USER), name=f"ours {number}")
            assert (user.role, user.name) == (f"rust {number}", f"ours {number}")
            rust_state = (await rust.payloads(PLAIN_USER))[-1]
        found = [(each["role"], each["name"]) for each in await rust.payloads(PLAIN_USER)]
        assert len(found) == len(of(PLAIN_USER)) + 10
        assert found[-2:] == [("rust 4", "ours 3"), ("rust 4", "ours 4")]
