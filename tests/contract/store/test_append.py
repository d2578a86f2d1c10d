"""`EventStore.append`: order, guards, versions, acknowledgements."""

import json

import pytest

from allsource_auth import EventStore, StoreClosed, VersionConflict
from tests.support.events import new_event, payload, stored, whole_log

A, B = "auth-user:a", "auth-user:b"


async def test_acknowledgements_follow_the_order_of_the_batch(store: EventStore) -> None:
    acknowledged = await store.append([new_event(A), new_event(B), new_event(A)])
    assert [done.version for done in acknowledged] == [1, 1, 2]
    assert len({done.id for done in acknowledged}) == 3


async def test_acknowledgement_equals_what_is_read(store: EventStore) -> None:
    (done,) = await store.append([new_event(A)])
    (event,) = await store.read(A)
    assert (event.id, event.time, event.version) == (done.id, done.time, done.version)


async def test_event_is_read_as_it_was_appended(store: EventStore) -> None:
    raw = {"createdAt": "2026-11-23T10:59:20.552604072Z", "text": 'quote " slash / \n é 😀', "big": 2**63}
    await store.append([new_event(A, raw, type="auth.user.updated", metadata={"v": 1, "actor": "ada"})])
    (event,) = await store.read(A)
    assert (event.stream, event.type) == (A, "auth.user.updated")
    assert payload(event) == raw
    assert json.loads(bytes(event.metadata)) == {"v": 1, "actor": "ada"}


async def test_missing_metadata_reads_as_null(store: EventStore) -> None:
    await store.append([new_event(A)])
    (event,) = await store.read(A)
    assert bytes(event.metadata) == b"null"


async def test_guard_zero_creates_a_stream_once(store: EventStore) -> None:
    await store.append([new_event(A, guard=0)])
    with pytest.raises(VersionConflict):
        await store.append([new_event(A, guard=0)])
    assert len(await stored(store, A)) == 1


@pytest.mark.parametrize("guard", [0, 1, 3])
async def test_wrong_guard_names_both_versions_and_the_stream(store: EventStore, guard: int) -> None:
    await store.append([new_event(A), new_event(A)])
    with pytest.raises(VersionConflict) as caught:
        await store.append([new_event(A, guard=guard)])
    assert (caught.value.expected, caught.value.actual, caught.value.status) == (guard, 2, 409)
    assert caught.value.stream in (A, None)
    assert not caught.value.ambiguous


async def test_correct_guard_appends(store: EventStore) -> None:
    await store.append([new_event(A)])
    (done,) = await store.append([new_event(A, guard=1)])
    assert done.version == 2


async def test_unguarded_append_ignores_the_version(store: EventStore) -> None:
    for _ in range(3):
        await store.append([new_event(A)])
    assert (await store.latest(A)).version == 3


async def test_failed_guard_stores_nothing_or_the_events_before_it(store: EventStore) -> None:
    await store.append([new_event(B)])
    with pytest.raises(VersionConflict):
        await store.append([new_event(A, guard=0), new_event(B, guard=0), new_event("auth-user:c", guard=0)])
    kept = {event.stream for event in await whole_log(store)}
    assert kept == ({B} if store.atomic_batches else {A, B})


async def test_guards_of_one_batch_see_its_earlier_events(store: EventStore) -> None:
    await store.append([new_event(A, guard=0), new_event(A, guard=1), new_event(A, guard=2)])
    assert (await store.latest(A)).version == 3


async def test_guard_that_ignores_an_earlier_event_of_its_batch_fails(store: EventStore) -> None:
    with pytest.raises(VersionConflict) as caught:
        await store.append([new_event(A, guard=0), new_event(A, guard=0)])
    assert (caught.value.expected, caught.value.actual) == (0, 1)


async def test_streams_are_exact(store: EventStore) -> None:
    names = [
        "auth-user:a",
        "auth-user:A",
        "auth-user:a b",
        "auth-user:%61",
        "auth-user:a/b",
        "auth-user:é",
        "auth-user:a'b",
    ]
    for number, name in enumerate(names):
        await store.append([new_event(name, {"n": number}, guard=0)])
    assert [payload((await store.read(name))[0]) for name in names] == [{"n": n} for n in range(len(names))]


async def test_closed_store_refuses_every_call(store: EventStore) -> None:
    await store.append([new_event(A)])
    await store.close()
    await store.close()
    with pytest.raises(StoreClosed):
        await store.append([new_event(A)])
    with pytest.raises(StoreClosed):
        await store.latest(A)
    with pytest.raises(StoreClosed):
        await store.read(A)
    with pytest.raises(StoreClosed):
        _ = [page async for page in store.scan("auth.")]
    with pytest.raises(StoreClosed):
        _ = [page async for page in store.heads("auth-user:", "auth.user.")]
