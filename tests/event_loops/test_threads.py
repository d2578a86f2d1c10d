"""Event loops in several threads: one adapter over HTTP, one embedded adapter for each thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from allsource_auth import AllsourceAuthAdapter, NewEvent, SqliteLog, SqliteStore, WrongLoop
from allsource_auth.store.base import Acknowledged
from tests.support.clocks import Gate

T = TypeVar("T")

THREADS = 4

READS = 4000
"""Reads of each thread. Two threads that use the same cursor crash the process within a few thousand."""


def in_threads(calls: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Run each call in an event loop of its own, in four threads, as a synchronous framework does."""
    with ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(asyncio.run, call) for call in calls]
        return [each.result() for each in running]


def test_threads_share_an_adapter_over_http(core_url: str) -> None:
    adapter = AllsourceAuthAdapter(core_url)

    async def request(number: int) -> tuple[str, str | None]:
        user = await adapter.users.create(name=f"user {number}")
        found = await adapter.users.get(user.id)
        assert found is not None
        return user.id, found.name

    found = in_threads([request(number) for number in range(200)])
    assert len({key for key, _ in found}) == 200
    assert [name for _, name in found] == [f"user {number}" for number in range(200)]
    asyncio.run(adapter.aclose())


def test_each_thread_opens_an_adapter_on_one_file(tmp_path: Path) -> None:
    async def request(number: int) -> str | None:
        async with AllsourceAuthAdapter.embedded(tmp_path / "auth.db", durability="normal") as adapter:
            user = await adapter.users.create(name=f"user {number}")
            found = await adapter.users.get(user.id)
            return None if found is None else found.name

    assert in_threads([request(number) for number in range(40)]) == [f"user {number}" for number in range(40)]


def test_two_running_loops_update_one_user_over_http(core_url: str) -> None:
    adapter = AllsourceAuthAdapter(core_url)
    user = asyncio.run(adapter.users.create(username="counted"))
    both = threading.Barrier(2, timeout=60)

    async def update(first: bool) -> None:
        await adapter.users.get(user.id)
        both.wait()
        for number in range(20):
            changes: dict[str, Any] = {"name": f"name {number}"} if first else {"role": f"role {number}"}
            updated, found = await asyncio.gather(
                adapter.users.update(user.id, **changes), adapter.users.get_by_username("counted")
            )
            assert found is not None
            assert updated.id == found.id == user.id

    in_threads([update(True), update(False)])
    found = asyncio.run(adapter.users.get(user.id))
    assert found is not None
    assert (found.name, found.role) == ("name 19", "role 19")
    asyncio.run(adapter.aclose())


def event(stream: str) -> NewEvent:
    return NewEvent(type="auth.user.updated", stream=stream, payload=b"{}", metadata=b"")


@pytest.mark.parametrize("where", ["file", "memory"])
def test_second_loop_is_refused_while_an_append_of_the_first_is_in_flight(tmp_path: Path, where: str) -> None:
    gate = Gate()
    log = SqliteLog(tmp_path / "events.db" if where == "file" else None, clock_ns=gate)
    store = SqliteStore(log)
    asyncio.run(store.latest("s"))
    first: list[list[Acknowledged]] = []
    thread = threading.Thread(target=lambda: first.append(asyncio.run(store.append([event("s")]))))
    thread.start()
    assert gate.entered.wait(60)
    for call in (
        partial(store.append, [event("s")]),
        partial(store.latest, "s"),
        partial(store.read, "s"),
        partial(store.latest_many, ["s", "t"]),
        lambda: anext(store.scan("")),
        store.close,
    ):
        with pytest.raises(WrongLoop, match="open one adapter per event loop; one file may be opened many times"):
            asyncio.run(call())
    gate.opened.set()
    thread.join()
    assert [one.version for one in first[0]] == [1]
    assert asyncio.run(store.latest("s")).version == 1
    asyncio.run(store.close())


def test_a_loop_that_went_on_after_a_cancelled_append_drops_no_append_of_the_next(tmp_path: Path) -> None:
    gate = Gate()
    store = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=gate))
    cancelled, next_waits = threading.Event(), threading.Event()

    async def cancel_and_go_on() -> None:
        task = asyncio.create_task(store.append([event("s")]))
        assert await asyncio.to_thread(gate.entered.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        cancelled.set()
        assert await asyncio.to_thread(next_waits.wait, 60)
        gate.opened.set()
        await asyncio.to_thread(following.join)

    async def append_twice() -> list[int]:
        tasks = [asyncio.create_task(store.append([event("s")])) for _ in range(2)]
        await asyncio.sleep(0)
        next_waits.set()
        return [(await task)[0].version for task in tasks]

    found: list[list[int]] = []

    def append_in_the_next_loop() -> None:
        assert cancelled.wait(60)
        found.append(asyncio.run(append_twice()))

    following = threading.Thread(target=append_in_the_next_loop)
    following.start()
    asyncio.run(cancel_and_go_on())
    assert found == [[2, 3]]
    asyncio.run(store.close())


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let the interpreter switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_concurrent_reads_of_several_loops_are_right_or_refused(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "events.db"))
    asyncio.run(store.append([event(stream) for stream in "abbcccdddd"]))
    outcomes: list[str] = []
    all_started = threading.Barrier(THREADS, timeout=60)

    async def read(stream: str, version: int) -> None:
        all_started.wait()
        for _ in range(READS):
            try:
                latest = await store.latest(stream)
            except WrongLoop:
                outcomes.append("refused")
            else:
                assert latest.event is not None
                assert (latest.event.stream, latest.version) == (stream, version)
                outcomes.append("right")

    in_threads([read(stream, version) for version, stream in enumerate("abcd", 1)])
    assert len(outcomes) == THREADS * READS
    assert "right" in outcomes
    asyncio.run(store.close())
