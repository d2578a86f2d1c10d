"""Broken connections: reads do not fail, and a mutation whose reply is lost has one effect, which its caller gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, Http, RateLimited, Session, User
from tests.store.allsource.local import Local
from tests.support.canaries import email, token
from tests.support.clocks import START
from tests.support.events import new_event
from tests.support.ownership import assert_sound
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.usefixtures("watch"), pytest.mark.heavy]

T = TypeVar("T")

SLOTS = 16


@pytest.fixture
def adapter(newer: Local, proxy: FaultProxy) -> AllsourceAuthAdapter:
    """An adapter that sends all requests through the proxy."""
    return newer.adapter(core_url=proxy.url, query_url=proxy.url)


@pytest.fixture
async def users(adapter: AllsourceAuthAdapter) -> list[User]:
    return [await adapter.users.create(id=f"u{number}", email=email(f"u{number}")) for number in range(SLOTS)]


async def gathered(call: Callable[[int], Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*(call(number) for number in range(SLOTS))))


async def fill_the_pool(adapter: AllsourceAuthAdapter, proxy: FaultProxy) -> None:
    """Open as many idle connections as there are slots."""
    gate = asyncio.Event()
    proxy.delay(gate)
    reads = asyncio.create_task(gathered(lambda number: adapter.users.get(f"u{number}")))
    await proxy.held(SLOTS)
    gate.set()
    await reads
    proxy.delay(None)


async def test_connection_may_be_closed_after_each_reply(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User]
) -> None:
    proxy.close_after_reply()
    for turn in range(3):
        assert await gathered(lambda number: adapter.users.get(f"u{number}")) == users
        users = await gathered(lambda number: adapter.users.update(f"u{number}", name=f"turn {turn}"))  # noqa: B023
    user = await adapter.users.create(email=email("Ada"))
    session = await adapter.sessions.create(user_id=user.id, expires_at=START)
    await adapter.sessions.delete(session.token)
    await adapter.users.delete(user.id)
    assert Counter(await newer.types("auth-user:u")) == {
        "auth.user.created": SLOTS,
        "auth.user.updated": 3 * SLOTS,
    }
    assert await newer.types(f"auth-session:{session.token}") == ["auth.session.created", "auth.session.deleted"]


async def test_reads_survive_idle_connections_closed_by_the_server(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User]
) -> None:
    for turn in range(3):
        await fill_the_pool(adapter, proxy)
        assert proxy.close_idle() >= SLOTS
        assert await gathered(lambda number: adapter.users.get(f"u{number}")) == users
        await fill_the_pool(adapter, proxy)
        assert proxy.close_idle() >= SLOTS
        users = await gathered(lambda number: adapter.users.update(f"u{number}", name=f"turn {turn}"))  # noqa: B023
    assert Counter(await newer.types("auth-user:u"))["auth.user.updated"] == 3 * SLOTS


async def test_reads_survive_connections_that_close_on_use(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User]
) -> None:
    """The client has begun to send, so it cannot know what the server received."""
    for _ in range(3):
        await fill_the_pool(adapter, proxy)
        proxy.close_idle_on_next_request(SLOTS)
        assert await gathered(lambda number: adapter.users.get(f"u{number}")) == users


async def test_mutations_survive_connections_that_close_on_use(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User]
) -> None:
    await fill_the_pool(adapter, proxy)
    proxy.close_idle_on_next_request(SLOTS)
    updated = await gathered(lambda number: adapter.users.update(f"u{number}", name="x"))
    await fill_the_pool(adapter, proxy)
    proxy.close_idle_on_next_request(SLOTS)
    sessions = await gathered(lambda number: adapter.sessions.create(user_id=f"u{number}", expires_at=START))
    await fill_the_pool(adapter, proxy)
    proxy.close_idle_on_next_request(SLOTS)
    created = await gathered(lambda number: adapter.users.create(email=email(f"new{number}")))
    assert await gathered(lambda number: adapter.users.get(f"u{number}")) == updated
    assert await gathered(lambda number: adapter.users.get_by_email(email(f"new{number}"))) == created
    for number, session in enumerate(sessions):
        assert await adapter.sessions.list_for_user(f"u{number}") == [session]
    kinds = Counter(await newer.types("auth-user:"))
    assert kinds == {"auth.user.created": 2 * SLOTS, "auth.user.updated": SLOTS}
    assert Counter(await newer.types("auth-session:"))["auth.session.created"] == SLOTS


# Lost replies


@pytest.mark.heavy
async def test_two_hundred_lost_replies_have_one_effect_each(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy
) -> None:
    await adapter.users.create(id="first")
    proxy.lose_reply(200)

    async def perform_mutations(number: int) -> tuple[User, Session, Session]:
        """Perform five mutations, each of which loses its reply."""
        user = await adapter.users.create(email=email(f"u{number}"), name="old")
        changed = await adapter.users.update(user.id, name="new")
        made = await adapter.sessions.create(user_id=user.id, expires_at=START)
        given = await adapter.sessions.create(user_id=user.id, expires_at=START, token=token(str(number)))
        if number % 2:
            await adapter.users.delete(user.id)
        else:
            await adapter.sessions.delete(given.token)
        return changed, made, given

    results = []
    for first in range(0, 40, 8):
        results += await asyncio.gather(*(perform_mutations(number) for number in range(first, first + 8)))
    assert [method for method, _ in proxy.requests].count("POST") > 200
    for number, (user, made, given) in enumerate(results):
        assert (user.email, user.name) == (email(f"u{number}"), "new")
        deleted = bool(number % 2)
        assert await adapter.users.get(user.id) == (None if deleted else user)
        assert await adapter.users.get_by_email(email(f"u{number}")) == (None if deleted else user)
        assert await adapter.sessions.get(made.token) == (None if deleted else made)
        assert await adapter.sessions.get(given.token) is None
        assert await newer.types(f"auth-user:{user.id}") == [
            "auth.user.created",
            "auth.user.updated",
            *["auth.user.deleted"] * deleted,
        ]
    counts = Counter((event.stream, event.type) for event in await newer.events("auth-session:"))
    assert set(counts.values()) == {1}
    assert Counter(await newer.types("auth-session:"))["auth.session.created"] == 80
    assert Counter(await newer.types("auth-idx:user.email"))["auth.index.claimed"] == 40
    await assert_sound(adapter)


@pytest.mark.parametrize("fault", ["reset_before", "truncate"])
async def test_truncated_request_or_reply_has_one_effect(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User], fault: str
) -> None:
    """The request either does not arrive or is carried out without a reply."""
    for _ in range(10):
        getattr(proxy, fault)(1)
        user = await adapter.users.create(email=email("Ada"))
        getattr(proxy, fault)(1)
        assert await adapter.users.get(user.id) == user
        getattr(proxy, fault)(2)
        assert await adapter.users.get_by_email(email("Ada")) == user
        getattr(proxy, fault)(1)
        session = await adapter.sessions.create(user_id=user.id, expires_at=START)
        assert await adapter.sessions.list_for_user(user.id) == [session]
        getattr(proxy, fault)(1)
        await adapter.users.delete(user.id)
        assert await newer.types(f"auth-user:{user.id}") == ["auth.user.created", "auth.user.deleted"]
    assert Counter(await newer.types("auth-session:"))["auth.session.created"] == 10


async def test_append_whose_reply_was_lost_is_not_retried(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy
) -> None:
    """The mutation must look for the event first."""
    store = newer.store(core_url=proxy.url, query_url=proxy.url)
    proxy.lose_reply(1)
    with pytest.raises(Http) as caught:
        await store.append([new_event("auth-user:ada")])
    assert caught.value.ambiguous
    assert caught.value.timeout is None
    assert str(caught.value) == f"the connection to {proxy.url} broke before the answer was complete"
    assert [method for method, _ in proxy.requests].count("POST") == 1
    assert len(await newer.events("auth-user:ada")) == 1


UNREACHABLE = "http://127.0.0.1:1"


@pytest.mark.parametrize("call", ["get", "create", "create-without-a-value", "sign-in", "update", "delete"])
async def test_error_names_the_unreachable_server(newer: Local, call: str) -> None:
    adapter = newer.adapter(core_url=UNREACHABLE, query_url=UNREACHABLE)
    users, sessions = adapter.users, adapter.sessions
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: users.get("ada"),
        "create": lambda: users.create(email=email("Ada")),
        "create-without-a-value": lambda: users.create(),
        "sign-in": lambda: sessions.create(user_id="ada", expires_at=START),
        "update": lambda: users.update("ada", name="Ada"),
        "delete": lambda: users.delete("ada"),
    }
    with pytest.raises(Http) as caught:
        await calls[call]()
    assert (
        str(caught.value)
        == f"cannot connect to {UNREACHABLE}: the connection was refused; is the server running there?"
    )
    assert (caught.value.ambiguous, caught.value.timeout) == (False, None)


async def test_batch_is_ambiguous_if_the_server_vanishes_after_a_503(newer: Local) -> None:
    """A 503 to a batch is about one event; the events before it may be stored."""
    store = newer.store()
    events = [new_event("a"), new_event("b", guard=0)]
    newer.faults.refuse(503, b'{"error":"Queue full: Conditional archive admission timed out"}', on="batch")
    newer.faults.refuse(429, headers={"Retry-After": "300"}, on="batch")
    with pytest.raises(RateLimited) as limited:
        await store.append(events)
    assert limited.value.ambiguous
    newer.faults.refuse(429, headers={"Retry-After": "300"}, on="batch")
    with pytest.raises(RateLimited) as limited:
        await store.append(events)
    assert not limited.value.ambiguous


async def test_store_reconnects_to_a_restarted_server(
    newer: Local, adapter: AllsourceAuthAdapter, proxy: FaultProxy, users: list[User]
) -> None:
    await fill_the_pool(adapter, proxy)
    newer.faults.restart(cold=False)
    assert await gathered(lambda number: adapter.users.get(f"u{number}")) == users
    proxy.reset_before(3)
    assert await adapter.users.get("u1") == users[1]
    with pytest.raises(Conflict):
        await adapter.users.create(email=email("u1"))
