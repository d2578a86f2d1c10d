"""Several read URLs: round-robin over the healthy ones, failover, probes, Core as the last resort."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Api, Http, RateLimited, Timeouts, Unavailable
from allsource_auth.store.allsource import client as allsource_client
from allsource_auth.store.allsource.read_routing import FIRST_PAUSE, MAX_PAUSE, ReadRouter
from tests.store.allsource.conftest import Time
from tests.store.allsource.error_bodies import PAGE, error_body
from tests.store.allsource.local import KEY, Local, Pauses
from tests.store.allsource.raw_server import Answer, answering, ending, right, silent
from tests.support.canaries import email
from tests.support.clocks import START
from tests.support.events import new_event
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("watch")

CORE = "http://core.example"
URLS = ("http://a.example", "http://b.example", "http://c.example")


@pytest.fixture
async def services(newer: Local) -> AsyncIterator[list[FaultProxy]]:
    """Three proxies in front of the Query Service of `newer`, each with its own faults."""
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(FaultProxy(newer.query_url)) for _ in range(3)]


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A URL at which every connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def urls(services: list[FaultProxy]) -> list[str]:
    return [service.url for service in services]


def new_requests(services: list[FaultProxy]) -> list[int]:
    """How many requests each proxy has received since the last call."""
    found = [len(service.requests) for service in services]
    for service in services:
        service.requests.clear()
    return found


async def adapter_on(local: Local, query_urls: list[str], **options: Any) -> AllsourceAuthAdapter:
    """An adapter that has detected the features of Core and created the user ``ada``. The recorded requests are cleared."""
    adapter = local.adapter(query_url=query_urls, **options)
    await adapter.users.create(id="ada")
    local.requests()
    return adapter


async def reads(adapter: AllsourceAuthAdapter, count: int) -> None:
    for _ in range(count):
        user = await adapter.users.get("ada")
        assert user is not None
        assert user.id == "ada"


# Round-robin


async def test_reads_are_spread_evenly(newer: Local, services: list[FaultProxy]) -> None:
    adapter = await adapter_on(newer, urls(services))
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10]
    await asyncio.gather(*(adapter.users.get(f"u{number}") for number in range(60)))
    assert new_requests(services) == [20, 20, 20]
    assert set(newer.requests()) == {"GET query"}


async def test_reads_are_spread_evenly_over_the_healthy_urls(
    newer: Local, services: list[FaultProxy], dead_url: str, time: Time
) -> None:
    adapter = await adapter_on(newer, [*urls(services), dead_url])
    await reads(adapter, 4)
    new_requests(services)
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10]


def test_first_read_goes_to_a_random_url() -> None:
    first_urls = Counter(ReadRouter(URLS, CORE).next_url() for _ in range(300))
    assert set(first_urls) == set(URLS)


# Failover

Arm = Callable[[FaultProxy], None]

ONCE = 2
"""How often a connection must break to fail one read: one that breaks on a reused connection is repeated on a new one."""

FAULTS: dict[str, Arm] = {
    "reset": lambda service: service.reset_before(ONCE),
    "no-reply": lambda service: service.lose_reply(ONCE, "GET"),
    "half-a-reply": lambda service: service.truncate(1),
    "429": lambda service: service.answer(429, {"Retry-After": "1"}, b"", count=1),
    "429-for-long": lambda service: service.answer(429, {"Retry-After": "3000"}, b"", count=1),
    "502": lambda service: service.answer(502, {}, PAGE, count=1),
    "503": lambda service: service.answer(503, {}, PAGE, count=1),
    "503-not-ready": lambda service: service.answer(503, {}, error_body(error="read_model_busy"), count=1),
    "504": lambda service: service.answer(504, {}, b"", count=1),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_failed_read_fails_over_without_a_pause(
    newer: Local, services: list[FaultProxy], time: Time, pauses: Pauses, fault: str
) -> None:
    adapter = await adapter_on(newer, urls(services))
    FAULTS[fault](services[1])
    await reads(adapter, 3)
    assert 1 <= new_requests(services)[1] <= ONCE
    await reads(adapter, 30)
    assert new_requests(services) == [15, 0, 15], "the failed URL is skipped"
    assert pauses.made == []
    assert set(newer.requests()) == {"GET query"}


async def test_refused_connection_fails_over_without_a_pause(
    newer: Local, services: list[FaultProxy], dead_url: str, time: Time, pauses: Pauses
) -> None:
    adapter = await adapter_on(newer, [dead_url, services[0].url])
    await reads(adapter, 20)
    assert new_requests(services[:1]) == [20]
    assert pauses.made == []


# The timeouts apply to the healthy servers as well, so they are long enough for a slow machine.
BROKEN: dict[str, tuple[Answer, Timeouts]] = {
    "closed": (ending(), Timeouts()),
    "read": (silent, Timeouts(connect=30, read=3, total=30)),
    "total": (silent, Timeouts(connect=30, read=30, total=3)),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_every_engine_fails_over_after_a_break_and_a_timeout(
    options: dict[str, Any], time: Time, pauses: Pauses, fault: str
) -> None:
    answer, timeout = BROKEN[fault]
    async with answering(answer) as bad, answering(right) as good, answering(right) as core:
        store = AllsourceStore(core.url, [bad.url, good.url], KEY, timeout=timeout, **options)
        for _ in range(10):
            assert (await store.latest("s")).event is None
        assert 1 <= len(bad.requests) <= ONCE
        assert len(good.requests) == 10
        assert core.requests == []
        assert pauses.made == []
        await store.close()


async def test_every_engine_fails_over_after_a_connect_timeout(
    options: dict[str, Any], time: Time, pauses: Pauses
) -> None:
    """A server that accepts the connection but never answers the TLS handshake."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: taken.append(writer), "127.0.0.1", 0)
    bad = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with answering(right) as good, answering(right) as core:
        limits = Timeouts(connect=0.2, read=30, total=30)
        store = AllsourceStore(core.url, [bad, good.url], timeout=limits, **options)
        for _ in range(10):
            assert (await store.latest("s")).event is None
        assert (len(taken), len(good.requests), core.requests) == (1, 10, [])
        await store.close()
    server.close()
    for writer in taken:
        writer.close()
    await server.wait_closed()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
