"""Decisions never depend on plain reads, which a replica may answer with an older state."""

# ruff: noqa: PT012 - a transaction is a block, and ends with it

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Event, EventStore, Latest, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored_user
from tests.support.names import claim_stream
from tests.support.wrappers import CrashingStore, PatientStore


class Lagging(PatientStore):
    """Plain reads see only the first event of an entity. With ``index_streams`` they see nothing of index streams."""

    def __init__(self, store: EventStore, *, index_streams: bool = False) -> None:
        super().__init__(store)
        self._index_streams = index_streams

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        if require_leader or not self._is_behind(stream):
            return await super().latest(stream, require_leader=require_leader)
        seen = await self._seen(stream)
        return Latest(event=seen[0] if seen else None, version=len(seen))

    async def read(self, stream: str, *, require_leader: bool = False, **options: Any) -> list[Event]:
        found = await super().read(stream, require_leader=require_leader, **options)
        if require_leader or not self._is_behind(stream):
            return found
        seen = {event.id for event in await self._seen(stream)}
        return [event for event in found if event.id in seen]

    def _is_behind(self, stream: str) -> bool:
        return self._index_streams or not stream.startswith("auth-idx:")

    async def _seen(self, stream: str) -> list[Event]:
        return [] if stream.startswith("auth-idx:") else await super().read(stream, limit=1)


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


async def test_cascade_deletes_a_second_factor_that_a_replica_does_not_have(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    factor = await adapter.two_factors.create(user_id=ada.id, secret="s")
    lagging = make_adapter(store=Lagging(store, index_streams=True))
    await lagging.users.delete(ada.id)
    assert await adapter.two_factors.get(factor.id) is None


async def test_check_reports_no_claim_that_is_missing_on_a_replica_only(
    make_adapter: MakeAdapter, store: EventStore, ada: User
) -> None:
    lagging = make_adapter(store=Lagging(store, index_streams=True))
    assert (await lagging.check()).findings == ()


class Miscounting(Lagging):
    """The counters of users are too low, as after a crash: each user has version 1. Claims have their true age."""

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        found = await super().latest(stream, require_leader=require_leader)
        if found.event is None or not stream.startswith("auth-user:"):
            return found
        return Latest(event=msgspec.structs.replace(found.event, version=1), version=1)

    async def read(self, stream: str, *, require_leader: bool = False, **options: Any) -> list[Event]:
        found = await super().read(stream, require_leader=require_leader, **options)
        if not stream.startswith("auth-user:"):
            return found
        return [msgspec.structs.replace(event, version=1) for event in found]

    def server_time(self) -> int:
        return self._store.server_time()


async def test_value_given_up_is_free_with_stale_reads_and_low_versions(
    make_adapter: MakeAdapter, store: EventStore
) -> None:
    """The claim was never released. Its version equals that of its owner, so its update looks pending."""
    claim = {"v": 1, "owner": "auth-user:ada", "ownerVersion": 1}
    op = {"v": 1, "op": "f" * 32}
    for event in (
        new_event("auth-user:ada", stored_user("ada"), metadata=op | {"op": "a" * 32, "seq": 1}),
        new_event(
            claim_stream("email", email("wanted").lower()), claim, type="auth.index.claimed", metadata=op | {"seq": 1}
        ),
        new_event("auth-user:ada", stored_user("ada", email=email("wanted")), metadata=op | {"seq": 2}),
        new_event("auth-user:ada", stored_user("ada"), metadata=op | {"op": "b" * 32, "seq": 3}),
    ):
        await store.append([event])
    user = await make_adapter(store=Miscounting(store)).users.create(email=email("wanted"))
    assert await make_adapter().users.get_by_email(email("wanted")) == user
