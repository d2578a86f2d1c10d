"""The history of an entity: its changes in either order, with the changed fields."""

from datetime import timedelta

import pytest

from allsource_auth import (
    AllsourceAuthAdapter,
    Change,
    EventLabel,
    EventStore,
    InvalidInput,
    Session,
    SqliteLog,
    SqliteStore,
    User,
)
from tests.support.canaries import CANARY, email, revealed
from tests.support.clocks import START, ManualClock
from tests.support.events import metadata, new_event, stored, stored_user


@pytest.fixture
async def story(adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User) -> list[Change[User]]:
    """Ada created, renamed, given another email, deleted and restored, a minute apart."""
    minute = timedelta(minutes=1)
    clock.move(minute)
    await adapter.users.update(ada.id, name="Ada L.")
    clock.move(minute)
    await adapter.users.update(ada.id, email=email("new"))
    clock.move(minute)
    await adapter.users.delete(ada.id)
    clock.move(minute)
    await adapter.users.restore(ada.id)
    return await adapter.users.history(ada.id)


async def test_changes_have_the_states_before_and_after(
    adapter: AllsourceAuthAdapter, ada: User, story: list[Change[User]]
) -> None:
    assert [change.event for change in story] == [
        EventLabel.USER_CREATED,
        EventLabel.USER_UPDATED,
        EventLabel.USER_UPDATED,
        EventLabel.USER_DELETED,
        EventLabel.USER_UPDATED,
    ]
    assert [change.wire_type for change in story] == [
        "auth.user.created",
        "auth.user.updated",
        "auth.user.updated",
        "auth.user.deleted",
        "auth.user.updated",
    ]
    assert story[0].state == ada
    assert story[3].state is None
    assert story[4].state == await adapter.users.get(ada.id)
    assert [change.before for change in story] == [None, *[change.state for change in story[:-1]]]
    assert {(change.kind, change.key) for change in story} == {("user", ada.id)}


async def test_changes_have_the_changed_fields(story: list[Change[User]], ada: User) -> None:
    created, renamed, moved, deleted, restored = story
    assert created.diff["name"] == (None, "Ada")
    assert created.diff["id"] == (None, ada.id)
    assert renamed.diff == {"name": ("Ada", "Ada L."), "updated_at": (START, START + timedelta(minutes=1))}
    assert set(moved.diff) == {"email", "updated_at"}
    assert moved.diff["email"] == (email("Ada"), email("new"))
    assert deleted.diff["email"] == (email("new"), None)
    assert restored.diff["email"] == (None, email("new"))


async def test_changes_are_the_events(store: EventStore, ada: User, story: list[Change[User]]) -> None:
    events = await stored(store, f"auth-user:{ada.id}")
    assert [change.event_id for change in story] == [event.id for event in events]
    assert [change.op for change in story] == [metadata(event)["op"] for event in events]
    assert [change.seq for change in story] == [1, 2, 3, 4, 5]
    assert len({change.op for change in story}) == 5


async def test_changes_are_dated_by_the_store(store: EventStore, ada: User, story: list[Change[User]]) -> None:
    events = await stored(store, f"auth-user:{ada.id}")
    for change, event in zip(story, events, strict=True):
        assert change.at.tzinfo is not None
        assert change.at.timestamp() == pytest.approx(event.time / 1e9, abs=1e-5)


