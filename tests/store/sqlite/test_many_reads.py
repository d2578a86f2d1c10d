"""`SqliteStore.latest_many`: several streams in one statement."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, Json, NewEvent, SqliteLog, SqliteStore, StoreClosed
from allsource_auth.store.base import ManyReads
from allsource_auth.store.sqlite import store as sqlite
from tests.support.clocks import START
from tests.support.event_loop import loop_iterations
from tests.support.events import new_event

pytestmark = pytest.mark.usefixtures("watch")

LATER = START + timedelta(days=36_500)
ODD = [
    f"auth-user:{key}"
    for key in ("\"'\\", "a/b", "a\nb\t", "a\0b", "\x1b[31m", "ß\u2028🙂", "%_", "", " ", "null", "1", "x" * 5000)
]


@pytest.fixture(params=["memory", "file"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(None if request.param == "memory" else tmp_path / "auth.db")
    yield log
    await log.close()


@pytest.fixture
def store(log: SqliteLog) -> SqliteStore:
    return SqliteStore(log, owns_log=False)


@pytest.fixture
def adapter(store: SqliteStore) -> AllsourceAuthAdapter:
    return AllsourceAuthAdapter.with_store(store)


async def statements(log: SqliteLog, found: list[str]) -> None:
    """Record every statement of the reader from now on."""
    (await log.open()).set_trace_callback(found.append)


@pytest.mark.parametrize("count", [0, 1, 5, 99, 100, 101, 250])
async def test_latest_many_equals_separate_reads(log: SqliteLog, store: SqliteStore, count: int) -> None:
    assert isinstance(store, ManyReads)
    other = SqliteStore(log, "other", owns_log=False)
    streams = [*ODD, *(f"auth-user:{number}" for number in range(count))]
    for number, stream in enumerate(streams):
        await store.append([new_event(stream, {"n": number})])
        if number % 3 == 0:
            await store.append([new_event(stream, {"n": -number})])
        if number % 5 == 0:
            await other.append([new_event(stream, {"theirs": number})])
    await other.append([new_event("auth-user:theirs", {})])
    asked = ["auth-user:nobody", *streams, "auth-user:theirs", *streams[:3]]
    for each in (store, other):
        assert await each.latest_many(asked) == [await each.latest(stream) for stream in asked]


async def test_list_takes_two_statements(log: SqliteLog, adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create()
    for _ in range(50):
        await adapter.sessions.create(user_id=user.id, expires_at=LATER)
    found: list[str] = []
    await statements(log, found)
    assert len(await adapter.sessions.list_for_user(user.id)) == 50
    assert len(found) == 2


async def test_long_lists_yield_to_the_event_loop(log: SqliteLog, store: SqliteStore) -> None:
    streams = [f"auth-user:{number}" for number in range(950)]
    await store.append([new_event(stream, {}) for stream in streams])
    found: list[str] = []
    await statements(log, found)
    async with loop_iterations() as iterations:
        assert [latest.version for latest in await store.latest_many(streams)] == [1] * 950
    assert len(found) == 10
    assert iterations.count >= 9


async def test_failing_statement_falls_back_to_separate_reads(
    log: SqliteLog, adapter: AllsourceAuthAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await adapter.users.create()
    sessions = [await adapter.sessions.create(user_id=user.id, expires_at=LATER) for _ in range(3)]
    monkeypatch.setattr(sqlite, "_LATEST_MANY", "SELECT {places} FROM nowhere")
    found: list[str] = []
    await statements(log, found)
    assert list((await adapter.sessions.get_many([session.token for session in sessions])).values()) == sessions
    assert len(found) == 3


async def test_latest_many_of_a_closed_store_is_refused(log: SqliteLog, store: SqliteStore) -> None:
    await store.append([new_event("auth-user:a", {})])
    await store.close()
    with pytest.raises(StoreClosed):
        await store.latest_many(["auth-user:a", "auth-user:b"])


async def test_get_many_by_key(adapter: AllsourceAuthAdapter) -> None:
    users = {name: await adapter.users.create(id=name) for name in ("a", "b", "c")}
    await adapter.users.delete("b")
    found = await adapter.users.get_many(["c", "nobody", "a", "b", "c", "", "x\ny"])
    assert list(found.items()) == [("c", users["c"]), ("a", users["a"])]


async def test_error_names_the_event_that_cannot_be_decoded(adapter: AllsourceAuthAdapter, store: SqliteStore) -> None:
    await adapter.users.create(id="a")
    event = NewEvent(type="auth.user.updated", stream="auth-user:b", payload=b'{"id": 7}', metadata=b"")
    await store.append([event])
    with pytest.raises(Json, match="event"):
        await adapter.users.get_many(["a", "b"])