async def test_error_of_the_request_itself_does_not_fail_over(
    newer: Local, services: list[FaultProxy], pauses: Pauses, status: int
) -> None:
    adapter = await adapter_on(newer, urls(services))
    for service in services:
        service.answer(status, {}, b"", count=1)
    for _ in services:
        with pytest.raises(Api) as caught:
            await adapter.users.get("ada")
        assert caught.value.status == status
    assert new_requests(services) == [1, 1, 1]
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10]
    assert (pauses.made, newer.requests()) == ([], ["GET query"] * 30)


# Probes


async def test_one_read_probes_after_a_pause_that_doubles(newer: Local, services: list[FaultProxy], time: Time) -> None:
    adapter = await adapter_on(newer, urls(services))
    bad = services[0]
    bad.answer(503, {}, b"", count=8)
    await reads(adapter, 3)
    assert len(bad.requests) == 1
    for turn in range(7):
        pause = min(FIRST_PAUSE * 2**turn, MAX_PAUSE)
        time.now += pause - 0.01
        await reads(adapter, 6)
        assert len(bad.requests) == 1 + turn, "too early"
        time.now += 0.02
        await reads(adapter, 6)
        assert len(bad.requests) == 2 + turn, "one read probes the URL, the others skip it"
    assert pause == MAX_PAUSE
    time.now += MAX_PAUSE
    await reads(adapter, 1)
    new_requests(services)
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10], "it has answered"
    bad.answer(503, {}, b"", count=1)
    await reads(adapter, 3)
    time.now += FIRST_PAUSE + 0.01
    await reads(adapter, 1)
    new_requests(services)
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10], "the next failure begins with the first pause again"


@pytest.mark.parametrize(("retry_after", "pause"), [("20", 20.0), ("3000", MAX_PAUSE)])
async def test_retry_after_postpones_the_probe_up_to_a_limit(
    newer: Local, services: list[FaultProxy], time: Time, retry_after: str, pause: float
) -> None:
    adapter = await adapter_on(newer, urls(services))
    services[0].answer(429, {"Retry-After": retry_after}, b"", count=1)
    await reads(adapter, 3)
    new_requests(services)
    time.now += pause - 0.1
    await reads(adapter, 10)
    assert new_requests(services) == [0, 5, 5]
    time.now += 0.2
    await reads(adapter, 1)
    assert new_requests(services) == [1, 0, 0]


