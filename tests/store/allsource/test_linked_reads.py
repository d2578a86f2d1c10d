"""Linked reads of `AllsourceStore`: a session and its user in two concurrent requests."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, Latest, Overloaded, Session
from allsource_auth.store.allsource import store as allsource
from tests.store.allsource.local import Local
from tests.support.clocks import START
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("watch")

LATER = START + timedelta(days=36_500)


async def signed_in(adapter: AllsourceAuthAdapter, name: str = "ada") -> Session:
    await adapter.users.create(id=name)
    return await adapter.sessions.create(user_id=name, expires_at=LATER)


async def test_both_requests_are_concurrent_from_the_second_time_on(newer: Local, proxy: FaultProxy) -> None:
    session = await signed_in(newer.adapter())
    adapter = newer.adapter(core_url=proxy.url, query_url=proxy.url)
    first = await adapter.load_session(session.token)
    proxy.requests.clear()
    gate = asyncio.Event()
    proxy.delay(gate)
    again = asyncio.ensure_future(adapter.load_session(session.token))
    await proxy.held(2)
    gate.set()
    assert await again == first is not None
    assert len(proxy.requests) == 2


async def test_link_of_a_deleted_session_is_forgotten(newer: Local) -> None:
    adapter = newer.adapter()
    session = await signed_in(adapter)
    assert await adapter.load_session(session.token) is not None
    await newer.adapter().sessions.delete(session.token)
    assert await adapter.load_session(session.token) is None
    newer.requests()
    assert await adapter.load_session(session.token) is None
    assert newer.requests() == ["GET query"]


async def test_number_of_remembered_links_is_bounded(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allsource, "MAX_LINKS", 2)
    store = newer.store()
    adapter = newer.adapter(store=store)
    sessions = [await signed_in(adapter, f"u{number}") for number in range(3)]
    for session in [*sessions, *sessions]:
        found = await adapter.load_session(session.token)
        assert found is not None
        assert found.user.id == session.user_id
    assert len(store._links) == 2


async def test_one_slot_and_no_queue_are_enough(newer: Local) -> None:
    adapter = newer.adapter(max_in_flight=1, max_queued=0)
    session = await signed_in(adapter)
    for _ in range(3):
        assert await adapter.load_session(session.token) is not None


def under_way() -> list[str]:
    """Reads that run in separate tasks."""
    names = (str(task.get_coro()) for task in asyncio.all_tasks())
    return [name for name in names if "latest" in name or "crowded" in name]


@pytest.mark.parametrize("broken", [1, 2])
async def test_failure_of_one_read_fails_the_call_and_leaves_no_task(newer: Local, broken: int) -> None:
    adapter = newer.adapter()
    session = await signed_in(adapter)
    assert await adapter.load_session(session.token) is not None
    newer.faults.refuse(500, count=broken, on="GET")
    with pytest.raises(Exception, match="500"):
        await adapter.load_session(session.token)
    newer.faults.clear()
    assert under_way() == []
    assert await adapter.load_session(session.token) is not None


async def test_cancelled_call_leaves_no_task(newer: Local, proxy: FaultProxy) -> None:
    adapter = newer.adapter(core_url=proxy.url, query_url=proxy.url, max_in_flight=2)
    session = await signed_in(adapter)
    assert await adapter.load_session(session.token) is not None
    for _ in range(3):
        gate = asyncio.Event()
        proxy.delay(gate)
        call = asyncio.ensure_future(adapter.load_session(session.token))
        await proxy.held(2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert under_way() == []
        proxy.delay(None)
        gate.set()
    assert await adapter.load_session(session.token) is not None
    await adapter.aclose()


async def test_overloaded_read_of_the_session_leaves_no_task(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    store = newer.store()
    adapter = newer.adapter(store=store)
    session = await signed_in(adapter)
    assert await adapter.load_session(session.token) is not None
    latest, answered = store.latest, asyncio.Event()

    async def crowded(stream: str, *, require_leader: bool = False) -> Latest:
        if stream.startswith("auth-user:"):
            answered.set()
            return await latest(stream)
        await answered.wait()
        while under_way():
            await asyncio.sleep(0.001)
        raise Overloaded("too many")

    monkeypatch.setattr(store, "latest", crowded)
    with pytest.raises(Overloaded, match="too many"):
        await adapter.load_session(session.token)
    assert under_way() == []
