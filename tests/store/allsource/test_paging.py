"""Paging: replies that are too large, events with equal times, times that change between two pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from allsource_auth import AllsourceStore, Api
from allsource_auth.server import reading
from allsource_auth.store.allsource.wire import format_time, parse_time
from tests.store.allsource.local import Local, running_local
from tests.support.events import new_event, stored_user, whole_log

pytestmark = pytest.mark.usefixtures("watch")

SECOND = 1_000_000_000

# Replies that are too large


async def busy(local: Local, count: int, size: int) -> None:
    await local.append(
        *(new_event("auth-user:busy", stored_user("busy", name=f"{n} {'x' * size}")) for n in range(count))
    )


def requested(local: Local) -> list[int]:
    """The requested page sizes, of streams or of types."""
    return [
        int(r.parameters["limit"][0]) for r in local.arrived if "settings" not in str(r) and "order" in r.parameters
    ]


async def test_pages_are_halved_until_they_fit(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    await busy(newer, 300, 1000)
    monkeypatch.setattr(reading, "MAX_REPLY", 50_000)
    adapter = newer.adapter()
    await adapter.users.get("busy")
    newer.arrived.clear()
    changes = await adapter.users.history("busy")
    names = [change.state.name.split()[0] for change in changes if change.state and change.state.name]
    assert names == [str(number) for number in range(300)]
    sizes = requested(newer)
    assert sizes[:6] == [1000, 500, 250, 125, 62, 31]
    assert max(sizes[6:]) == 31, "a size that was too large is not requested again"
    newest = await adapter.users.history("busy", newest_first=True, limit=3)
    assert [change.event_id for change in newest] == [change.event_id for change in changes[:-4:-1]]


async def test_pages_of_a_scan_are_halved_until_they_fit(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    await newer.append(*(new_event(f"auth-user:u{n}", stored_user(f"u{n}", name="x" * 1000)) for n in range(300)))
    monkeypatch.setattr(reading, "MAX_REPLY", 50_000)
    adapter = newer.adapter()
    assert [user.id async for user in adapter.users.scan()] == sorted(f"u{number}" for number in range(300))
    assert (await adapter.users.list(limit=5)).total == 300


@pytest.mark.parametrize("call", ["get", "history", "list", "update"])
async def test_single_event_that_is_too_large_is_an_error(
    newer: Local, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await busy(newer, 3, 60_000)
    monkeypatch.setattr(reading, "MAX_REPLY", 50_000)
    users = newer.adapter(query_url=None).users
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: users.get("busy"),
        "history": lambda: users.history("busy"),
        "list": lambda: users.list(),
        "update": lambda: users.update("busy", name="small"),
    }
    with pytest.raises(Api) as caught:
        await calls[call]()
    assert (caught.value.status, caught.value.ambiguous) == (413, False)
    assert requested(newer)[-1] == 1
    assert len(newer.arrived) <= 12


async def test_other_413_does_not_halve_the_page(newer: Local) -> None:
    adapter = newer.adapter()
    await adapter.users.create(id="ada")
    newer.arrived.clear()
    newer.faults.refuse(413, b"length limit exceeded", on="POST")
    with pytest.raises(Api):
        await adapter.users.update("ada", name="x")
    assert [request.method for request in newer.arrived].count("POST") == 1


# Scans


@asynccontextmanager
async def simultaneous(count: int) -> AsyncIterator[Local]:
    """Users whose events all have the same time."""
    moment = "2020-02-02T02:02:02.020202020Z"

    def at_once(answer: Any) -> Any:
        return answer | {"events": [event | {"timestamp": moment} for event in answer["events"]]}

    async with running_local("0.27") as local:
        await local.append(*(new_event(f"auth-user:u{n:05}", stored_user(f"u{n:05}")) for n in range(count)))
        local.faults.rewrite(at_once, on="GET")
        yield local


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000, 3500])
async def test_events_with_equal_times_are_read_once_each(count: int) -> None:
    async with simultaneous(count) as local:
        store = local.store()
        streams = [event.stream for event in await whole_log(store)]
        assert sorted(streams) == [f"auth-user:u{number:05}" for number in range(count)]
        heads = [event.stream async for page in store.heads("auth-user:", "auth.user.") for event in page]
        assert heads == sorted(streams)
        assert len(heads) == len(set(heads))
        assert (await local.adapter().users.list(limit=1)).total == count


class Archiving:
    """A Core that archives its events after the first reply, which cuts their times to microseconds."""

    def __init__(self, times: list[int]) -> None:
        self.times = times
        self.sizes: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        requested = request.url.params
        since = parse_time(requested["since"]) if "since" in requested else 0
        matching = sorted((time, place) for place, time in enumerate(self.times) if time >= since)
        offset, limit = int(requested.get("offset", 0)), int(requested["limit"])
        found = matching[offset : offset + limit]
        self.sizes.append(len(found))
        self.times = [time // 1000 * 1000 for time in self.times]
        events = [
            {
                "id": str(place),
                "event_type": "auth.user.updated",
                "entity_id": f"auth-user:{place}",
                "tenant_id": "default",
                "payload": {},
                "timestamp": format_time(time),
                "version": 1,
            }
            for time, place in found
        ]
        return httpx.Response(200, json={"events": events, "has_more": offset + len(found) < len(matching)})


async def scanned(core: Callable[[httpx.Request], httpx.Response]) -> list[str]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(core)) as client:
        store = AllsourceStore("http://localhost", http_client=client)
        return [event.id for event in await whole_log(store)]


@pytest.mark.parametrize("step", [1, 7, 100, 999, 1000, 1001, 50_000])
@pytest.mark.parametrize("latest_first", [False, True])
async def test_events_archived_between_two_pages_are_read_once_each(step: int, latest_first: bool) -> None:
    # If a microsecond has several events, the first page ends within it.
    times = [1_700_000_000 * SECOND + 501 + number * step for number in range(2500)]
    core = Archiving(times[::-1] if latest_first else times)
    found = await scanned(core)
    assert sorted(found, key=int) == [str(number) for number in range(2500)]
    assert max(core.sizes) <= 1000


async def test_scan_continues_from_the_last_time_without_offset(newer: Local) -> None:
    """The cost of an offset would grow with every page."""
    await newer.append(*(new_event(f"auth-user:u{number}", stored_user(f"u{number}")) for number in range(3500)))
    assert len(await whole_log(newer.store())) == 3500
    pages = [request.parameters for request in newer.arrived]
    assert len(pages) == 4
    assert not any("offset" in page for page in pages)
    assert ["since" in page for page in pages] == [False, True, True, True]
