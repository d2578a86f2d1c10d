"""`PerLoop`, one value for each event loop, and the lock of what event loops share."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence

from allsource_auth import Acknowledged, NewEvent, SqliteLog, SqliteStore
from allsource_auth.engine.streams import Streams
from allsource_auth.per_loop import PerLoop, shared_lock
from tests.support.events import new_event
from tests.support.wrappers import WrappedStore


def test_each_loop_has_its_own_value_until_it_is_closed() -> None:
    discarded: list[int] = []
    values = PerLoop(itertools.count().__next__, discarded.append)

    async def get() -> int:
        assert values.peek() in (None, values.get())
        await asyncio.sleep(0)
        return values.get()

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert [loop.run_until_complete(get()) for loop in (first, second, first, second)] == [0, 1, 0, 1]
    first.close()
    assert discarded == []
    assert asyncio.run(get()) == 2
    assert discarded == [0]
    second.close()


def test_values_of_other_loops_are_removed_and_those_of_closed_loops_discarded() -> None:
    discarded: list[int] = []
    values = PerLoop(itertools.count().__next__, discarded.append)

    async def get() -> int:
        return values.get()

    async def others() -> list[tuple[asyncio.AbstractEventLoop, int]]:
        return values.others()

    open_loop, closed_loop, running = (asyncio.new_event_loop() for _ in range(3))
    assert [loop.run_until_complete(get()) for loop in (open_loop, closed_loop, running)] == [0, 1, 2]
    closed_loop.close()
    assert running.run_until_complete(others()) == [(open_loop, 0)]
    assert discarded == [1]
    assert [loop.run_until_complete(get()) for loop in (running, open_loop)] == [2, 3]
    open_loop.close()
    running.close()


class Slow(WrappedStore):
    """A store whose appends wait."""

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        await asyncio.sleep(0)
        return await super().append(events)


def test_abandoned_coroutine_ends_while_its_thread_holds_the_shared_lock() -> None:
    """The garbage collector may end it at any allocation."""

    def end_append() -> None:
        append = Streams(Slow(SqliteStore(SqliteLog(None)))).append([new_event("auth-user:ada")])
        append.send(None)
        with shared_lock:
            append.close()

    thread = threading.Thread(target=end_append, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