@pytest.mark.parametrize("limit", [0, 1, 2, 4, 5, 6, None])
async def test_limit_counts_from_either_end(
    adapter: AllsourceAuthAdapter, ada: User, story: list[Change[User]], limit: int | None
) -> None:
    assert await adapter.users.history(ada.id, limit=limit) == story[:limit]
    assert await adapter.users.history(ada.id, limit=limit, newest_first=True) == story[::-1][:limit]


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True])
async def test_invalid_limit_is_refused(adapter: AllsourceAuthAdapter, ada: User, limit: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        await adapter.users.history(ada.id, limit=limit)
    assert caught.value.field == "limit"


async def test_iter_history_equals_history(adapter: AllsourceAuthAdapter, ada: User, story: list[Change[User]]) -> None:
    assert [change async for change in adapter.users.iter_history(ada.id)] == story


@pytest.mark.parametrize("key", ["nobody", "", "x" * 500])
async def test_unknown_key_has_no_history(adapter: AllsourceAuthAdapter, key: str) -> None:
    assert await adapter.users.history(key) == []
    assert await adapter.users.history(key, newest_first=True, limit=1) == []
    assert [change async for change in adapter.users.iter_history(key)] == []


async def test_history_of_a_deleted_user_is_kept(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.delete(ada.id)
    (newest,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    assert (newest.event, newest.state) == ("UserDeleted", None)
    assert newest.before == ada


async def test_long_history_is_complete(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:old", stored_user("old", name=str(n))) for n in range(2100)])
    names = [str(n) for n in range(2100)]
    changes = await adapter.users.history("old")
    assert [change.state.name for change in changes if change.state] == names
    newest = await adapter.users.history("old", newest_first=True)
    assert newest == changes[::-1]
    assert await adapter.users.history("old", newest_first=True, limit=1050) == changes[::-1][:1050]
    assert [change async for change in adapter.users.iter_history("old")] == changes


async def test_fences_are_left_out_unless_asked_for(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, story: list[Change[User]]
) -> None:
    newest = (await stored(store, f"auth-user:{ada.id}"))[-1]
    await store.append(
        [new_event(newest.stream, stored_user(ada.id, name="Ada L.", email=email("new")), type="auth.index.fenced")]
    )
    await adapter.users.update(ada.id, name="after")
    plain = await adapter.users.history(ada.id)
    assert [change.event for change in plain] == [*[change.event for change in story], "UserUpdated"]
    whole = await adapter.users.history(ada.id, fences=True)
    assert [change.event for change in whole][-2:] == ["Fenced", "UserUpdated"]
    assert await adapter.users.history(ada.id, newest_first=True) == plain[::-1]
    assert await adapter.users.history(ada.id, newest_first=True, limit=2) == plain[::-1][:2]
    assert await adapter.users.history(ada.id, newest_first=True, limit=2, fences=True) == whole[::-1][:2]
    assert [change async for change in adapter.users.iter_history(ada.id)] == plain
    assert [change async for change in adapter.users.iter_history(ada.id, fences=True)] == whole


async def test_label_of_an_old_writer_is_kept() -> None:
    """On the embedded store only: Core refuses capital letters in event types."""
    store = SqliteStore(SqliteLog(None))
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        await store.append([new_event("auth-user:old", stored_user("old"), type="UserCreated")])
        await store.append([new_event("auth-user:old", {"_deleted": True, "id": "old"}, type="UserDeleted")])
        changes = await adapter.users.history("old")
    assert [change.event for change in changes] == [EventLabel.USER_CREATED, EventLabel.USER_DELETED]


async def test_diff_hides_the_token(adapter: AllsourceAuthAdapter, session: Session) -> None:
    await adapter.sessions.delete(session.token)
    created, deleted = await adapter.sessions.history(session.token)
    assert created.diff["token"] == (None, "***")
    assert deleted.diff["token"] == ("***", None)
    assert created.diff["user_id"] == (None, session.user_id)


async def test_diff_hides_passwords_that_old_writers_stored_in_metadata(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    kept = {"theme": "dark", "password_hash": CANARY, "deep": [{"passwordHash": CANARY}]}
    await store.append([new_event("auth-user:old", stored_user("old", metadata=kept))])
    (change,) = await adapter.users.history("old")
    assert change.diff["metadata"][1] == {"theme": "dark", "password_hash": "***", "deep": [{"passwordHash": "***"}]}
    assert not revealed(repr(change.diff))


async def test_diff_shows_lists_in_metadata(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(metadata={"tags": ["a", ["b"]]})
    await adapter.users.update(user.id, metadata={"tags": []})
    change = (await adapter.users.history(user.id))[-1]
    assert change.diff["metadata"] == ({"tags": ["a", ["b"]]}, {"tags": []})


async def test_repr_of_a_change_shows_no_value(story: list[Change[User]]) -> None:
    for change in story:
        assert not revealed(repr(change))
        assert change.event in repr(change)
