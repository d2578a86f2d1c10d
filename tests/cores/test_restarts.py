"""Durable Cores that are restarted between two mutations, and in the middle of one.

At a restart Core moves its events from the log to the archive; after the next one, 0.23 does not know the versions of what
is archived until the tenant is read (sections 6.1 and 19 of the contract). So every check comes after two restarts.
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
from tests.cores.book import Book
from tests.cores.conftest import at
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
    """Whether who comes later was connected before the restarts."""
    return bool(request.param == "connected")


async def restart_twice(core: Core, number: int = 0) -> None:
    await core.restart(ENDS[number % 2])
    await core.restart(ENDS[(number + 1) % 2])


def later(
    core: Core, early: AllsourceAuthAdapter, connected: bool
) -> AbstractAsyncContextManager[AllsourceAuthAdapter]:
    return nullcontext(early) if connected else at(core)


async def test_second_sign_up_conflicts_whatever_restarts_lie_between(
    version: str, connected: bool, tmp_path: Path
) -> None:
    book = Book()
    async with running(version, data=tmp_path) as core, at(core) as early:
        for number in range(ROUNDS):
            id, email = f"user-{number}", f"person{number}@example.org"  # noqa: A001
            await book.enter(early.users.create(id=id, email=email, username=id))
            await book.sign_in(early, id, LATER, token=f"session_of_{id}")
            await restart_twice(core, number)
            async with later(core, early, connected) as adapter:
                with pytest.raises(Conflict) as refused:
                    await adapter.users.create(email=email.upper())
                assert refused.value.field == "email"
                await live_on(book, adapter, number)
        await book.assert_kept(early)
        await restart_twice(core)
        async with later(core, early, connected) as adapter:
            await book.assert_kept(adapter)


async def live_on(book: Book, adapter: AllsourceAuthAdapter, number: int) -> None:
    """Changes to what earlier rounds have left, some of it in the log and some in the archive."""
    id = f"user-{number // 2}"  # noqa: A001
    await book.enter(adapter.users.update(id, name=f"name {number}"))
    if number % 3 == 1:
        await book.enter(adapter.users.update(id, email=f"person{number // 2}-{number}@example.org"))
    if number % 4 == 3:
        await book.sign_out(adapter, f"session_of_user-{number}")
    else:
        await book.extend(adapter, f"session_of_user-{number}", LATER + timedelta(days=number))


WISHES: dict[str, Act] = {
    "email": lambda adapter: adapter.users.create(email="ADA@example.org"),
    "username": lambda adapter: adapter.users.create(username="ada"),
    "id": lambda adapter: adapter.users.create(id="ada"),
    "email of another": lambda adapter: adapter.users.update("eve", email="ADA@example.org"),
    "username of another": lambda adapter: adapter.users.update("eve", username="ada"),
    "email of the restored": lambda adapter: adapter.users.restore("dead"),
    "token": lambda adapter: adapter.sessions.create(user_id="eve", token="session_of_ada", expires_at=LATER),
    "revoked token": lambda adapter: adapter.sessions.create(user_id="eve", token="session_gone", expires_at=LATER),
}


async def known_people(book: Book, adapter: AllsourceAuthAdapter) -> None:
    """Ada, who has what others want; Eve, who has nothing; somebody dead whose email Ada has taken; sessions."""
    await book.enter(adapter.users.create(id="dead", email="ada@example.org"))
    await book.delete(adapter, "dead")
    await book.enter(adapter.users.create(id="ada", email="Ada@example.org", username="ada"))
    await book.enter(adapter.users.create(id="eve"))
    await book.sign_in(adapter, "ada", LATER, token="session_of_ada")
    await book.sign_in(adapter, "ada", LATER, token="session_gone")
    await book.sign_out(adapter, "session_gone")


@pytest.mark.parametrize("wish", WISHES)
async def test_what_is_taken_stays_taken(version: str, connected: bool, wish: str, tmp_path: Path) -> None:
    book = Book()
    async with running(version, data=tmp_path) as core, at(core) as early:
        await known_people(book, early)
        await restart_twice(core)
        async with later(core, early, connected) as adapter:
            with pytest.raises(Conflict):
                await WISHES[wish](adapter)
            await book.assert_kept(adapter)


async def test_revoked_session_stays_revoked(version: str, connected: bool, tmp_path: Path) -> None:
    book = Book()
    async with running(version, data=tmp_path) as core, at(core) as early:
        await known_people(book, early)
        for number in range(3):
            await restart_twice(core, number)
            async with later(core, early, connected) as adapter:
                assert await adapter.sessions.get("session_gone") is None
                assert await adapter.sessions.get("session_of_ada") == book.sessions["session_of_ada"]
                await adapter.sessions.delete("session_gone")
                await book.assert_kept(adapter)


class InterruptedStore(WrappedStore):
    """Between the reads of the first mutation and its append, something else happens."""

    def __init__(self, store: EventStore, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(store)
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().append(events)


async def interrupted(core: Core, first: Act, second: Act, *, restarts: int) -> tuple[object, object]:
    """``second`` has read what it needs, then ``first`` happens and Core restarts, then ``second`` appends: what they get."""
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


TWINS: dict[str, tuple[Act, Act]] = {
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
"""Two mutations that want the same: the first is acknowledged while the second is under way."""


async def living(core: Core) -> list[object]:
    async with at(core) as adapter:
        await assert_sound(adapter)
        users = [user async for user in adapter.users.scan()]
        return [*users, *[session async for session in adapter.sessions.scan()]]


@pytest.mark.parametrize("restarts", [1, 2, 3])
@pytest.mark.parametrize("twins", TWINS)
async def test_restarts_in_the_middle_of_a_mutation_let_nothing_be_taken_twice(
    version: str, twins: str, restarts: int, tmp_path: Path
) -> None:
    first, second = TWINS[twins]
    async with running(version, data=tmp_path) as core:
        async with at(core) as adapter:
            eve = await adapter.users.create(id="eve")
        winner, loser = await interrupted(core, first, second, restarts=restarts)
        assert isinstance(loser, Conflict)
        assert await living(core) in ([eve, winner], [winner, eve])


@pytest.mark.parametrize("restarts", [1, 2, 3])
async def test_restarts_in_the_middle_of_an_update_lose_no_other_update(
    version: str, restarts: int, tmp_path: Path
) -> None:
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
        assert await living(core) == [user]


# What the package does about it, one precaution at a time


def without_reads_before_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(store: AllsourceStore, stream: str) -> None:
        pass

    monkeypatch.setattr(AllsourceStore, "_prepare_guarded_append", nothing)


def without_reading_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AllsourceStore, "loses_versions_on_restart", property(lambda store: False))
    monkeypatch.setattr(
        allsource, "TENANT_LOADED_FOR", 0.0
    )  # However fast Core restarts here, the read comes before the guard.


async def twice_without(core: Core) -> tuple[int, int]:
    """How many users have one email, and how many updates of two are left, after a restart in the middle of the second."""
    async with at(core) as adapter:
        await adapter.users.create(id="ada")
    await restart_twice(core)
    await interrupted(core, *TWINS["email"], restarts=2)
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


async def test_core_0_23_gives_a_value_away_twice_and_loses_updates_to_whoever_takes_no_precaution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_reads_before_guards(monkeypatch)
    without_reading_back(monkeypatch)
    async with running(OLDEST, data=tmp_path) as core:
        assert await twice_without(core) == (2, 1)


async def test_reading_before_guards_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_reading_back(monkeypatch)
    async with running(OLDEST, data=tmp_path) as core:
        assert await twice_without(core) == (1, 2)


@pytest.mark.parametrize("twins", TWINS)
async def test_reading_back_finds_what_was_taken_twice(
    monkeypatch: pytest.MonkeyPatch, twins: str, tmp_path: Path
) -> None:
    without_reads_before_guards(monkeypatch)
    async with running(OLDEST, data=tmp_path) as core:
        async with at(core) as adapter:
            await adapter.users.create(id="eve", name="Eve")
        winner, loser = await interrupted(core, *TWINS[twins], restarts=2)
        assert isinstance(loser, Conflict)
        found = await living(core)
        assert len(found) == 2
        assert winner in found
        async with at(core) as adapter:
            eve = await adapter.users.get("eve")
            assert eve is not None
            assert (eve.name, eve.email) == ("Eve", None)


async def test_core_0_27_needs_no_precaution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_reads_before_guards(monkeypatch)
    without_reading_back(monkeypatch)
    async with running(NEWEST, data=tmp_path) as core:
        assert await twice_without(core) == (1, 2)
