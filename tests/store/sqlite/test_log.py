"""`SqliteLog`: group commit, cancelled callers, closing, event loops, busy files."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from allsource_auth.errors import Storage, StoreClosed, VersionConflict
from allsource_auth.store.base import Acknowledged, NewEvent
from allsource_auth.store.sqlite.file import SqliteFile
from allsource_auth.store.sqlite.log import GROUP_APPENDS, GROUP_BYTES, SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from tests.support.clocks import Gate


def event(stream: str, *, guard: int | None = None, payload: bytes = b"{}") -> NewEvent:
    return NewEvent(type="auth.user.updated", stream=stream, payload=payload, metadata=b"", guard=guard)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def held(tmp_path: Path, gate: Gate) -> AsyncIterator[SqliteStore]:
    """A store whose commits wait at the gate."""
    store = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=gate))
    yield store
    gate.opened.set()
    await store.close()


@pytest.fixture(params=["file", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteLog(tmp_path / "events.db" if request.param == "file" else None))
    yield store
    await store.close()


async def ready() -> None:
    """Let every task that is ready run once."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_concurrent_appends_share_a_sync(store: SqliteStore) -> None:
    results = await asyncio.gather(*(store.append([event(f"s{n}", guard=0)]) for n in range(64)))
    assert [result[0].version for result in results] == [1] * 64
    assert store._log.syncs == 1


async def test_callers_with_consecutive_appends_share_syncs(store: SqliteStore) -> None:
    async def caller(name: str) -> None:
        for version in range(10):
            await store.append([event(name, guard=version)])

    await asyncio.gather(*(caller(f"s{n}") for n in range(32)))
    assert 10 <= store._log.syncs <= 40


async def test_appends_that_arrive_during_a_commit_form_the_next_group(held: SqliteStore, gate: Gate) -> None:
    first = asyncio.ensure_future(held.append([event("s")]))
    await gate.reached()
    others = [asyncio.ensure_future(held.append([event("s")])) for _ in range(20)]
    await ready()
    gate.opened.set()
    assert [result[0].version for result in await asyncio.gather(first, *others)] == list(range(1, 22))
    assert held._log.syncs == 2


async def test_failed_guard_does_not_affect_others_in_its_group(store: SqliteStore) -> None:
    first, failed, *others = await asyncio.gather(
        store.append([event("a", guard=0)]),
        store.append([event("b", guard=0), event("a", guard=0)]),
        store.append([event("b", guard=0)]),
        store.append([event("a", guard=1)]),
        return_exceptions=True,
    )
    assert store._log.syncs == 1
    assert isinstance(failed, VersionConflict)
    assert (failed.stream, failed.expected, failed.actual) == ("a", 0, 1)
    assert [outcome[0].version for outcome in (first, *others) if isinstance(outcome, list)] == [1, 1, 2]
    assert [(await store.latest(stream)).version for stream in "ab"] == [2, 1]


async def test_group_of_failed_guards_is_not_synced(store: SqliteStore) -> None:
    with pytest.raises(VersionConflict):
        await store.append([event("s", guard=5)])
    assert store._log.syncs == 0


