"""Closing an adapter."""

import asyncio

import pytest

from allsource_auth import AllsourceAuthAdapter, StoreClosed
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import START


async def test_every_call_after_closing_raises_store_closed(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(email=email("a"))
    session = await adapter.sessions.create(user_id=user.id, expires_at=START)
    await adapter.aclose()
    await adapter.aclose()
    for call in (
        adapter.users.create(),
        adapter.users.get(user.id),
        adapter.users.get_by_email(email("a")),
        adapter.users.update(user.id, name="x"),
        adapter.users.delete(user.id),
        adapter.users.restore(user.id),
        adapter.users.history(user.id),
        adapter.users.list(),
        adapter.sessions.list_for_user(user.id),
        adapter.sessions.delete_expired(),
        adapter.load_session(session.token),
    ):
        with pytest.raises(StoreClosed):
            await call


async def test_unused_adapter_raises_store_closed_after_closing(adapter: AllsourceAuthAdapter) -> None:
    await adapter.aclose()
    with pytest.raises(StoreClosed):
        await adapter.users.get("x")
    with pytest.raises(StoreClosed):
        await adapter.users.create()


async def test_async_with_closes_the_adapter(make_adapter: MakeAdapter) -> None:
    async with make_adapter() as adapter:
        await adapter.users.create()
    with pytest.raises(StoreClosed):
        await adapter.users.create()


async def test_closing_completes_accepted_writes(make_adapter: MakeAdapter) -> None:
    closing, reading = make_adapter(), make_adapter()
    await closing.users.create(id="warm")
    under_way = [asyncio.ensure_future(closing.users.create(id=f"u{number}")) for number in range(20)]
    await asyncio.sleep(0)
    await closing.aclose()
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        stored = await reading.users.get(f"u{number}")
        assert isinstance(outcome, StoreClosed) if stored is None else outcome == stored