async def test_other_reads_do_not_wait_for_the_probe(newer: Local, services: list[FaultProxy], time: Time) -> None:
    adapter = await adapter_on(newer, urls(services))
    services[0].answer(503, {}, b"", count=1)
    await reads(adapter, 3)
    time.now += FIRST_PAUSE + 0.01
    gate = asyncio.Event()
    services[0].delay(gate)
    probe = asyncio.ensure_future(reads(adapter, 1))
    await services[0].held(1)
    new_requests(services)
    await reads(adapter, 10)
    assert new_requests(services) == [0, 5, 5]
    gate.set()
    services[0].delay(None)
    await probe
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10]


async def test_cancelled_probe_is_repeated_by_a_later_read(
    newer: Local, services: list[FaultProxy], time: Time
) -> None:
    adapter = await adapter_on(newer, urls(services), max_in_flight=1)
    services[0].answer(503, {}, b"", count=1)
    await reads(adapter, 3)
    time.now += FIRST_PAUSE + 0.01
    gate = asyncio.Event()
    services[0].delay(gate)
    probe = asyncio.ensure_future(reads(adapter, 1))
    await services[0].held(1)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    gate.set()
    services[0].delay(None)
    new_requests(services)
    await reads(adapter, 10)
    assert new_requests(services) == [0, 5, 5]
    time.now += 2 * FIRST_PAUSE + 0.01
    await reads(adapter, 1)
    new_requests(services)
    await reads(adapter, 30)
    assert new_requests(services) == [10, 10, 10]


async def test_concurrent_failures_count_as_one(newer: Local, services: list[FaultProxy], time: Time) -> None:
    adapter = await adapter_on(newer, urls(services))
    gate = asyncio.Event()
    services[0].answer(503, {}, b"", count=5)
    services[0].delay(gate)
    calls = [asyncio.ensure_future(reads(adapter, 1)) for _ in range(15)]
    await services[0].held(5)
    gate.set()
    services[0].delay(None)
    await asyncio.gather(*calls)
    new_requests(services)
    time.now += FIRST_PAUSE + 0.01
    await reads(adapter, 1)
    assert new_requests(services) == [1, 0, 0]


def test_late_failures_and_successes_of_an_open_circuit(time: Time) -> None:
    router = ReadRouter(URLS, CORE)
    a, b, c = URLS
    lost = Http("lost")
    assert router.fail_over((a,), lost) in (b, c)
    time.now += 0.9
    assert router.fail_over((a,), lost) in (b, c)
    time.now += 0.9
    assert {router.next_url() for _ in range(4)} == {b, c}, "it failed less than a second ago"
    router.succeeded(a)
    assert not router.open_circuits
    assert {router.next_url() for _ in range(3)} == set(URLS)
    router.fail_over((CORE,), lost)
    assert not router.open_circuits, "Core is not a read URL"
    router.fail_over((a,), RateLimited("busy"), 20.0)
    router.fail_over((a,), lost)
    time.now += 19.0
    assert {router.next_url() for _ in range(4)} == {b, c}, "the longer pause applies"
    time.now += 1.1
    assert router.next_url() == a


def test_read_tries_each_url_once_although_other_reads_succeed_there() -> None:
    """Otherwise it could circle between the URLs without end."""
    router = ReadRouter(URLS, CORE)
    tried: list[str] = [router.next_url()]
    while (url := router.fail_over(tried, Http("lost"))) is not None:
        router.succeeded(tried[-1])
        tried.append(url)
        assert len(tried) <= 4
    assert (sorted(tried[:3]), tried[3:]) == (list(URLS), [CORE])


# Core as the last resort


@pytest.mark.parametrize("count", [1, 3])
async def test_core_answers_when_no_read_url_does(
    newer: Local, services: list[FaultProxy], time: Time, pauses: Pauses, count: int
) -> None:
    adapter = await adapter_on(newer, urls(services[:count]))
    for service in services:
        service.answer(503, {}, PAGE, count=1)
    await reads(adapter, 20)
    assert new_requests(services)[:count] == [1] * count, "each URL was tried once"
    assert newer.requests() == ["GET core"] * 20
    assert pauses.made == []
    time.now += FIRST_PAUSE + 0.01
    await reads(adapter, count)
    newer.requests()
    await reads(adapter, 20)
    assert newer.requests() == ["GET query"] * 20


