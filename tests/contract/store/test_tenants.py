"""Tenants in one place: they never see each other's events, and share the version of a stream with the same name."""

import pytest

from allsource_auth import EventStore, VersionConflict
from tests.contract.conftest import MakeStore
from tests.support.events import new_event, payload, whole_log

A = "auth-user:a"


@pytest.fixture
def theirs(make_store: MakeStore) -> EventStore:
    return make_store("theirs")


async def test_events_of_another_tenant_are_invisible(store: EventStore, theirs: EventStore) -> None:
    await store.append([new_event(A, {"n": 1})])
    assert await theirs.read(A) == []
    assert (await theirs.latest(A)).event is None
    assert await whole_log(theirs) == []
    assert [page async for page in theirs.heads("auth-user:", "auth.user.") if page] == []


async def test_tenants_share_the_version_of_a_stream(store: EventStore, theirs: EventStore) -> None:
    await store.append([new_event(A, {"n": 1})])
    assert (await theirs.latest(A)).version == 1
    with pytest.raises(VersionConflict):
        await theirs.append([new_event(A, guard=0)])
    await theirs.append([new_event(A, {"n": 2}, guard=1)])
    latest = await store.latest(A)
    assert latest.version == 2
    assert latest.event is not None
    assert (payload(latest.event), latest.event.version) == ({"n": 1}, 1)


async def test_each_tenant_has_its_own_heads(store: EventStore, theirs: EventStore) -> None:
    await store.append([new_event(A, {"n": 1})])
    await theirs.append([new_event(A, {"n": 2})])
    for seen, n in ((store, 1), (theirs, 2)):
        heads = [event async for page in seen.heads("auth-user:", "auth.user.") for event in page]
        assert [payload(event) for event in heads] == [{"n": n}]
