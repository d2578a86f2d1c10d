"""Queueing of a store's requests: bounded concurrency, FIFO order, coalescing, closing, cancellation."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote

import pytest

from allsource_auth import AllsourceAuthAdapter, Overloaded, StoreClosed, Timeouts, User
from tests.store.allsource.local import Arrived, Local
from tests.support.canaries import email
from tests.support.clocks import START
from tests.support.ownership import assert_sound
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.usefixtures("watch"), pytest.mark.heavy]


async def create_users(local: Local, count: int) -> list[User]:
    adapter = local.adapter()
    return list(await asyncio.gather(*(adapter.users.create(id=f"u{number}") for number in range(count))))


def user_key(request: Arrived) -> str:
    """The key of the user whose stream is requested."""
    return request.parameters["entity_id"][0].removeprefix("auth-user:")


def adapter_through(proxy: FaultProxy, local: Local, **options: Any) -> AllsourceAuthAdapter:
    return local.adapter(core_url=proxy.url, query_url=proxy.url, **options)


class Gate(asyncio.Event):
    """Makes the proxy hold all replies until it is set."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__()
        proxy.delay(self)


def started(*calls: Awaitable[object]) -> list[asyncio.Future[object]]:
    return [asyncio.ensure_future(call) for call in calls]


# Concurrency and order


@pytest.mark.heavy
@pytest.mark.parametrize("slots", [1, 16])
async def test_requests_in_flight_never_exceed_max_in_flight(newer: Local, proxy: FaultProxy, slots: int) -> None:
    users = await create_users(newer, 20)
    adapter = adapter_through(proxy, newer, max_in_flight=slots)
    found = await asyncio.gather(*(adapter.users.get(f"u{number % 20}") for number in range(500)))
    assert found == [users[number % 20] for number in range(500)]
    assert proxy.most_in_flight <= slots
    assert newer.faults.most_at_once <= 16


async def test_all_slots_are_used(newer: Local, proxy: FaultProxy) -> None:
    await create_users(newer, 1)
    adapter = adapter_through(proxy, newer)
    await adapter.users.get("u0")
    gate = Gate(proxy)
    calls = started(*(adapter.users.get("u0") for _ in range(500)))
    await proxy.held(16)
    assert proxy.in_flight == 16
    gate.set()
    assert None not in await asyncio.gather(*calls)
    assert proxy.most_in_flight == 16


@pytest.mark.parametrize("slots", [1, 4])
async def test_callers_are_served_in_fifo_order(newer: Local, slots: int) -> None:
    adapter = newer.adapter(max_in_flight=slots)
    await adapter.users.get("nobody")
    newer.arrived.clear()
    await asyncio.gather(*(adapter.users.get(f"u{number}") for number in range(200)))
    numbers = [int(user_key(request)[1:]) for request in newer.arrived]
    assert sorted(numbers) == list(range(200))
    # Requests in flight at the same time may overtake each other.
    assert all(abs(number - position) < 2 * slots for position, number in enumerate(numbers))
    assert numbers == list(range(200)) or slots > 1


async def test_reads_and_appends_of_one_server_share_its_queue(newer: Local) -> None:
    adapter = newer.adapter(query_url=None, max_in_flight=1)
    await adapter.users.create(id="first")
    newer.arrived.clear()
    calls: list[Awaitable[object]] = []
    for number in range(20):
        calls.append(adapter.users.get(f"u{number}"))
        calls.append(adapter.users.create())
    await asyncio.gather(*calls)
    assert newer.requests() == ["GET core", "POST core"] * 20


async def test_hanging_core_leaves_reads_of_a_query_service_alone(newer: Local, proxy: FaultProxy) -> None:
    await create_users(newer, 1)
    adapter = newer.adapter(core_url=proxy.url)
    await adapter.users.get("u0")
    gate = Gate(proxy)
    writes = started(*(adapter.users.create() for _ in range(40)))
    await proxy.held(12)
    for _ in range(20):
        assert await adapter.users.get("u0")
    assert proxy.in_flight == 12
    gate.set()
    await asyncio.gather(*writes)


async def test_hanging_query_service_leaves_writes_alone(newer: Local) -> None:
    async with FaultProxy(newer.query_url) as service:
        adapter = newer.adapter(query_url=service.url)
        await adapter.users.create(id="u0")
        gate = Gate(service)
        reads = started(*(adapter.users.get(f"u{number}") for number in range(40)))
        await service.held(16)
        for _ in range(20):
            await adapter.users.create()
        gate.set()
        await asyncio.gather(*reads)


async def test_appends_leave_a_quarter_of_the_slots_to_reads(newer: Local, proxy: FaultProxy) -> None:
    await create_users(newer, 4)
    adapter = adapter_through(proxy, newer, max_in_flight=8)
    await adapter.users.create()
    gate = Gate(proxy)
    writes = started(*(adapter.users.create() for _ in range(40)))
    await proxy.held(6)
    reads = started(*(adapter.users.get(f"u{number}") for number in range(4)))
    await proxy.held(8)
    assert sorted(request[0] for request in proxy.requests[-8:]) == ["GET"] * 2 + ["POST"] * 6
    gate.set()
    await asyncio.gather(*reads, *writes)
    assert proxy.most_in_flight == 8


