"""Decoding of replies: one that does not match its request is an error and is never taken for "absent". Time formats."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Api, Json
from allsource_auth.store.allsource.wire import WireFormat, format_time, parse_time
from tests.store.allsource.local import KEY, Local, running_local
from tests.support.canaries import CANARY, email, revealed, token
from tests.support.clocks import START
from tests.support.events import new_event, stored_user, whole_log

pytestmark = pytest.mark.usefixtures("watch")

URL = "http://localhost:3900"
STREAM = f"auth-session:{token('a')}"
HTML = f"<html>{email('Ada')} {KEY} {STREAM}</html>".encode()


def event(**members: object) -> dict[str, object]:
    usual = {
        "id": "6f0c9a54-0d8e-4a4e-8b58-0f1c2f2a7c11",
        "event_type": "auth.session.created",
        "entity_id": STREAM,
        "tenant_id": "default",
        "payload": {"token": token("a")},
        "timestamp": "2026-11-23T10:59:20.552604072Z",
        "metadata": None,
        "version": 1,
    }
    return {name: value for name, value in (usual | members).items() if value is not ...}


def page(*events: object, **members: object) -> bytes:
    envelope = {"events": list(events), "count": len(events), "has_more": False, "entity_version": 1}
    return json.dumps(envelope | members).encode()


RIGHT = page(event())

NOT_A_PAGE = {
    "empty": b"",
    "html": HTML,
    "half": RIGHT[: len(RIGHT) // 2],
    "two-documents": RIGHT + RIGHT,
    "not-utf-8": RIGHT.replace(b"session_", b"\xff\xfe"),
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "acknowledgement": b'{"event_id":"1","timestamp":"2026-11-23T10:59:20Z","version":1}',
    "state": b'{"entity_id":"1","current_state":{"token":"c4n4ry"},"event_count":1}',
    "events-null": page(events=None),
    "events-object": page(events={}),
    "events-of-numbers": page(1),
    "nested-too-deeply": b'{"events":' + b"[" * 200_000,
    "payload-nested-too-deeply": page(event(payload="@")).replace(b'"@"', b"[" * 100_000 + b"]" * 100_000),
    "version-text": page(event(version="1")),
    "version-fraction": page(event(version=1.5)),
    "entity-version-text": page(event(), entity_version="1"),
    "has-more-number": page(event(), has_more=1),
    "integrity-text": page(event(), archive_integrity="retained-entity-v1"),
    **{f"no-{name}": page(event(**{name: ...})) for name in event() if name not in ("metadata", "version")},
    **{
        f"{name}-number": page(event(**{name: 7}))
        for name in ("id", "event_type", "entity_id", "tenant_id", "timestamp")
    },
}

NOT_THE_ANSWER = {
    "another-stream": page(event(entity_id="auth-session:other")),
    "stream-in-other-capitals": page(event(entity_id=STREAM.upper())),
    "another-tenant": page(event(tenant_id="acme")),
    "more-than-asked": page(event(), event(id="2")),
    "bad-time": page(event(timestamp="yesterday")),
}

WRONG = [pytest.param(body, id=name) for name, body in (NOT_A_PAGE | NOT_THE_ANSWER).items()]


@pytest.fixture
async def store() -> AsyncIterator[AllsourceStore]:
    async with httpx.AsyncClient() as client:
        store = AllsourceStore(URL, api_key=KEY, http_client=client)
        yield store
        await store.close()


def unrevealing(error: Json) -> bool:
    return not revealed(f"{error!r} {error} {error.path} {error.event_id}")


@pytest.mark.parametrize("body", WRONG)
async def test_malformed_reply_to_a_read_is_an_error(store: AllsourceStore, httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(content=body, is_reusable=True)
    with pytest.raises(Json) as caught:
        await store.latest(STREAM)
    assert unrevealing(caught.value)
    assert not caught.value.ambiguous
    with pytest.raises(Json):
        await store.read(STREAM, limit=1)


@pytest.mark.parametrize("call", ["get", "load_session", "delete"])
async def test_malformed_reply_is_never_taken_for_absent(
    store: AllsourceStore, httpx_mock: HTTPXMock, call: str
) -> None:
    adapter = AllsourceAuthAdapter.with_store(store)
    for body in (HTML, RIGHT[:40], page(event(entity_id="other"))):
        httpx_mock.add_response(content=body)
        owner = adapter if call == "load_session" else adapter.sessions
        with pytest.raises(Json) as caught:
            await getattr(owner, call)(token("a"))
        assert unrevealing(caught.value)
        assert len(httpx_mock.get_requests()) == 1
        httpx_mock.reset()


@pytest.mark.parametrize("kind", ["auth.user.created", "auth.sessions.created", "Auth.session.created"])
async def test_event_of_another_type_in_a_scan_is_an_error(
    store: AllsourceStore, httpx_mock: HTTPXMock, kind: str
) -> None:
    httpx_mock.add_response(content=page(event(event_type=kind)))
    with pytest.raises(Json):
        await whole_scan(store, "auth.session.")


async def whole_scan(store: AllsourceStore, prefix: str) -> list[Any]:
    return [event async for found in store.scan(prefix) for event in found]


async def test_optional_members_may_be_missing(store: AllsourceStore, httpx_mock: HTTPXMock) -> None:
    """Older Query Services omit all optional members."""
    bare = json.dumps({"data": [event(metadata=..., version=...) | {"_links": {}}], "_links": {}}).encode()
    httpx_mock.add_response(content=bare)
    latest = await store.latest(STREAM)
    assert latest.event is not None
    assert (latest.event.version, bytes(latest.event.metadata), latest.version) == (1, b"null", 0)


async def test_large_reply_is_decoded_like_a_small_one(store: AllsourceStore, httpx_mock: HTTPXMock) -> None:
    """It is decoded in a worker thread."""
    large = event(payload={"text": "x" * 200_000})
    httpx_mock.add_response(content=page(large))
    latest = await store.latest(STREAM)
    assert latest.event is not None
    assert json.loads(bytes(latest.event.payload)) == large["payload"]
    httpx_mock.add_response(content=page(large | {"entity_id": "other"}))
    with pytest.raises(Json):
        await store.latest(STREAM)


# Replies to appends

NOT_ACKNOWLEDGED = {
    "empty": b"",
    "html": HTML,
    "half": b'{"event_id":"6f0c9a54-0d8e-4a4e-8b58-0f1c2f2a7c11","timest',
    "object": b"{}",
    "page": RIGHT,
    "bad-time": b'{"event_id":"1","timestamp":"yesterday","version":1}',
    "query-service": b'{"data":{"event_id":"1","timestamp":"2026-11-23T10:59:20Z","version":1}}',
    "nested-too-deeply": b"[" * 200_000,
}


@pytest.mark.parametrize("body", NOT_ACKNOWLEDGED.values(), ids=NOT_ACKNOWLEDGED)
async def test_malformed_reply_to_an_append_is_ambiguous(
    store: AllsourceStore, httpx_mock: HTTPXMock, body: bytes
) -> None:
    httpx_mock.add_response(content=body)
    with pytest.raises(Json) as caught:
        await store.append([new_event(STREAM)])
    assert caught.value.ambiguous
    assert unrevealing(caught.value)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_wrong_number_of_acknowledgements_is_ambiguous(
    store: AllsourceStore, httpx_mock: HTTPXMock, count: int
) -> None:
    one = {"event_id": "1", "timestamp": "2026-11-23T10:59:20Z", "version": 1}
    httpx_mock.add_response(json={"total": count, "ingested": count, "events": [one] * count})
    with pytest.raises(Json) as caught:
        await store.append([new_event("a"), new_event("b")])
    assert caught.value.ambiguous


@pytest.mark.parametrize("stored", [False, True], ids=["not-stored", "stored"])
@pytest.mark.parametrize("body", NOT_ACKNOWLEDGED.values(), ids=NOT_ACKNOWLEDGED)
async def test_write_with_a_malformed_reply_has_one_effect(body: bytes, stored: bool) -> None:
    async with running_local("0.27") as local:
        adapter = local.adapter()

        def garble() -> None:
            local.faults.garble(body, "text/html", stored=stored, on="POST")

        garble()
        user = await adapter.users.create(email=email("Ada"))
        garble()
        session = await adapter.sessions.create(user_id=user.id, expires_at=START)
        garble()
        given = await adapter.sessions.create(user_id=user.id, expires_at=START, token=token("given"))
        garble()
        changed = await adapter.users.update(user.id, name="Ada", email=email("new"))
        assert (changed.id, changed.name, changed.email) == (user.id, "Ada", email("new"))
        assert await adapter.users.get_by_email(email("new")) == changed
        assert {found.token for found in await adapter.sessions.list_for_user(user.id)} == {session.token, given.token}
        garble()
        await adapter.sessions.delete(given.token)
        garble()
        await adapter.users.delete(user.id)
        assert await local.types("auth-user:") == ["auth.user.created", "auth.user.updated", "auth.user.deleted"]
        sessions = await local.types(f"auth-session:{session.token}") + await local.types(f"auth-session:{given.token}")
        assert sessions == ["auth.session.created", "auth.session.deleted"] * 2
        assert (await local.types("auth-idx:user.email")).count("auth.index.claimed") == 2
        assert len(await local.types("auth-idx:store")) == 1


@pytest.mark.parametrize("body", [HTML, RIGHT[:60], b"{}"], ids=["html", "half", "object"])
async def test_read_with_a_malformed_reply_fails_on_each_engine(newer: Local, body: bytes) -> None:
    adapter = newer.adapter()
    user = await adapter.users.create(email=email("Ada"))
    for call in (adapter.users.get(user.id), adapter.users.get_by_email(email("Ada"))):
        newer.faults.garble(body, "text/html", on="GET")
        with pytest.raises(Json) as caught:
            await call
        assert unrevealing(caught.value)
    newer.faults.garble(body, "text/html", on="GET")
    with pytest.raises(Json):
        await adapter.users.update(user.id, name="x")
    assert await newer.types("auth-user:") == ["auth.user.created"]


# Query Services


@pytest.mark.parametrize("envelope", ["data", "events"])
async def test_both_envelopes_of_query_services_are_decoded(envelope: str) -> None:
    async with running_local("0.27", envelope=envelope, api_keys={KEY: "default"}) as local:
        adapter = local.adapter()
        ada = await adapter.users.create(email=email("Ada"))
        session = await adapter.sessions.create(user_id=ada.id, expires_at=START)
        changed = await adapter.users.update(ada.id, name="Ada")
        assert await adapter.users.get(ada.id) == changed
        assert await adapter.users.get_by_email(email("ada")) == changed
        assert await adapter.sessions.get(session.token) == session
        assert await adapter.sessions.list_for_user(ada.id) == [session]
        assert await adapter.users.get("nobody") is None
        assert [change.event for change in await adapter.users.history(ada.id)] == ["UserCreated", "UserUpdated"]
        await adapter.users.delete(ada.id)
        assert await adapter.users.get(ada.id) is None
        assert await adapter.sessions.get(session.token) is None
        assert {request.port for request in local.arrived if request.method == "POST"} == {"core"}
        assert "query" in {request.port for request in local.arrived}


@pytest.mark.parametrize("envelope", ["data", "events"])
@pytest.mark.parametrize("count", [999, 1000, 1001, 2000, 2500])
async def test_both_envelopes_of_query_services_are_paged_completely(envelope: str, count: int) -> None:
    async with running_local("0.27", envelope=envelope) as local:
        users = [stored_user(f"u{number}") for number in range(count)]
        await local.append(*(new_event(f"auth-user:{user['id']}", user) for user in users))
        busy = [new_event("auth-user:busy", stored_user("busy", name=str(number))) for number in range(count)]
        await local.append(*busy)
        adapter = local.adapter()
        assert len(await adapter.users.history("busy")) == count
        assert (await adapter.users.list(limit=1)).total == count + 1
        assert len(await whole_log(local.store())) == 2 * count


async def test_query_service_without_a_credential_is_unauthorized() -> None:
    async with running_local("0.27", api_keys={KEY: "default"}) as local:
        adapter = local.adapter(api_key=None)
        with pytest.raises(Api) as caught:
            await adapter.users.get("ada")
        assert caught.value.status == 401


# Times

SECOND = 1_763_895_560 * 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2025-11-23T10:59:20Z", SECOND),
        ("2025-11-23T10:59:20.5Z", SECOND + 500_000_000),
        ("2025-11-23T10:59:20.552604Z", SECOND + 552_604_000),
        ("2025-11-23T10:59:20.552604072Z", SECOND + 552_604_072),
        ("2025-11-23T10:59:20.552604072999Z", SECOND + 552_604_072),
        ("2025-11-23T10:59:20.000000001+00:00", SECOND + 1),
        ("2025-11-23T12:29:20+01:30", SECOND),
        ("2025-11-23T09:59:20-01:00", SECOND),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
    ],
)
def test_time_is_parsed_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2025-11-23",
        "2025-11-23T10:59:20",
        "2025-11-23T10:59:20.5",
        "2025-13-23T10:59:20Z",
        "2025-11-23T25:59:20Z",
        "2025-11-23T10:59:20z5",
        "2025-11-23T10:59:20.1.2Z",
        "2025-11-23T10:59:20+",
        "2025-11-23T10:59:20+01",
        "2025-11-23T10:59:20 01:00",
        "2025-11-23T10+01:00Z",
        "99999-11-23T10:59:20Z",
        "1763895560",
    ],
)
def test_invalid_time_is_an_error(text: str) -> None:
    with pytest.raises(Json):
        parse_time(text)


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), START, datetime(9999, 12, 31, tzinfo=UTC)])
@pytest.mark.parametrize("below", [0, 1, 999_999_999])
def test_formatted_time_is_parsed_to_the_same_value(moment: datetime, below: int) -> None:
    nanoseconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000_000 + below
    text = format_time(nanoseconds)
    assert len(text) == 30
    assert parse_time(text) == nanoseconds


# Requests


@pytest.mark.parametrize("key", ["a b", "a&b=c", "a/b?c#d", "ä", "😀", "a+b", "a%20b", '"'])
async def test_keys_with_special_characters_arrive_unchanged(newer: Local, key: str) -> None:
    adapter = newer.adapter(tenant_id="acme")
    user = await adapter.users.create(id=key, email=f"{key.replace(' ', '')}@example.org")
    assert await adapter.users.get(key) == user
    assert await adapter.users.get_by_email(f"{key.replace(' ', '')}@example.org") == user
    assert [request.parameters["entity_id"] for request in newer.arrived[-1:]] == [[f"auth-user:{key}"]]


def test_every_request_names_the_tenant() -> None:
    wire = WireFormat("acme")
    queries = [
        wire.latest("s"),
        wire.strict("s", 1),
        wire.read("s", until=0, newest_first=True, offset=1, limit=2),
        wire.scan("auth.", since=0, until=0, offset=1, limit=2),
        wire.feed(),
    ]
    assert all("?tenant_id=acme&" in path for path in queries)
    for events in ([new_event("s")], [new_event("s"), new_event("t", guard=0)]):
        _, body = wire.append(events)
        sent = json.loads(body)
        assert all(one["tenant_id"] == "acme" for one in sent.get("events", [sent]))
    assert CANARY not in repr(wire)
