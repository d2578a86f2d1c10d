"""``Line``: at most so many at a time, the others in the order in which they came; who asks the same may wait together.

Callers with one key share a turn, as long as it has not come: what they get was asked for after each of them had asked.
Nobody's work is a task of its own: the first caller of a turn does it, and if that one is cancelled, the next does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from allsource_auth.errors import Overloaded, StoreClosed

__all__ = ["RequestQueue"]

T = TypeVar("T")


class _Turn(Generic[T]):
    """A place in line and who waits for it. A waiter is answered with ``None`` when the turn has come and is its own."""

    __slots__ = ("key", "waiters")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.waiters: dict[asyncio.Future[T | None], None] = {}

    def next(self) -> bool:
        """Tell the next waiter that the turn is its own; false if nobody waits."""
        while self.waiters:
            waiter = next(iter(self.waiters))
            del self.waiters[waiter]
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False


class RequestQueue(Generic[T]):
    """``places``: how many work at a time. ``most``: how many callers may wait."""

    def __init__(self, places: int, most: int) -> None:
        self._places = self._free = places  # while one is free, nobody waits
        self._most = most
        self._waiting = 0
        self._turns: OrderedDict[_Turn[T], None] = OrderedDict()
        self._shared: dict[Hashable, _Turn[T]] = {}
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    async def through(self, work: Callable[[], Awaitable[T]], key: Hashable = None) -> T:
        """Do ``work`` when there is a place, or get what another caller with this ``key`` gets, which is asked for later.

        Raises `Overloaded` at once if too many wait; `StoreClosed` after `close`; what ``work`` raises, for all who share it.
        """
        if self._closed:
            raise StoreClosed
        turn: _Turn[T] | None = None
        if self._free:
            self._free -= 1
        else:
            turn = self._turn(key)
            found = await self._answer(turn)
            if found is not None:
                return found
        try:
            found = await work()
        except Exception as error:
            for waiter in turn.waiters if turn is not None else ():
                if not waiter.done():
                    waiter.set_exception(error)
            self._leave()
            raise
        except BaseException:  # only this caller is cancelled
            self._hand_on(turn)
            raise
        for waiter in turn.waiters if turn is not None else ():
            if not waiter.done():
                waiter.set_result(found)
        self._leave()
        return found

    def _turn(self, key: Hashable) -> _Turn[T]:
        if self._waiting >= self._most:
            raise Overloaded(f"{self._waiting} requests are waiting for a place already (max_queued)")
        turn = self._shared.get(key) if key is not None else None
        if turn is None:
            turn = _Turn(key)
            self._turns[turn] = None
            if key is not None:
                self._shared[key] = turn
        return turn

    async def _answer(self, turn: _Turn[T]) -> T | None:
        """Wait for the turn: ``None`` if it is ours, else what whoever had it got."""
        waiter: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        turn.waiters[waiter] = None
        self._waiting += 1
        try:
            return await waiter
        except asyncio.CancelledError:
            turn.waiters.pop(waiter, None)
            if not waiter.done() or waiter.cancelled():
                if not turn.waiters and turn in self._turns:
                    self._forget(turn)
            elif waiter.exception() is None and waiter.result() is None:
                self._hand_on(turn)
            raise
        finally:
            self._waiting -= 1

    def _forget(self, turn: _Turn[T]) -> None:
        del self._turns[turn]
        if turn.key is not None:
            del self._shared[turn.key]

    def _hand_on(self, turn: _Turn[T] | None) -> None:
        """The place of a caller that is gone: to who shares the turn, else to the next in line."""
        if turn is None or not turn.next():
            self._leave()

    def _leave(self) -> None:
        while self._turns:
            turn = next(iter(self._turns))
            self._forget(turn)  # nobody joins it any more
            if turn.next():
                return
        self._free += 1
        if self._free == self._places and self._empty is not None:
            self._empty.set_result(None)
            self._empty = None

    async def close(self) -> None:
        """Refuse who waits, and wait until nobody works."""
        self._closed = True
        while self._turns:
            turn = next(iter(self._turns))
            self._forget(turn)
            for waiter in turn.waiters:
                if not waiter.done():
                    waiter.set_exception(StoreClosed())
        while self._free < self._places:
            if self._empty is None:
                self._empty = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._empty)
