"""Streams of users and sessions as the Rust crate wrote them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, SessionNotFound, UserNotFound
from tests.support.clocks import START, ManualClock
from tests.support.events import payload, rust_event, rust_events, stored

CHANGED_USER = "4c75d1c4-17b8-4073-880e-6b6573af7653"
TAKER = "531af6a0-1157-49f6-8590-5ed81d8f76b6"
DELETED_USER = "f6b46733-6f3f-4015-b786-e1a2d69d98c3"
PLAIN_USER = "b074a936-c5b2-4a18-9d2b-663cff8484b1"
PLAIN_SESSION = "session_4ee5ac69-9523-4c84-9f55-bd8d7f387f1b"
CHANGED_SESSION = "session_d878e0e5-9e55-4927-9e01-902387b49f23"
DELETED_SESSION = "session_24725cfe-9150-43cd-8545-39b861e012be"


@pytest.fixture(autouse=True)
async def rust_store(store: EventStore) -> None:
    """Append the users and sessions that the crate wrote."""
    for event in rust_events("user") + rust_events("session"):
        await store.append([rust_event(event)])


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(f"{text.rstrip('Z')[:26]}+00:00")


def newest(stream: str) -> dict[str, Any]:
    events = rust_events("user") + rust_events("session")
    found: dict[str, Any] = [event["payload"] for event in events if event["entity_id"] == stream][-1]
    return found


@pytest.mark.parametrize("user_id", [CHANGED_USER, TAKER, PLAIN_USER])
async def test_user_reads_as_it_was_written(adapter: AllsourceAuthAdapter, user_id: str) -> None:
    user = await adapter.users.get(user_id)
    theirs = newest(f"auth-user:{user_id}")
    assert user is not None
    assert {
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "emailVerified": user.email_verified,
        "image": user.image,
        "username": user.username,
        "displayUsername": user.display_username,
        "twoFactorEnabled": user.two_factor_enabled,
        "role": user.role,
        "banned": user.banned,
        "banReason": user.ban_reason,
        "metadata": user.metadata,
    } == {"metadata": None} | {
        key: value for key, value in theirs.items() if key not in ("createdAt", "updatedAt", "banExpires")
    }
    assert user.created_at == moment(theirs["createdAt"])
    assert user.updated_at == moment(theirs["updatedAt"])
    assert user.created_at.tzinfo is UTC


@pytest.mark.parametrize("token", [PLAIN_SESSION, CHANGED_SESSION])
async def test_session_reads_as_it_was_written(adapter: AllsourceAuthAdapter, token: str) -> None:
    session = await adapter.sessions.get(token)
    theirs = newest(f"auth-session:{token}")
    assert session is not None
    assert (session.id, session.token, session.user_id) == (theirs["id"], token, theirs["userId"])
    assert (session.ip_address, session.user_agent) == (theirs["ipAddress"], theirs["userAgent"])
    assert session.active_organization_id == theirs["activeOrganizationId"]
    assert session.expires_at == moment(theirs["expiresAt"])
    assert session.created_at == moment(theirs["createdAt"])
    assert session.updated_at == moment(theirs["updatedAt"])


async def test_tombstones_with_the_whole_entity_id_are_tombstones(adapter: AllsourceAuthAdapter) -> None:
    assert await adapter.users.get(DELETED_USER) is None
    assert await adapter.sessions.get(DELETED_SESSION) is None
    assert not await adapter.users.exists(DELETED_USER)
    with pytest.raises(UserNotFound):
        await adapter.users.update(DELETED_USER, name="x")
    with pytest.raises(SessionNotFound):
        await adapter.sessions.update_expiry(DELETED_SESSION, START)


async def test_history_has_the_changes_of_the_crate(adapter: AllsourceAuthAdapter) -> None:
    events = [change.event for change in await adapter.users.history(CHANGED_USER)]
    assert events == ["UserCreated", "UserUpdated"]
    created, updated = await adapter.users.history(CHANGED_USER)
    assert set(updated.diff) == {"email", "name", "email_verified", "updated_at"}
    assert (created.seq, created.op, created.actor) == (None, None, None)
    assert [change.event for change in await adapter.users.history(DELETED_USER)] == ["UserCreated", "UserDeleted"]
    assert [change.event for change in await adapter.sessions.history(CHANGED_SESSION)] == [
        "SessionCreated",
        "SessionExpiryUpdated",
        "SessionUpdated",
    ]
    assert [change.event for change in await adapter.sessions.history(DELETED_SESSION)] == [
        "SessionCreated",
        "SessionDeleted",
    ]


async def test_earlier_state_is_read_by_event_id(adapter: AllsourceAuthAdapter) -> None:
    created, _ = await adapter.users.history(CHANGED_USER)
    earlier = await adapter.users.as_of(CHANGED_USER, created.event_id)
    assert earlier is not None
    assert (earlier.email, earlier.name) == ("rs-u1@Example.test", "rs-u1 First")


async def test_deleted_user_can_be_restored(adapter: AllsourceAuthAdapter) -> None:
    back = await adapter.users.restore(DELETED_USER)
    assert back.email == "rs-gone@Example.test"
    assert await adapter.users.get_by_email("rs-gone@example.test") == back


async def test_update_keeps_the_nanoseconds_of_the_crate(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await adapter.users.update(CHANGED_USER, role="admin")
    theirs = newest(f"auth-user:{CHANGED_USER}")
    written = payload((await stored(store, f"auth-user:{CHANGED_USER}"))[-1])
    assert written == {**theirs, "role": "admin", "updatedAt": "2026-11-23T12:00:00.000000Z"}


async def test_update_of_the_email_claims_it(adapter: AllsourceAuthAdapter) -> None:
    changed = await adapter.users.update(PLAIN_USER, email="mine@example.org")
    assert await adapter.users.get_by_email("MINE@example.org") == changed
    with pytest.raises(Conflict):
        await adapter.users.create(email="mine@example.org")


async def test_session_of_the_crate_is_loaded_with_its_user(adapter: AllsourceAuthAdapter) -> None:
    found = await adapter.load_session(PLAIN_SESSION)
    assert found is not None
    assert (found.session.token, found.user.id) == (PLAIN_SESSION, CHANGED_USER)
    assert await adapter.load_session(DELETED_SESSION) is None


async def test_session_of_the_crate_can_be_revoked(adapter: AllsourceAuthAdapter) -> None:
    await adapter.sessions.delete(PLAIN_SESSION)
    assert await adapter.load_session(PLAIN_SESSION) is None


async def test_living_users_are_listed_with_their_newest_state(adapter: AllsourceAuthAdapter) -> None:
    page = await adapter.users.list(sort_by="email")
    assert [user.email for user in page.items] == [
        "rm-m1@Example.test",
        "rs-u1-new@example.test",
        "rs-u1@Example.test",
    ]
    assert page.total == 3


async def test_living_sessions_are_scanned(adapter: AllsourceAuthAdapter) -> None:
    assert [session.token async for session in adapter.sessions.scan()] == [PLAIN_SESSION, CHANGED_SESSION]


async def test_expired_sessions_of_the_crate_are_swept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    clock.now = datetime(2026, 12, 1, tzinfo=UTC)
    assert await adapter.sessions.delete_expired() == 1
    assert [session.token async for session in adapter.sessions.scan()] == [CHANGED_SESSION]