async def test_groups_are_bounded_by_count_and_by_size(held: SqliteStore, gate: Gate) -> None:
    gate.opened.set()
    await asyncio.gather(*(held.append([event("s")]) for _ in range(GROUP_APPENDS + 1)))
    assert held._log.syncs == 2
    half = b'"' + b"x" * (GROUP_BYTES // 2) + b'"'
    await asyncio.gather(*(held.append([event("s", payload=half)]) for _ in range(3)))
    assert held._log.syncs == 5
    await held.append([event("s", payload=half * 5)])
    assert held._log.syncs == 6


async def test_results_arrive_in_the_order_of_the_appends(store: SqliteStore) -> None:
    order: list[int] = []

    async def caller(number: int) -> None:
        await store.append([event("s", guard=number)])
        order.append(number)

    await asyncio.gather(*(caller(n) for n in range(30)))
    assert order == list(range(30))


async def test_each_caller_in_a_failed_group_gets_its_own_error(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "missing" / "events.db"))
    outcomes = await asyncio.gather(*(store.append([event("s")]) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Storage}
    assert len({id(outcome) for outcome in outcomes}) == 5
    await store.close()


async def test_unexpected_error_reaches_the_callers(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=lambda: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        await store.append([event("s")])
    store._log.clock_ns = lambda: 1
    assert (await store.append([event("s", guard=0)]))[0].version == 1
    await store.close()


async def test_append_cancelled_before_its_commit_stores_nothing(held: SqliteStore, gate: Gate) -> None:
    first = asyncio.ensure_future(held.append([event("a")]))
    await gate.reached()
    second = asyncio.ensure_future(held.append([event("b"), event("b")]))
    third = asyncio.ensure_future(held.append([event("c")]))
    await ready()
    second.cancel()
    gate.opened.set()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [(await held.latest(stream)).version for stream in "abc"] == [1, 0, 1]


async def test_append_cancelled_during_its_commit_is_stored(held: SqliteStore, gate: Gate) -> None:
    task = asyncio.ensure_future(held.append([event("s"), event("s")]))
    await gate.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await held._log.flush()
    assert (await held.latest("s")).version == 2


@pytest.mark.parametrize("guard", [9, None])
async def test_outcome_for_a_cancelled_caller_is_dropped_silently(
    held: SqliteStore, gate: Gate, guard: int | None
) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    first = asyncio.ensure_future(held.append([event("a")]))
    task = asyncio.ensure_future(held.append([event("s", guard=guard)]))
    await gate.reached()
    task.cancel()
    gate.opened.set()
    await first
    await asyncio.gather(task, return_exceptions=True)
    del task
    gc.collect()
    await ready()
    assert reported == []


async def test_batch_cancelled_at_any_point_is_complete_or_absent(store: SqliteStore) -> None:
    for turns in range(8):
        task = asyncio.ensure_future(store.append([event(f"s{turns}"), event(f"s{turns}")]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        await store._log.flush()
        version = (await store.latest(f"s{turns}")).version
        assert version in ((2,) if isinstance(outcome, list) else (0, 2))


async def test_close_waits_for_accepted_appends(tmp_path: Path, gate: Gate) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=gate))
    first = asyncio.ensure_future(store.append([event("s")]))
    await gate.reached()
    waiting = [asyncio.ensure_future(store.append([event("s")])) for _ in range(GROUP_APPENDS + 5)]
    await ready()
    closing = [asyncio.ensure_future(store.close()) for _ in range(3)]
    await ready()
    assert not any(task.done() for task in closing)
    with pytest.raises(StoreClosed):
        await store.append([event("s")])
    gate.opened.set()
    await asyncio.gather(first, *waiting, *closing)
    await store.close()
    again = SqliteStore(SqliteLog(tmp_path / "events.db"))
    assert (await again.latest("s")).version == GROUP_APPENDS + 6
    await again.close()


async def test_cancelled_close_still_closes(tmp_path: Path, gate: Gate) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=gate))
    task = asyncio.ensure_future(store.append([event("s")]))
    await gate.reached()
    closing = asyncio.ensure_future(store.close())
    await ready()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.opened.set()
    assert (await task)[0].version == 1
    await store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("allsource-auth")]


async def test_open_raises_store_closed_when_closed_meanwhile(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    opened, closed = await asyncio.gather(log.open(), log.close(), return_exceptions=True)
    assert isinstance(opened, StoreClosed)
    assert closed is None


async def test_use_after_close_is_refused(store: SqliteStore) -> None:
    await store.append([event("s")])
    await store.close()
    await store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.append([event("s")]),
        lambda: store.append([]),
        lambda: store.latest("s"),
        lambda: store.read("s"),
        lambda: anext(store.scan("")),
        lambda: anext(store.heads("", "")),
    ]
    for use in uses:
        with pytest.raises(StoreClosed):
            await use()  # type: ignore[misc]


async def test_scan_fails_if_the_store_is_closed_meanwhile(store: SqliteStore) -> None:
    await store.append([event("s") for _ in range(1_500)])
    pages = store.scan("")
    assert len(await anext(pages)) == 1_000
    await store.close()
    with pytest.raises(StoreClosed):
        await anext(pages)


async def test_closing_an_unused_store_creates_no_file(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db"))
    await store.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreClosed):
        await store.latest("s")


async def test_log_that_the_store_does_not_own_stays_open(store: SqliteStore) -> None:
    other = SqliteStore(store._log, "other", owns_log=False)
    task = asyncio.ensure_future(other.append([event("s")]))
    await ready()
    await other.close()
    assert task.done()
    with pytest.raises(StoreClosed):
        await other.latest("s")
    assert (await store.latest("s")).version == 1
    await store.close()
    await other.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc shows the open files")
