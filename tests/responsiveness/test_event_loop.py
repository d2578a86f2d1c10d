"""Long operations give the event loop to other tasks, on an embedded store and over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, NewEvent, SqliteLog, SqliteStore
from allsource_auth.engine import queries
from tests.responsiveness.measure import LIMIT, held
from tests.support.events import new_event, stored_user
from tests.support.local import local_allsource

pytestmark = pytest.mark.heavy

USERS = 3000
SESSIONS = 300
CHANGES = 900
IN_A_YEAR = datetime.now(UTC) + timedelta(days=365)


async def fill(store: SqliteStore | AllsourceStore, events: Sequence[NewEvent]) -> None:
    for start in range(0, len(events), 500):
        await store.append(events[start : start + 500])


@pytest.fixture(scope="module")
def users() -> list[NewEvent]:
    return [
        new_event(f"auth-user:u{number}", stored_user(f"u{number}", email=f"u{number}@example.org", name="x" * 200))
        for number in range(USERS)
    ]


@pytest.fixture
async def embedded(users: list[NewEvent]) -> AsyncIterator[AllsourceAuthAdapter]:
    store = SqliteStore(SqliteLog(None))
    await fill(store, users)
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        yield adapter


async def spin(seconds: float) -> None:
    """Hold the loop for CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def turns_of_another_task(call: Callable[[], Awaitable[None]]) -> int:
    """How often another task runs during ``call``."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    await call()
    task.cancel()
    return turns


async def test_measurement_notices_a_held_loop() -> None:
    async def in_one_piece() -> None:
        await spin(2 * LIMIT)

    async def in_pieces() -> None:
        for _ in range(20):
            await spin(LIMIT / 10)
            await asyncio.sleep(0)

    assert await held(in_one_piece) > 1.5 * LIMIT
    assert await held(in_pieces) < LIMIT


async def test_page_of_users_is_searched_beside_the_loop(embedded: AllsourceAuthAdapter) -> None:
    async def search() -> None:
        page = await embedded.users.list(sort_by="email", offset=USERS - 1000, limit=1000)
        assert (len(page.items), page.total) == (1000, USERS)

    assert await held(search) < LIMIT


async def test_search_on_the_loop_would_be_noticed(
    embedded: AllsourceAuthAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_the_loop(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    async def search() -> None:
        await embedded.users.list(sort_by="email", offset=USERS - 1000, limit=1000)

    beside = await held(search)
    monkeypatch.setattr(anyio.to_thread, "run_sync", on_the_loop)
    assert await held(search) > 2 * beside


async def test_scan_of_all_users_yields_within_a_page(
    embedded: AllsourceAuthAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scan() -> None:
        assert len([user async for user in embedded.users.scan()]) == USERS

    assert await held(scan) < LIMIT
    in_steps = await turns_of_another_task(scan)
    assert in_steps >= USERS // queries.DECODED_PER_YIELD
    monkeypatch.setattr(queries, "DECODED_PER_YIELD", USERS)
    assert await turns_of_another_task(scan) < in_steps / 3


async def test_sessions_of_one_user_are_deleted_in_steps(embedded: AllsourceAuthAdapter) -> None:
    async def sign_in_and_out() -> None:
        async with embedded.transaction() as tx:
            for _ in range(SESSIONS):
                await tx.sessions.create(user_id="u1", expires_at=IN_A_YEAR)
        assert await embedded.sessions.delete_for_user("u1") == SESSIONS

    await sign_in_and_out()
    for _ in range(SESSIONS):
        await embedded.sessions.create(user_id="u1", expires_at=IN_A_YEAR)
    assert await held(lambda: embedded.sessions.delete_for_user("u1")) < LIMIT


async def test_large_reply_of_a_server_is_decoded_beside_the_loop() -> None:
    async with local_allsource() as running:
        store = AllsourceStore(running.core_url, running.query_url, "ask_for_tests")
        event = new_event("auth-user:ada", stored_user("ada", name="x" * 1500))
        await fill(store, [msgspec.structs.replace(event, type="auth.user.updated") for _ in range(CHANGES)])

        async def read() -> None:
            assert len(await store.read("auth-user:ada")) == CHANGES

        assert await held(read) < LIMIT
        await store.close()
