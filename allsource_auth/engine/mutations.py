"""A mutation: one plan, one append, one commit point (section 3 of the design).

A store may keep only the first events of a batch. So a plan orders its events such that every prefix is harmless: claims and
list entries first, then the one event that makes the mutation true (the commit point, guarded by the version that was
decided on), then what tidies up. Whether a mutation has happened is asked of one stream only: does the stream of the
commit point hold an event of this operation?
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from allsource_auth.engine.fences import covered_by, fence
from allsource_auth.engine.operation import Decide, Done, Operation
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.streams import Streams
from allsource_auth.errors import (
    AllsourceAuthError,
    Api,
    Http,
    Json,
    Overloaded,
    RateLimited,
    StoreClosed,
    Unavailable,
    VersionConflict,
)
from allsource_auth.kinds import CLAIMED, redacted_stream
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event

__all__ = ["Mutations"]

PATIENCE = 10.0
"""Seconds that a mutation may take to win against others, or to find out whether a lost write was stored."""


TRANSIENT = (Http, RateLimited, Unavailable)
"""Trouble on the way to a store, which may pass."""

UNDECIDED = (Http, Api, Json, StoreClosed)
"""Errors that a decision cannot rest on: what was sent before may have been stored."""


T = TypeVar("T")


class _Landed(Exception):
    """An earlier append of the operation was stored after all."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event


