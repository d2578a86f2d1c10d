"""Reads that every repository has: `get_many`, `exists`, `scan`."""

from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, InvalidInput, Json, Session, User
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored_user


async def test_get_many_returns_entities_in_the_order_given(adapter: AllsourceAuthAdapter) -> None:
    users = [await adapter.users.create(id=f"u{number}") for number in range(40)]
    await adapter.users.delete("u3")
    wanted = ["u20", "nobody", "", "u3", *[user.id for user in reversed(users)]]
    found = await adapter.users.get_many(wanted)
    assert list(found) == ["u20", *[f"u{number}" for number in reversed(range(40)) if number not in (3, 20)]]
    assert all(found[user.id] == user for user in users if user.id != "u3")


async def test_get_many_without_keys_is_empty(adapter: AllsourceAuthAdapter) -> None:
    assert await adapter.users.get_many([]) == {}
    assert await adapter.users.get_many(iter(["nobody"])) == {}


async def test_exists_is_true_for_living_users_only(adapter: AllsourceAuthAdapter, ada: User, session: Session) -> None:
    assert await adapter.users.exists(ada.id)
    assert await adapter.sessions.exists(session.token)
    await adapter.users.delete(ada.id)
    assert not await adapter.users.exists(ada.id)
    assert not await adapter.sessions.exists(session.token)
    await adapter.users.restore(ada.id)
    assert await adapter.users.exists(ada.id)
    assert not await adapter.sessions.exists(session.token)


@pytest.mark.parametrize("key", ["nobody", "", " ", "x" * 500])
async def test_unknown_key_does_not_exist(adapter: AllsourceAuthAdapter, key: str) -> None:
    assert not await adapter.users.exists(key)
    assert not await adapter.sessions.exists(key)


@pytest.mark.parametrize("key", [None, 5, b"x"])
async def test_key_that_is_not_text_is_refused(adapter: AllsourceAuthAdapter, key: str) -> None:
    for call in (adapter.sessions.get, adapter.sessions.exists, adapter.sessions.history):
        with pytest.raises(InvalidInput) as caught:
            await call(key)
        assert caught.value.field == "token"


async def test_scan_returns_each_living_entity_once_by_key(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User
) -> None:
    users = [ada, *[await adapter.users.create(id=f"u{number}") for number in range(9)]]
    await adapter.users.delete("u1")
    await adapter.users.delete("u2")
    users[3] = await adapter.users.restore("u2")
    sessions = [await adapter.sessions.create(user_id="u3", expires_at=clock() + timedelta(days=1)) for _ in range(3)]
    await adapter.sessions.delete(sessions[0].token)
    living = [user for user in users if user.id != "u1"]
    assert [user async for user in adapter.users.scan()] == sorted(living, key=lambda user: user.id)
    assert [session async for session in adapter.sessions.scan()] == sorted(
        sessions[1:], key=lambda session: session.token
    )


async def test_scan_has_no_limit(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    for first in range(0, 3000, 500):
        await store.append([new_event(f"auth-user:{n}", stored_user(str(n))) for n in range(first, first + 500)])
    assert len({user.id async for user in adapter.users.scan()}) == 3000


async def test_undecodable_state_raises_json_error_with_its_location(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    broken = stored_user("broken", email=email("broken"), emailVerified=email("no flag"))
    (done,) = await store.append([new_event("auth-user:broken", broken)])
    with pytest.raises(Json) as caught:
        await adapter.users.get("broken")
    assert (caught.value.path, caught.value.stream, caught.value.event_id) == (
        "$.emailVerified",
        "auth-user:broken",
        done.id,
    )


async def test_undecodable_session_raises_json_error_without_its_token(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session
) -> None:
    (done,) = await store.append([new_event(f"auth-session:{session.token}", {"id": 5, "token": session.token})])
    with pytest.raises(Json) as caught:
        await adapter.sessions.get(session.token)
    assert caught.value.event_id == done.id
    assert session.token not in f"{caught.value} {caught.value.stream}"
