"""A mutation: one plan, one append, one commit point (section 3 of the design).

A store may keep only the first events of a batch. So a plan orders its events such that every prefix is harmless: claims and
list entries first, then the one event that makes the mutation true (the commit point, guarded by the version that was
decided on), then what tidies up. Whether a mutation has happened is asked of one stream only: does the stream of the
commit point hold an event of this operation?
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from ..audit import encode_metadata
from ..entities import Entity
from ..errors import (
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
from ..ids import operation_id
from ..kinds import CLAIMED, FENCED, RELEASED, shown
from ..logs import noticed
from ..store.base import Acknowledged, Event, NewEvent, Quiet
from .streams import Head, Streams, below

__all__ = ["Mutations", "Operation", "Plan"]

PATIENCE = 10.0
"""Seconds that a mutation may take to win against others, or to find out whether a lost write was stored."""


TRANSIENT = (Http, RateLimited, Unavailable)
"""Trouble on the way to a store, which may pass."""

UNDECIDED = (Http, Api, Json, StoreClosed)
"""Errors that a decision cannot rest on: what was sent before may have been stored."""

NO_LINKS: Mapping[str, Any] = MappingProxyType({})

T = TypeVar("T")


class Plan(Quiet, frozen=True, kw_only=True):
    """The events of one mutation. ``head`` is the commit stream as it was when the plan was made.

    ``state`` is the entity that the commit's payload decodes to. ``instead`` belongs to a commit without a guard: the events
    that make it void if it should arrive late.
    """

    head: Head
    commit: NewEvent
    before: list[NewEvent] = msgspec.field(default_factory=list)
    after: list[NewEvent] = msgspec.field(default_factory=list)
    state: Entity | None = None
    instead: Callable[[Operation, Head], list[NewEvent]] | None = None

    @property
    def events(self) -> list[NewEvent]:
        return [*self.before, self.commit, *self.after]


class _Landed(Exception):
    """An earlier append of the operation was stored after all."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event


class Operation:
    """One mutation on its way: its id, which every event of it carries, and what was sent so far."""

    def __init__(self) -> None:
        self.id = operation_id()
        self.sent: list[Plan] = []
        self.ambiguous = False

    def event(
        self,
        type: str,  # noqa: A002
        stream: str,
        payload: bytes,
        *,
        after: Head | None = None,
        guarded: bool = True,
        links: Mapping[str, Any] = NO_LINKS,
    ) -> NewEvent:
        """An event of this operation.

        ``after`` is what it was decided on: it gives the ``seq`` and, unless ``guarded`` is false, the guard. An entry of a
        list is decided on nothing. ``links``: members of the metadata such as ``restores``.
        """
        seq = None if after is None else after.seq + 1
        guard = after.guard if after is not None and guarded else None
        metadata = encode_metadata(op=self.id, seq=seq, links=links)
        return NewEvent(type=type, stream=stream, payload=payload, metadata=metadata, guard=guard)


class Done(Quiet, frozen=True, kw_only=True):
    """What a mutation came to: the commit event's payload; where a reply says so, its state and what was stored."""

    operation: Operation
    payload: bytes
    state: Entity | None = None
    stored: list[tuple[NewEvent, Acknowledged]] = msgspec.field(default_factory=list)


Decide = Callable[[Operation], Awaitable[Plan | None]]
"""Reads what it needs and makes the plan, or returns ``None`` when there is nothing to do."""