async def test_url_that_is_spelled_twice_is_one_server(newer: Local, proxy: FaultProxy) -> None:
    await create_users(newer, 1)
    adapter = newer.adapter(core_url=proxy.url, query_url=f"{proxy.url}/", max_in_flight=3)
    await adapter.users.get("u0")
    gate = Gate(proxy)
    calls = started(*(adapter.users.get("u0") for _ in range(10)), *(adapter.users.create() for _ in range(10)))
    await proxy.held(3)
    gate.set()
    await asyncio.gather(*calls)
    assert proxy.most_in_flight == 3


async def test_slow_server_gets_at_most_max_in_flight_requests(newer: Local, proxy: FaultProxy) -> None:
    users = await create_users(newer, 4)
    adapter = adapter_through(proxy, newer, max_in_flight=4)
    await adapter.users.get("u0")
    proxy.requests.clear()
    for _ in range(3):
        gate = Gate(proxy)
        reads = started(*(adapter.users.get(f"u{number % 4}") for number in range(100)))
        signed_up = started(*(adapter.users.create(email=email(str(number))) for number in range(10)))
        await proxy.held(4)
        assert proxy.in_flight == 4
        gate.set()
        assert await asyncio.gather(*reads) == [users[number % 4] for number in range(100)]
        created = await asyncio.gather(*signed_up)
        proxy.delay(None)
        for user in created:
            assert isinstance(user, User)
            await adapter.users.delete(user.id)
    assert proxy.most_in_flight == 4


# A full queue


@pytest.mark.parametrize("queued", [0, 5])
async def test_caller_beyond_max_queued_is_refused_at_once(newer: Local, proxy: FaultProxy, queued: int) -> None:
    await create_users(newer, 1)
    adapter = adapter_through(proxy, newer, max_in_flight=2, max_queued=queued)
    await adapter.users.get("u0")
    proxy.requests.clear()
    gate = Gate(proxy)
    in_flight = started(*(adapter.users.get("u0") for _ in range(2)))
    await proxy.held(2)
    waiting = started(*(adapter.users.get("u0") for _ in range(queued)))
    await asyncio.sleep(0)
    for call in (
        adapter.users.get("u0"),
        adapter.users.create(email=email("Ada")),
        adapter.sessions.create(user_id="u0", expires_at=START),
    ):
        with pytest.raises(Overloaded, match="max_queued") as caught:
            await call
        assert not caught.value.ambiguous
    assert len(proxy.requests) == 2
    gate.set()
    assert None not in await asyncio.gather(*in_flight, *waiting)
    assert len(proxy.requests) == 2 + min(queued, 1)  # the queued calls are equal, so one request answers all of them
    assert await adapter.users.get("u0") is not None
    assert await newer.types("auth-idx:user.") == []


