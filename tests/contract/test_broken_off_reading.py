"""Closing an iterator early closes everything that it opened, at once."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.support.clocks import ManualClock
from tests.support.exploring import ALL

Walk = Callable[[AllsourceAuthAdapter], Any]

WALKS: dict[str, Walk] = {
    "scan": lambda adapter: adapter.users.scan(),
    "history": lambda adapter: adapter.users.iter_history("u0"),
    "events": lambda adapter: adapter.context.streams.scan("auth.user."),
    "heads": lambda adapter: adapter.context.streams.heads("auth-user:", "auth.user."),
    "newest": lambda adapter: adapter.context.streams.newest_of_each("auth-user:", "auth.user."),
}


@contextmanager
def no_unclosed_generators() -> Iterator[None]:
    """Fail if an async generator that was started inside is left for the event loop to close later."""
    found: list[str] = []
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=lambda left: found.append(repr(left)))
    try:
        yield
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*before)
    assert found == []


@pytest.fixture
async def people(adapter: AllsourceAuthAdapter) -> None:
    for number in range(3):
        await adapter.users.create(id=f"u{number}")


async def first_item(walk: Any) -> AsyncGenerator[Any, None]:
    assert await anext(walk) is not None
    return cast("AsyncGenerator[Any, None]", walk)


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.usefixtures("people")
async def test_closing_an_iterator_closes_what_it_opened(adapter: AllsourceAuthAdapter, name: str) -> None:
    with no_unclosed_generators():
        walk = await first_item(WALKS[name](adapter))
        await walk.aclose()


@pytest.mark.parametrize("name", ["scan", "history"])
@pytest.mark.usefixtures("people")
async def test_closing_an_iterator_in_a_transaction_closes_what_it_opened(
    adapter: AllsourceAuthAdapter, name: str
) -> None:
    async with adapter.transaction() as tx:
        await tx.users.update("u1", name="Ada")
        with no_unclosed_generators():
            walk = await first_item(WALKS[name](cast("AllsourceAuthAdapter", tx)))
            await walk.aclose()


async def test_sweep_cancelled_at_any_point_leaves_nothing_open(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    await adapter.users.create(id="u")
    for turns in range(0, 60, 1 if ALL else 5):
        await adapter.sessions.create(user_id="u", expires_at=clock() - timedelta(hours=1))
        with no_unclosed_generators():
            sweep = asyncio.ensure_future(adapter.sessions.delete_expired())
            for _ in range(turns):
                await asyncio.sleep(0)
            sweep.cancel()
            await asyncio.wait([sweep])