class Mutations:
    """Carries mutations out, with at most one of this process under way per stream."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}
        self.pause: Callable[[int], Awaitable[None]] = _pause
        self.now: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    @asynccontextmanager
    async def turn(self, stream: str) -> AsyncIterator[None]:
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

    async def carry_out(self, decide: Decide) -> Done | None:
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
            if not again or (plan.instead is not None and failure.ambiguous):
                look = self._stored if plan.instead is None else self._abandoned
                if (found := await self._insist(look, operation, deadline)) is not None:
                    return Done(operation=operation, payload=bytes(found.payload))
            if not again:
                await self._withdraw(operation)
                failure.ambiguous = operation.ambiguous
                if isinstance(failure, VersionConflict) and failure.stream is not None:
                    failure.stream = shown(failure.stream)
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
                if not operation.ambiguous and (self._streams.store.atomic or not operation.sent):
                    raise
                if self.now() >= deadline:
                    operation.ambiguous = error.ambiguous = True
                    raise
            await self.pause(len(operation.sent) + 1)

    async def _stored(self, operation: Operation) -> Event | None:
        """The commit event of an operation whose append failed, if it was stored all the same.

        On a store that keeps the first events of a batch, the event that failed may be one after the commit point.
        """
        if self._streams.store.atomic and not operation.ambiguous:
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
        assert plan.instead is not None
        while True:
            if (found := await self._stored(operation)) is not None:
                return found
            head = await self._streams.head(plan.commit.stream)
            if head.event is not None:
                return None
            try:
                await self._streams.append(plan.instead(Operation(), head))
            except VersionConflict:
                continue
            return None

    async def _withdraw(self, operation: Operation) -> None:
        """Free at once what a refused operation has claimed, on a store that keeps the first events of a batch.

        By a fence on the stream of the commit point, not by a release: another operation on the same entity may count on
        the very same claim, and after a fence it decides again. An append that is still on its way is void then, too.
        """
        if self._streams.store.atomic or not operation.sent:
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
            noticed("a claim could not be withdrawn; it is free after the grace period", error)


class Claim(Quiet, frozen=True, rename="camel"):
    """The payload of a claim or of its release."""

    owner: str
    owner_version: int = -1
    decision: str | None = None
    decision_version: int = -1

    @property
    def by_another(self) -> bool:
        """Whether an event on another stream than the owner's decides: a transaction's."""
        return self.decision is not None and self.decision != self.owner


def fence(head: Head, operation: Operation) -> NewEvent:
    """The event that changes nothing, but makes a commit that was decided on ``head`` impossible."""
    if head.event is not None:
        payload = bytes(head.event.payload)
    else:
        payload = msgspec.json.encode({"_deleted": True, "id": head.stream.partition(":")[2]})
    return operation.event(FENCED, head.stream, payload, after=head)


Rewrite = Callable[[Event, Head], NewEvent | None]
"""Takes what was covered and the head of its stream; returns the event that shows it again, ``None`` where none is needed."""


async def uncovered(streams: Streams, stream: str, op: str, rewrite: Rewrite) -> bool:
    """Show what an event of operation ``op`` was stored on top of, although it was to be the first of its stream.

    Whether there was something: a server that forgets versions when it restarts lets that happen (contract, section 6.1).
    """
    while True:
        covered = below(await streams.page(stream, newest_first=True, decisive=True), op)
        again = None if covered is None else rewrite(covered, await streams.head(stream))
        if again is None:
            return False
        try:
            await streams.append([again])
        except VersionConflict:
            continue
        return True


async def covered_by(fencing: Operation, head: Head, streams: Streams) -> bool:
    """Whether a fence that was to be the first event of ``head`` covered an entity; it is shown again then."""
    if head.guard or not streams.store.forgetful:
        return False

    def repeated(covered: Event, now: Head) -> NewEvent:
        return Operation().event(FENCED, head.stream, bytes(covered.payload), after=now)

    return await uncovered(streams, head.stream, fencing.id, repeated)


def release(operation: Operation, stream: str, owner: str, after: Head) -> NewEvent:
    """The event that gives a claimed value up; guarded, so that it never hits somebody else's newer claim."""
    payload = msgspec.json.encode({"v": 1, "owner": owner})
    return operation.event(RELEASED, stream, payload, after=after)


def _unsent(error: AllsourceAuthError) -> bool:
    """Whether nothing of an append that failed so can have been stored: the server never looked at it."""
    return isinstance(error, Overloaded | RateLimited) or (isinstance(error, Http) and not error.ambiguous)


async def _pause(attempt: int) -> None:
    """Give way after a lost race: not at all at first, then up to 50 ms, at random so that two do not stay in step."""
    await asyncio.sleep(random.uniform(0, min(0.0005 * 2**attempt, 0.05)) if attempt > 1 else 0)  # noqa: S311
