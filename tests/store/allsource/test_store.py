"""The HTTP store without faults: the requests of each operation, the server's clock, `info` and ``repr``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from time import time_ns
from typing import Any

import httpx
import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Api, Session
from allsource_auth.store.allsource import store as allsource
from allsource_auth.store.allsource.wire import format_time
from tests.store.allsource.local import KEY, Arrived, Local
from tests.support.canaries import email, token
from tests.support.clocks import START

pytestmark = pytest.mark.usefixtures("watch")

CORE, QUERY, APPEND = "GET core", "GET query", "POST core"

SECOND = 1_000_000_000


# Requests


@pytest.fixture
async def session(either: Local, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session of the user ``ada``, whose claims are settled. On 0.23 the tenant counts as loaded at any time."""
    monkeypatch.setattr(allsource, "TENANT_LOADED_FOR", 3600.0)
    adapter = either.adapter()
    await adapter.users.create(id="ada", email=email("Ada"))
    return await adapter.sessions.create(user_id="ada", expires_at=START, token=token("ada"))


@pytest.fixture
async def adapter(either: Local, session: Session) -> AllsourceAuthAdapter:
    """An adapter after its first mutation, which has detected the features of the server."""
    adapter = either.adapter()
    await adapter.users.create(id="warm")
    either.requests()
    return adapter


Call = Callable[[AllsourceAuthAdapter], Awaitable[object]]

READS: dict[str, tuple[Call, list[str]]] = {
    "session": (lambda a: a.sessions.get(token("ada")), [QUERY]),
    "no-session": (lambda a: a.sessions.get(token("nobody")), [QUERY]),
    "user": (lambda a: a.users.get("ada"), [QUERY]),
    "no-user": (lambda a: a.users.get("nobody"), [QUERY]),
    "exists": (lambda a: a.users.exists("ada"), [QUERY]),
    "by-email": (lambda a: a.users.get_by_email(email("ada")), [QUERY] * 2),
    "by-no-email": (lambda a: a.users.get_by_email(email("nobody")), [QUERY]),
    "load-session": (lambda a: a.load_session(token("ada")), [QUERY] * 2),
    "list-for-user": (lambda a: a.sessions.list_for_user("ada"), [QUERY] * 2),
    "history": (lambda a: a.users.history("ada"), [QUERY]),
    "list": (lambda a: a.users.list(), [QUERY]),
}

MUTATIONS: dict[str, tuple[Call, list[str]]] = {
    "sign-in": (lambda a: a.sessions.create(user_id="ada", expires_at=START), [APPEND]),
    "sign-up": (lambda a: a.users.create(), [APPEND]),
    "update": (lambda a: a.users.update("ada", name="Ada"), [CORE, APPEND]),
    "update-nothing": (lambda a: a.users.update("ada"), [CORE]),
    "update-expiry": (lambda a: a.sessions.update_expiry(token("ada"), START), [CORE, APPEND]),
    "revoke": (lambda a: a.sessions.delete(token("ada")), [CORE, APPEND]),
    "revoke-nothing": (lambda a: a.sessions.delete(token("nobody")), [CORE]),
}


@pytest.mark.parametrize("operation", READS)
async def test_requests_of_a_read(either: Local, adapter: AllsourceAuthAdapter, operation: str) -> None:
    call, requests = READS[operation]
    await call(adapter)
    assert either.requests() == requests


@pytest.mark.parametrize("operation", MUTATIONS)
async def test_requests_of_a_mutation(either: Local, adapter: AllsourceAuthAdapter, operation: str) -> None:
    call, requests = MUTATIONS[operation]
    await call(adapter)
    assert either.requests() == requests


async def test_requests_of_a_loaded_session(either: Local, adapter: AllsourceAuthAdapter) -> None:
    session = await adapter.sessions.create(user_id="ada", expires_at=START.replace(year=2999))
    either.requests()
    assert await adapter.load_session(session.token) is not None
    assert either.requests() == [QUERY, QUERY]


async def test_requests_of_a_sign_up_with_an_email(either: Local, adapter: AllsourceAuthAdapter) -> None:
    await adapter.users.create(email=email("new"))
    read_back = [CORE] if adapter._store.loses_versions_on_restart else []
    assert either.requests() == [CORE, APPEND, *read_back]


async def test_requests_of_the_first_read_and_the_first_mutation(either: Local, session: Session) -> None:
    either.requests()
    reader, writer = either.adapter(), either.adapter()
    await reader.users.get("ada")
    assert either.requests() == [CORE, QUERY], "the settings of the store are compared with the adapter's"
    await writer.sessions.create(user_id="ada", expires_at=START)
    assert either.requests() == [CORE, APPEND]


# Contents of requests


def sent_events(request: Arrived) -> list[dict[str, Any]]:
    body = json.loads(request.body)
    found: list[dict[str, Any]] = body.get("events", [body])
    return found


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
async def test_every_request_names_the_tenant_and_carries_the_key(either: Local, consistency: str) -> None:
    adapter = either.adapter(tenant_id="acme", read_consistency=consistency)
    for name in ("one", "two"):
        user = await adapter.users.create(email=email(name))
        session = await adapter.sessions.create(user_id=user.id, expires_at=START)
        await adapter.users.update(user.id, email=email(f"{name}2"))
        await adapter.users.get_by_email(email(f"{name}2"))
        await adapter.users.history(user.id)
        await adapter.users.list()
        await adapter.sessions.delete_expired()
        await adapter.sessions.delete(session.token)
        await adapter.users.delete(user.id)
    for request in either.arrived:
        assert request.headers["x-api-key"] == KEY
        assert "authorization" not in request.headers
        assert request.headers.get("accept-encoding", "identity") == "identity"
        assert request.headers["user-agent"].startswith("allsource_auth/")
        assert request.headers.get("x-consistency") == (consistency if request.port == "query" else None)
        if request.method == "POST":
            assert request.port == "core"
            assert request.headers["content-type"] == "application/json"
            assert int(request.headers["content-length"]) == len(request.body)
            assert {event["tenant_id"] for event in sent_events(request)} == {"acme"}
        else:
            assert request.parameters["tenant_id"] == ["acme"]
            assert request.body == b""
            assert "content-type" not in request.headers
    assert {"core", "query"} == {request.port for request in either.arrived}


