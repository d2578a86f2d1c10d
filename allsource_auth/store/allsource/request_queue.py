"""Bounded concurrency with a FIFO queue for each server; identical waiting requests are coalesced.

* Waiting callers with equal keys share one entry of the queue, and with it one request. A request that has started is never
  shared with a later caller, so a result is never older than the call that it answers.
* No request runs in a task of its own. The first caller of an entry performs it; if that caller is cancelled, the next caller
  of the entry takes over in the same slot.
* A quarter of the slots is reserved for reads, so that sign-ins go on while appends are slow.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from allsource_auth.errors import Overloaded, StoreClosed

__all__ = ["RequestQueue"]

T = TypeVar("T")

RESERVED_FOR_READS = 4
"""One in so many slots is never given to an append."""


class _Entry(Generic[T]):
    """A queued request and its callers. A waiter resolved with ``None`` has the slot and must perform the request itself."""

    __slots__ = ("append", "key", "number", "waiters")

    def __init__(self, key: Hashable, number: int, append: bool) -> None:
        self.key = key
        self.number = number
        self.append = append
        self.waiters: dict[asyncio.Future[T | None], None] = {}

    def give_slot(self) -> bool:
        """Give the slot to the next waiter. Returns false if the entry has none."""
        while self.waiters:
            waiter = next(iter(self.waiters))
            del self.waiters[waiter]
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False


class RequestQueue(Generic[T]):
    """At most ``max_in_flight`` requests run at a time, and at most ``max_queued`` callers wait.

    Slots are given in the order of arrival. An append waits for longer while three quarters of the slots are used by appends.
    """

    def __init__(self, max_in_flight: int, max_queued: int) -> None:
        self._slots = self._free_slots = max_in_flight
        self._append_slots = self._free_append_slots = max(max_in_flight - -(-max_in_flight // RESERVED_FOR_READS), 1)
        self._max_queued = max_queued
        self._waiting = 0
        self._numbers = itertools.count()
        # While a slot is free, no read waits, and appends wait only if no append slot is free.
        self._reads: OrderedDict[_Entry[T], None] = OrderedDict()
        self._appends: OrderedDict[_Entry[T], None] = OrderedDict()
        self._by_key: dict[Hashable, _Entry[T]] = {}
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    async def run(self, request: Callable[[], Awaitable[T]], key: Hashable = None, *, append: bool = False) -> T:
        """Perform ``request`` in a slot, or return the result of a queued request with the same ``key``.

        ``append``: the request is an append. An append has no key.

        Raises `Overloaded` at once if the queue is full, `StoreClosed` after `close`, and what the request raises. An
        exception of a shared request is raised for all its callers.
        """
        entry: _Entry[T] | None = None
        if not self._take_slot(append):
            entry = self._enqueue(key, append)
            result = await self._wait(entry)
            if result is not None:
                return result
        try:
            result = await request()
        except Exception as error:
            for waiter in entry.waiters if entry is not None else ():
                if not waiter.done():
                    waiter.set_exception(error)
            self._release_slot(append)
            raise
        except BaseException:  # only this caller is cancelled
            self._pass_slot_on(entry, append)
            raise
        for waiter in entry.waiters if entry is not None else ():
            if not waiter.done():
                waiter.set_result(result)
        self._release_slot(append)
        return result

    async def acquire(self) -> None:
        """Wait for a slot, to be returned with `release`. Raises `Overloaded` if the queue is full, `StoreClosed`."""
        if not self._take_slot(append=False):
            await self._wait(self._enqueue(None, append=False))

    def release(self) -> None:
        """Return a slot of `acquire`."""
        self._release_slot(append=False)

    def _take_slot(self, append: bool) -> bool:
        if self._closed:
            raise StoreClosed
        if not self._free_slots or (append and not self._free_append_slots):
            return False
        self._free_slots -= 1
        if append:
            self._free_append_slots -= 1
        return True

    def _enqueue(self, key: Hashable, append: bool) -> _Entry[T]:
        """The queued entry with this ``key``, or a new one at the end of the queue."""
        if self._waiting >= self._max_queued:
            raise Overloaded(f"the request queue is full: {self._waiting} requests are waiting (max_queued)")
        entry: _Entry[T] | None = self._by_key.get(key) if key is not None else None
        if entry is None:
            entry = _Entry(key, next(self._numbers), append)
            (self._appends if append else self._reads)[entry] = None
            if key is not None:
                self._by_key[key] = entry
        return entry

    async def _wait(self, entry: _Entry[T]) -> T | None:
        """Wait for a slot, which returns ``None``, or for the result of the caller that has it."""
        waiter: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        entry.waiters[waiter] = None
        self._waiting += 1
        try:
            return await waiter
        except asyncio.CancelledError:
            entry.waiters.pop(waiter, None)
            if not waiter.done() or waiter.cancelled():
                if not entry.waiters and entry in (self._appends if entry.append else self._reads):
                    self._dequeue(entry)
            elif waiter.exception() is None and waiter.result() is None:
                self._pass_slot_on(entry, entry.append)
            raise
        finally:
            self._waiting -= 1

    def _dequeue(self, entry: _Entry[T]) -> None:
        del (self._appends if entry.append else self._reads)[entry]
        if entry.key is not None:
            del self._by_key[entry.key]

    def _pass_slot_on(self, entry: _Entry[T] | None, append: bool) -> None:
        """Release a cancelled caller's slot to a coalesced waiter, else to the next request in the queue."""
        if entry is None or not entry.give_slot():
            self._release_slot(append)

    def _next(self) -> _Entry[T] | None:
        """The entry that has waited longest, of those that may have a slot now."""
        read = next(iter(self._reads), None)
        append = next(iter(self._appends), None) if self._free_append_slots else None
        if read is None or append is None:
            return read or append
        return read if read.number < append.number else append

    def _release_slot(self, append: bool) -> None:
        if append:
            self._free_append_slots += 1
        while (self._reads or self._appends) and (entry := self._next()) is not None:
            self._dequeue(entry)  # later callers no longer join it
            if entry.give_slot():
                if entry.append:
                    self._free_append_slots -= 1
                return
        self._free_slots += 1
        if self._free_slots == self._slots and self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def reject(self) -> None:
        """Reject queued and later requests with `StoreClosed`."""
        self._closed = True
        while (entry := next(iter(self._reads or self._appends), None)) is not None:
            self._dequeue(entry)
            for waiter in entry.waiters:
                if not waiter.done():
                    waiter.set_exception(StoreClosed())

    async def close(self) -> None:
        """Reject queued requests with `StoreClosed`, then wait for those in flight."""
        self.reject()
        while self._free_slots < self._slots:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)
