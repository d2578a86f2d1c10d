"""The line by itself: who waits together, and who does the work when somebody is cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from allsource_auth import Overloaded, StoreClosed
from allsource_auth.errors import Http
from allsource_auth.store.allsource.request_queue import RequestQueue


class Work:
    """Work that waits to be let go; each answers with its number."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.under_way = self.most = 0
        self._gates: list[asyncio.Future[None]] = []

    async def __call__(self, name: str) -> str:
        self.begun.append(name)
        number = len(self.begun)
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await gate
        finally:
            self.under_way -= 1
        return f"{name} {number}"

    def answer(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self._gates[number - 1].set_result(None)
        else:
            self._gates[number - 1].set_exception(error)


@pytest.fixture
def work() -> Work:
    return Work()


def call(line: RequestQueue[str], work: Work, name: str, key: str | None = None) -> asyncio.Task[str]:
    return asyncio.ensure_future(line.run(lambda: work(name), key))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_queued_calls_with_equal_keys_share_one_request(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    first = call(line, work, "a", "same")
    await turns()
    others = [call(line, work, f"b{number}", "same") for number in range(3)]
    another = call(line, work, "c", "other")
    await turns()
    assert work.begun == ["a"]
    work.answer(1)
    await turns()
    assert work.begun == ["a", "b0"]
    work.answer(2)
    assert list(await asyncio.gather(first, *others)) == ["a 1", "b0 2", "b0 2", "b0 2"]
    await turns()
    work.answer(3)
    assert await another == "c 3"


async def test_request_in_flight_is_not_shared(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    first = call(line, work, "a", "same")
    await turns()
    second = call(line, work, "b", "same")
    await turns()
    work.answer(1)
    await turns()
    third = call(line, work, "c", "same")
    await turns()
    assert work.begun == ["a", "b"]
    work.answer(2)
    await turns()
    work.answer(3)
    assert list(await asyncio.gather(first, second, third)) == ["a 1", "b 2", "c 3"]


async def test_calls_without_key_are_never_shared(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    calls = [call(line, work, name) for name in "abc"]
    for number in (1, 2, 3):
        await turns()
        work.answer(number)
    assert list(await asyncio.gather(*calls)) == ["a 1", "b 2", "c 3"]


async def test_coalesced_caller_keeps_the_position_of_a_cancelled_one(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    out = call(line, work, "a")
    await turns()
    gone, stays, behind = call(line, work, "b", "k"), call(line, work, "c", "k"), call(line, work, "d")
    await turns()
    gone.cancel()
    await turns()
    work.answer(1)
    await turns()
    assert work.begun == ["a", "c"]
    work.answer(2)
    await turns()
    work.answer(3)
    assert list(await asyncio.gather(out, stays, behind)) == ["a 1", "c 2", "d 3"]


async def test_coalesced_caller_takes_over_from_a_cancelled_one(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    out = call(line, work, "a")
    await turns()
    worker, other, last = (call(line, work, name, "k") for name in "bcd")
    behind = call(line, work, "e")
    await turns()
    work.answer(1)
    await turns()
    worker.cancel()
    await turns()
    assert work.begun == ["a", "b", "c"]
    work.answer(3)
    assert list(await asyncio.gather(out, other, last)) == ["a 1", "c 3", "c 3"]
    assert work.begun[-1] == "e"
    work.answer(4)
    assert await behind == "e 4"


async def test_caller_cancelled_as_it_gets_its_slot_passes_it_on(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    out = call(line, work, "a")
    await turns()
    second, third = call(line, work, "b"), call(line, work, "c")
    await turns()
    work.answer(1)
    await asyncio.sleep(0)  # the place is the second's now, who has not noticed yet
    second.cancel()
    await turns()
    assert work.begun == ["a", "c"]
    work.answer(2)
    assert list(await asyncio.gather(out, third)) == ["a 1", "c 2"]


async def test_error_is_raised_for_all_callers_of_the_request_only(work: Work) -> None:
    line = RequestQueue[str](1, 100)
    out = call(line, work, "a")
    await turns()
    shared = [call(line, work, name, "k") for name in "bcd"]
    behind = call(line, work, "e", "l")
    await turns()
    work.answer(1)
    await turns()
    shared[2].cancel()
    work.answer(2, Http("no reply"))
    found = await asyncio.gather(out, *shared, return_exceptions=True)
    assert found[0] == "a 1"
    assert [type(one) for one in found[1:]] == [Http, Http, asyncio.CancelledError]
    work.answer(3)
    assert await behind == "e 3"


async def test_coalesced_callers_count_for_max_queued(work: Work) -> None:
    line = RequestQueue[str](1, 2)
    out = [call(line, work, "a"), call(line, work, "b", "k"), call(line, work, "c", "k")]
    await turns()
    for key in ("k", None):
        with pytest.raises(Overloaded, match="max_queued"):
            await line.run(lambda: work("d"), key)
    out[2].cancel()
    await turns()
    out.append(call(line, work, "d"))
    for number in (1, 2, 3):
        await turns()
        work.answer(number)
    assert await asyncio.gather(*out, return_exceptions=True) != []
    assert work.begun == ["a", "b", "d"]


async def test_close_rejects_queued_calls_and_waits_for_running_ones(work: Work) -> None:
    line = RequestQueue[str](2, 100)
    out = [call(line, work, "a"), call(line, work, "b")]
    await turns()
    waiting = [call(line, work, "c", "k"), call(line, work, "d", "k"), call(line, work, "e")]
    await turns()
    closing = asyncio.ensure_future(line.close())
    again = asyncio.ensure_future(line.close())
    await turns()
    assert not closing.done()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [StoreClosed] * 3
    again.cancel()
    work.answer(1)
    await turns()
    assert not closing.done()
    work.answer(2)
    await closing
    assert list(await asyncio.gather(*out)) == ["a 1", "b 2"]
    with pytest.raises(StoreClosed):
        await line.run(lambda: work("f"))
    await line.close()


@pytest.mark.parametrize("seed", range(20))
async def test_random_cancellations_leak_no_slot(seed: int) -> None:
    dice = random.Random(seed)
    line = RequestQueue[str](3, 1000)
    under_way = most = 0

    async def work(key: str) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            if dice.random() < 0.1:
                raise Http("no reply")
        finally:
            under_way -= 1
        return key

    async def ask(key: str) -> str:
        return await line.run(lambda: work(key), key)

    async def caller(calls: Coroutine[Any, Any, str]) -> object:
        task = asyncio.ensure_future(calls)
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        if dice.random() < 0.4:
            task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    keys = [f"k{dice.randrange(6)}" for _ in range(300)]
    found = await asyncio.gather(*(caller(ask(key)) for key in keys))
    for key, answer in zip(keys, found, strict=True):
        assert answer == key or isinstance(answer, Http | asyncio.CancelledError)
    assert most == 3
    assert under_way == 0
    work_at_once = Work()
    out = [call(line, work_at_once, "x") for _ in range(4)]
    await turns()
    assert work_at_once.most == 3
    for number in (1, 2, 3):
        work_at_once.answer(number)
    await turns()
    work_at_once.answer(4)
    assert len(await asyncio.gather(*out)) == 4