class Mutations:
    """Carries mutations out, with at most one of this process under way per stream."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}
        self.pause: Callable[[int], Awaitable[None]] = _pause
        self.now: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    @asynccontextmanager
    async def stream_lock(self, stream: str) -> AsyncIterator[None]:
        """Wait until no other mutation of this process is working on ``stream``, in the order of arrival."""
        lock, users = self._queues.get(stream) or (asyncio.Lock(), 0)
        self._queues[stream] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._queues[stream]
            if users > 1:
                self._queues[stream] = lock, users - 1
            else:
                del self._queues[stream]

    async def run(self, decide: Decide) -> Done | None:
        """Decide, append, and settle what became of it; ``None`` if there was nothing to do.

        Raises what ``decide`` raises, and then nothing has happened. Raises `VersionConflict` when others were faster
        for ten seconds, and once more after that; an error with ``ambiguous`` when a reply was lost and the outcome could
        not be found out.
        """
        operation = Operation()
        deadline = self.now() + PATIENCE
        last = False  # on a busy machine the time may be over after one attempt, so there is one more after it
        while True:
            try:
                plan = await (self._insist(decide, operation, deadline) if operation.sent else decide(operation))
            except _Landed as landed:
                return Done(operation=operation, payload=bytes(landed.event.payload))
            except AllsourceAuthError as error:
                await self._withdraw(operation)
                if operation.ambiguous and isinstance(error, UNDECIDED) and not isinstance(error, VersionConflict):
                    error.ambiguous = True
                raise
            if plan is None:
                return None
            operation.sent.append(plan)
            try:
                stored = await self._streams.append(plan.events)
            except AllsourceAuthError as error:
                failure = error
                if _unsent(error):
                    operation.sent.pop()
                    if not operation.sent:
                        raise
            else:
                acknowledged = list(zip(plan.events, stored, strict=True))
                return Done(operation=operation, payload=plan.commit.payload, state=plan.state, stored=acknowledged)
            operation.ambiguous = operation.ambiguous or failure.ambiguous
            again = not last and (isinstance(failure, VersionConflict) or failure.ambiguous)
            if not again or (plan.compensation is not None and failure.ambiguous):
                look = self._stored if plan.compensation is None else self._abandoned
                if (found := await self._insist(look, operation, deadline)) is not None:
                    return Done(operation=operation, payload=bytes(found.payload))
            if not again:
                await self._withdraw(operation)
                failure.ambiguous = operation.ambiguous
                if isinstance(failure, VersionConflict) and failure.stream is not None:
                    failure.stream = redacted_stream(failure.stream)
                raise failure
            await self.pause(len(operation.sent))
            last = self.now() >= deadline

    async def head(self, operation: Operation, stream: str) -> Head:
        """The head of the stream that ``operation`` is about, for its decision.

        A late append of the operation may land between looking for it and deciding again; so the read that the decision
        rests on is itself looked through, and ends the operation as stored if it is found there.
        """
        head = await self._streams.head(stream)
        for plan in operation.sent:
            if plan.commit.stream == stream:
                found = await self._streams.written_since(head, operation.id, since=plan.head.event)
                if found is not None:
                    raise _Landed(found)
                break
        return head

    async def insist(self, step: Callable[[Operation], Awaitable[T]], operation: Operation) -> T:
        """Take a step that belongs to an operation which is stored, through passing trouble, for ten seconds.

        Any other error of it, and the last one, has ``ambiguous`` set.
        """
        try:
            return await self._insist(step, operation, self.now() + PATIENCE)
        except UNDECIDED as error:
            error.ambiguous = True
            raise

    async def _insist(self, step: Callable[[Operation], Awaitable[T]], operation: Operation, deadline: float) -> T:
        """Take a step that reads; while the outcome of an append is open, passing trouble does not end it.

        On a store that keeps the first events of a batch every failed append leaves it open, until it is looked up.
        """
        while True:
            try:
                return await step(operation)
            except TRANSIENT as error:
                if not operation.ambiguous and (self._streams.store.atomic_batches or not operation.sent):
                    raise
                if self.now() >= deadline:
                    operation.ambiguous = error.ambiguous = True
                    raise
            await self.pause(len(operation.sent) + 1)

    async def _stored(self, operation: Operation) -> Event | None:
        """The commit event of an operation whose append failed, if it was stored all the same.

        On a store that keeps the first events of a batch, the event that failed may be one after the commit point.
        """
        if self._streams.store.atomic_batches and not operation.ambiguous:
            return None
        decided_on = {plan.commit.stream: plan.head.event for plan in reversed(operation.sent)}
        for stream, since in decided_on.items():
            found = await self._streams.written_since(await self._streams.head(stream), operation.id, since=since)
            if found is not None:
                return found
        return None

    async def _abandoned(self, operation: Operation) -> Event | None:
        """The commit event, if an unguarded one was stored after all; ``None`` once its late arrival can do nothing."""
        plan = operation.sent[-1]
        assert plan.compensation is not None
        while True:
            if (found := await self._stored(operation)) is not None:
                return found
            head = await self._streams.head(plan.commit.stream)
            if head.event is not None:
                return None
            try:
                await self._streams.append(plan.compensation(Operation(), head))
            except VersionConflict:
                continue
            return None

    async def _withdraw(self, operation: Operation) -> None:
        """Free at once what a refused operation has claimed, on a store that keeps the first events of a batch.

        By a fence on the stream of the commit point, not by a release: another operation on the same entity may count on
        the very same claim, and after a fence it decides again. An append that is still on its way is void then, too.
        """
        if self._streams.store.atomic_batches or not operation.sent:
            return
        claims = {event.stream for plan in operation.sent for event in plan.before if event.type == CLAIMED}
        try:
            for stream in claims:
                if (await self._streams.head(stream)).op == operation.id:
                    head, fencing = operation.sent[-1].head, Operation()
                    await self._streams.append([fence(head, fencing)])
                    await covered_by(fencing, head, self._streams)
                    return
        except VersionConflict:
            return  # The stream has moved on by itself, which frees the values as well.
        except AllsourceAuthError as error:
            log_suppressed("a claim could not be withdrawn; it is free after the grace period", error)


def _unsent(error: AllsourceAuthError) -> bool:
    """Whether nothing of an append that failed so can have been stored: the server never looked at it."""
    return isinstance(error, Overloaded | RateLimited) or (isinstance(error, Http) and not error.ambiguous)


async def _pause(attempt: int) -> None:
    """Give way after a lost race: not at all at first, then up to 50 ms, at random so that two do not stay in step."""
    await asyncio.sleep(random.uniform(0, min(0.0005 * 2**attempt, 0.05)) if attempt > 1 else 0)  # noqa: S311
