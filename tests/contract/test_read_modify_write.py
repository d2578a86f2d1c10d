"""Members that an update does not change are written again byte for byte."""

import json

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore
from tests.support.canaries import token
from tests.support.clocks import START
from tests.support.events import new_event, payload, stored, stored_user
from tests.support.targets import Target

NANOSECONDS = "2026-11-23T10:59:20.552604072Z"


async def test_unknown_keys_and_untouched_times_survive_an_update(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    newer = {"phoneNumber": "+1", "teams": [{"id": 1.50}], "lastLogin": NANOSECONDS}
    await store.append([new_event("auth-user:x", stored_user("x", banExpires=NANOSECONDS, metadata={"n": 1}, **newer))])
    await adapter.users.update("x", name="new")
    written = payload((await stored(store, "auth-user:x"))[-1])
    expected = stored_user("x", name="new", banExpires=NANOSECONDS, metadata={"n": 1}, **newer)
    assert written == {**expected, "updatedAt": "2026-11-23T12:00:00.000000Z"}


async def test_untouched_json_keeps_its_text(adapter: AllsourceAuthAdapter, store: EventStore, target: Target) -> None:
    raw = '{"id":"x","createdAt":"2026-11-23T10:59:20.552604072Z","updatedAt":"2026-11-23T10:59:20Z",'
    raw += '"metadata":{"n":1.0,"e":1e2,"u":"\\u00e9"},"later":[1.50, 100000000000000000000]}'
    await store.append([new_event("auth-user:x")])
    event = new_event("auth-user:x")
    await store.append([type(event)(type=event.type, stream=event.stream, payload=raw.encode(), metadata=b"null")])
    await adapter.users.update("x", name="new")
    written = bytes((await stored(store, "auth-user:x"))[-1].payload).decode()
    for text in (
        '"createdAt":"2026-11-23T10:59:20.552604072Z"',
        '"metadata":{"n":1.0,"e":1e2,"u":"\\u00e9"}',
        '"later":[1.50, 100000000000000000000]',
    ):
        assert text in written or not target.keeps_text
    wanted = {**json.loads(raw), "name": "new", "updatedAt": "2026-11-23T12:00:00.000000Z"}
    assert json.loads(written) == wanted


async def test_session_keeps_what_the_update_does_not_touch(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    theirs = {
        "id": "s",
        "expiresAt": NANOSECONDS,
        "token": token("t"),
        "createdAt": NANOSECONDS,
        "updatedAt": NANOSECONDS,
        "userId": "u",
        "activeTeamId": "team",
    }
    stream = f"auth-session:{token('t')}"
    await store.append([new_event(stream, theirs, type="auth.session.created")])
    await adapter.sessions.set_active_organization(token("t"), "org")
    assert payload((await stored(store, stream))[-1]) == {
        **theirs,
        "activeOrganizationId": "org",
        "updatedAt": "2026-11-23T12:00:00.000000Z",
    }
    await adapter.sessions.update_expiry(token("t"), START)
    assert payload((await stored(store, stream))[-1])["createdAt"] == NANOSECONDS


@pytest.mark.parametrize("missing", ["name", "email", "emailVerified", "banned", "twoFactorEnabled", "role"])
async def test_missing_keys_of_others_read_as_absent(
    adapter: AllsourceAuthAdapter, store: EventStore, missing: str
) -> None:
    theirs = stored_user("x", name=None)
    del theirs[missing]
    await store.append([new_event("auth-user:x", theirs)])
    user = await adapter.users.get("x")
    assert user is not None
    assert not any((user.name, user.email, user.email_verified, user.banned, user.two_factor_enabled, user.role))


async def test_revert_brings_unknown_keys_of_that_time_back(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:x", stored_user("x", name="old", phoneNumber="+1"))])
    await store.append([new_event("auth-user:x", stored_user("x", name="new", phoneNumber="+2"))])
    first = (await adapter.users.history("x"))[0]
    await adapter.users.revert("x", to=first.event_id)
    newest = payload((await stored(store, "auth-user:x"))[-1])
    assert (newest["name"], newest["phoneNumber"], newest["createdAt"]) == ("old", "+1", NANOSECONDS)
