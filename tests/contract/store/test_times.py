"""Times of events: assigned by the store, in stored order, independent of steps of its clock."""

from datetime import UTC, datetime, timedelta

from allsource_auth import EventStore
from tests.contract.conftest import MakeStore
from tests.support.clocks import ManualClock
from tests.support.events import new_event, payload

A = "auth-user:a"


async def test_time_is_assigned_by_the_store_in_nanoseconds(store: EventStore, dated: ManualClock) -> None:
    (done,) = await store.append([new_event(A)])
    assert datetime.fromtimestamp(done.time / 1e9, UTC).replace(microsecond=0) == dated()


async def test_order_survives_a_clock_that_stands_still(store: EventStore, dated: ManualClock) -> None:
    for n in range(20):
        await store.append([new_event(A, {"n": n})])
    assert [payload(event)["n"] for event in await store.read(A)] == list(range(20))
    assert [payload(event)["n"] for event in await store.read(A, newest_first=True)] == list(reversed(range(20)))


async def test_order_survives_a_clock_that_steps_back(store: EventStore, dated: ManualClock) -> None:
    await store.append([new_event(A, {"n": 0})])
    dated.move(timedelta(hours=-1))
    await store.append([new_event(A, {"n": 1})])
    latest = await store.latest(A)
    assert latest.event is not None
    assert payload(latest.event) == {"n": 1}
    assert [payload(event)["n"] for event in await store.read(A)] == [0, 1]


async def test_server_time_is_at_least_the_newest_known_time(store: EventStore) -> None:
    (done,) = await store.append([new_event(A)])
    assert store.server_time() >= done.time


async def test_server_time_follows_events_of_other_stores(store: EventStore, make_store: MakeStore) -> None:
    (done,) = await make_store("default").append([new_event(A)])
    await store.latest(A)
    assert store.server_time() >= done.time
