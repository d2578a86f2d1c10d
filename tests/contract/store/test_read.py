"""`EventStore.latest` and `read`: the newest event and pages of one stream."""

import pytest

from allsource_auth import Event, EventStore
from tests.contract.conftest import MakeStore
from tests.support.events import new_event, payload
from tests.support.targets import Target

A = "auth-user:a"


@pytest.fixture
async def five(store: EventStore) -> list[Event]:
    """Five events of one stream, interleaved with another stream."""
    for n in range(5):
        await store.append([new_event(A, {"n": n}), new_event("auth-user:other", {"n": n})])
    events = await store.read(A)
    assert [payload(event)["n"] for event in events] == [0, 1, 2, 3, 4]
    return events


@pytest.mark.parametrize("require_leader", [False, True])
async def test_latest_is_the_newest_event_and_the_version(
    store: EventStore, five: list[Event], require_leader: bool
) -> None:
    latest = await store.latest(A, require_leader=require_leader)
    assert latest.event == five[-1]
    assert latest.version == 5


async def test_missing_stream_has_version_zero(store: EventStore) -> None:
    latest = await store.latest("auth-user:nobody")
    assert (latest.event, latest.version) == (None, 0)
    assert await store.read("auth-user:nobody") == []


async def test_versions_count_up(five: list[Event], target: Target) -> None:
    assert [event.version for event in five] == ([1, 2, 3, 4, 5] if target.numbers_events else [1] * 5)


async def test_newest_first_reverses_the_order(store: EventStore, five: list[Event]) -> None:
    assert await store.read(A, newest_first=True) == five[::-1]


@pytest.mark.parametrize(("offset", "limit"), [(0, 2), (2, 2), (4, 2), (5, 2), (9, 1), (0, 1)])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_skip_and_stop(
    store: EventStore, five: list[Event], offset: int, limit: int, newest_first: bool
) -> None:
    wanted = five[::-1] if newest_first else five
    page = await store.read(A, offset=offset, limit=limit, newest_first=newest_first)
    assert page == wanted[offset : offset + limit]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_until_is_inclusive(store: EventStore, five: list[Event], newest_first: bool) -> None:
    known = five[2].time
    page = await store.read(A, until=known, newest_first=newest_first)
    assert sorted(payload(event)["n"] for event in page) == [0, 1, 2]
    assert [payload(event)["n"] for event in await store.read(A, until=known - 1)] == [0, 1]


async def test_more_than_a_thousand_events_come_in_pages(store: EventStore) -> None:
    await store.append([new_event(A, {"n": n}) for n in range(1500)])
    first = await store.read(A)
    assert len(first) == 1000
    rest = await store.read(A, offset=1000)
    assert [payload(event)["n"] for event in first + rest] == list(range(1500))


async def test_latest_sees_appends_of_another_store(store: EventStore, make_store: MakeStore) -> None:
    other = make_store("default")
    for version in range(1, 5):
        await (store if version % 2 else other).append([new_event(A, {"n": version})])
        for seeing in (store, other):
            latest = await seeing.latest(A)
            assert latest.version == version
            assert latest.event is not None
            assert payload(latest.event) == {"n": version}
