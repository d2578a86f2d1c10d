"""`RequestQueue`: coalescing, order, errors, cancellation, closing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from allsource_auth import Overloaded, StoreClosed
from allsource_auth.errors import Http
from allsource_auth.store.allsource.request_queue import RequestQueue


class Requests:
    """Performs requests that run until the test completes them. A result has the caller's name and the request's number."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.running = self.maximum = 0
        self._gates: list[asyncio.Future[None]] = []

    async def __call__(self, name: str) -> str:
        self.started.append(name)
        number = len(self.started)
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        self.running += 1
        self.maximum = max(self.maximum, self.running)
        try:
            await gate
        finally:
            self.running -= 1
        return f"{name} {number}"

    def complete(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self._gates[number - 1].set_result(None)
        else:
            self._gates[number - 1].set_exception(error)


@pytest.fixture
def requests() -> Requests:
    return Requests()


def call(queue: RequestQueue[str], requests: Requests, name: str, key: str | None = None) -> asyncio.Task[str]:
    return asyncio.ensure_future(queue.run(lambda: requests(name), key))


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_queued_calls_with_equal_keys_share_one_request(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    first = call(queue, requests, "a", "same")
    await settle()
    others = [call(queue, requests, f"b{number}", "same") for number in range(3)]
    another = call(queue, requests, "c", "other")
    await settle()
    assert requests.started == ["a"]
    requests.complete(1)
    await settle()
    assert requests.started == ["a", "b0"]
    requests.complete(2)
    assert list(await asyncio.gather(first, *others)) == ["a 1", "b0 2", "b0 2", "b0 2"]
    await settle()
    requests.complete(3)
    assert await another == "c 3"


async def test_request_in_flight_is_not_shared(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    first = call(queue, requests, "a", "same")
    await settle()
    second = call(queue, requests, "b", "same")
    await settle()
    requests.complete(1)
    await settle()
    third = call(queue, requests, "c", "same")
    await settle()
    assert requests.started == ["a", "b"]
    requests.complete(2)
    await settle()
    requests.complete(3)
    assert list(await asyncio.gather(first, second, third)) == ["a 1", "b 2", "c 3"]


async def test_calls_without_key_are_never_shared(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    calls = [call(queue, requests, name) for name in "abc"]
    for number in (1, 2, 3):
        await settle()
        requests.complete(number)
    assert list(await asyncio.gather(*calls)) == ["a 1", "b 2", "c 3"]


async def test_coalesced_caller_keeps_the_position_of_a_cancelled_one(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    running = call(queue, requests, "a")
    await settle()
    cancelled, coalesced, following = (
        call(queue, requests, "b", "k"),
        call(queue, requests, "c", "k"),
        call(queue, requests, "d"),
    )
    await settle()
    cancelled.cancel()
    await settle()
    requests.complete(1)
    await settle()
    assert requests.started == ["a", "c"]
    requests.complete(2)
    await settle()
    requests.complete(3)
    assert list(await asyncio.gather(running, coalesced, following)) == ["a 1", "c 2", "d 3"]


async def test_coalesced_caller_takes_over_from_a_cancelled_one(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    running = call(queue, requests, "a")
    await settle()
    worker, other, last = (call(queue, requests, name, "k") for name in "bcd")
    following = call(queue, requests, "e")
    await settle()
    requests.complete(1)
    await settle()
    worker.cancel()
    await settle()
    assert requests.started == ["a", "b", "c"]
    requests.complete(3)
    assert list(await asyncio.gather(running, other, last)) == ["a 1", "c 3", "c 3"]
    assert requests.started[-1] == "e"
    requests.complete(4)
    assert await following == "e 4"


async def test_caller_cancelled_as_it_gets_its_slot_passes_it_on(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    running = call(queue, requests, "a")
    await settle()
    second, third = call(queue, requests, "b"), call(queue, requests, "c")
    await settle()
    requests.complete(1)
    await asyncio.sleep(0)  # the second call has the slot, but its task has not run yet
    second.cancel()
    await settle()
    assert requests.started == ["a", "c"]
    requests.complete(2)
    assert list(await asyncio.gather(running, third)) == ["a 1", "c 2"]


async def test_error_is_raised_for_all_callers_of_the_request_only(requests: Requests) -> None:
    queue = RequestQueue[str](1, 100)
    running = call(queue, requests, "a")
    await settle()
    shared = [call(queue, requests, name, "k") for name in "bcd"]
    following = call(queue, requests, "e", "l")
    await settle()
    requests.complete(1)
    await settle()
    shared[2].cancel()
    requests.complete(2, Http("no reply"))
    found = await asyncio.gather(running, *shared, return_exceptions=True)
    assert found[0] == "a 1"
    assert [type(one) for one in found[1:]] == [Http, Http, asyncio.CancelledError]
    requests.complete(3)
    assert await following == "e 3"


async def test_coalesced_callers_count_for_max_queued(requests: Requests) -> None:
    queue = RequestQueue[str](1, 2)
    calls = [call(queue, requests, "a"), call(queue, requests, "b", "k"), call(queue, requests, "c", "k")]
    await settle()
    for key in ("k", None):
        with pytest.raises(Overloaded, match="max_queued"):
            await queue.run(lambda: requests("d"), key)
    calls[2].cancel()
    await settle()
    calls.append(call(queue, requests, "d"))
    for number in (1, 2, 3):
        await settle()
        requests.complete(number)
    assert await asyncio.gather(*calls, return_exceptions=True) != []
    assert requests.started == ["a", "b", "d"]


async def test_close_rejects_queued_calls_and_waits_for_running_ones(requests: Requests) -> None:
    queue = RequestQueue[str](2, 100)
    calls = [call(queue, requests, "a"), call(queue, requests, "b")]
    await settle()
    waiting = [call(queue, requests, "c", "k"), call(queue, requests, "d", "k"), call(queue, requests, "e")]
    await settle()
    closing = asyncio.ensure_future(queue.close())
    again = asyncio.ensure_future(queue.close())
    await settle()
    assert not closing.done()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [StoreClosed] * 3
    again.cancel()
    requests.complete(1)
    await settle()
    assert not closing.done()
    requests.complete(2)
    await closing
    assert list(await asyncio.gather(*calls)) == ["a 1", "b 2"]
    with pytest.raises(StoreClosed):
        await queue.run(lambda: requests("f"))
    await queue.close()


@pytest.mark.parametrize("seed", range(20))
async def test_random_cancellations_leak_no_slot(seed: int) -> None:
    dice = random.Random(seed)
    queue = RequestQueue[str](3, 1000)
    running = maximum = 0

    async def send(key: str) -> str:
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        try:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            if dice.random() < 0.1:
                raise Http("no reply")
        finally:
            running -= 1
        return key

    async def request(key: str) -> str:
        return await queue.run(lambda: send(key), key)

    async def caller(calls: Coroutine[Any, Any, str]) -> object:
        task = asyncio.ensure_future(calls)
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        if dice.random() < 0.4:
            task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    keys = [f"k{dice.randrange(6)}" for _ in range(300)]
    found = await asyncio.gather(*(caller(request(key)) for key in keys))
    for key, answer in zip(keys, found, strict=True):
        assert answer == key or isinstance(answer, Http | asyncio.CancelledError)
    assert maximum == 3
    assert running == 0
    requests = Requests()
    calls = [call(queue, requests, "x") for _ in range(4)]
    await settle()
    assert requests.maximum == 3
    for number in (1, 2, 3):
        requests.complete(number)
    await settle()
    requests.complete(4)
    assert len(await asyncio.gather(*calls)) == 4