async def test_open_circuits_are_tried_if_core_fails(
    newer: Local, services: list[FaultProxy], proxy: FaultProxy, time: Time, pauses: Pauses
) -> None:
    adapter = await adapter_on(newer, urls(services[:2]), core_url=proxy.url)
    for service in services[:2]:
        service.answer(503, {}, PAGE, count=1)
    await reads(adapter, 1)
    new_requests(services)
    proxy.answer(502, {}, PAGE, count=1)
    await reads(adapter, 1)
    assert sorted(new_requests(services)) == [0, 0, 1]
    assert pauses.made == []


async def test_retry_after_a_pause_chooses_the_url_again(
    newer: Local, services: list[FaultProxy], proxy: FaultProxy, time: Time, pauses: Pauses
) -> None:
    async def sleep(seconds: float) -> None:
        pauses.made.append(seconds)
        time.now += seconds

    pauses.sleep = sleep  # type: ignore[method-assign]
    adapter = await adapter_on(newer, [services[0].url], core_url=proxy.url)
    services[0].answer(503, {}, PAGE, count=1)
    proxy.answer(502, {}, PAGE, count=10_000)
    await reads(adapter, 1)
    assert FIRST_PAUSE <= sum(pauses.made) <= 4 * FIRST_PAUSE
    assert new_requests(services) == [2, 0, 0]


async def test_sign_in_works_without_the_query_service(newer: Local, dead_url: str, pauses: Pauses) -> None:
    adapter = newer.adapter(query_url=dead_url)
    user = await adapter.users.create(email=email("Ada"))
    assert await adapter.users.get_by_email(email("Ada")) == user
    session = await adapter.sessions.create(user_id=user.id, expires_at=START.replace(year=2999))
    loaded = await adapter.load_session(session.token)
    assert loaded is not None
    assert loaded.user == user
    assert pauses.made == []


async def test_core_gets_no_reads_of_overloaded_query_services(
    newer: Local, services: list[FaultProxy], time: Time, pauses: Pauses
) -> None:
    adapter = await adapter_on(newer, urls(services))
    for service in services:
        service.answer(429, {"Retry-After": "1"}, b"", count=2)
    await reads(adapter, 1)
    assert new_requests(services) == [2, 2, 2] or 1.0 <= pauses.made[0] <= 1.5
    await reads(adapter, 5)
    assert pauses.made
    assert set(newer.requests()) == {"GET query"}


async def test_core_gets_no_reads_if_one_url_is_overloaded_and_one_is_down(
    newer: Local, services: list[FaultProxy], dead_url: str, time: Time, pauses: Pauses
) -> None:
    adapter = await adapter_on(newer, [dead_url, services[0].url])
    await reads(adapter, 2)
    newer.requests()
    services[0].answer(429, {"Retry-After": "2"}, b"", count=10_000)
    with pytest.raises(RateLimited) as caught:
        await adapter.users.get("ada")
    assert caught.value.retry_after == 2.0
    assert 2 <= len(services[0].requests) <= 8
    assert newer.requests() == []


async def test_core_may_be_one_of_the_read_urls(newer: Local, services: list[FaultProxy], time: Time) -> None:
    adapter = await adapter_on(newer, [newer.core_url, services[0].url])
    await reads(adapter, 20)
    assert Counter(newer.requests()) == {"GET core": 10, "GET query": 10}


# No URL answers


async def test_number_of_attempts_is_bounded(options: dict[str, Any], time: Time, pauses: Pauses) -> None:
    """As many attempts as with one URL, and one more for each further URL."""
    async with AsyncExitStack() as opened:
        bad = [await opened.enter_async_context(answering(ending())) for _ in range(3)]
        core = await opened.enter_async_context(answering(ending()))
        store = AllsourceStore(core.url, [server.url for server in bad], **options)
        with pytest.raises(Http) as caught:
            await store.latest("s")
        assert not caught.value.ambiguous
        attempts = [1, 1, 1, 1 + len(allsource_client.RECONNECT_PAUSES)]
        counted = [len(server.requests) for server in (*bad, core)]
        assert counted in (attempts, [ONCE * count for count in attempts])
        assert pauses.made == list(allsource_client.RECONNECT_PAUSES)
        await store.close()