async def test_no_key_header_without_a_key(newer: Local) -> None:
    await newer.adapter(api_key=None).users.create()
    assert newer.arrived
    for request in newer.arrived:
        assert "x-api-key" not in request.headers


async def test_core_answers_reads_without_a_query_service(newer: Local) -> None:
    adapter = newer.adapter(query_url=None)
    user = await adapter.users.create(email=email("Ada"))
    assert await adapter.users.get_by_email(email("Ada")) == user
    assert {request.port for request in newer.arrived} == {"core"}


async def test_path_of_a_gateway_is_kept(newer: Local) -> None:
    """A gateway may route queries by the path of the URL."""
    store = newer.store(core_url=f"{newer.core_url}/some/gateway/", query_url=f"{newer.query_url}/other")
    for require_leader in (True, False):
        with pytest.raises(Api, match="404"):
            await store.latest("s", require_leader=require_leader)
    assert [request.path for request in newer.arrived] == [
        "/some/gateway/api/v1/events/query",
        "/other/api/v1/events/query",
    ]


async def test_appending_nothing_sends_nothing(newer: Local) -> None:
    assert await newer.store().append([]) == []
    assert newer.arrived == []


# The server's clock


async def answering(date: str | None, time: int | None = None) -> int:
    """The estimated lead of the server's clock, in seconds, after one reply with this date and this event."""
    event = {
        "id": "1",
        "event_type": "auth.user.created",
        "entity_id": "s",
        "tenant_id": "default",
        "payload": {},
        "timestamp": format_time(time or 0),
    }
    events = [] if time is None else [event]

    def core(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"events": events, "has_more": False}, headers={"date": date} if date else {})

    async with httpx.AsyncClient(transport=httpx.MockTransport(core)) as client:
        store = AllsourceStore("http://localhost", http_client=client)
        assert abs(store.server_time() - time_ns()) < SECOND
        for _ in range(2):
            await store.latest("s", require_leader=True)
        return round((store.server_time() - time_ns()) / SECOND)


async def test_server_time_is_estimated_from_replies() -> None:
    ahead = time_ns() // SECOND + 5000
    assert 4998 <= await answering(httpx_date(ahead)) <= 5000
    assert 4998 <= await answering(None, ahead * SECOND) <= 5000
    assert 8998 <= await answering(httpx_date(ahead), (ahead + 4000) * SECOND) <= 9000
    assert 4998 <= await answering(httpx_date(ahead), 0) <= 5000, "an old event does not set the clock back"


def httpx_date(seconds: int) -> str:
    from email.utils import formatdate

    return formatdate(seconds, usegmt=True)


@pytest.mark.parametrize("date", ["yesterday", "", "99999999999999999999", "Tue, 99 Nov 2026 00:00:00 GMT"])
async def test_invalid_date_header_is_ignored(date: str) -> None:
    assert await answering(date) == 0


# info and repr


async def test_info_reports_urls_and_server(either: Local) -> None:
    info = await either.adapter(tenant_id="acme").info()
    newer = info.server_version == "0.27.0"
    assert info.store == "Allsource"
    assert (info.where, info.reads_from, info.tenant) == (either.core_url, either.query_url, "acme")
    assert info.engine == "asyncio"
    assert (info.server, info.strict_reads) == ("allsource-auth-local", newer)
    assert newer or info.server_version == "0.23.0"


@pytest.mark.parametrize(
    ("query_url", "shown"),
    [(None, "{core}"), (["{query}"], "{query}"), (["{query}", "http://b.example"], "{query}, http://b.example")],
)
async def test_info_reports_the_read_urls(newer: Local, query_url: list[str] | None, shown: str) -> None:
    def named(text: str) -> str:
        return text.format(core=newer.core_url, query=newer.query_url)

    adapter = newer.adapter(query_url=query_url and [named(url) for url in query_url])
    assert (await adapter.info()).reads_from == named(shown)


async def test_repr_names_the_engine_before_the_first_call(options: dict[str, Any]) -> None:
    store = AllsourceStore("http://localhost", **options)
    named = repr(store)
    assert f"engine={store._client.engine.name!r}" in named
    assert repr(store) == named
    await store.close()


@pytest.mark.parametrize("body", [b"<html>ok</html>", b"", b"[]", b'{"status":"healthy"}', b'{"version":7}'])
async def test_info_of_a_server_with_an_empty_health_reply(newer: Local, body: bytes) -> None:
    newer.faults.garble(body, "text/html", on="/health")
    info = await newer.adapter().info()
    assert (info.server, info.server_version, info.durable) == (None, None, None)
    assert info.strict_reads


async def test_no_repr_shows_the_key_or_content(newer: Local) -> None:
    store = newer.store()
    adapter = newer.adapter(store=store)
    await adapter.users.create(email=email("Ada"))
    assert repr(adapter) == f"AllsourceAuthAdapter({store!r})"
    assert repr(store) == (
        f"AllsourceStore(Connection(core_url={newer.core_url!r}, query_url={newer.query_url!r}), tenant='default',"
        f" engine={(await store.info()).engine!r})"
    )
