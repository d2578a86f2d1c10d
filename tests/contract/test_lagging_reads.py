"""Decisions never depend on plain reads, which a replica may answer with an older state."""

# ruff: noqa: PT012 - a transaction is a block, and ends with it

from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Event, EventStore, Latest, User
from tests.contract.conftest import MakeAdapter
from tests.support.clocks import ManualClock
from tests.support.wrappers import CrashingStore, PatientStore


class Lagging(PatientStore):
    """Its plain reads return the first event of an entity stream only."""

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        if require_leader or stream.startswith("auth-idx:"):
            return await super().latest(stream, require_leader=require_leader)
        first = await super().read(stream, limit=1)
        return Latest(event=first[0] if first else None, version=len(first))

    async def read(self, stream: str, *, require_leader: bool = False, **options: Any) -> list[Event]:
        found = await super().read(stream, require_leader=require_leader, **options)
        if require_leader or stream.startswith("auth-idx:"):
            return found
        first = await super().read(stream, limit=1)
        return [event for event in found if event.id == first[0].id]


@pytest.fixture
def lagging(make_adapter: MakeAdapter, store: EventStore) -> AllsourceAuthAdapter:
    return make_adapter(store=Lagging(store))


async def test_restoration_brings_the_last_state_back(
    adapter: AllsourceAuthAdapter, lagging: AllsourceAuthAdapter, ada: User
) -> None:
    await adapter.users.update(ada.id, name="Lovelace")
    await adapter.users.delete(ada.id)
    assert (await lagging.users.restore(ada.id)).name == "Lovelace"


async def test_revert_to_a_state_that_a_replica_lacks(
    adapter: AllsourceAuthAdapter, lagging: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    await adapter.users.update(ada.id, name="Lovelace")
    (middle,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    clock.move(timedelta(seconds=1))
    await adapter.users.update(ada.id, name="Byron")
    assert (await lagging.users.revert(ada.id, to=middle.event_id)).name == "Lovelace"
    await adapter.users.update(ada.id, name="Byron")
    assert (await lagging.users.revert(ada.id, to=middle.at)).name == "Lovelace"


async def test_remaining_events_are_merged_with_newer_writes(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await adapter.users.update(ada.id, name="Lovelace")
    eve = await adapter.users.create()
    dying = make_adapter(store=CrashingStore(store, kept=1))
    with pytest.raises(AllsourceAuthError):
        async with dying.transaction() as tx:
            await tx.users.update(eve.id, name="Eve")
            await tx.users.update(ada.id, role="admin")
    await adapter.users.update(ada.id, name="Byron")
    await make_adapter(store=Lagging(store)).check(repair=True)
    user = await adapter.users.get(ada.id)
    assert user is not None
    assert (user.name, user.role) == ("Byron", "admin")
