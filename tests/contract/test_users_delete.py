"""Deleting users and what belongs to them."""

from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, NewEvent, Session, User
from tests.support.canaries import email, token
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored, written_by


@pytest.mark.parametrize("missing", ["nobody", "", " x", "x" * 500])
async def test_deleting_a_missing_user_does_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, missing: str
) -> None:
    async with written_by(store) as written:
        await adapter.users.delete(missing)
    assert written.events == []


async def test_deleting_twice_is_the_same_as_once(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    await adapter.users.delete(ada.id)
    async with written_by(store) as written:
        await adapter.users.delete(ada.id)
    assert written.events == []


async def test_email_and_username_are_free_again(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.delete(ada.id)
    again = await adapter.users.create(email=email("Ada"), username="ada")
    assert again.id != ada.id
    assert await adapter.users.get_by_email(email("Ada")) == again


async def test_sessions_of_the_user_are_deleted(adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User) -> None:
    other = await adapter.users.create()
    theirs = await adapter.sessions.create(user_id=other.id, expires_at=clock() + timedelta(days=1))
    sessions = [
        await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=days))
        for days in range(-1, 40)
    ]
    await adapter.users.delete(ada.id)
    assert await adapter.sessions.get_many([session.token for session in sessions]) == {}
    assert await adapter.sessions.list_for_user(ada.id) == []
    assert await adapter.sessions.get(theirs.token) == theirs


async def test_interrupted_deletion_is_completed_by_deleting_again(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    """The process crashed right after the tombstone; the claims and the session still exist."""
    await store.append([_tombstone(ada)])
    assert await adapter.sessions.get(session.token) == session
    await adapter.users.delete(ada.id)
    assert await adapter.sessions.get(session.token) is None


async def test_values_of_an_interrupted_deletion_are_free(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await store.append([_tombstone(ada)])
    assert await adapter.users.get_by_email(email("Ada")) is None
    again = await adapter.users.create(email=email("ada"), username="ada")
    assert await adapter.users.get_by_username("ada") == again


async def test_creating_over_a_tombstone_completes_the_interrupted_deletion(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    await store.append([_tombstone(ada)])
    await adapter.users.create(id=ada.id)
    assert await adapter.sessions.get(session.token) is None
    assert await adapter.load_session(session.token) is None
    assert await adapter.sessions.list_for_user(ada.id) == []


async def test_new_user_with_an_old_id_has_no_old_sessions(
    adapter: AllsourceAuthAdapter, ada: User, session: Session
) -> None:
    await adapter.users.delete(ada.id)
    await adapter.users.create(id=ada.id)
    assert await adapter.load_session(session.token) is None
    assert await adapter.sessions.list_for_user(ada.id) == []


async def test_session_made_after_the_deletion_does_not_authenticate(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User
) -> None:
    await adapter.users.delete(ada.id)
    await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=1), token=token("late"))
    assert await adapter.load_session(token("late")) is None


async def test_session_made_after_the_deletion_does_not_survive_a_restore(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User
) -> None:
    await adapter.users.delete(ada.id)
    await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=1), token=token("late"))
    await adapter.users.restore(ada.id)
    assert await adapter.load_session(token("late")) is None


async def test_stream_keeps_all_events(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    await adapter.users.update(ada.id, name="x")
    await adapter.users.delete(ada.id)
    types = [event.type for event in await stored(store, f"auth-user:{ada.id}")]
    assert types == ["auth.user.created", "auth.user.updated", "auth.user.deleted"]


def _tombstone(user: User) -> NewEvent:
    return new_event(f"auth-user:{user.id}", {"_deleted": True, "id": user.id}, type="auth.user.deleted", guard=1)
