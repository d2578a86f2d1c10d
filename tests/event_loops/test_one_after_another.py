"""One adapter in one event loop after another, as in scripts, tests and synchronous frameworks."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from allsource_auth import AllsourceAuthAdapter
from tests.event_loops.conftest import OpenAdapter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # new versions recommend another HTTP client than httpx
    from starlette.testclient import TestClient


def loop_factories() -> list[Any]:
    try:
        import uvloop
    except ImportError:
        return [pytest.param(None, id="asyncio")]
    # uvloop closes what is open when a loop is closed, with this warning. If that is an error, it waits forever.
    ignored = pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")
    return [pytest.param(None, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop", marks=ignored)]


@pytest.mark.parametrize("loop_factory", loop_factories())
def test_thirty_loops_in_a_row_use_one_adapter(
    open_adapter: OpenAdapter, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    adapter = open_adapter()

    async def sign_up_and_read(number: int) -> None:
        user = await adapter.users.create(name=str(number))
        found = await asyncio.gather(*[adapter.users.get(user.id) for _ in range(3)])
        assert found == [user] * 3

    def run(call: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(call)

    for number in range(30):
        run(sign_up_and_read(number))
    run(adapter.aclose())


def test_threads_one_after_another_use_one_adapter(open_adapter: OpenAdapter) -> None:
    adapter = open_adapter()
    found: list[object] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: found.append(asyncio.run(adapter.users.get("nobody"))))
        thread.start()
        thread.join()
    assert found == [None] * 3
    asyncio.run(adapter.aclose())


def application(adapter: AllsourceAuthAdapter) -> Starlette:
    async def sign_up(request: Request) -> PlainTextResponse:
        user = await adapter.users.create(email=request.query_params["email"])
        assert await adapter.users.get(user.id) == user
        return PlainTextResponse(user.email)

    return Starlette(routes=[Route("/sign-up", sign_up, methods=["POST"])])


@pytest.mark.parametrize("entered", [True, False], ids=["one loop", "a loop for each request"])
def test_starlette_test_client_calls_an_adapter(open_adapter: OpenAdapter, entered: bool) -> None:
    adapter = open_adapter()
    client = TestClient(application(adapter))
    emails = [f"{entered}-{number}@example.org" for number in range(5)]

    def sign_up() -> None:
        for email in emails:
            response = client.post("/sign-up", params={"email": email})
            assert (response.status_code, response.text) == (200, email)

    if entered:
        with client:
            sign_up()
            # The loop of the client is idle, but still running in its thread.
            assert asyncio.run(adapter.users.get_by_email(emails[0])) is not None
    else:
        sign_up()
    asyncio.run(adapter.aclose())
    client.close()