async def test_connection_error_names_every_tried_url(newer: Local, dead_url: str, pauses: Pauses) -> None:
    other = "http://127.0.0.1:1"
    store = newer.store(core_url="http://127.0.0.1:2", query_url=[dead_url, other])
    with pytest.raises(Http) as caught:
        await store.latest("s")
    last = "cannot connect to http://127.0.0.1:2: the connection was refused; is the server running there?"
    both = {
        f"{last}; the read failed at {first}, http://127.0.0.1:2"
        for first in (f"{dead_url}, {other}", f"{other}, {dead_url}")
    }
    assert str(caught.value) in both
    assert (caught.value.ambiguous, caught.value.timeout) == (False, None)


async def test_error_reply_names_every_tried_url(
    newer: Local, services: list[FaultProxy], time: Time, pauses: Pauses
) -> None:
    adapter = await adapter_on(newer, [services[0].url])
    newer.faults.refuse(502, PAGE, count=10_000)
    with pytest.raises(Unavailable) as caught:
        await adapter.users.get("ada")
    message = f"a gateway could not reach the server (502); the read failed at {services[0].url}, {newer.core_url}"
    assert (str(caught.value), caught.value.message) == (message, message)
    assert new_requests(services) == [1, 0, 0]
    assert sum(pauses.made) <= allsource_client.MAX_RETRY_TIME * 2


async def test_each_url_may_time_out_once(options: dict[str, Any], time: Time, pauses: Pauses) -> None:
    async with answering(silent) as one, answering(silent) as two, answering(silent) as core:
        limits = Timeouts(connect=30, read=0.2, total=30)
        store = AllsourceStore(core.url, [one.url, two.url], timeout=limits, **options)
        with pytest.raises(Http) as caught:
            await store.latest("s")
        assert caught.value.timeout == "read"
        assert [len(server.requests) for server in (one, two, core)] == [1, 1, 1]
        assert pauses.made == []
        await store.close()


# Requests for Core only


async def test_writes_and_leader_reads_never_go_to_a_read_url(newer: Local, services: list[FaultProxy]) -> None:
    adapter = newer.adapter(query_url=urls(services))
    user = await adapter.users.create(email=email("Ada"), username="ada")
    session = await adapter.sessions.create(user_id=user.id, expires_at=START)
    await adapter.users.update(user.id, email=email("new"))
    await adapter.sessions.delete(session.token)
    await adapter.users.delete(user.id)
    await adapter._store.latest("auth-user:x", require_leader=True)
    await adapter._store.read("auth-user:x", require_leader=True)
    plain = {(method, target.partition("?")[0]) for service in services for method, target in service.requests}
    assert plain <= {("GET", "/api/v1/events/query")}
    assert {request.port for request in newer.arrived if request.method == "POST"} == {"core"}
    new_requests(services)
    store = newer.store(core_url="http://127.0.0.1:1", query_url=urls(services))
    for call in (store.latest("s", require_leader=True), store.append([new_event("s")]), store.info()):
        with pytest.raises(Http) as caught:
            await call
        assert "the read failed at" not in str(caught.value)
    assert new_requests(services) == [0, 0, 0]


async def test_reads_carry_key_tenant_and_consistency_to_every_url(
    newer: Local, services: list[FaultProxy], time: Time
) -> None:
    tenants = ("acme", "shop")
    adapters = [
        newer.adapter(query_url=urls(services), tenant_id=tenant, read_consistency="eventual") for tenant in tenants
    ]
    users = [await adapter.users.create() for adapter in adapters]
    await asyncio.gather(*(adapter.users.get("nobody") for adapter in adapters))
    newer.arrived.clear()
    new_requests(services)

    async def read(times: int) -> None:
        for _ in range(times):
            for user, own, other in zip(users, adapters, adapters[::-1], strict=True):
                assert await own.users.get(user.id) == user
                assert await other.users.get(user.id) is None

    await read(3)
    assert new_requests(services) == [4, 4, 4]
    for service in services:
        service.answer(502, {}, b"", count=2)
    await read(3)
    assert {request.port for request in newer.arrived} == {"core", "query"}
    assert {request.headers["x-api-key"] for request in newer.arrived} == {KEY}
    plain = [request for request in newer.arrived if "integrity" not in request.parameters]
    assert {request.port for request in plain} == {"core", "query"}
    assert {request.headers["x-consistency"] for request in plain} == {"eventual"}
    assert Counter(request.parameters["tenant_id"][0] for request in plain) == {"acme": 12, "shop": 12}


