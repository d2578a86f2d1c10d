"""Incomplete answers: a 0.27 server that is short of memory omits acknowledged events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, Session, SessionNotFound, Unavailable, User
from tests.store.allsource.local import Local
from tests.support.canaries import email, token
from tests.support.events import new_event, stored_user
from tests.support.names import claim_stream

pytestmark = [pytest.mark.usefixtures("watch"), pytest.mark.heavy]

LATER = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture
def adapter(newer: Local) -> AllsourceAuthAdapter:
    return newer.adapter()


@pytest.fixture
async def ada(adapter: AllsourceAuthAdapter) -> User:
    return await adapter.users.create(email=email("Ada"), username="ada", name="Ada")


@pytest.fixture
async def session(adapter: AllsourceAuthAdapter, ada: User) -> Session:
    return await adapter.sessions.create(user_id=ada.id, expires_at=LATER)


async def seen(local: Local, stream: str) -> list[str]:
    """The event types that an ordinary query of the stream returns."""
    async with httpx.AsyncClient(base_url=local.core_url) as client:
        parameters = {"tenant_id": "default", "entity_id": stream}
        answer = await client.get("/api/v1/events/query", params=parameters)
    return [event["event_type"] for event in answer.json()["events"]]


@pytest.mark.parametrize("fresh", [False, True], ids=["same-adapter", "fresh-adapter"])
async def test_revoked_session_stays_revoked(
    newer: Local, adapter: AllsourceAuthAdapter, session: Session, fresh: bool
) -> None:
    newer.faults.stale()
    await adapter.sessions.delete(session.token)
    assert await seen(newer, f"auth-session:{session.token}") == ["auth.session.created"]
    reader = newer.adapter() if fresh else adapter
    assert await reader.sessions.get(session.token) is None
    assert await reader.load_session(session.token) is None
    assert not await reader.sessions.exists(session.token)
    assert await reader.sessions.list_for_user(session.user_id) == []
    assert [change.event for change in await reader.sessions.history(session.token)] == [
        "SessionCreated",
        "SessionDeleted",
    ]
    with pytest.raises(SessionNotFound):
        await reader.sessions.update_expiry(session.token, LATER)
    with pytest.raises(Conflict):
        await reader.sessions.create(user_id=session.user_id, expires_at=LATER, token=session.token)
    await reader.sessions.delete(session.token)
    assert await newer.types(f"auth-session:{session.token}") == ["auth.session.created", "auth.session.deleted"]


@pytest.mark.parametrize("fresh", [False, True], ids=["same-adapter", "fresh-adapter"])
async def test_user_missing_in_ordinary_queries_is_found(
    newer: Local, adapter: AllsourceAuthAdapter, ada: User, fresh: bool
) -> None:
    newer.faults.stale()
    bob = await adapter.users.create(id="bob", email=email("Bob"), username="bob")
    signed_in = await adapter.sessions.create(user_id="bob", expires_at=LATER)
    assert await seen(newer, "auth-user:bob") == []
    reader = newer.adapter() if fresh else adapter
    assert await reader.users.get("bob") == bob
    assert await reader.users.get_by_email(email("bob")) == bob
    assert await reader.users.get_by_username("bob") == bob
    loaded = await reader.load_session(signed_in.token)
    assert loaded is not None
    assert (loaded.session, loaded.user) == (signed_in, bob)
    assert await reader.sessions.list_for_user("bob") == [signed_in]
    for given in ({"email": email("BOB")}, {"username": "bob"}, {"id": "bob"}, {"email": email("ada")}):
        with pytest.raises(Conflict):
            await reader.users.create(**given)  # type: ignore[arg-type]
    assert await newer.types("auth-user:bob") == ["auth.user.created"]


async def test_mutations_use_acknowledged_events(
    newer: Local, adapter: AllsourceAuthAdapter, ada: User, session: Session
) -> None:
    newer.faults.stale()
    await adapter.users.update(ada.id, name="one", email=email("new"))
    await newer.adapter().users.update(ada.id, role="two")
    user = await newer.adapter().users.get(ada.id)
    assert user is not None
    assert (user.name, user.role, user.email) == ("one", "two", email("new"))
    assert await seen(newer, f"auth-user:{ada.id}") == ["auth.user.created"]
    assert await adapter.users.get_by_email(email("Ada")) is None
    assert await adapter.users.get_by_email(email("new")) == user
    other = await adapter.users.create(email=email("Ada"))
    assert (await adapter.users.get_by_email(email("Ada"))) == other
    await newer.adapter().users.delete(ada.id)
    for reader in (adapter, newer.adapter()):
        assert await reader.users.get(ada.id) is None
        assert await reader.users.get_by_email(email("new")) is None
        assert await reader.load_session(session.token) is None
    assert await newer.types(f"auth-user:{ada.id}") == [
        "auth.user.created",
        "auth.user.updated",
        "auth.user.updated",
        "auth.user.deleted",
    ]


async def test_history_and_past_states_are_complete(newer: Local, adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.update(ada.id, name="two")
    newer.faults.stale()
    await adapter.users.update(ada.id, name="three")
    await adapter.users.update(ada.id, name="four")
    assert await seen(newer, f"auth-user:{ada.id}") == ["auth.user.created", "auth.user.updated"]
    reader = newer.adapter()
    changes = await reader.users.history(ada.id)
    assert [change.state.name for change in changes if change.state] == ["Ada", "two", "three", "four"]
    newest = await reader.users.history(ada.id, newest_first=True, limit=2)
    assert [change.state.name for change in newest if change.state] == ["four", "three"]
    for change in changes:
        assert await reader.users.as_of(ada.id, change.event_id) == change.state
        assert await reader.users.as_of(ada.id, change.at) == change.state
    assert await reader.users.as_of(ada.id, changes[0].at - timedelta(seconds=1)) is None
    assert (await reader.users.revert(ada.id, changes[2].event_id)).name == "three"


async def test_past_state_before_the_shortage_needs_no_strict_read(
    newer: Local, adapter: AllsourceAuthAdapter, ada: User
) -> None:
    """An answer is not suspicious because ``until`` excludes later events."""
    await adapter.users.update(ada.id, name="two")
    changes = await adapter.users.history(ada.id)
    newer.arrived.clear()
    state = await adapter.users.as_of(ada.id, changes[0].at)
    assert state is not None
    assert state.name == "Ada"
    assert "integrity" not in [name for request in newer.arrived for name in request.parameters]


async def test_suspicious_answer_is_read_again_from_core(
    newer: Local, adapter: AllsourceAuthAdapter, ada: User
) -> None:
    newer.faults.stale()
    await adapter.users.update(ada.id, name="new")
    newer.arrived.clear()
    user = await adapter.users.get(ada.id)
    assert user is not None
    assert user.name == "new"
    ordinary, strict = newer.arrived
    assert (ordinary.port, strict.port) == ("query", "core")
    assert strict.parameters["integrity"] == ["retained-entity-v1"]


@pytest.mark.parametrize("through", ["core", "query-service"])
async def test_unverifiable_answer_is_unavailable(newer: Local, ada: User, through: str) -> None:
    newer.faults.stale()
    adapter = newer.adapter(query_url=newer.query_url if through == "query-service" else None)
    with pytest.raises(Unavailable, match="ALLSOURCE_MEMORY_RESERVE_BYTES"):
        await adapter.users.list()
    assert await adapter.users.get(ada.id) == ada


@pytest.mark.parametrize("count", [1001, 1002, 2100])
async def test_long_stream_is_complete_or_unavailable(newer: Local, count: int) -> None:
    """A strict read returns 1,001 events at most. For a longer stream the answer is used if the tenant is loaded."""
    await newer.append(*(new_event("auth-user:busy", stored_user("busy", name=str(number))) for number in range(count)))
    newer.faults.stale()
    await newer.append(new_event("auth-user:busy", stored_user("busy", name="newest")))
    adapter = newer.adapter()
    with pytest.raises(Unavailable):
        await adapter.users.get("busy")
    newer.faults.clear()
    user = await adapter.users.get("busy")
    assert user is not None
    assert user.name == "newest"
    assert len(await adapter.users.history("busy")) == count + 1


@pytest.mark.parametrize("count", [999, 1000, 1001])
async def test_stream_of_the_maximum_length_of_a_strict_read(newer: Local, count: int) -> None:
    newer.faults.stale()
    await newer.append(*(new_event("auth-user:busy", stored_user("busy", name=str(number))) for number in range(count)))
    adapter = newer.adapter()
    user = await adapter.users.get("busy")
    assert user is not None
    assert user.name == str(count - 1)
    assert len(await adapter.users.history("busy")) == count


# A version counter that other tenants increased


async def test_stream_used_only_by_another_tenant_is_absent(either: Local) -> None:
    """Its version counter is not 0, but the empty answer is correct."""
    theirs = either.adapter(tenant_id="theirs")
    await theirs.users.create(id="ada", email=email("Ada"))
    await theirs.sessions.create(user_id="ada", expires_at=LATER, token=token("shared"))
    ours = either.adapter()
    assert await ours.users.get("ada") is None
    assert await ours.users.get_by_email(email("Ada")) is None
    assert await ours.load_session(token("shared")) is None
    assert await ours.users.history("ada") == []
    assert await ours.users.as_of("ada", LATER) is None
    created = await ours.users.create(id="ada", email=email("Ada"))
    updated = await ours.users.update("ada", name="Ada")
    assert (updated.id, updated.created_at) == (created.id, created.created_at)
    await theirs.users.update("ada", name="another")
    assert await ours.users.get("ada") == updated
    assert (await ours.users.update("ada", role="admin")).role == "admin"
    await ours.users.delete("ada")
    assert await ours.users.get("ada") is None
    kept = await theirs.users.get("ada")
    assert kept is not None
    assert kept.name == "another"


async def test_server_without_strict_reads_is_asked_once(older: Local) -> None:
    """0.23 cannot prove that an answer is complete, so the stream is read once only."""
    await older.append(new_event("auth-user:ada", stored_user("ada")), tenant="theirs")
    adapter = older.adapter()
    assert await adapter.users.get("nobody") is None
    assert await adapter.users.get("ada") is None
    older.arrived.clear()
    assert await adapter.users.get("ada") is None
    assert older.requests() == ["GET query"]


async def test_stale_claim_is_seen_by_a_late_sign_up(newer: Local) -> None:
    newer.faults.stale(claim_stream("email", email("ada").lower()))
    first = await newer.adapter().users.create(email=email("Ada"))
    for _ in range(3):
        with pytest.raises(Conflict):
            await newer.adapter().users.create(email=email("ada"))
    assert await newer.adapter().users.get_by_email(email("Ada")) == first
