"""Restoring deleted users."""

from datetime import timedelta

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, Session, User, UserNotFound
from tests.support.canaries import CANARY, email, token
from tests.support.clocks import ManualClock
from tests.support.events import metadata, new_event, payload, stored, stored_user, written_by


async def test_restored_user_is_unchanged(adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User) -> None:
    full = await adapter.users.update(ada.id, metadata={"note": CANARY}, banned=True, ban_reason="spam")
    await adapter.users.delete(ada.id)
    later = clock.move(timedelta(hours=1))
    back = await adapter.users.restore(ada.id)
    assert back == msgspec.structs.replace(full, updated_at=later)
    assert await adapter.users.get(ada.id) == back
    assert await adapter.users.get_by_email(email("ada")) == back
    assert await adapter.users.get_by_username("ada") == back
    with pytest.raises(Conflict):
        await adapter.users.create(email=email("ada"))


async def test_restore_is_one_change_in_the_history(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await adapter.users.update(ada.id, name="x")
    await adapter.users.delete(ada.id)
    await adapter.users.restore(ada.id)
    events = await stored(store, f"auth-user:{ada.id}")
    assert events[-1].type == "auth.user.updated"
    assert metadata(events[-1])["restores"] == events[1].id
    (change,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    assert change.restores == events[1].id


async def test_living_user_is_returned_unchanged(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    async with written_by(store) as written:
        assert await adapter.users.restore(ada.id) == ada
    assert written.events == []


@pytest.mark.parametrize("missing", ["nobody", "", "x" * 500])
async def test_unknown_user_cannot_be_restored(adapter: AllsourceAuthAdapter, store: EventStore, missing: str) -> None:
    async with written_by(store) as written:
        with pytest.raises(UserNotFound):
            await adapter.users.restore(missing)
    assert written.events == []


async def test_fence_without_a_user_cannot_be_restored(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:x", {"_deleted": True, "id": "x"}, type="auth.index.fenced")])
    with pytest.raises(UserNotFound):
        await adapter.users.restore("x")
    assert await adapter.users.create(id="x") == await adapter.users.get("x")


@pytest.mark.parametrize(("field", "value"), [("email", email("ADA")), ("username", "ada")])
async def test_value_taken_meanwhile_conflicts_and_nothing_changes(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, field: str, value: str
) -> None:
    await adapter.users.delete(ada.id)
    taker = await adapter.users.create(**{field: value})  # type: ignore[arg-type]
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.users.restore(ada.id)
    assert caught.value.field == field
    assert written.events == []
    assert await adapter.users.get(ada.id) is None
    assert await adapter.users.get(taker.id) == taker
    await adapter.users.delete(taker.id)
    assert (await adapter.users.restore(ada.id)).email == email("Ada")


async def test_restore_does_not_restore_sessions(adapter: AllsourceAuthAdapter, ada: User, session: Session) -> None:
    await adapter.users.delete(ada.id)
    await adapter.users.restore(ada.id)
    assert await adapter.load_session(session.token) is None
    assert await adapter.sessions.list_for_user(ada.id) == []


async def test_restore_completes_an_interrupted_deletion_first(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    await store.append(
        [new_event(f"auth-user:{ada.id}", {"_deleted": True, "id": ada.id}, type="auth.user.deleted", guard=1)]
    )
    back = await adapter.users.restore(ada.id)
    assert await adapter.load_session(session.token) is None
    assert await adapter.users.get_by_email(email("Ada")) == back


async def test_new_sessions_work_after_a_restore(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User, session: Session
) -> None:
    await adapter.users.delete(ada.id)
    await adapter.users.restore(ada.id)
    fresh = await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=1), token=token("fresh"))
    assert await adapter.load_session(fresh.token) is not None
    assert await adapter.sessions.list_for_user(ada.id) == [fresh]


async def test_user_can_be_restored_repeatedly(adapter: AllsourceAuthAdapter, ada: User) -> None:
    for _ in range(3):
        await adapter.users.delete(ada.id)
        back = await adapter.users.restore(ada.id)
        assert back == msgspec.structs.replace(ada, updated_at=back.updated_at)


async def test_restore_keeps_unknown_members(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:old", stored_user("old", phoneNumber="+1"))])
    await adapter.users.delete("old")
    await adapter.users.restore("old")
    newest = (await stored(store, "auth-user:old"))[-1]
    assert payload(newest)["phoneNumber"] == "+1"
    assert payload(newest)["createdAt"] == "2026-11-23T10:59:20.552604072Z"


async def test_session_cannot_be_restored(adapter: AllsourceAuthAdapter, session: Session) -> None:
    await adapter.sessions.delete(session.token)
    assert not hasattr(adapter.sessions, "restore")
    with pytest.raises(InvalidInput):
        await adapter.context.collections["session"].restore(session.token)
