"""Fixtures: an empty store on each target, and adapters on it.

Everything that a test logs, returns or raises is searched for secrets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, Session, User
from tests.support.canaries import Watch, email, watched
from tests.support.clocks import ManualClock
from tests.support.exploring import ALL
from tests.support.targets import TARGETS, Site, Target

HERE = Path(__file__).parent

STORE_DEPENDENT = (
    "store/",
    "test_cancellation",
    "test_closing",
    "test_concurrency",
    "test_index_streams",
    "test_load_session",
    "test_read_modify_write",
    "test_restore",
    "test_sessions",
    "test_sweeps",
    "test_tenants",
    "test_transactions",
    "test_users_create",
)
"""Modules whose behaviour depends on how a store reads and writes. They run on more targets than the others."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the targets of each test; the session ``matrix`` runs all tests on all targets.

    The short suite runs every module in memory, and those that depend on the store on a file and on the local server, too.
    The session ``core`` runs every module on the newest Core, those that depend on the store on the oldest one, too, and the
    contract of stores with h11 as the parser of replies. Tables of operations that are no races run in memory only, and on one
    interpreter.
    """
    if "target" not in metafunc.fixturenames:
        return
    name = metafunc.definition.path.relative_to(HERE).as_posix()
    table = metafunc.definition.get_closest_marker("tables") is not None
    race = metafunc.definition.get_closest_marker("race") is not None
    depends = race or (name.startswith(STORE_DEPENDENT) and not table)
    wanted = {
        "sqlite-memory": True,
        "sqlite-file": depends,
        "local": depends,
        "local-h11": name.startswith("store/") and not table,
        "core-0.23.0": depends,
        "core-0.27.0": race or not table,
    }
    more = (pytest.mark.heavy,) if table else ()
    chosen = [
        pytest.param(target, id=target.name, marks=(*target.marks, *more))
        for target in TARGETS
        if ALL or wanted.get(target.name)
    ]
    metafunc.parametrize("target", chosen, indirect=True)


class MakeAdapter(Protocol):
    def __call__(
        self, *, tenant_id: str = "default", clock: ManualClock | None = None, store: EventStore | None = None
    ) -> AllsourceAuthAdapter: ...


MakeStore = Callable[[str], EventStore]


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def site(target: Target, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    async with target.start(tmp_path, clock) as started:
        yield started


@pytest.fixture
def dated(target: Target, clock: ManualClock) -> ManualClock:
    """The clock, for tests in which it must date the events, too."""
    if not target.dates_events:
        pytest.skip("the events of this target carry the time of its own clock")
    return clock


@pytest.fixture
def make_store(site: Site) -> MakeStore:
    return site.store


@pytest.fixture
def store(make_store: MakeStore) -> EventStore:
    return make_store("default")


@pytest.fixture
def make_adapter(make_store: MakeStore, clock: ManualClock) -> MakeAdapter:
    ours = clock

    def make(
        *, tenant_id: str = "default", clock: ManualClock | None = None, store: EventStore | None = None
    ) -> AllsourceAuthAdapter:
        return AllsourceAuthAdapter.with_store(store or make_store(tenant_id), clock=clock or ours)

    return make


@pytest.fixture
def adapter(make_adapter: MakeAdapter) -> AllsourceAuthAdapter:
    return make_adapter()


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    with watched(monkeypatch) as watch:
        yield watch


@pytest.fixture
async def ada(adapter: AllsourceAuthAdapter) -> User:
    return await adapter.users.create(email=email("Ada"), username="ada", name="Ada")


@pytest.fixture
async def session(adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock) -> Session:
    """A session of Ada that is valid for a week."""
    return await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=7))
