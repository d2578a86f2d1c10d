"""A data directory that is used by Core 0.23 and 0.27 in turn.

Events of 0.23 have version 1, so 0.27 takes an archived stream of any length to be at version 1; 0.23 counts the events again
when it opens the data (``docs/reference/allsource-api.md``, "Versions" and "Restarts").
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Conflict, UserNotFound
from tests.cores.conftest import at
from tests.cores.expected_state import ExpectedState
from tests.support.clocks import START, ManualClock
from tests.support.cores import NEWEST, OLDEST, running
from tests.support.events import stored
from tests.support.updates import assert_nothing_lost, writes

pytestmark = pytest.mark.core

LATER = START + timedelta(days=7)


async def create_people(expected: ExpectedState, adapter: AllsourceAuthAdapter) -> None:
    """Create users with several updates, one deleted, one restored, and sessions, one of them revoked."""
    for name in ("ada", "bob", "eve", "zoe"):
        await expected.record(adapter.users.create(id=name, email=f"{name.title()}@example.org", username=name))
        for number in range(3):
            await expected.record(adapter.users.update(name, name=f"{name} {number}"))
        await expected.sign_in(adapter, name, LATER, token=f"session_of_{name}")
        await expected.extend(adapter, f"session_of_{name}", LATER + timedelta(days=1))
    await expected.record(adapter.users.update("bob", email="bobby@example.org"))
    await expected.record(adapter.users.update("bob", email="bob@example.org"))
    await expected.delete(adapter, "eve")
    await expected.delete(adapter, "zoe")
    await expected.record(adapter.users.restore("zoe"))
    await expected.sign_in(adapter, "zoe", LATER)
    await expected.sign_in(adapter, "zoe", LATER, token="session_gone")
    await expected.sign_out(adapter, "session_gone")


async def mutate_everything(expected: ExpectedState, adapter: AllsourceAuthAdapter, when: str) -> None:
    """Run every kind of mutation of users and sessions on existing ones."""
    await assert_values_are_taken(expected, adapter)
    await expected.record(adapter.users.update("ada", role=when))
    await expected.record(adapter.users.update("ada", email=f"{when}@example.org", username=when))
    await expected.record(adapter.users.create(id=f"heir-{when}", email="ada@example.org", username="ada"))
    first = (await adapter.users.history("ada"))[0]
    with pytest.raises(Conflict):
        await adapter.users.revert("ada", to=first.event_id)
    await expected.delete(adapter, f"heir-{when}")
    await expected.record(adapter.users.revert("ada", to=first.event_id))

    await expected.delete(adapter, "bob")
    with pytest.raises(UserNotFound):
        await adapter.users.update("bob", name="x")
    await expected.record(adapter.users.create(id=f"taker-{when}", email="BOB@example.org"))
    with pytest.raises(Conflict):
        await adapter.users.restore("bob")
    await expected.record(adapter.users.update(f"taker-{when}", email=None))
    await expected.record(adapter.users.restore("bob"))

    await expected.record(adapter.users.create(id="eve", email="eve@example.org"))
    await expected.sign_in(adapter, "eve", LATER)
    await expected.delete(adapter, "eve")

    await expected.sign_in(adapter, "zoe", LATER, token=f"session_{when}")
    for token in ("session_of_ada", f"session_{when}"):
        await expected.extend(adapter, token, expected.sessions[token].expires_at + timedelta(days=1))
    await expected.sign_out(adapter, f"session_{when}")


async def assert_values_are_taken(expected: ExpectedState, adapter: AllsourceAuthAdapter) -> None:
    for user in expected.users.values():
        values = {"id": user.id, "email": user.email, "username": user.username}
        for name, value in values.items():
            if value is not None:
                given: dict[str, Any] = {name: value}
                with pytest.raises(Conflict):
                    await adapter.users.create(**given)
    for token in [*expected.sessions, *expected.revoked]:
        with pytest.raises(Conflict):
            await adapter.sessions.create(user_id="zoe", expires_at=LATER, token=token)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "fresh"])
@pytest.mark.parametrize("restarts", [0, 1, 2])
async def test_state_survives_upgrade_downgrade_and_second_upgrade(
    tmp_path: Path, restarts: int, connected: bool
) -> None:
    """``restarts`` before the first upgrade decide whether the events are in the log or in the archive."""
    expected, clock = ExpectedState(), ManualClock()
    async with running(OLDEST, data=tmp_path) as core, at(core, clock=clock) as early:
        await create_people(expected, early)
        for _ in range(restarts):
            await core.restart()
        for when, version in (("after", NEWEST), ("back", OLDEST), ("again", NEWEST)):
            await core.restart(signal.SIGKILL if when == "back" else signal.SIGTERM, version=version)
            async with nullcontext(early) if connected else at(core, clock=clock) as adapter:
                assert (await adapter.info()).server_version == version
                await expected.assert_stored(adapter)
                clock.move(timedelta(minutes=1))
                await mutate_everything(expected, adapter, when)
                await expected.assert_stored(adapter)
        await core.restart(version=OLDEST)
        async with at(core, clock=clock) as adapter:
            await expected.assert_stored(adapter)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "fresh"])
async def test_concurrent_updates_after_a_change_of_version_are_kept(tmp_path: Path, connected: bool) -> None:
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


async def test_as_of_gives_the_same_state_on_both_versions(tmp_path: Path) -> None:
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


async def test_older_core_numbers_events_with_one_and_newer_core_counts(tmp_path: Path) -> None:
    """The precondition of the other tests of this module."""
    async with running(OLDEST, data=tmp_path) as core, at(core) as adapter:
        store = AllsourceStore(core.url)
        await adapter.users.create(id="ada")
        await adapter.users.update("ada", name="0.23")
        await core.restart()
        await core.restart(version=NEWEST)
        await adapter.users.update("ada", name="0.27")
        assert [event.version for event in await stored(store, "auth-user:ada")] == [1, 1, 2]
        await store.close()
