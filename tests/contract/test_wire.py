"""The payloads that are written, key by key, compared with those of the Rust crate."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Event, EventStore, Json, Session, User
from tests.support.canaries import email, token
from tests.support.clocks import START, ManualClock
from tests.support.events import new_event, payload, rust_events, stored, stored_user

WIRE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
AT_START = "2026-11-23T12:00:00.000000Z"


async def newest(store: EventStore, stream: str) -> Event:
    return (await stored(store, stream))[-1]


def shape(value: dict[str, Any]) -> dict[str, str]:
    """The keys with the types of their values; null matches every type."""
    return {key: type(item).__name__ for key, item in value.items()}


def fits(ours: dict[str, str], theirs: dict[str, str]) -> bool:
    return set(ours) == set(theirs) and all(
        ours[key] == theirs[key] or "NoneType" in (ours[key], theirs[key]) for key in ours
    )


async def test_user_with_nothing_has_every_key_but_metadata(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    user = await adapter.users.create()
    event = await newest(store, f"auth-user:{user.id}")
    assert event.type == "auth.user.created"
    assert payload(event) == stored_user(user.id, createdAt=AT_START, updatedAt=AT_START)


@pytest.mark.parametrize("with_metadata", [False, True])
async def test_user_has_the_keys_of_the_rust_crate(
    adapter: AllsourceAuthAdapter, store: EventStore, with_metadata: bool
) -> None:
    user = await adapter.users.create(
        email=email("a"), username="a", name="A", metadata={"n": 1} if with_metadata else None
    )
    theirs = [event["payload"] for event in rust_events("user") if event["event_type"] == "auth.user.created"]
    alike = [payload for payload in theirs if ("metadata" in payload) == with_metadata]
    assert alike
    ours = payload(await newest(store, f"auth-user:{user.id}"))
    assert all(fits(shape(ours), shape(their)) for their in alike)


async def test_session_has_the_keys_of_the_rust_crate(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    session = await adapter.sessions.create(user_id="u", expires_at=START + timedelta(days=7), token=token("t"), id="s")
    event = await newest(store, f"auth-session:{session.token}")
    assert event.type == "auth.session.created"
    assert payload(event) == {
        "id": "s",
        "expiresAt": "2026-11-30T12:00:00.000000Z",
        "token": token("t"),
        "createdAt": AT_START,
        "updatedAt": AT_START,
        "ipAddress": None,
        "userAgent": None,
        "userId": "u",
        "impersonatedBy": None,
        "activeOrganizationId": None,
    }
    theirs = [event["payload"] for event in rust_events("session") if event["event_type"] != "auth.session.deleted"]
    assert theirs
    assert all(fits(shape(payload(event)), shape(their)) for their in theirs)


async def test_tombstone_of_a_user_has_the_bare_id(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    await adapter.users.delete(ada.id)
    event = await newest(store, f"auth-user:{ada.id}")
    assert event.type == "auth.user.deleted"
    assert payload(event) == {"_deleted": True, "id": ada.id}


async def test_tombstone_of_a_session_has_the_id_of_the_session(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session
) -> None:
    await adapter.sessions.delete(session.token)
    event = await newest(store, f"auth-session:{session.token}")
    assert event.type == "auth.session.deleted"
    assert payload(event) == {"_deleted": True, "id": session.id}


async def test_event_types_name_the_change(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, ada: User, session: Session
) -> None:
    await adapter.sessions.update_expiry(session.token, clock() + timedelta(days=9))
    await adapter.sessions.set_active_organization(session.token, "org")
    await adapter.users.update(ada.id, name="x")
    await adapter.users.delete(ada.id)
    await adapter.users.restore(ada.id)
    assert [event.type for event in await stored(store, f"auth-session:{session.token}")] == [
        "auth.session.created",
        "auth.session.expiry_updated",
        "auth.session.updated",
        "auth.session.deleted",
    ]
    assert [event.type for event in await stored(store, f"auth-user:{ada.id}")] == [
        "auth.user.created",
        "auth.user.updated",
        "auth.user.deleted",
        "auth.user.updated",
    ]


@pytest.mark.parametrize(
    "moment",
    [
        START,
        START + timedelta(microseconds=1),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ],
    ids=str,
)
async def test_times_are_utc_with_six_digits_and_read_back_equal(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, moment: datetime
) -> None:
    changed = await adapter.users.update(ada.id, ban_expires=moment)
    assert changed.ban_expires == moment
    assert await adapter.users.get(ada.id) == changed
    written = payload(await newest(store, f"auth-user:{ada.id}"))["banExpires"]
    assert WIRE_TIME.fullmatch(written)
    assert datetime.fromisoformat(written) == moment


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-23T10:59:20.552604999Z", datetime(2026, 11, 23, 10, 59, 20, 552_604, UTC)),
        ("2026-11-23T23:59:59.999999999Z", datetime(2026, 11, 23, 23, 59, 59, 999_999, UTC)),
        ("2026-11-23T10:59:20.9999999999999Z", datetime(2026, 11, 23, 10, 59, 20, 999_999, UTC)),
        ("2026-11-23T10:59:20.5Z", datetime(2026, 11, 23, 10, 59, 20, 500_000, UTC)),
        ("2026-11-23T10:59:20Z", datetime(2026, 11, 23, 10, 59, 20, 0, UTC)),
        ("2026-11-23T12:59:20.552604999+02:00", datetime(2026, 11, 23, 10, 59, 20, 552_604, UTC)),
        ("2026-11-23T10:59:20+00:00", datetime(2026, 11, 23, 10, 59, 20, 0, UTC)),
        ("2026-11-22T23:29:20.000001999-11:30", datetime(2026, 11, 23, 10, 59, 20, 1, UTC)),
    ],
)
async def test_times_of_other_writers_are_cut_and_read_as_utc(
    adapter: AllsourceAuthAdapter, store: EventStore, written: str, read: datetime
) -> None:
    await store.append([new_event("auth-user:x", stored_user("x", createdAt=written, banExpires=written))])
    user = await adapter.users.get("x")
    assert user is not None
    assert (user.created_at, user.ban_expires) == (read, read)
    assert user.created_at.tzinfo is UTC


async def test_time_without_a_zone_is_refused(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:x", stored_user("x", createdAt="2026-11-23T10:59:20"))])
    with pytest.raises(Json) as caught:
        await adapter.users.get("x")
    assert caught.value.path == "$.createdAt"


async def test_text_that_looks_like_a_time_is_left_alone(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    metadata = {"seen": "2026-11-23T10:59:20.552604999Z"}
    name = "2026-11-23T10:59:20.552604999Z"
    await store.append([new_event("auth-user:x", stored_user("x", name=name, metadata=metadata))])
    user = await adapter.users.get("x")
    assert user is not None
    assert (user.name, user.metadata) == (name, metadata)


async def test_metadata_reads_back_as_given(adapter: AllsourceAuthAdapter) -> None:
    given = {
        "big": 2**64 - 1,
        "small": -(2**63),
        "float": 0.1,
        "text": 'é "quoted" \\ \n \u2028 😀',
        "": None,
        "list": [True, False, [], {}],
        "_deleted": True,
    }
    user = await adapter.users.create(metadata=given)
    assert user.metadata == given
    assert await adapter.users.get(user.id) == user


async def test_empty_metadata_is_not_missing_metadata(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(metadata={})
    found = await adapter.users.get(user.id)
    assert found is not None
    assert found.metadata == {}
