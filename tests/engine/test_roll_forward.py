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
        [
            event("created", stored_user("eve"), seq=1),
            event("deleted", TOMBSTONE, seq=2),
            event("fenced", TOMBSTONE, seq=3),
        ],
    ],
    ids=["created", "created-and-fenced", "created-and-deleted", "created-and-deleted-and-fenced"],
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


@pytest.mark.parametrize("fenced", [False, True])
@pytest.mark.parametrize("since", ["created", "updated"])
@pytest.mark.parametrize(
    ("verb", "content"),
    [("updated", stored_user("eve", role="admin")), ("deleted", TOMBSTONE)],
    ids=["change", "deletion"],
)
async def test_event_stays_obsolete_if_the_id_is_used_again_or_restored(
    store: SqliteStore, verb: str, content: object, since: str, fenced: bool
) -> None:
    """The entity was deleted after the event was decided. So a later repair must not apply the event to the next life."""
    [created] = await store.append([event("created", stored_user("eve"), seq=1)])
    second = stored_user("eve", name="second")
    await store.append([event("deleted", TOMBSTONE, seq=2), event(since, second, seq=3)])
    if fenced:
        await store.append([event("fenced", second, seq=4)])
    obsolete = remaining(verb, content, after=created.id)
    assert await outstanding(Streams(store), OP, obsolete) == []
    await roll_forward(Streams(store), OP, obsolete)
    newest = (await stored(store, USER))[-1]
    assert (payload(newest), metadata(newest)["seq"]) == (second, 4 if fenced else 3)


async def test_change_follows_fences(store: SqliteStore) -> None:
    [created] = await store.append([event("created", stored_user("eve"), seq=1)])
    await store.append([event("fenced", stored_user("eve"), seq=2), event("fenced", stored_user("eve"), seq=3)])
    changed = stored_user("eve", name="Eve")
    await roll_forward(Streams(store), OP, remaining("updated", changed, after=created.id))
    newest = (await stored(store, USER))[-1]
    assert (payload(newest), metadata(newest)["seq"]) == (changed, 4)
