"""Cores with a data directory that are restarted between two mutations, and during one.

At a restart Core moves its events from the log to the archive. After the next one, 0.23 does not know the versions of
archived streams until the tenant is queried (``docs/reference/allsource-api.md``, "Restarts"). So every check comes after
two restarts.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Conflict, EventStore, NewEvent
from allsource_auth.store.allsource import store as allsource
from allsource_auth.store.base import Acknowledged
from tests.cores.conftest import at
from tests.cores.expected_state import ExpectedState
from tests.support.clocks import START
from tests.support.cores import NEWEST, OLDEST, Core, running
from tests.support.exploring import size
from tests.support.ownership import assert_sound
from tests.support.wrappers import WrappedStore

pytestmark = pytest.mark.core

ROUNDS = size(5, 50)
ENDS = (signal.SIGTERM, signal.SIGKILL)
LATER = START + timedelta(days=7)

Act = Callable[[AllsourceAuthAdapter], Awaitable[object]]


@pytest.fixture(params=["connected", "fresh"])
def connected(request: pytest.FixtureRequest) -> bool:
    """Whether the later adapter was connected before the restarts."""
    return bool(request.param == "connected")


async def restart_twice(core: Core, number: int = 0) -> None:
    await core.restart(ENDS[number % 2])
    await core.restart(ENDS[(number + 1) % 2])


def later(
    core: Core, early: AllsourceAuthAdapter, connected: bool
) -> AbstractAsyncContextManager[AllsourceAuthAdapter]:
    return nullcontext(early) if connected else at(core)


async def test_second_sign_up_after_restarts_conflicts(version: str, connected: bool, tmp_path: Path) -> None:
    expected = ExpectedState()
    async with running(version, data=tmp_path) as core, at(core) as early:
        for number in range(ROUNDS):
            id, email = f"user-{number}", f"person{number}@example.org"  # noqa: A001
            await expected.record(early.users.create(id=id, email=email, username=id))
            await expected.sign_in(early, id, LATER, token=f"session_of_{id}")
            await restart_twice(core, number)
            async with later(core, early, connected) as adapter:
                with pytest.raises(Conflict) as refused:
                    await adapter.users.create(email=email.upper())
                assert refused.value.field == "email"
                await mutate_earlier(expected, adapter, number)
        await expected.assert_stored(early)
        await restart_twice(core)
        async with later(core, early, connected) as adapter:
            await expected.assert_stored(adapter)


async def mutate_earlier(expected: ExpectedState, adapter: AllsourceAuthAdapter, number: int) -> None:
    """Mutations of entities of earlier rounds, some in the log and some in the archive."""
    id = f"user-{number // 2}"  # noqa: A001
    await expected.record(adapter.users.update(id, name=f"name {number}"))
    if number % 3 == 1:
        await expected.record(adapter.users.update(id, email=f"person{number // 2}-{number}@example.org"))
    if number % 4 == 3:
        await expected.sign_out(adapter, f"session_of_user-{number}")
    else:
        await expected.extend(adapter, f"session_of_user-{number}", LATER + timedelta(days=number))


CONFLICTING: dict[str, Act] = {
    "email": lambda adapter: adapter.users.create(email="ADA@example.org"),
    "username": lambda adapter: adapter.users.create(username="ada"),
    "id": lambda adapter: adapter.users.create(id="ada"),
    "email of another": lambda adapter: adapter.users.update("eve", email="ADA@example.org"),
    "username of another": lambda adapter: adapter.users.update("eve", username="ada"),
    "email of the restored": lambda adapter: adapter.users.restore("deleted"),
    "token": lambda adapter: adapter.sessions.create(user_id="eve", token="session_of_ada", expires_at=LATER),
    "revoked token": lambda adapter: adapter.sessions.create(user_id="eve", token="session_gone", expires_at=LATER),
}


async def create_people(expected: ExpectedState, adapter: AllsourceAuthAdapter) -> None:
    """Create Ada with an email and username, Eve without, a deleted user whose email Ada has, and sessions of Ada."""
    await expected.record(adapter.users.create(id="deleted", email="ada@example.org"))
    await expected.delete(adapter, "deleted")
    await expected.record(adapter.users.create(id="ada", email="Ada@example.org", username="ada"))
    await expected.record(adapter.users.create(id="eve"))
    await expected.sign_in(adapter, "ada", LATER, token="session_of_ada")
    await expected.sign_in(adapter, "ada", LATER, token="session_gone")
    await expected.sign_out(adapter, "session_gone")


@pytest.mark.parametrize("mutation", CONFLICTING)
async def test_unique_value_is_still_taken_after_restarts(
    version: str, connected: bool, mutation: str, tmp_path: Path
) -> None:
    expected = ExpectedState()
    async with running(version, data=tmp_path) as core, at(core) as early:
        await create_people(expected, early)
        await restart_twice(core)
        async with later(core, early, connected) as adapter:
            with pytest.raises(Conflict):
                await CONFLICTING[mutation](adapter)
            await expected.assert_stored(adapter)


async def test_revoked_session_stays_revoked(version: str, connected: bool, tmp_path: Path) -> None:
    expected = ExpectedState()
    async with running(version, data=tmp_path) as core, at(core) as early:
        await create_people(expected, early)
        for number in range(3):
            await restart_twice(core, number)
            async with later(core, early, connected) as adapter:
                assert await adapter.sessions.get("session_gone") is None
                assert await adapter.sessions.get("session_of_ada") == expected.sessions["session_of_ada"]
                await adapter.sessions.delete("session_gone")
                await expected.assert_stored(adapter)


class InterruptedStore(WrappedStore):
    """Awaits ``meanwhile`` between the reads of the first mutation and its append."""

    def __init__(self, store: EventStore, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(store)
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().append(events)


async def interrupted(core: Core, first: Act, second: Act, *, restarts: int) -> tuple[object, object]:
    """Run ``first`` and the restarts between the reads and the append of ``second``. Returns the results of both."""
    outcomes: list[object] = []
    async with at(core) as other:

        async def meanwhile() -> None:
            outcomes.append(await first(other))
            for number in range(restarts):
                await core.restart(ENDS[number % 2])

        store = AllsourceStore(core.url, api_key=core.api_key)
        async with AllsourceAuthAdapter.with_store(InterruptedStore(store, meanwhile)) as adapter:
            try:
                outcomes.append(await second(adapter))
            except Conflict as conflict:
                outcomes.append(conflict)
    return outcomes[0], outcomes[1]


RIVALS: dict[str, tuple[Act, Act]] = {
    "email": (
        lambda other: other.users.create(email="new@example.org"),
        lambda adapter: adapter.users.create(email="NEW@example.org"),
    ),
    "username": (
        lambda other: other.users.create(username="new"),
        lambda adapter: adapter.users.create(username="new"),
    ),
    "id": (
        lambda other: other.users.create(id="new", name="first"),
        lambda adapter: adapter.users.create(id="new", name="second"),
    ),
    "token": (
        lambda other: other.sessions.create(user_id="ada", token="session_new", expires_at=LATER),
        lambda adapter: adapter.sessions.create(user_id="eve", token="session_new", expires_at=LATER),
    ),
    "email of another": (
        lambda other: other.users.create(email="new@example.org"),
        lambda adapter: adapter.users.update("eve", email="new@example.org"),
    ),
}
"""Two mutations with the same unique value: the first is acknowledged while the second is in progress."""


async def all_entities(core: Core) -> list[object]:
    async with at(core) as adapter:
        await assert_sound(adapter)
        users = [user async for user in adapter.users.scan()]
        return [*users, *[session async for session in adapter.sessions.scan()]]


@pytest.mark.parametrize("restarts", [1, 2, 3])
@pytest.mark.parametrize("rivals", RIVALS)
async def test_restarts_during_a_mutation_keep_values_unique(
    version: str, rivals: str, restarts: int, tmp_path: Path
) -> None:
    first, second = RIVALS[rivals]
    async with running(version, data=tmp_path) as core:
        async with at(core) as adapter:
            eve = await adapter.users.create(id="eve")
        winner, loser = await interrupted(core, first, second, restarts=restarts)
        assert isinstance(loser, Conflict)
        assert await all_entities(core) in ([eve, winner], [winner, eve])


@pytest.mark.parametrize("restarts", [1, 2, 3])
async def test_restarts_during_an_update_lose_no_other_update(version: str, restarts: int, tmp_path: Path) -> None:
    async with running(version, data=tmp_path) as core:
        async with at(core) as adapter:
            await adapter.users.create(id="ada")
        await restart_twice(core)
        _, user = await interrupted(
            core,
            lambda other: other.users.update("ada", role="admin"),
            lambda adapter: adapter.users.update("ada", name="Ada"),
            restarts=restarts,
        )
        assert (getattr(user, "name", None), getattr(user, "role", None)) == ("Ada", "admin")
        assert await all_entities(core) == [user]


# The two precautions of the package, each without the other


def without_reads_before_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(store: AllsourceStore, stream: str) -> None:
        pass

    monkeypatch.setattr(AllsourceStore, "_prepare_guarded_append", nothing)


def without_reading_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AllsourceStore, "loses_versions_on_restart", property(lambda store: False))
    monkeypatch.setattr(
        allsource, "TENANT_LOADED_FOR", 0.0
    )  # so that the read precedes the guard, however fast Core restarts


async def duplicates_and_updates(core: Core) -> tuple[int, int]:
    """How many users have one email, and how many of two updates are left, after a restart during the second."""
    async with at(core) as adapter:
        await adapter.users.create(id="ada")
    await restart_twice(core)
    await interrupted(core, *RIVALS["email"], restarts=2)
    await interrupted(
        core,
        lambda other: other.users.update("ada", role="admin"),
        lambda adapter: adapter.users.update("ada", name="Ada"),
        restarts=1,
    )
    async with at(core) as adapter:
        page = await adapter.users.list(search_value="new@example.org")
        ada = await adapter.users.get("ada")
        assert ada is not None
        return page.total, (ada.role == "admin") + (ada.name == "Ada")


async def test_core_0_23_without_precautions_duplicates_values_and_loses_updates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_reads_before_guards(monkeypatch)
    without_reading_back(monkeypatch)
    async with running(OLDEST, data=tmp_path) as core:
        assert await duplicates_and_updates(core) == (2, 1)


async def test_reading_before_guards_is_sufficient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_reading_back(monkeypatch)
    async with running(OLDEST, data=tmp_path) as core:
        assert await duplicates_and_updates(core) == (1, 2)


@pytest.mark.parametrize("rivals", RIVALS)
async def test_reading_back_detects_a_duplicate(monkeypatch: pytest.MonkeyPatch, rivals: str, tmp_path: Path) -> None:
    without_reads_before_guards(monkeypatch)
    async with running(OLDEST, data=tmp_path) as core:
        async with at(core) as adapter:
            await adapter.users.create(id="eve", name="Eve")
        winner, loser = await interrupted(core, *RIVALS[rivals], restarts=2)
        assert isinstance(loser, Conflict)
        found = await all_entities(core)
        assert len(found) == 2
        assert winner in found
        async with at(core) as adapter:
            eve = await adapter.users.get("eve")
            assert eve is not None
            assert (eve.name, eve.email) == ("Eve", None)


async def test_core_0_27_needs_no_precautions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_reads_before_guards(monkeypatch)
    without_reading_back(monkeypatch)
    async with running(NEWEST, data=tmp_path) as core:
        assert await duplicates_and_updates(core) == (1, 2)
