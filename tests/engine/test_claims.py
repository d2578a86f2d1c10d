"""The grace period of pending claims."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace

import pytest

from allsource_auth import Acknowledged, AllsourceAuthAdapter, Conflict, NewEvent, SqliteLog, SqliteStore
from tests.support.clocks import ManualClock
from tests.support.events import new_event
from tests.support.names import claim_stream
from tests.support.wrappers import WrappedStore


class SlowStore(WrappedStore):
    """Each append takes ``seconds`` by `perf_counter`."""

    def __init__(self, store: SqliteStore, seconds: float) -> None:
        super().__init__(store)
        self._seconds = seconds
        self._elapsed = 0.0

    def perf_counter(self) -> float:
        return self._elapsed

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        self._elapsed += self._seconds
        return await super().append(events)


@pytest.mark.parametrize(
    ("append_takes", "age", "young"), [(0, 1, True), (0, 3, False), (1, 3, True), (1, 19, True), (1, 21, False)]
)
async def test_pending_claim_is_taken_over_after_2_seconds_and_20_slow_appends(
    monkeypatch: pytest.MonkeyPatch, append_takes: float, age: int, young: bool
) -> None:
    clock = ManualClock()
    store = SlowStore(SqliteStore(SqliteLog(None, clock_ns=clock.nanoseconds)), append_takes)
    monkeypatch.setattr("allsource_auth.engine.streams.time", SimpleNamespace(perf_counter=store.perf_counter))
    claim = {"v": 1, "owner": "auth-user:slow", "ownerVersion": 0}
    metadata = {"v": 1, "op": "f" * 32, "seq": 1}
    async with AllsourceAuthAdapter.with_store(store, clock=clock) as adapter:
        await adapter.users.create()
        await store.append(
            [new_event(claim_stream("email", "eve@example.org"), claim, type="auth.index.claimed", metadata=metadata)]
        )
        clock.move(timedelta(seconds=age))
        if young:
            with pytest.raises(Conflict):
                await adapter.users.create(email="eve@example.org")
        else:
            await adapter.users.create(email="eve@example.org")
