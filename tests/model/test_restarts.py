"""The random sequences on durable Cores that are restarted, killed and replaced by another version in between."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from allsource_auth import AllsourceAuthAdapter, AllsourceStore
from tests.model.profiles import OVER_HTTP
from tests.model.test_users_and_sessions import UsersAndSessions
from tests.support.clocks import ManualClock
from tests.support.cores import NEWEST, OLDEST, Core, running
from tests.support.targets import Site, Target

ENDS = st.sampled_from([signal.SIGTERM, signal.SIGKILL])


class Restarts(UsersAndSessions):
    """Two adapters that stay connected through restarts, until both are opened again."""

    versions: tuple[str, ...]
    core: Core

    def __init__(self) -> None:
        self.target = Target("restarting", self._start)
        super().__init__()

    @asynccontextmanager
    async def _start(self, directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
        async with running(self.versions[0], data=directory / "core") as self.core:
            yield Site(self._store)

    def _store(self, tenant: str) -> AllsourceStore:
        store = AllsourceStore(self.core.url, api_key=self.core.api_key, tenant_id=tenant)
        self.open.push_async_callback(store.close)
        return store

    @rule(ends=st.lists(ENDS, min_size=1, max_size=2), anew=st.booleans())
    def restart(self, ends: list[signal.Signals], anew: bool) -> None:
        for end in ends:
            self.run(self.core.restart(end))
        if anew:
            self.adapters = [
                AllsourceAuthAdapter.with_store(self._store("default"), clock=self.clock) for _ in self.adapters
            ]

    @rule(end=ENDS, number=st.integers(0, 1))
    def restart_in_a_version(self, end: signal.Signals, number: int) -> None:
        self.run(self.core.restart(end, version=self.versions[number % len(self.versions)]))


@pytest.mark.core
@pytest.mark.parametrize("versions", [(OLDEST,), (NEWEST,), (OLDEST, NEWEST)], ids="-".join)
def test_restarts_change_nothing(versions: tuple[str, ...]) -> None:
    run_state_machine_as_test(type("OnCores", (Restarts,), {"versions": versions}), settings=OVER_HTTP)
