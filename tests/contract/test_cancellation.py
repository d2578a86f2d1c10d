"""A mutation that is cancelled at any point is stored completely or not at all."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Conflict, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.ownership import assert_sound

CALLS = 1000
AT_ONCE = 20
PEOPLE = 12
TURNS = (0, 1, 1, 1, 2, 2, 3, 4, 6, 10, 16, 25)


class Caller:
    """Makes random calls that often concern the same entities."""

    def __init__(self, adapter: AllsourceAuthAdapter, clock: ManualClock, seed: int) -> None:
        self._adapter = adapter
        self._clock = clock
        self.drawn = random.Random(seed)
        self._tokens: list[str] = []

    def _id(self) -> str:
        return f"u{self.drawn.randrange(PEOPLE)}"

    def _email(self) -> str:
        return self.drawn.choice((str.upper, str.lower))(email(str(self.drawn.randrange(PEOPLE))))

    def _username(self) -> str:
        return f"name{self.drawn.randrange(PEOPLE)}"

    async def _sign_in(self) -> None:
        end = self._clock() + timedelta(hours=self.drawn.randrange(-1, 3))
        session = await self._adapter.sessions.create(user_id=self._id(), expires_at=end)
        self._tokens.append(session.token)

    def call(self) -> Coroutine[Any, Any, Any]:
        users, sessions = self._adapter.users, self._adapter.sessions
        token = self.drawn.choice(self._tokens) if self._tokens else "none"
        choices: list[Coroutine[Any, Any, Any]] = [
            users.create(id=self._id(), email=self._email(), username=self._username()),
            users.create(email=self._email()),
            users.update(self._id(), email=self._email(), username=self._username()),
            users.update(self._id(), email=None, name="x"),
            users.delete(self._id()),
            users.restore(self._id()),
            self._sign_in(),
            sessions.update_expiry(token, self._clock() + timedelta(hours=2)),
            sessions.delete(token),
            sessions.delete_for_user(self._id()),
            sessions.delete_expired(),
            sessions.list_for_user(self._id()),
            users.list(search_value="1"),
        ]
        chosen = self.drawn.randrange(len(choices))
        for number, other in enumerate(choices):
            if number != chosen:
                other.close()
        return choices[chosen]

    async def cancelled(self) -> bool:
        """Start a call and cancel it after a random number of iterations of the event loop. Return whether it was cancelled."""
        task = asyncio.ensure_future(self.call())
        for _ in range(self.drawn.choice(TURNS)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        except AllsourceAuthError:
            return False
        return False


@pytest.mark.parametrize("seed", [1, 2])
async def test_cancelled_calls_leave_nothing_half_done(
    make_adapter: MakeAdapter, clock: ManualClock, seed: int
) -> None:
    adapter, reading = make_adapter(), make_adapter()
    await adapter.users.create(id="warm")
    await reading.users.get("warm")
    before = asyncio.all_tasks()
    caller = Caller(adapter, clock, seed)
    cancelled = 0
    for round_ in range(CALLS // AT_ONCE):
        cancelled += sum(await asyncio.gather(*[caller.cancelled() for _ in range(AT_ONCE)]))
        clock.move(timedelta(minutes=5))
        if round_ % 10 == 9:
            await adapter.users.update("warm", name=str(round_))
            await assert_sound_soon(reading)
    assert CALLS * 0.1 < cancelled < CALLS
    assert asyncio.all_tasks() == before
    assert adapter.context.mutations._stream_locks.peek() == {}
    await assert_sound_soon(adapter)
    await assert_everything_works(adapter, clock)
    gc.collect()


async def assert_sound_soon(adapter: AllsourceAuthAdapter) -> None:
    """`assert_sound`, repeated while a server still stores what cancelled callers have sent: it may do so between two reads."""
    for _ in range(100):
        try:
            await assert_sound(adapter)
        except AssertionError:
            await asyncio.sleep(0.02)
        else:
            return
    await assert_sound(adapter)


async def assert_everything_works(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    """Assert that no id, value or session is blocked by a cancelled call."""
    for number in range(PEOPLE):
        await adapter.users.delete(f"u{number}")
        await adapter.sessions.delete_for_user(f"u{number}")
    async for user in adapter.users.scan():
        await adapter.users.delete(user.id)
    for number in range(PEOPLE):
        user = await create_after_grace(adapter, number)
        session = await adapter.sessions.create(user_id=user.id, expires_at=clock() + timedelta(hours=1))
        assert await adapter.load_session(session.token) is not None
        assert await adapter.sessions.list_for_user(user.id) == [session]
    await assert_sound(adapter)


async def create_after_grace(adapter: AllsourceAuthAdapter, number: int) -> User:
    """Create a user; a claim of a cancelled sign-up may block its email for two seconds."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await adapter.users.create(id=f"u{number}", email=email(str(number)), username=f"name{number}")
            except Conflict:
                await asyncio.sleep(0.1)


async def test_cancelled_waiter_does_not_block_the_others(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    """Callers wait for the lock of one user, and some are cancelled while they wait."""
    adapter = make_adapter()
    await adapter.users.create(id="u")
    # Another call is in progress: otherwise the first caller might finish before the next one has started.
    async with adapter.context.mutations.stream_lock("auth-user:u"):
        waiting = [asyncio.ensure_future(adapter.users.update("u", name=str(number))) for number in range(50)]
        await asyncio.sleep(0)
        for task in waiting[1::2]:
            task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert Counter(map(type, outcomes[1::2])) == {asyncio.CancelledError: 25}
    assert [outcome.name for outcome in outcomes[::2] if not isinstance(outcome, BaseException)] == [
        str(number) for number in range(0, 50, 2)
    ]
    names = [change.state.name for change in await adapter.users.history("u") if change.state]
    assert names == [None, *[str(number) for number in range(0, 50, 2)]]
    assert adapter.context.mutations._stream_locks.peek() == {}


async def test_timeout_around_a_call_is_respected(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    adapter = make_adapter()
    for number in range(40):
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await adapter.users.create(id=f"t{number}", email=email(f"t{number}"))
    for number in range(40):
        user = await adapter.users.get(f"t{number}")
        assert await adapter.users.get_by_email(email(f"t{number}")) == user
    await assert_sound(adapter)