async def test_close_releases_files_and_threads(tmp_path: Path) -> None:
    def open_files() -> list[str]:
        links = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208
        return [str(link.readlink()) for link in links if link.is_symlink() and str(tmp_path) in str(link.readlink())]

    others = set(threading.enumerate())  # includes threads of logs that earlier tests left to the garbage collector

    def ours() -> list[threading.Thread]:
        return [
            thread for thread in threading.enumerate() if thread not in others and thread.name.startswith("allsource-")
        ]

    store = SqliteStore(SqliteLog(tmp_path / "events.db"))
    await store.append([event("s")])
    await store.latest("s")
    assert len([page async for page in store.scan("")]) == 1
    assert open_files()
    assert {thread.name[:21] for thread in ours()} == {"allsource-auth-writer", "allsource-auth-scanne"}
    await store.close()
    assert open_files() == []
    assert ours() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["events.db"]


async def test_connections_are_closed_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two connections to a file close at the same time, SQLite leaves the write-ahead log."""
    closed: list[str] = []
    close_scanner, close = SqliteFile.close_scanner, SqliteFile.close

    def slowly(file: SqliteFile) -> None:
        time.sleep(0.05)
        close_scanner(file)
        closed.append("scanner")

    def others(file: SqliteFile) -> None:
        closed.append("others")
        close(file)

    monkeypatch.setattr(SqliteFile, "close_scanner", slowly)
    monkeypatch.setattr(SqliteFile, "close", others)
    store = SqliteStore(SqliteLog(tmp_path / "events.db"))
    await store.append([event("s")])
    assert len([page async for page in store.scan("")]) == 1
    await store.close()
    assert closed == ["scanner", "others"]


@pytest.mark.parametrize("where", ["file", "memory"])
def test_event_loops_can_use_a_log_in_sequence(tmp_path: Path, where: str) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db" if where == "file" else None))

    async def once(version: int) -> None:
        assert (await store.latest("s")).version == version
        await store.append([event("s", guard=version)])
        assert len([page async for page in store.scan("")]) == 1

    for version in range(3):
        asyncio.run(once(version))
    asyncio.run(store.close())


@pytest.mark.parametrize("cancelled", [True, False], ids=["tasks cancelled", "tasks pending"])
def test_loop_closed_during_a_commit_does_not_block_the_next_loop(tmp_path: Path, cancelled: bool) -> None:
    gate = Gate()
    store = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=gate))

    async def abandon() -> list[asyncio.Task[list[Acknowledged]]]:
        first = asyncio.create_task(store.append([event("s")]))
        await gate.reached()
        second = asyncio.create_task(store.append([event("t")]))
        await ready()
        assert not first.done()
        assert not second.done()
        return [first, second]

    if cancelled:
        asyncio.run(abandon())
    else:
        loop = asyncio.new_event_loop()
        lost = loop.run_until_complete(abandon())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        for task in lost:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    async def continue_on_next_loop() -> None:
        task = asyncio.create_task(store.append([event("s", guard=1)]))
        await ready()
        gate.opened.set()
        assert (await task)[0].version == 2
        assert (await store.latest("t")).version == 0
        await store.close()

    asyncio.run(continue_on_next_loop())


async def test_concurrent_first_calls_open_one_file(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db"))
    await asyncio.gather(
        *(store.latest("s") for _ in range(10)),
        *(store.append([event("s")]) for _ in range(10)),
        *(store.read("s") for _ in range(10)),
    )
    assert (await store.latest("s")).version == 10
    await store.close()


async def test_read_of_a_busy_file_is_retried(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db"))
    await store.append([event("s")])
    await store._log.open()
    busy = BusyOnce(store._log._idle_reader.pop())
    store._log._idle_reader.append(busy)  # type: ignore[arg-type]
    assert (await store.latest("s")).version == 1
    assert busy.refusals == []
    await store.close()


class BusyOnce:
    """A cursor whose first reads fail with a lock, as in SQLite while another process recovers the file."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.cursor = cursor
        self.refusals = [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY]

    def execute(self, statement: str, arguments: tuple[object, ...]) -> sqlite3.Cursor:
        if self.refusals:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.refusals.pop()
            raise error
        return self.cursor.execute(statement, arguments)
