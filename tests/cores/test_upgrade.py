"""A data directory that Cores of two ages take turns with.

Data of 0.23 says version 1 in every event: 0.27 takes an archived stream of any length to be at version 1, and 0.23 counts
events again when it gets the data back (section 3 of the contract of 0.27).
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Conflict, UserNotFound
from tests.cores.book import Book
from tests.cores.conftest import at
from tests.support.clocks import START, ManualClock
from tests.support.cores import NEWEST, OLDEST, running
from tests.support.events import stored
from tests.support.updates import assert_nothing_lost, writes

pytestmark = pytest.mark.core

LATER = START + timedelta(days=7)


async def live(book: Book, adapter: AllsourceAuthAdapter) -> None:
    """Users with several updates, one deleted, one restored; sessions, one of them revoked."""
    for name in ("ada", "bob", "eve", "zoe"):
        await book.enter(adapter.users.create(id=name, email=f"{name.title()}@example.org", username=name))
        for number in range(3):
            await book.enter(adapter.users.update(name, name=f"{name} {number}"))
        await book.sign_in(adapter, name, LATER, token=f"session_of_{name}")
        await book.extend(adapter, f"session_of_{name}", LATER + timedelta(days=1))
    await book.enter(adapter.users.update("bob", email="bobby@example.org"))
    await book.enter(adapter.users.update("bob", email="bob@example.org"))
    await book.delete(adapter, "eve")
    await book.delete(adapter, "zoe")
    await book.enter(adapter.users.restore("zoe"))
    await book.sign_in(adapter, "zoe", LATER)
    await book.sign_in(adapter, "zoe", LATER, token="session_gone")
    await book.sign_out(adapter, "session_gone")


async def live_on(book: Book, adapter: AllsourceAuthAdapter, when: str) -> None:
    """Everything that users and sessions can do, on what is there already."""
    await nothing_is_given_away(book, adapter)
    await book.enter(adapter.users.update("ada", role=when))
    await book.enter(adapter.users.update("ada", email=f"{when}@example.org", username=when))
    await book.enter(adapter.users.create(id=f"heir-{when}", email="ada@example.org", username="ada"))
    first = (await adapter.users.history("ada"))[0]
    with pytest.raises(Conflict):
        await adapter.users.revert("ada", to=first.event_id)
    await book.delete(adapter, f"heir-{when}")
    await book.enter(adapter.users.revert("ada", to=first.event_id))

    await book.delete(adapter, "bob")
    with pytest.raises(UserNotFound):
        await adapter.users.update("bob", name="x")
    await book.enter(adapter.users.create(id=f"taker-{when}", email="BOB@example.org"))
    with pytest.raises(Conflict):
        await adapter.users.restore("bob")
    await book.enter(adapter.users.update(f"taker-{when}", email=None))
    await book.enter(adapter.users.restore("bob"))

    await book.enter(adapter.users.create(id="eve", email="eve@example.org"))
    await book.sign_in(adapter, "eve", LATER)
    await book.delete(adapter, "eve")

    await book.sign_in(adapter, "zoe", LATER, token=f"session_{when}")
    for token in ("session_of_ada", f"session_{when}"):
        await book.extend(adapter, token, book.sessions[token].expires_at + timedelta(days=1))
    await book.sign_out(adapter, f"session_{when}")


async def nothing_is_given_away(book: Book, adapter: AllsourceAuthAdapter) -> None:
    for user in book.users.values():
        for wish in ({"id": user.id}, {"email": user.email}, {"username": user.username}):
            if None not in wish.values():
                with pytest.raises(Conflict):
                    await adapter.users.create(**wish)
    for token in [*book.sessions, *book.revoked]:
        with pytest.raises(Conflict):
            await adapter.sessions.create(user_id="zoe", expires_at=LATER, token=token)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "fresh"])
@pytest.mark.parametrize("restarts", [0, 1, 2])
async def test_all_is_right_on_the_newer_core_and_back_on_the_older_one(
    tmp_path: Path, restarts: int, connected: bool
) -> None:
    """``restarts`` before the first change: whether what is there is in the log or in the archive."""
    book, clock = Book(), ManualClock()
    async with running(OLDEST, data=tmp_path) as core, at(core, clock=clock) as early:
        await live(book, early)
        for _ in range(restarts):
            await core.restart()
        for when, version in (("after", NEWEST), ("back", OLDEST), ("again", NEWEST)):
            await core.restart(signal.SIGKILL if when == "back" else signal.SIGTERM, version=version)
            async with nullcontext(early) if connected else at(core, clock=clock) as adapter:
                assert (await adapter.info()).server_version == version
                await book.assert_kept(adapter)
                clock.move(timedelta(minutes=1))
                await live_on(book, adapter, when)
                await book.assert_kept(adapter)
        await core.restart(version=OLDEST)
        async with at(core, clock=clock) as adapter:
            await book.assert_kept(adapter)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "fresh"])
async def test_concurrent_updates_are_not_lost_right_after_a_change_of_version(tmp_path: Path, connected: bool) -> None:
    written = writes(96)
    async with running(OLDEST, data=tmp_path) as core, at(core) as early, at(core) as other:
        await early.users.create(id="ada", email="first@example.org", username="first")
        for part, version in enumerate((OLDEST, NEWEST, OLDEST, NEWEST)):
            await core.restart(version=version)
            async with nullcontext(early) if connected else at(core) as adapter:
                mine = written[part * 24 : part * 24 + 24]
                await asyncio.gather(
                    *[
                        (adapter, other)[number % 2].users.update("ada", **{field: value})
                        for number, (field, value) in enumerate(mine)
                    ]
                )
        changes = await other.users.history("ada")
        assert_nothing_lost(await other.users.get("ada"), changes[1:], written)
        assert [change.seq for change in changes] == list(range(1, 98))


async def test_a_moment_in_the_past_is_the_same_on_both(tmp_path: Path) -> None:
    async with running(OLDEST, data=tmp_path) as core, at(core) as adapter:
        await adapter.users.create(id="ada")
        for number in range(4):
            await core.restart(version=(OLDEST, NEWEST)[number % 2])
            await adapter.users.update("ada", name=str(number))
        for version in (OLDEST, NEWEST):
            await core.restart(version=version)
            changes = await adapter.users.history("ada")
            assert [change.state and change.state.name for change in changes] == [None, "0", "1", "2", "3"]
            for change in changes:
                assert await adapter.users.as_of("ada", change.at) == change.state
                assert await adapter.users.as_of("ada", change.event_id) == change.state


async def test_events_of_the_older_core_are_numbered_one_and_those_of_the_newer_count(tmp_path: Path) -> None:
    """What the other tests of this module stand on."""
    async with running(OLDEST, data=tmp_path) as core, at(core) as adapter:
        store = AllsourceStore(core.url)
        await adapter.users.create(id="ada")
        await adapter.users.update("ada", name="0.23")
        await core.restart()
        await core.restart(version=NEWEST)
        await adapter.users.update("ada", name="0.27")
        assert [event.version for event in await stored(store, "auth-user:ada")] == [1, 1, 2]
        await store.close()
