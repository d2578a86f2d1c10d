"""Roll-forward: the remaining events of a decided transaction, on streams that others have changed since."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from allsource_auth import NewEvent, SqliteLog, SqliteStore
from allsource_auth.engine.roll_forward import RemainingEvent, outstanding, roll_forward
from allsource_auth.engine.streams import Streams
from tests.support.events import metadata, new_event, payload, stored, stored_user

USER = "auth-user:eve"
OP = "f" * 32
TOMBSTONE = {"_deleted": True, "id": "eve"}


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteLog(None))
    yield store
    await store.close()


def event(verb: str, content: object, *, seq: int) -> NewEvent:
    """An event that another operation stored."""
    type_ = f"auth.user.{verb}" if verb != "fenced" else "auth.index.fenced"
    return new_event(USER, content, type=type_, metadata={"v": 1, "op": f"{seq:032}", "seq": seq})


def remaining(verb: str, content: object, *, after: str | None = None) -> list[RemainingEvent]:
    payload = msgspec.Raw(json.dumps(content).encode())
    return [RemainingEvent(type=f"auth.user.{verb}", stream=USER, payload=payload, guard=0, after=after)]


CREATION = remaining("created", stored_user("eve", name="ours"))


@pytest.mark.parametrize(
    "since",
    [
        [event("created", stored_user("eve"), seq=1)],
        [event("created", stored_user("eve"), seq=1), event("fenced", stored_user("eve"), seq=2)],
        [event("created", stored_user("eve"), seq=1), event("deleted", TOMBSTONE, seq=2)],
    ],
    ids=["created", "created-and-fenced", "created-and-deleted"],
)
async def test_creation_leaves_another_entity_with_its_id_alone(store: SqliteStore, since: list[NewEvent]) -> None:
    await store.append(since)
    await roll_forward(Streams(store), OP, CREATION)
    assert [found.type for found in await stored(store, USER)] == [event.type for event in since]
    assert await outstanding(Streams(store), OP, CREATION) == []


async def test_creation_follows_a_fence_and_happens_once(store: SqliteStore) -> None:
    await store.append([event("fenced", TOMBSTONE, seq=1)])
    for _ in range(2):
        await roll_forward(Streams(store), OP, CREATION)
    _, created = await stored(store, USER)
    assert (created.type, payload(created)["name"]) == ("auth.user.created", "ours")
    assert (metadata(created)["op"], metadata(created)["seq"]) == (OP, 2)


async def test_deletion_follows_a_change_that_was_made_since(store: SqliteStore) -> None:
    [created] = await store.append([event("created", stored_user("eve"), seq=1)])
    await store.append([event("updated", stored_user("eve", name="Eve"), seq=2)])
    deletion = remaining("deleted", TOMBSTONE, after=created.id)
    assert await outstanding(Streams(store), OP, deletion) == [USER]
    await roll_forward(Streams(store), OP, deletion)
    newest = (await stored(store, USER))[-1]
    assert (newest.type, payload(newest), metadata(newest)["seq"]) == ("auth.user.deleted", TOMBSTONE, 3)


async def test_deletion_of_what_was_deleted_since_is_done(store: SqliteStore) -> None:
    [created] = await store.append([event("created", stored_user("eve"), seq=1)])
    await store.append([event("deleted", TOMBSTONE, seq=2)])
    await roll_forward(Streams(store), OP, remaining("deleted", TOMBSTONE, after=created.id))
    assert len(await stored(store, USER)) == 2
