"""Results of the session store, and checks that it leaves to the verifier."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi_better_auth import SessionStore

from allsource_auth import AllsourceAuthAdapter, Http, InvalidInput, NewEvent, Unavailable
from allsource_auth.integrations.better_auth_bridge import AllsourceSessionStore
from tests.support.canaries import email, token
from tests.support.clocks import ManualClock
from tests.support.targets import Site
from tests.support.wrappers import CountingStore, FailingStore

pytestmark = pytest.mark.integrations

TOKEN = "k3YbL0cJ6sQ8vN1xR5tW7zA2dF4gH9mP"
"""32 letters and digits, as a TypeScript better-auth makes them."""


def digest(raw: str) -> str:
    return hashlib.sha256(raw.encode()).hexdigest()


@pytest.fixture
def sessions(adapter: AllsourceAuthAdapter) -> AllsourceSessionStore:
    return AllsourceSessionStore(adapter)


@pytest.fixture
async def signed_in(adapter: AllsourceAuthAdapter, clock: ManualClock) -> str:
    """Create a user with the session ``TOKEN``, valid for a week. Return the id of the user."""
    ada = await adapter.users.create(email=email("Ada"), name="Ada", email_verified=True)
    await adapter.sessions.create(
        user_id=ada.id, token=TOKEN, expires_at=clock() + timedelta(days=7), ip_address="203.0.113.7"
    )
    return ada.id


def test_implements_the_session_store_protocol(sessions: AllsourceSessionStore) -> None:
    assert isinstance(sessions, SessionStore)
    with pytest.raises(InvalidInput, match="adapter"):
        AllsourceSessionStore("http://localhost:3900")  # type: ignore[arg-type]


async def test_session_includes_its_user(sessions: AllsourceSessionStore, signed_in: str, clock: ManualClock) -> None:
    for _ in range(2):  # the second time over HTTP both are asked for at once
        found = await sessions.fetch_session_by_token(TOKEN)
        assert found is not None
        assert (found.token, found.user_id, found.expires_at) == (TOKEN, signed_in, clock() + timedelta(days=7))
        assert found.impersonated_by is None
        assert (found.payload["ipAddress"], found.payload["userId"]) == ("203.0.113.7", signed_in)
        assert found.user is not None
        assert (found.user.id, found.user.banned, found.user.ban_expires) == (signed_in, False, None)
        assert (found.user.payload["email"], found.user.payload["emailVerified"]) == (email("Ada"), True)
        assert TOKEN not in repr(found)


async def test_a_user_is_found_by_id(sessions: AllsourceSessionStore, signed_in: str) -> None:
    found = await sessions.fetch_user_by_id(signed_in)
    assert found is not None
    assert (found.id, found.payload["name"]) == (signed_in, "Ada")


async def test_missing_session_or_user_is_none(sessions: AllsourceSessionStore, signed_in: str) -> None:
    for missing in ("unknown", "x" * 500, "a\x00b", "\ud800", TOKEN.lower(), f" {TOKEN}", f"{TOKEN} "):
        assert await sessions.fetch_session_by_token(missing) is None
    for missing in ("unknown", "", " ", "x" * 500, "\ud800", signed_in.upper()):
        assert await sessions.fetch_user_by_id(missing) is None


async def test_invalid_token_is_not_looked_up(site: Site, clock: ManualClock) -> None:
    store = CountingStore(site.store("default"))
    adapter = AllsourceAuthAdapter.with_store(store, clock=clock)
    for sessions in (AllsourceSessionStore(adapter), AllsourceSessionStore(adapter, stored_as=digest)):
        for blank in ("", " ", "\t\n", "\ud800"):
            assert await sessions.fetch_session_by_token(blank) is None
    assert store.reads == []


async def test_expired_session_and_banned_user_are_returned(
    sessions: AllsourceSessionStore, adapter: AllsourceAuthAdapter, signed_in: str, clock: ManualClock
) -> None:
    ends = clock() + timedelta(days=1)
    await adapter.users.update(signed_in, banned=True, ban_expires=ends)
    expires = clock() + timedelta(days=7)
    clock.move(timedelta(days=30))
    found = await sessions.fetch_session_by_token(TOKEN)
    assert found is not None
    assert found.user is not None
    assert (found.expires_at, found.user.banned, found.user.ban_expires) == (expires, True, ends)


async def test_revoked_session_or_deleted_user_is_none(
    sessions: AllsourceSessionStore, adapter: AllsourceAuthAdapter, signed_in: str, clock: ManualClock
) -> None:
    other = await adapter.sessions.create(user_id=signed_in, expires_at=clock() + timedelta(days=7))
    assert await sessions.fetch_session_by_token(other.token) is not None
    await adapter.sessions.delete(other.token)
    assert await sessions.fetch_session_by_token(other.token) is None
    assert await sessions.fetch_session_by_token(TOKEN) is not None
    await adapter.users.delete(signed_in)
    assert await sessions.fetch_session_by_token(TOKEN) is None
    assert await sessions.fetch_user_by_id(signed_in) is None
    # One that the deletion did not reach.
    orphan = await adapter.sessions.create(user_id=signed_in, expires_at=clock() + timedelta(days=7))
    assert await sessions.fetch_session_by_token(orphan.token) is None
    strange = await adapter.sessions.create(user_id="nobody", expires_at=clock() + timedelta(days=7))
    assert await sessions.fetch_session_by_token(strange.token) is None


async def test_impersonation_is_returned(
    sessions: AllsourceSessionStore, adapter: AllsourceAuthAdapter, signed_in: str, clock: ManualClock
) -> None:
    for stored, found_as in (("an-admin", "an-admin"), ("", None)):
        made = await adapter.sessions.create(
            user_id=signed_in, expires_at=clock() + timedelta(days=1), impersonated_by=stored
        )
        found = await sessions.fetch_session_by_token(made.token)
        assert found is not None
        assert found.impersonated_by == found_as


def payload(**changes: Any) -> bytes:
    return json.dumps(
        {
            "id": "s1",
            "token": TOKEN,
            "userId": "ada",
            "expiresAt": "2026-11-30T12:00:00.000Z",
            "createdAt": "2026-11-23T12:00:00.000Z",
            "updatedAt": "2026-11-23T12:00:00.000Z",
        }
        | changes
    ).encode()


USER: dict[str, Any] = {
    "id": "ada",
    "email": "ada@example.org",
    "name": "Ada",
    "emailVerified": True,
    "image": None,
    "createdAt": "2026-11-23T12:00:00.000Z",
    "updatedAt": "2026-11-23T12:00:00.000Z",
    "phoneNumber": "+441234",
}


async def stored(site: Site, session: bytes, user: dict[str, Any]) -> AllsourceSessionStore:
    """A store with a session and a user that were written by other code."""
    store = site.store("default")
    events = {f"auth-session:{TOKEN}": ("auth.session.created", session)}
    events["auth-user:ada"] = ("auth.user.created", json.dumps(user).encode())
    await store.append(
        [
            NewEvent(type=type_, stream=stream, payload=text, metadata=b"null")
            for stream, (type_, text) in events.items()
        ]
    )
    return AllsourceSessionStore(AllsourceAuthAdapter.with_store(store))


async def test_fields_of_a_typescript_server_are_returned_unchanged(site: Site) -> None:
    sessions = await stored(site, payload(activeTeamId="team"), USER)
    found = await sessions.fetch_session_by_token(TOKEN)
    assert found is not None
    assert found.user is not None
    assert dict(found.user.payload) == USER
    assert dict(found.payload) == json.loads(payload(activeTeamId="team"))


@pytest.mark.parametrize(
    ("session", "user"),
    [
        (payload(token="another"), USER),
        (payload(expiresAt="soon"), USER),
        (payload(expiresAt="2026-11-30T12:00:00"), USER),
        (payload(expiresAt=None), USER),
        (payload(userId=5), USER),
        (payload(userId=""), USER),
        (b"[]", USER),
        (payload(), USER | {"id": "grace"}),
        (payload(), USER | {"banned": "false"}),
        (payload(), USER | {"banned": 1}),
        (payload(), USER | {"banExpires": "soon"}),
    ],
)
async def test_undecodable_or_mismatched_data_is_none(session: bytes, user: dict[str, Any]) -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        sessions = await stored(Site(lambda tenant: adapter._store), session, user)
        assert await sessions.fetch_session_by_token(TOKEN) is None
        if "banned" in user or "banExpires" in user:
            assert await sessions.fetch_user_by_id("ada") is None


async def test_tokens_may_be_stored_as_digests(
    adapter: AllsourceAuthAdapter, signed_in: str, clock: ManualClock
) -> None:
    raw = token("raw")
    await adapter.sessions.create(user_id=signed_in, token=digest(raw), expires_at=clock() + timedelta(days=1))
    sessions = AllsourceSessionStore(adapter, stored_as=digest)
    found = await sessions.fetch_session_by_token(raw)
    assert found is not None
    assert (found.token, found.user_id) == (raw, signed_in)
    assert await sessions.fetch_session_by_token(digest(raw)) is None  # who reads the store cannot sign in
    assert await AllsourceSessionStore(adapter).fetch_session_by_token(raw) is None


async def test_reads_session_and_user_and_never_writes(
    site: Site, adapter: AllsourceAuthAdapter, signed_in: str
) -> None:
    store = CountingStore(site.store("default"))
    sessions = AllsourceSessionStore(AllsourceAuthAdapter.with_store(store))
    await adapter.users.get(signed_in)
    for _ in range(3):
        store.forget()
        assert await sessions.fetch_session_by_token(TOKEN) is not None
        assert [stream for stream in store.reads if not stream.startswith("auth-idx")] == [
            f"auth-session:{TOKEN}",
            f"auth-user:{signed_in}",
        ]
        assert await sessions.fetch_user_by_id(signed_in) is not None
        assert store.appends == []
        assert store.scans == []


@pytest.mark.parametrize("failure", [Http("no connection"), Unavailable("not now")], ids=lambda one: type(one).__name__)
async def test_store_failure_raises(failure: Exception) -> None:
    async with AllsourceAuthAdapter.embedded() as beneath:
        store = FailingStore(beneath._store)
        sessions = AllsourceSessionStore(AllsourceAuthAdapter.with_store(store))
        assert await sessions.fetch_session_by_token(TOKEN) is None
        store.failure = failure
        with pytest.raises(type(failure)):
            await sessions.fetch_session_by_token(TOKEN)
        with pytest.raises(type(failure)):
            await sessions.fetch_user_by_id("ada")
