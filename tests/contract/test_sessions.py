"""Sessions: created, found, changed, revoked."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, Session, SessionNotFound, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import token
from tests.support.clocks import ManualClock
from tests.support.events import new_event, refused, written_by

WEEK = timedelta(days=7)


async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    expires_at = clock() + WEEK
    session = await adapter.sessions.create(
        user_id="u",
        expires_at=expires_at,
        ip_address="203.0.113.7",
        user_agent="agent/1.0",
        impersonated_by="admin",
        active_organization_id="org",
        token=token("given"),
        id="chosen",
    )
    assert session == Session(
        id="chosen",
        created_at=clock(),
        updated_at=clock(),
        expires_at=expires_at,
        token=token("given"),
        user_id="u",
        ip_address="203.0.113.7",
        user_agent="agent/1.0",
        impersonated_by="admin",
        active_organization_id="org",
    )
    assert await adapter.sessions.get(token("given")) == session


async def test_generated_tokens_are_random_and_differ(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = [(await adapter.sessions.create(user_id="u", expires_at=clock() + WEEK)) for _ in range(5)]
    assert all(re.fullmatch(r"session_[A-Za-z0-9_-]{43}", session.token) for session in made)
    assert len({session.token for session in made}) == len({session.id for session in made}) == 5
    assert await adapter.sessions.get_many([session.token for session in made]) == {
        session.token: session for session in made
    }


async def test_user_need_not_exist(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    session = await adapter.sessions.create(user_id="nobody", expires_at=clock() + WEEK)
    assert await adapter.sessions.get(session.token) == session


async def test_get_does_not_check_the_expiry(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    session = await adapter.sessions.create(user_id="u", expires_at=clock() - WEEK)
    assert await adapter.sessions.get(session.token) == session


async def test_session_is_found_by_its_token_only(adapter: AllsourceAuthAdapter, session: Session) -> None:
    assert await adapter.sessions.get(session.token) == session
    assert await adapter.sessions.get(session.token.upper()) is None
    assert await adapter.sessions.get(session.id) is None


async def test_given_token_that_exists_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, session: Session
) -> None:
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.sessions.create(user_id="u", expires_at=clock() + WEEK, token=session.token)
    assert (caught.value.kind, caught.value.field) == ("session", "token")
    assert written.events == []
    assert await adapter.sessions.get(session.token) == session


async def test_given_token_that_existed_conflicts(
    adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session
) -> None:
    await adapter.sessions.delete(session.token)
    with pytest.raises(Conflict) as caught:
        await adapter.sessions.create(user_id=session.user_id, expires_at=clock() + WEEK, token=session.token)
    assert (caught.value.kind, caught.value.field) == ("session", "token")
    assert await adapter.sessions.get(session.token) is None


async def test_token_that_others_wrote_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    tombstone = {"_deleted": True, "id": "auth-session:" + token("theirs")}
    await store.append([new_event("auth-session:" + token("theirs"), tombstone, type="auth.session.deleted")])
    with pytest.raises(Conflict):
        await adapter.sessions.create(user_id="u", expires_at=clock() + WEEK, token=token("theirs"))


async def test_list_is_newest_first_with_expired_ones(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = []
    for number in range(5):
        made.append(
            await adapter.sessions.create(user_id="u", expires_at=clock() + timedelta(days=number - 2), id=str(number))
        )
        clock.move(timedelta(seconds=1))
    await adapter.sessions.create(user_id="v", expires_at=clock() + WEEK)
    assert await adapter.sessions.list_for_user("u") == made[::-1]


async def test_sessions_with_equal_times_are_ordered_by_id(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    for name in ("a", "c", "b"):
        await adapter.sessions.create(user_id="u", expires_at=clock() + WEEK, id=name)
    assert [session.id for session in await adapter.sessions.list_for_user("u")] == ["c", "b", "a"]


@pytest.mark.parametrize("user_id", ["nobody", "", " ", "x" * 500])
async def test_list_of_an_unknown_user_is_empty(adapter: AllsourceAuthAdapter, user_id: str) -> None:
    assert await adapter.sessions.list_for_user(user_id) == []


async def test_long_index_is_complete_even_after_many_changes(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, clock: ManualClock
) -> None:
    other = make_adapter()
    living = {}
    for number in range(300):
        by = adapter if number % 2 else other
        session = await by.sessions.create(user_id="u", expires_at=clock() + WEEK)
        living[session.token] = session
        if number % 3 == 0:
            gone = next(iter(living))
            await by.sessions.delete(gone)
            del living[gone]
    for by in (adapter, other, adapter):
        listed = await by.sessions.list_for_user("u")
        assert len(listed) == 200
        assert {session.token: session for session in listed} == living


async def test_expiry_can_be_changed(adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session) -> None:
    later = clock.move(timedelta(minutes=1))
    moved = await adapter.sessions.update_expiry(session.token, later + WEEK)
    assert moved == msgspec.structs.replace(session, expires_at=later + WEEK, updated_at=later)
    assert await adapter.sessions.get(session.token) == moved
    assert await adapter.sessions.list_for_user(session.user_id) == [moved]
    (*_, change) = await adapter.sessions.history(session.token)
    assert (change.event, change.wire_type) == ("SessionExpiryUpdated", "auth.session.expiry_updated")


async def test_expiry_with_an_offset_is_read_as_utc(adapter: AllsourceAuthAdapter, session: Session) -> None:
    end = datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    moved = await adapter.sessions.update_expiry(session.token, end)
    assert moved.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert moved.expires_at.tzinfo is UTC


@pytest.mark.parametrize("expires_at", [None, "2027-01-01T00:00:00Z", datetime(2027, 1, 1)])  # noqa: DTZ001
async def test_expiry_must_be_an_aware_time(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session, expires_at: Any
) -> None:
    async with refused(store, "expires_at"):
        await adapter.sessions.update_expiry(session.token, expires_at)


async def test_active_organization_is_set_and_cleared(
    adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session
) -> None:
    later = clock.move(timedelta(minutes=1))
    acting = await adapter.sessions.set_active_organization(session.token, "org")
    assert acting == msgspec.structs.replace(session, active_organization_id="org", updated_at=later)
    cleared = await adapter.sessions.set_active_organization(session.token, None)
    assert cleared == msgspec.structs.replace(session, updated_at=later)
    assert await adapter.sessions.get(session.token) == cleared


@pytest.mark.parametrize("missing", ["nothing", "", "x" * 500])
async def test_change_of_a_missing_session_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, missing: str
) -> None:
    async with written_by(store) as written:
        with pytest.raises(SessionNotFound) as caught:
            await adapter.sessions.update_expiry(missing, clock() + WEEK)
        with pytest.raises(SessionNotFound):
            await adapter.sessions.set_active_organization(missing, "org")
    assert caught.value.kind == "session"
    assert written.events == []


async def test_change_of_a_revoked_session_is_not_found(
    adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session
) -> None:
    await adapter.sessions.delete(session.token)
    with pytest.raises(SessionNotFound):
        await adapter.sessions.update_expiry(session.token, clock() + WEEK)
    with pytest.raises(SessionNotFound):
        await adapter.sessions.set_active_organization(session.token, None)


async def test_revoked_session_is_not_found(adapter: AllsourceAuthAdapter, session: Session) -> None:
    await adapter.sessions.delete(session.token)
    assert await adapter.sessions.get(session.token) is None
    assert await adapter.sessions.list_for_user(session.user_id) == []


async def test_revoking_a_missing_session_does_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session
) -> None:
    await adapter.sessions.delete(session.token)
    async with written_by(store) as written:
        await adapter.sessions.delete(session.token)
        await adapter.sessions.delete("nothing")
        await adapter.sessions.delete("")
    assert written.events == []


async def test_all_sessions_of_a_user_are_revoked_and_counted(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User
) -> None:
    for days in (-1, 1, 2):
        await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=days))
    theirs = await adapter.sessions.create(user_id="other", expires_at=clock() + WEEK)
    assert await adapter.sessions.delete_for_user(ada.id) == 3
    assert await adapter.sessions.delete_for_user(ada.id) == 0
    assert await adapter.sessions.delete_for_user("nobody") == 0
    assert await adapter.sessions.list_for_user(ada.id) == []
    assert await adapter.sessions.get(theirs.token) == theirs
    assert await adapter.users.get(ada.id) == ada


@pytest.mark.parametrize("call", ["restore", "revert"])
async def test_sessions_cannot_be_restored_or_reverted(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session, call: str
) -> None:
    assert not hasattr(adapter.sessions, call)
    created = (await adapter.sessions.history(session.token))[0].event_id
    arguments = (session.token,) if call == "restore" else (session.token, created)
    for _ in range(2):
        async with written_by(store) as written:
            with pytest.raises(InvalidInput):
                await getattr(adapter.context.collections["session"], call)(*arguments)
        assert written.events == []
        await adapter.sessions.delete(session.token)
    assert await adapter.sessions.get(session.token) is None