async def test_cancelled_caller_leaves_room_in_the_queue(newer: Local, proxy: FaultProxy) -> None:
    await create_users(newer, 3)
    adapter = adapter_through(proxy, newer, max_in_flight=1, max_queued=2)
    await adapter.users.get("u0")
    proxy.requests.clear()
    gate = Gate(proxy)
    (in_flight,) = started(adapter.users.get("u0"))
    await proxy.held(1)
    first, second = started(adapter.users.get("u1"), adapter.users.get("u2"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    (third,) = started(adapter.users.get("u0"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await adapter.users.get("u0")
    gate.set()
    assert None not in await asyncio.gather(in_flight, second, third)
    assert [unquote(target).rpartition(":")[2] for _, target in proxy.requests] == ["u0", "u2", "u0"]


async def test_time_in_the_queue_does_not_count_for_timeouts(newer: Local, proxy: FaultProxy) -> None:
    adapter = adapter_through(proxy, newer, max_in_flight=1, timeout=Timeouts(read=60, total=60))
    await adapter.users.get("u0")
    gate = Gate(proxy)
    calls = started(*(adapter.users.get("u0") for _ in range(3)))
    await proxy.held(1)
    assert not any(call.done() for call in calls)
    gate.set()
    assert await asyncio.gather(*calls) == [None] * 3


# Closing


async def test_close_completes_requests_in_flight_and_rejects_queued(newer: Local, proxy: FaultProxy) -> None:
    users = await create_users(newer, 2)
    adapter = adapter_through(proxy, newer, max_in_flight=2)
    await adapter.users.get("u0")
    proxy.requests.clear()
    gate = Gate(proxy)
    in_flight = started(adapter.users.get("u0"), adapter.users.get("u1"))
    await proxy.held(2)
    waiting = started(
        *(adapter.users.get("u0") for _ in range(5)),
        adapter.users.create(email=email("Ada")),
        adapter.sessions.create(user_id="u0", expires_at=START),
    )
    await asyncio.sleep(0)
    closing, again = started(adapter.aclose(), adapter.aclose())
    await asyncio.sleep(0)
    with pytest.raises(StoreClosed):
        await adapter.users.get("u0")
    assert not closing.done()
    gate.set()
    assert await asyncio.gather(*in_flight) == users
    await asyncio.gather(closing, again)
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, StoreClosed)
    assert len(proxy.requests) == 2
    await adapter.aclose()
    with pytest.raises(StoreClosed):
        _ = adapter.http


async def test_cancelled_close_can_be_repeated(newer: Local, proxy: FaultProxy) -> None:
    adapter = adapter_through(proxy, newer)
    await adapter.users.get("u0")
    gate = Gate(proxy)
    (in_flight,) = started(adapter.users.get("u0"))
    await proxy.held(1)
    (closing,) = started(adapter.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(StoreClosed):
        await adapter.users.get("u0")
    gate.set()
    assert await in_flight is None
    await adapter.aclose()


async def test_unused_adapter_can_be_closed(newer: Local) -> None:
    adapter = newer.adapter()
    await adapter.aclose()
    await adapter.aclose()
    with pytest.raises(StoreClosed):
        await adapter.users.get("u0")
    with pytest.raises(StoreClosed):
        await adapter.info()
    assert newer.arrived == []


# Cancellation


async def assert_all_slots_work(
    adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User], slots: int
) -> None:
    """Check that all slots can be used at once, and that no reply reaches another caller."""
    gate = Gate(proxy)
    calls = started(*(adapter.users.get(user.id) for user in users))
    await proxy.held(slots)
    assert proxy.in_flight == slots
    gate.set()
    proxy.delay(None)
    assert await asyncio.gather(*calls) == users


@pytest.mark.heavy
async def test_random_cancellations_leak_no_slot_and_no_task(newer: Local, proxy: FaultProxy) -> None:
    users = await create_users(newer, 40)
    adapter = adapter_through(proxy, newer, max_in_flight=10)
    rng = random.Random(20261123)
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        user = users[number % len(users)]
        kind = rng.choice(["get", "get", "get_by_email", "create", "update", "session"])
        call: Awaitable[object]
        if kind == "get":
            call = adapter.users.get(user.id)
        elif kind == "get_by_email":
            call = adapter.users.get_by_email(email(f"taken{number % 50}"))
        elif kind == "create":
            call = adapter.users.create(email=email(f"taken{number % 50}"), username=f"name{number % 50}")
        elif kind == "update":
            call = adapter.users.update(user.id, name=f"by {number}", email=email(f"mail{number}"))
        else:
            call = adapter.sessions.create(user_id=user.id, expires_at=START)
        task = asyncio.ensure_future(call)
        for _ in range(rng.choice([0, 1, 3, 10, 30, 100])):
            await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        outcomes[type(outcome).__name__] += 1
        if kind == "get" and isinstance(outcome, User):
            assert outcome.id == user.id

    for first in range(0, 1000, 50):
        await asyncio.gather(*(one(number) for number in range(first, first + 50)))
    assert outcomes["CancelledError"] > 300
    assert sum(outcomes.values()) == 1000
    now = [await adapter.users.get(user.id) for user in users]
    known = [user for user in now if user is not None]
    assert [user.id for user in known] == [user.id for user in users]
    for _ in range(3):
        await assert_all_slots_work(adapter, proxy, known, 10)
    await assert_sound(adapter)
    await assert_sound(newer.adapter())


async def test_cancelled_reads_do_not_mix_up_replies(newer: Local, proxy: FaultProxy) -> None:
    """Each read is cancelled while its reply is in transit."""
    users = await create_users(newer, 30)
    adapter = adapter_through(proxy, newer, max_in_flight=3)
    for turn in range(10):
        gate = Gate(proxy)
        calls = started(*(adapter.users.get(user.id) for user in users))
        await proxy.held(3)
        for call in calls[: 3 + turn]:
            call.cancel()
        await asyncio.sleep(0)
        gate.set()
        proxy.delay(None)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[3 + turn :] == users[3 + turn :]
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[: 3 + turn])
    await assert_all_slots_work(adapter, proxy, users, 3)


async def test_cancelled_sign_up_is_stored_completely_or_not_at_all(newer: Local, proxy: FaultProxy) -> None:
    adapter = adapter_through(proxy, newer)
    await adapter.users.create(id="first")
    proxy.requests.clear()
    gate = Gate(proxy)
    (call,) = started(adapter.users.create(email=email("Ada")))
    await proxy.held(1)
    gate.set()
    gate = Gate(proxy)
    while ("POST", "/api/v1/events/batch") not in proxy.requests:
        await asyncio.sleep(0)
    await proxy.held(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    proxy.delay(None)
    assert await adapter.users.get_by_email(email("Ada")) is not None
    await assert_sound(adapter)
