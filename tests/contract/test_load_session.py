"""`load_session`: a session and its user are returned only while both are valid."""

from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, Json, Session, SessionWithUser, User
from tests.contract.conftest import MakeAdapter
from tests.support.clocks import START, ManualClock
from tests.support.events import new_event

MICROSECOND = timedelta(microseconds=1)


async def test_valid_session_is_loaded_with_its_user(
    adapter: AllsourceAuthAdapter, ada: User, session: Session
) -> None:
    assert await adapter.load_session(session.token) == SessionWithUser(session=session, user=ada)


async def test_user_is_the_newest_state(adapter: AllsourceAuthAdapter, ada: User, session: Session) -> None:
    changed = await adapter.users.update(ada.id, name="Ada L.")
    found = await adapter.load_session(session.token)
    assert found is not None
    assert found.user == changed


@pytest.mark.parametrize("token", ["nothing", "", " x", "x" * 500, "\ud800"])
async def test_missing_session_is_none(adapter: AllsourceAuthAdapter, token: str) -> None:
    assert await adapter.load_session(token) is None


async def test_revoked_session_is_none_everywhere(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, session: Session
) -> None:
    other = make_adapter()
    assert await other.load_session(session.token) is not None
    await adapter.sessions.delete(session.token)
    assert await adapter.load_session(session.token) is None
    assert await other.load_session(session.token) is None


@pytest.mark.parametrize(("left", "authenticates"), [(MICROSECOND, True), (timedelta(0), False), (-MICROSECOND, False)])
async def test_session_is_expired_at_expires_at(
    adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session, left: timedelta, authenticates: bool
) -> None:
    clock.now = session.expires_at - left
    assert (await adapter.load_session(session.token) is not None) == authenticates


async def test_changed_expiry_applies(adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session) -> None:
    clock.now = session.expires_at
    assert await adapter.load_session(session.token) is None
    await adapter.sessions.update_expiry(session.token, clock() + MICROSECOND)
    assert await adapter.load_session(session.token) is not None


async def test_session_of_a_missing_user_is_none(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    session = await adapter.sessions.create(user_id="nobody", expires_at=clock() + timedelta(days=1))
    assert await adapter.load_session(session.token) is None


async def test_session_of_a_deleted_user_is_none(adapter: AllsourceAuthAdapter, ada: User, session: Session) -> None:
    await adapter.users.delete(ada.id)
    assert await adapter.load_session(session.token) is None


async def test_session_of_a_user_whose_deletion_was_interrupted_is_none(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    tombstone = {"_deleted": True, "id": ada.id}
    await store.append([new_event(f"auth-user:{ada.id}", tombstone, type="auth.user.deleted")])
    assert await adapter.sessions.get(session.token) == session
    assert await adapter.load_session(session.token) is None


@pytest.mark.parametrize(
    ("ban", "authenticates"),
    [
        ({"banned": True}, False),
        ({"banned": True, "ban_expires": START + MICROSECOND}, False),
        ({"banned": True, "ban_expires": START}, True),
        ({"banned": True, "ban_expires": START - MICROSECOND}, True),
        ({"banned": False}, True),
        ({"ban_reason": "once", "ban_expires": START + timedelta(days=1)}, True),
    ],
    ids=["for-ever", "one-moment-more", "over-now", "over", "lifted", "only-the-end"],
)
async def test_banned_user_does_not_authenticate_until_the_ban_is_over(
    adapter: AllsourceAuthAdapter, ada: User, session: Session, ban: dict[str, Any], authenticates: bool
) -> None:
    await adapter.users.update(ada.id, **ban)
    assert (await adapter.load_session(session.token) is not None) == authenticates


async def test_each_adapter_uses_its_own_clock(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, session: Session
) -> None:
    late = make_adapter(clock=ManualClock(session.expires_at))
    assert await adapter.load_session(session.token) is not None
    assert await late.load_session(session.token) is None


@pytest.mark.parametrize("known", [False, True])
async def test_user_of_the_newest_state_of_a_session_is_loaded(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session, known: bool
) -> None:
    """This library never changes the user of a session; another program might."""
    eve = await adapter.users.create(id="eve")
    if known:
        assert await adapter.load_session(session.token) == SessionWithUser(session=session, user=ada)
    moved = {"id": session.id, "userId": eve.id, "token": session.token, "expiresAt": "2099-01-01T00:00:00Z"}
    moved |= {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
    await store.append([new_event(f"auth-session:{session.token}", moved, type="auth.session.updated")])
    for _ in range(2):
        found = await adapter.load_session(session.token)
        assert found is not None
        assert found.user == eve


async def test_session_without_a_user_id_raises_json_error(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session
) -> None:
    assert await adapter.load_session(session.token) is not None
    payloads: list[Any] = [{"userId": 7}, {"userId": None}, {}, []]
    for payload in payloads:
        await store.append([new_event(f"auth-session:{session.token}", payload, type="auth.session.updated")])
        with pytest.raises(Json):
            await adapter.load_session(session.token)


async def test_a_session_of_another_tenant_is_none(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, ada: User, session: Session
) -> None:
    other = make_adapter(tenant_id="other")
    assert await other.load_session(session.token) is None
    theirs = await other.sessions.create(user_id=ada.id, expires_at=session.expires_at)
    assert await other.load_session(theirs.token) is None
    with_same_id = await other.users.create(id=ada.id, name="theirs")
    assert await other.load_session(theirs.token) == SessionWithUser(session=theirs, user=with_same_id)
    found = await adapter.load_session(session.token)
    assert found is not None
    assert found.user == ada
