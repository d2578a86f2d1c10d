"""`EventStore.scan` and `heads`: reads over all streams, by type and time."""

import pytest

from allsource_auth import Event, EventStore
from tests.support.events import new_event, payload


async def scanned(store: EventStore, prefix: str, since: int | None = None, until: int | None = None) -> list[Event]:
    return [event async for page in store.scan(prefix, since=since, until=until) for event in page]


async def heads(store: EventStore, stream_prefix: str, type_prefix: str) -> list[Event]:
    return [event async for page in store.heads(stream_prefix, type_prefix) for event in page]


async def test_scan_is_in_time_order_and_by_type(store: EventStore) -> None:
    for n in range(4):
        await store.append([new_event(f"auth-user:{n % 2}", {"n": n})])
        await store.append([new_event(f"auth-session:{n}", type="auth.session.created")])
        await store.append([new_event(f"auth-user:{n % 2}", {"n": n + 10}, type="auth.user.updated")])
    found = await scanned(store, "auth.user.")
    assert [payload(event)["n"] for event in found] == [0, 10, 1, 11, 2, 12, 3, 13]
    assert [event.time for event in found] == sorted(event.time for event in found)


async def test_type_prefix_of_a_scan_is_not_a_pattern(store: EventStore) -> None:
    await store.append([new_event("auth-user:a", type="auth.user.created")])
    await store.append([new_event("auth-user:b", type="auth.userx.created")])
    await store.append([new_event("auth-user:c", type="auth.two_factor.created")])
    await store.append([new_event("auth-user:d", type="auth.twoxfactor.created")])
    assert [event.stream for event in await scanned(store, "auth.user.")] == ["auth-user:a"]
    assert [event.stream for event in await scanned(store, "auth.two_factor.")] == ["auth-user:c"]


async def test_both_times_of_a_scan_are_inclusive(store: EventStore) -> None:
    for n in range(5):
        await store.append([new_event(f"auth-user:{n}", {"n": n})])
    times = [event.time for event in await scanned(store, "auth.user.")]

    async def numbers(since: int | None, until: int | None) -> list[int]:
        return [payload(event)["n"] for event in await scanned(store, "auth.user.", since, until)]

    assert await numbers(times[1], times[3]) == [1, 2, 3]
    assert await numbers(times[1] + 1, times[3] - 1) == [2]
    assert await numbers(times[3], None) == [3, 4]
    assert await numbers(None, times[1]) == [0, 1]
    assert await numbers(times[4] + 1, None) == []


async def test_scan_of_nothing_is_empty(store: EventStore) -> None:
    assert await scanned(store, "auth.user.") == []
    assert await heads(store, "auth-user:", "auth.user.") == []


async def test_scan_has_no_limit(store: EventStore) -> None:
    for _ in range(5):
        await store.append([new_event(f"auth-user:{n}", {"n": n}) for n in range(501)])
    found = await scanned(store, "auth.user.")
    assert len(found) == len({event.id for event in found}) == 2505


async def test_scan_can_be_abandoned(store: EventStore) -> None:
    await store.append([new_event(f"auth-user:{n}") for n in range(2500)])
    async for page in store.scan("auth.user."):
        assert page
        break
    await store.append([new_event("auth-user:after")])
    assert (await store.latest("auth-user:after")).version == 1


async def test_heads_are_the_newest_event_of_every_stream_once(store: EventStore) -> None:
    for n in range(3):
        await store.append([new_event(f"auth-user:{name}", {"n": n}) for name in ("a", "b", "c")])
    await store.append([new_event("auth-session:x", type="auth.session.created")])
    found = await heads(store, "auth-user:", "auth.user.")
    assert sorted((event.stream, payload(event)["n"]) for event in found) == [
        ("auth-user:a", 2),
        ("auth-user:b", 2),
        ("auth-user:c", 2),
    ]


async def test_head_of_a_fenced_stream_has_the_newest_state(store: EventStore) -> None:
    """A fence repeats the state; stores that search by type do not return the fence."""
    await store.append([new_event("auth-user:a", {"n": 0}), new_event("auth-user:a", {"n": 1})])
    await store.append([new_event("auth-user:a", {"n": 1}, type="auth.index.fenced")])
    (head,) = await heads(store, "auth-user:", "auth.user.")
    assert payload(head) == {"n": 1}


@pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
async def test_heads_have_no_limit(store: EventStore, count: int) -> None:
    for first in range(0, count, 500):
        await store.append([new_event(f"auth-user:{n:05}") for n in range(first, min(first + 500, count))])
    found = await heads(store, "auth-user:", "auth.user.")
    assert len(found) == len({event.stream for event in found}) == count
