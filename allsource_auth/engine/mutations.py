"""Mutations: one plan, one append, one commit point. See `docs/explanation/mutations-and-transactions.md`.

A store may keep only the first events of a batch. So a plan orders its events such that every prefix is harmless:

1. claims and index entries,
2. the commit point: the event that makes the mutation happen, guarded by the version that was decided on,
3. releases and the removal of index entries.

A mutation has happened if, and only if, the stream of its commit point holds an event of its operation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from allsource_auth.engine.fences import fence, restore_after_fence
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
from allsource_auth.kind import CLAIMED
from allsource_auth.kinds import redacted_stream
from allsource_auth.logs import log_suppressed
from allsource_auth.per_loop import PerLoop
from allsource_auth.store.base import Event

__all__ = ["Mutations"]

PATIENCE = 10.0
"""Seconds for which a mutation retries after conflicts, or tries to find out whether an ambiguous append was stored."""


TRANSIENT = (Http, RateLimited, Unavailable)
"""Errors of the connection or the server that a retry may overcome."""

UNDECIDED = (Http, Api, Json, StoreClosed)
"""Errors that leave the outcome of an earlier ambiguous append open."""


T = TypeVar("T")


class _AlreadyStored(Exception):
    """An earlier append of the operation was stored after all."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event


class Mutations:
    """Executes mutations. Those of one stream are serialized within each event loop."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        # The lock of each stream and the number of its users, which hold it or wait for it.
        self._stream_locks = PerLoop[dict[str, tuple[asyncio.Lock, int]]](dict)
        self.pause: Callable[[int], Awaitable[None]] = _pause
        self.now: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    @asynccontextmanager
    async def stream_lock(self, stream: str) -> AsyncGenerator[None]:
        """Hold the lock of ``stream`` within this event loop. It is granted in the order of arrival.

        The lock only avoids conflicts; the guards of appends keep mutations apart that run in other event loops or processes.
        """
        locks = self._stream_locks.get()
        lock, users = locks.get(stream) or (asyncio.Lock(), 0)
        locks[stream] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = locks[stream]
            if users > 1:
                locks[stream] = lock, users - 1
            else:
                del locks[stream]

    async def run(self, decide: Decide) -> Done | None:
        """Decide, append and settle the outcome; return ``None`` if ``decide`` did.

        Raises what ``decide`` raises; nothing is stored then. Raises `VersionConflict` if appends conflict for ten seconds and
        in one last attempt. Raises an error with ``ambiguous`` set if a reply was lost and the outcome could not be found out.
        """
        operation = Operation()
        deadline = self.now() + PATIENCE
        last = False  # one more attempt after the deadline: on a busy machine one attempt may take all the time
        while True:
            try:
                plan = await (self._retry_until(deadline, decide, operation) if operation.sent else decide(operation))
            except _AlreadyStored as found_by_decide:
                return Done(operation=operation, payload=bytes(found_by_decide.event.payload))
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
                if _is_not_stored(error):
                    operation.sent.pop()
                    if not operation.sent:
                        raise
            else:
                acknowledged = list(zip(plan.events, stored, strict=True))
                return Done(operation=operation, payload=plan.commit.payload, state=plan.state, stored=acknowledged)
            operation.ambiguous = operation.ambiguous or failure.ambiguous
            retry = not last and (isinstance(failure, VersionConflict) or failure.ambiguous)
            if not retry or (plan.compensation is not None and failure.ambiguous):
                find = self._find_commit if plan.compensation is None else self._find_or_compensate
                if (found := await self._retry_until(deadline, find, operation)) is not None:
                    return Done(operation=operation, payload=bytes(found.payload))
            if not retry:
                await self._withdraw(operation)
                failure.ambiguous = operation.ambiguous
                if isinstance(failure, VersionConflict) and failure.stream is not None:
                    failure.stream = redacted_stream(failure.stream)
                raise failure
            await self.pause(len(operation.sent))
            last = self.now() >= deadline

    async def head(self, operation: Operation, stream: str) -> Head:
        """Return the head of the stream of the commit point, for a decision of ``operation``.

        An earlier append of the operation may be stored at any time. So the operation is searched for in the same read that
        the decision uses. If it is found, `run` ends and reports the mutation as stored.
        """
        head = await self._streams.head(stream)
        for plan in operation.sent:
            if plan.commit.stream == stream:
                found = await self._streams.written_since(head, operation.id, since=plan.head.event)
                if found is not None:
                    raise _AlreadyStored(found)
                break
        return head

    async def follow_up(self, step: Callable[[Operation], Awaitable[T]], operation: Operation) -> T:
        """Run ``step``, which belongs to a stored operation. Transient errors are retried for ten seconds.

        An error that is raised has ``ambiguous`` set.
        """
        try:
            return await self._retry_until(self.now() + PATIENCE, step, operation)
        except UNDECIDED as error:
            error.ambiguous = True
            raise

    async def _retry_until(self, deadline: float, step: Callable[[Operation], Awaitable[T]], operation: Operation) -> T:
        """Run ``step``, which reads. Transient errors are retried while the outcome of an append is open.

        On a store that keeps the first events of a batch the outcome of every failed append is open until it was looked up.
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

    async def _find_commit(self, operation: Operation) -> Event | None:
        """Return the commit event of an operation whose append failed, if it was stored nevertheless.

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

    async def _find_or_compensate(self, operation: Operation) -> Event | None:
        """Return the unguarded commit event if it was stored; else append its compensation and return ``None``."""
        plan = operation.sent[-1]
        assert plan.compensation is not None
        while True:
            if (found := await self._find_commit(operation)) is not None:
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
        """Free the claims of a refused operation, on a store that keeps the first events of a batch.

        This is done by a fence on the stream of the commit point, not by a release. Another operation on the same entity may
        depend on the same claim; after a fence it decides again. The fence also makes a delayed append fail.
        """
        if self._streams.store.atomic_batches or not operation.sent:
            return
        claims = {event.stream for plan in operation.sent for event in plan.before if event.type == CLAIMED}
        try:
            for stream in claims:
                if (await self._streams.head(stream)).op == operation.id:
                    head, fencing = operation.sent[-1].head, Operation()
                    await self._streams.append([fence(head, fencing)])
                    await restore_after_fence(fencing, head, self._streams)
                    return
        except VersionConflict:
            return  # The stream has a new version, which frees the values as well.
        except AllsourceAuthError as error:
            log_suppressed("a claim could not be withdrawn; it is free after the grace period", error)


def _is_not_stored(error: AllsourceAuthError) -> bool:
    """Whether the error proves that no event of the append was stored: the server did not process it."""
    return isinstance(error, Overloaded | RateLimited) or (isinstance(error, Http) and not error.ambiguous)


async def _pause(attempt: int) -> None:
    """Back off after a conflict: at first only yield, then sleep a random time that grows up to 50 ms."""
    await asyncio.sleep(random.uniform(0, min(0.0005 * 2**attempt, 0.05)) if attempt > 1 else 0)  # noqa: S311