async def test_failing_read_url_does_not_reset_the_features_of_core(
    newer: Local, services: list[FaultProxy], time: Time
) -> None:
    adapter = await adapter_on(newer, urls(services))
    for service in services:
        service.reset_before(1)
    await reads(adapter, 3)
    newer.requests()
    await adapter.users.update("ada", name="Ada")
    assert newer.requests() == ["GET core", "POST core"]


async def test_failure_of_core_as_last_resort_resets_its_features(
    newer: Local, proxy: FaultProxy, dead_url: str, time: Time, pauses: Pauses
) -> None:
    adapter = await adapter_on(newer, [dead_url], core_url=proxy.url)
    proxy.reset_before(ONCE)
    await reads(adapter, 1)
    newer.arrived.clear()
    await adapter.users.update("ada", name="Ada")
    assert "integrity" in newer.arrived[1].parameters, "its features are detected again"
    assert newer.requests() == ["GET core", "GET core", "GET core", "POST core"]


async def test_read_answered_by_core_as_last_resort_does_not_count_as_leader_read(
    older: Local, dead_url: str, time: Time
) -> None:
    """The store does not record which URL answered a plain read, so no plain read proves that Core has loaded the tenant."""
    store = older.store(query_url=dead_url)
    await store.append([new_event("first", guard=0)])
    time.now += 60
    older.requests()
    await store.latest("s")
    await store.append([new_event("second", guard=0)])
    assert older.requests() == ["GET core", "GET core", "POST core"]


async def test_core_as_the_only_read_url_counts_as_core(older: Local, time: Time) -> None:
    for query_url in (older.core_url, [older.core_url + "/"]):
        store = older.store(query_url=query_url)
        await store.append([new_event("first")])
        await store.append([new_event(f"second {len(query_url)}", guard=0)])
        time.now += 60
        older.requests()
        await store.latest("s")
        await store.append([new_event(f"third {len(query_url)}", guard=0)])
        assert older.requests() == ["GET core", "POST core"]


# The request queue


async def test_caller_cancelled_during_failover_releases_its_slot(
    newer: Local, services: list[FaultProxy], dead_url: str
) -> None:
    adapter = await adapter_on(newer, [dead_url, services[0].url], max_in_flight=2)
    for _ in range(5):
        gate = asyncio.Event()
        services[0].delay(gate)
        calls = [asyncio.ensure_future(adapter.users.get("ada")) for _ in range(4)]
        await services[0].held(2)
        for call in calls:
            call.cancel()
        assert {type(end) for end in await asyncio.gather(*calls, return_exceptions=True)} == {asyncio.CancelledError}
        gate.set()
        services[0].delay(None)
    gate = asyncio.Event()
    services[0].delay(gate)
    calls = [asyncio.ensure_future(adapter.users.get("ada")) for _ in range(4)]
    await services[0].held(2)
    gate.set()
    assert None not in await asyncio.gather(*calls)
    await adapter.aclose()


async def test_failed_over_read_waits_for_a_slot_of_the_other_server(
    newer: Local, services: list[FaultProxy], dead_url: str
) -> None:
    adapter = await adapter_on(newer, [dead_url, services[0].url], max_in_flight=2)
    gate = asyncio.Event()
    services[0].delay(gate)
    calls = [asyncio.ensure_future(adapter.users.get(f"u{number}")) for number in range(20)]
    await services[0].held(2)
    gate.set()
    await asyncio.gather(*calls)
    assert services[0].most_in_flight == 2


# Logging


async def test_log_reports_an_open_and_a_closed_circuit_once(
    newer: Local, services: list[FaultProxy], time: Time, watch: Any
) -> None:
    adapter = await adapter_on(newer, urls(services))
    services[0].answer(503, {}, PAGE, count=3)
    services[1].answer(429, {}, b"", count=1)
    for _ in range(3):
        await reads(adapter, 6)
        time.now += 10
    await reads(adapter, 6)
    logged = [
        (record.levelno, record.getMessage())
        for record in watch.records
        if record.levelno > logging.DEBUG and "read URL" in record.getMessage()
    ]
    url = services[0].url
    assert logged == [
        (logging.WARNING, f"read URL {url} is skipped for now: the server cannot serve this now (503)"),
        (logging.INFO, f"read URL {url} is healthy again"),
    ]
