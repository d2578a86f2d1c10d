"""The access-token database: sessions, as ``DatabaseStrategy`` uses them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, InvalidInput, Json, SessionNotFound
from allsource_auth.integrations.fastapi_users import AllsourceAccessTokenDatabase, AllsourceBaseAccessToken
from tests.integrations.fastapi_users.people import AccessToken
from tests.support.canaries import token
from tests.support.clocks import ManualClock

pytestmark = pytest.mark.integrations

LIFETIME = 3600
Database = AllsourceAccessTokenDatabase[AccessToken]


@pytest.fixture
def database(adapter: AllsourceAuthAdapter) -> Database:
    return AllsourceAccessTokenDatabase(adapter, AccessToken, lifetime_seconds=LIFETIME)


@pytest.fixture
def ada() -> uuid.UUID:
    return uuid.uuid4()


async def test_a_token_is_a_session(
    database: Database, adapter: AllsourceAuthAdapter, ada: uuid.UUID, clock: ManualClock
) -> None:
    made = await database.create({"token": token("a"), "user_id": ada, "user_agent": "a browser"})
    assert (made.token, made.user_id, made.user_agent) == (token("a"), ada, "a browser")
    assert (made.created_at, made.expires_at) == (clock(), clock() + timedelta(seconds=LIFETIME))
    assert await database.get_by_token(token("a")) == made
    session = await adapter.sessions.get(token("a"))
    assert session is not None
    assert (session.user_id, session.expires_at) == (str(ada), made.expires_at)
    assert token("a") not in repr(made)


async def test_missing_token_is_none(database: Database) -> None:
    for missing in ("", "unknown", " blank", "x" * 500, "\ud800"):
        assert await database.get_by_token(missing) is None


async def test_token_is_created_once(database: Database, ada: uuid.UUID) -> None:
    made = await database.create({"token": token("a"), "user_id": ada})
    with pytest.raises(Conflict):
        await database.create({"token": token("a"), "user_id": uuid.uuid4()})
    await database.delete(made)
    with pytest.raises(Conflict):
        await database.create({"token": token("a"), "user_id": ada})


async def test_token_is_generated_by_default(database: Database, ada: uuid.UUID) -> None:
    made = await database.create({"user_id": ada})
    assert made.token.startswith("session_")
    assert await database.get_by_token(made.token) == made


async def test_max_age_counts_from_creation(database: Database, ada: uuid.UUID, clock: ManualClock) -> None:
    made = await database.create({"token": token("a"), "user_id": ada})
    assert await database.get_by_token(token("a"), clock() - timedelta(seconds=1)) == made
    assert await database.get_by_token(token("a"), clock()) == made
    assert await database.get_by_token(token("a"), clock() + timedelta(seconds=1)) is None
    with pytest.raises(InvalidInput):
        await database.get_by_token(token("a"), datetime(2026, 1, 1))  # noqa: DTZ001


async def test_expired_session_is_none(database: Database, ada: uuid.UUID, clock: ManualClock) -> None:
    await database.create({"token": token("a"), "user_id": ada})
    clock.move(timedelta(seconds=LIFETIME - 1))
    assert await database.get_by_token(token("a")) is not None
    clock.move(timedelta(seconds=1))
    assert await database.get_by_token(token("a")) is None


async def test_without_a_lifetime_a_session_never_expires(adapter: AllsourceAuthAdapter, ada: uuid.UUID) -> None:
    database = AllsourceAccessTokenDatabase(adapter, AccessToken, lifetime_seconds=None)
    made = await database.create({"token": token("a"), "user_id": ada})
    assert made.expires_at == datetime(9999, 12, 31, tzinfo=UTC)
    assert await database.get_by_token(token("a")) == made


async def test_new_creation_time_extends_a_session(
    database: Database, adapter: AllsourceAuthAdapter, ada: uuid.UUID, clock: ManualClock
) -> None:
    made = await database.create({"token": token("a"), "user_id": ada})
    later = clock.move(timedelta(seconds=1800))
    assert await database.update(made, {"created_at": later}) is made
    assert (made.created_at, made.expires_at) == (later, later + timedelta(seconds=LIFETIME))
    assert await database.get_by_token(token("a"), later) == made
    changes = [change.event for change in await adapter.sessions.history(token("a"))]
    assert changes == ["SessionCreated", "SessionExpiryUpdated"]


async def test_other_fields_of_a_session_can_be_changed(database: Database, ada: uuid.UUID) -> None:
    made = await database.create({"token": token("a"), "user_id": ada})
    await database.update(made, {"active_organization_id": "org", "ip_address": "203.0.113.7"})
    assert (made.active_organization_id, made.ip_address) == ("org", "203.0.113.7")
    assert await database.get_by_token(token("a")) == made


async def test_revoked_token_is_none(database: Database, ada: uuid.UUID) -> None:
    made = await database.create({"token": token("a"), "user_id": ada})
    await database.delete(made)
    assert await database.get_by_token(token("a")) is None
    await database.delete(made)
    with pytest.raises(SessionNotFound):
        await database.update(made, {"ip_address": None})


@pytest.mark.parametrize("changes", [{"token": "t"}, {"user_id": uuid.uuid4()}, {"id": "i"}, {"scope": "s"}])
async def test_read_only_field_is_refused(database: Database, ada: uuid.UUID, changes: dict[str, Any]) -> None:
    made = await database.create({"token": token("a"), "user_id": ada})
    with pytest.raises(InvalidInput) as refused:
        await database.update(made, changes)
    assert refused.value.field == min(changes)
    assert await database.get_by_token(token("a")) == made


async def test_invalid_field_is_refused(database: Database, ada: uuid.UUID) -> None:
    for given, field in (({"token": "t"}, "user_id"), ({"user_id": ada, "scope": "s"}, "scope")):
        with pytest.raises(InvalidInput) as refused:
            await database.create(given)
        assert refused.value.field == field


async def test_a_session_of_a_user_with_another_kind_of_id_is_refused(
    database: Database, adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    await adapter.sessions.create(token=token("a"), user_id="ada", expires_at=clock() + timedelta(days=1))
    with pytest.raises(Json) as failed:
        await database.get_by_token(token("a"))
    assert failed.value.path == "$.user_id"

    class Text(AllsourceBaseAccessToken[str]):
        pass

    texts = AllsourceAccessTokenDatabase(adapter, Text, lifetime_seconds=LIFETIME)
    found = await texts.get_by_token(token("a"))
    assert found is not None
    assert found.user_id == "ada"


def test_options_are_checked() -> None:
    adapter = AllsourceAuthAdapter.embedded()
    for lifetime in (0, -1, 1.5, True):
        with pytest.raises(InvalidInput, match="lifetime_seconds"):
            AllsourceAccessTokenDatabase(adapter, AccessToken, lifetime_seconds=lifetime)  # type: ignore[arg-type]

    class Scoped(AllsourceBaseAccessToken[str]):
        scope: str = ""

    with pytest.raises(InvalidInput, match="scope"):
        AllsourceAccessTokenDatabase(adapter, Scoped, lifetime_seconds=1)
