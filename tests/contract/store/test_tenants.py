"""Tenants of one server or file: separate events, shared versions of equal stream ids."""

import pytest

from allsource_auth import EventStore, VersionConflict
from tests.contract.conftest import MakeStore
from tests.support.events import new_event, payload, whole_log

A = "auth-user:a"


@pytest.fixture
def other_tenant(make_store: MakeStore) -> EventStore:
    return make_store("other_tenant")


async def test_events_of_another_tenant_are_invisible(store: EventStore, other_tenant: EventStore) -> None:
    await store.append([new_event(A, {"n": 1})])
    assert await other_tenant.read(A) == []
    assert (await other_tenant.latest(A)).event is None
    assert await whole_log(other_tenant) == []
    assert [page async for page in other_tenant.heads("auth-user:", "auth.user.") if page] == []


async def test_tenants_share_the_version_of_a_stream(store: EventStore, other_tenant: EventStore) -> None:
    await store.append([new_event(A, {"n": 1})])
    assert (await other_tenant.latest(A)).version == 1
    with pytest.raises(VersionConflict):
        await other_tenant.append([new_event(A, guard=0)])
    await other_tenant.append([new_event(A, {"n": 2}, guard=1)])
    latest = await store.latest(A)
    assert latest.version == 2
    assert latest.event is not None
    assert (payload(latest.event), latest.event.version) == ({"n": 1}, 1)


async def test_each_tenant_has_its_own_heads(store: EventStore, other_tenant: EventStore) -> None:
    await store.append([new_event(A, {"n": 1})])
    await other_tenant.append([new_event(A, {"n": 2})])
    for seen, n in ((store, 1), (other_tenant, 2)):
        heads = [event async for page in seen.heads("auth-user:", "auth.user.") for event in page]
        assert [payload(event) for event in heads] == [{"n": n}]
