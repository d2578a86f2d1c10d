"""The connection pool as an ``httpx.AsyncClient``, and a client of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock

from allsource_auth import AllsourceAuthAdapter, InvalidInput, StoreClosed
from tests.store.allsource.local import KEY, Local
from tests.store.allsource.raw_server import PAGE, answering, right
from tests.support.canaries import email

pytestmark = pytest.mark.usefixtures("watch", "pauses")


async def test_http_uses_the_same_pool_without_the_api_key(options: dict[str, Any]) -> None:
    async with answering(right) as server, answering(right) as elsewhere:
        adapter = AllsourceAuthAdapter(server.url, api_key=KEY, **options)
        assert await adapter.users.get("ada") is None
        client = adapter.http
        assert isinstance(client, httpx.AsyncClient)
        assert adapter.http is client
        path = f"{server.url}/health" if "http_client" in options else "/health"
        assert (await client.get(path)).json()["events"] == []
        assert await adapter.users.get("ada") is None
        assert server.connections == 1
        await client.get(f"{elsewhere.url}/path")
        keyed = [KEY in request for request in server.requests]
        assert keyed == [True, True, False, True]
        assert KEY not in elsewhere.requests[0]
        await adapter.aclose()
        with pytest.raises(StoreClosed):
            _ = adapter.http


async def test_http_of_an_embedded_store_is_refused() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        with pytest.raises(InvalidInput) as caught:
            _ = adapter.http
        assert caught.value.field == "http"


async def test_http_is_closed_with_the_adapter(newer: Local) -> None:
    adapter = newer.adapter()
    client = adapter.http
    assert (await client.get("/health")).status_code == 200
    await adapter.aclose()
    with pytest.raises((RuntimeError, httpx.HTTPError)):
        await client.get("/health")


# The caller's client


async def test_callers_client_sends_everything_and_stays_open(newer: Local) -> None:
    seen: list[httpx.Request] = []
    answered: list[int] = []

    async def request(request: httpx.Request) -> None:
        seen.append(request)

    async def response(response: httpx.Response) -> None:
        answered.append(response.status_code)

    hooks: dict[str, list[Callable[..., Any]]] = {"request": [request], "response": [response]}
    async with httpx.AsyncClient(event_hooks=hooks, headers={"X-Trace": "ours"}, follow_redirects=True) as client:
        adapter = newer.adapter(http_client=client)
        assert adapter.http is client
        user = await adapter.users.create(email=email("Ada"))
        await adapter.users.get_by_email(email("Ada"))
        await adapter.users.delete(user.id)
        assert (await adapter.info()).engine == "httpx, the caller's client"
        assert [str(one.url.path) for one in seen] == [request.path for request in newer.arrived]
        assert len(answered) == len(seen) > 5
        assert {one.headers["x-trace"] for one in newer.arrived} == {"ours"}
        assert {one.headers["x-api-key"] for one in newer.arrived} == {KEY}
        await adapter.aclose()
        assert not client.is_closed
        assert (await client.get(f"{newer.core_url}/health")).status_code == 200


async def test_closed_client_of_the_caller_closes_the_store(newer: Local) -> None:
    client = httpx.AsyncClient()
    adapter = newer.adapter(http_client=client)
    assert await adapter.users.get("ada") is None
    await client.aclose()
    for call in (adapter.users.get("ada"), adapter.users.create(email=email("Ada"))):
        with pytest.raises(StoreClosed):
            await call


async def test_exception_of_a_hook_of_the_callers_client_is_raised(newer: Local) -> None:
    class NoEntryError(Exception):
        pass

    async def refuse(request: httpx.Request) -> None:
        raise NoEntryError

    async with httpx.AsyncClient(event_hooks={"request": [refuse]}) as client:
        adapter = newer.adapter(http_client=client)
        with pytest.raises(NoEntryError):
            await adapter.users.get("ada")


async def test_callers_client_may_be_a_mock(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ConnectError("refused"))
    httpx_mock.add_response(content=PAGE, is_reusable=True)
    async with httpx.AsyncClient() as client:
        adapter = AllsourceAuthAdapter("http://localhost:3900", "http://localhost:3902", http_client=client)
        assert await adapter.users.get("ada") is None
    assert [request.url.port for request in httpx_mock.get_requests()] == [3900, 3900, 3902]
