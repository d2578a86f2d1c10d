"""Claims: how a value belongs to at most one living entity (section 3 of the design, "Claims").

A claim names its owner's stream and the version that the owner's commit point is guarded with. Whoever wants a value that
is claimed looks at the owner, never at a clock, to decide:

1. the owner has the value: *live*, the value is taken;
2. the owner's stream has moved on since, without the value: *free*;
3. the owner's stream is still where the claim found it: *pending*, the commit may yet come. After a grace period whoever
   wants the value **fences** the owner: appends to its stream an event that changes nothing, so that the late commit's
   guard can only fail. Then the value is free.

Taking a free value is a claim event guarded by the claim stream's version. The grace period is a courtesy to slow writers;
nothing depends on it being long enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.engine.fences import covered_by, fence
from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, before_operation, content, newest_of
from allsource_auth.engine.roll_forward import outstanding, remaining, roll_forward
from allsource_auth.engine.streams import PENDING, SECOND, Streams
from allsource_auth.entities import Entity
from allsource_auth.errors import Conflict, VersionConflict
from allsource_auth.kinds import CLAIMED, RELEASED, Kind, Unique
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["Claims"]

E = TypeVar("E", bound=Entity)

GRACE = 2 * SECOND
"""Nanoseconds that a pending claim is left alone at least."""

GRACE_APPENDS = 20
"""... and at least so many times as long as this client's slow appends take."""


class Claim(OpaqueStruct, frozen=True, rename="camel"):
    """The payload of a claim or of its release."""

    owner: str
    owner_version: int = -1
    decision: str | None = None
    decision_version: int = -1

    @property
    def by_another(self) -> bool:
        """Whether an event on another stream than the owner's decides: a transaction's."""
        return self.decision is not None and self.decision != self.owner


class ClaimState(OpaqueStruct, frozen=True, kw_only=True):
    """What a claim comes to: its owner's stream (``None``: nobody claims the value), and the owner's state if it has the value.

    ``pending``: it does not, but may come to have it by the very mutation that claimed it; ``young``: no grace period is over.
    """

    owner: Head | None = None
    holder: Entity | None = None
    pending: bool = False
    within_grace: bool = False
    claim: Head | None = None


NONE_KNOWN: Mapping[str, Head] = MappingProxyType({})

FinishOrphan = Callable[[Kind[Any], Entity], Awaitable[bool]]
"""Deletes an entity whose parent was deleted; whether it was one (section 3 of the design, "Dead owners")."""


class Claims:
    """The claims of one tenant."""

    def __init__(self, streams: Streams, finish_orphan: FinishOrphan, committed_claims: Claims | None = None) -> None:
        """``beneath``: those of what is stored, where ``streams`` are what a transaction sees."""
        self._streams = streams
        self._finish_orphan = finish_orphan
        self._committed_claims = committed_claims

    async def owner(
        self, kind: Kind[E], unique: Unique, wanted: tuple[str, ...], *, require_leader: bool = False
    ) -> E | None:
        """The entity that has these values; two reads. A pending claim reads as nobody."""
        stream = kind.claim_stream(self._streams.store.tenant, unique, wanted)
        claim = await self._streams.newest(stream, require_leader=require_leader)
        if claim is None or claim.type != CLAIMED:
            return None
        event = await self._streams.newest(content(claim, Claim).owner, require_leader=require_leader)
        entity = None if event is None else kind.decode(event)
        return entity if unique.value_of(entity) == wanted else None

    async def take(
        self,
        operation: Operation,
        kind: Kind[Any],
        wanted: dict[Unique, tuple[str, ...]],
        owner: Head,
        *,
        decision: Head | None = None,
        known: Mapping[str, Head] = NONE_KNOWN,
    ) -> list[NewEvent]:
        """The events that claim ``wanted`` for the stream ``owner``, whose commit point is guarded with ``owner.guard``.

        In a transaction, the event that follows ``decision`` decides; ``known``: claim streams whose values were found free.
        Raises `Conflict` for a value that another entity has, or is about to have.
        """
        members: dict[str, Any] = {"v": 1, "owner": owner.stream, "ownerVersion": owner.guard}
        if decision is not None:
            members |= {"decision": decision.stream, "decisionVersion": decision.guard}
        payload = msgspec.json.encode(members)
        found = []
        for unique, value in wanted.items():
            stream = kind.claim_stream(self._streams.store.tenant, unique, value)
            free = known.get(stream) or await self._settled(kind, unique, value, stream, owner.stream, operation.id)
            found.append(operation.event(CLAIMED, stream, payload, after=free))
        return found

    async def give_up(
        self,
        operation: Operation,
        kind: Kind[Any],
        unique_values_of: dict[Unique, tuple[str, ...]],
        owner: str,
    ) -> list[NewEvent]:
        """The events that release ``held``, for the end of the plan that gives the values up."""
        found = []
        for unique, value in unique_values_of.items():
            head = await self._streams.head(kind.claim_stream(self._streams.store.tenant, unique, value))
            if head.event is not None and head.event.type == CLAIMED and content(head.event, Claim).owner == owner:
                found.append(release(operation, head.stream, owner, head))
        return found

    async def give_back(
        self, operation: Operation, kind: Kind[Any], unique: Unique, value: tuple[str, ...], taker: str
    ) -> bool:
        """Give a value back to whom it belonged before ``operation`` took it for the stream ``taker`` as if it were new.

        Whether it had to be.

        A server that forgets versions when it restarts (section 6.1 of the contract) may store a first claim on top of others.
        """
        stream = kind.claim_stream(self._streams.store.tenant, unique, value)
        if not any(event.stream == stream and event.guard == 0 for plan in operation.sent for event in plan.before):
            return False
        while True:
            older = before_operation(
                await self._streams.page(stream, newest_first=True, require_leader=True), operation.id
            )
            if older is None or older.type != CLAIMED:
                return False
            claim = content(older, Claim)
            if claim.owner == taker:
                return False  # another mutation of the same entity wanted the same value
            owner = await self._streams.head(claim.owner)
            living = owner.event is not None and unique.value_of(kind.decode(owner.event)) == value
            if not living and owner.guard != claim.owner_version:
                return False
            again = Operation().event(CLAIMED, stream, bytes(older.payload), after=await self._streams.head(stream))
            try:
                await self._streams.append([again])
            except VersionConflict:
                continue
            return True

    async def resolve(self, kind: Kind[Any], unique: Unique, claim: Head) -> ClaimState:
        """What a claim, as the newest event of its stream, comes to now, for whoever does not know its value.

        Raises `Json` if the claim or its owner's state cannot be decoded.
        """
        if claim.event is None or claim.event.type != CLAIMED:
            return ClaimState()
        claimed = content(claim.event, Claim)
        owner = await self._streams.head(claimed.owner)
        holder = None if owner.event is None else kind.decode(owner.event)
        value = unique.value_of(holder)
        if value is not None and kind.claim_stream(self._streams.store.tenant, unique, value) == claim.stream:
            return ClaimState(owner=owner, holder=holder)
        if claimed.by_another:
            pending = await self._may_come(claimed, claim)
        else:
            pending = owner.guard == claimed.owner_version
        return ClaimState(owner=owner, pending=pending, within_grace=self._is_within_grace(claim.event), claim=claim)

    async def _may_come(self, claimed: Claim, claim: Head) -> bool:
        """Whether the commit of a transaction may still come to the owner of a claim."""
        assert claimed.decision is not None
        decision = await self._streams.head(claimed.decision)
        made = None if claim.op is None else await self._streams.written_since(decision, claim.op, since=None)
        if made is None or claim.op is None:
            return decision.guard == claimed.decision_version
        rest = [each for each in remaining(made) if each.stream == claimed.owner]
        return bool(await outstanding(self._streams, claim.op, rest))

    async def settle(self, claim_state: ClaimState) -> bool:
        """Make sure that a claim which leads to nobody never will, whatever its age; false if it has to be looked at again."""
        if not claim_state.pending or claim_state.owner is None:
            return True
        if claim_state.claim is not None and claim_state.claim.event is not None:
            claimed = content(claim_state.claim.event, Claim)
            if claimed.by_another:
                await self._is_settled(claimed, claim_state.claim, None)
                return False
        return await self._fence(claim_state.owner)

    async def _settled(
        self,
        kind: Kind[Any],
        unique: Unique,
        wanted: tuple[str, ...],
        stream: str,
        wants: str,
        op: str | None = None,
    ) -> Head:
        """The claim stream at a moment when nobody but ``wants`` had the value or could still get it by an older claim.

        An earlier claim of the same operation ``op`` needs no settling: both have one decision, so only one of them can come.
        """
        while True:
            head = await self._streams.head(stream)
            if head.event is None or head.event.type != CLAIMED or (op is not None and head.op == op):
                return head
            if self._committed_claims is not None and not head.event.id.startswith(PENDING):
                # What others have, or leave behind, is judged and settled as it is stored, whatever becomes of this.
                if (await self._committed_claims._settled(kind, unique, wanted, stream, wants)).guard == head.guard:
                    return head
                continue
            claim = content(head.event, Claim)
            # Of a transaction: its commit on the owner's stream comes if another stream has its decision.
            if claim.by_another and not await self._is_settled(claim, head, Conflict(kind.name, unique.field)):
                continue
            if claim.owner == wants:
                # Both commits would be guarded on the same stream, so only one of them can come.
                return head
            owner = await self._streams.head(claim.owner)
            holder = None if owner.event is None else kind.decode(owner.event)
            if holder is not None and unique.value_of(holder) == wanted:
                if await self._finish_orphan(kind, holder):
                    continue
                raise Conflict(kind.name, unique.field)
            if claim.by_another:
                return head
            if owner.guard != claim.owner_version or await self._is_over(kind, unique, wanted, owner, head.op):
                return head
            if self._is_within_grace(head.event):
                raise Conflict(kind.name, unique.field)
            if await self._fence(owner):
                return head

    async def _is_settled(self, claim: Claim, head: Head, conflict: Conflict | None) -> bool:
        """Make a transaction that claimed a value happen to its end, or never; false if it has to be looked at again.

        Raises ``conflict``, if there is one to raise, while it is undecided and young.
        """
        assert claim.decision is not None
        assert head.event is not None
        decision = await self._streams.head(claim.decision)
        if head.op is not None:
            made = await self._streams.written_since(decision, head.op, since=None)
            if made is not None:
                await roll_forward(self._streams, head.op, remaining(made))
                return True
        if decision.guard != claim.decision_version:
            return True
        if conflict is not None and self._is_within_grace(head.event):
            raise conflict
        return await self._fence(decision)

    async def _is_over(
        self, kind: Kind[Any], unique: Unique, wanted: tuple[str, ...], owner: Head, op: str | None
    ) -> bool:
        """Whether the claiming operation has happened, although the owner's version says that it may still come.

        A server's counter can be too low after a crash or an upgrade. What has happened and what is held are judged by one
        read: the operation may happen between two. Raises `Conflict` if the value is held.
        """
        if owner.event is None or op is None:
            return False
        events = await self._streams.page(owner.stream, newest_first=True, require_leader=True)
        newest = newest_of(events)
        if newest is None or all(metadata_of(event).op != op for event in events):
            return False
        if unique.value_of(kind.decode(newest)) == wanted:
            raise Conflict(kind.name, unique.field)
        return True

    async def _fence(self, owner: Head) -> bool:
        """Make a commit that was decided on ``owner`` impossible; false if the stream has moved on by itself."""
        operation = Operation()
        try:
            await self._streams.append([fence(owner, operation)])
        except VersionConflict:
            return False
        return not await covered_by(operation, owner, self._streams)

    def _is_within_grace(self, claim: Event) -> bool:
        grace = max(GRACE, GRACE_APPENDS * round(self._streams.slowest_append * SECOND))
        return self._streams.store.server_time() - claim.time < grace


def release(operation: Operation, stream: str, owner: str, after: Head) -> NewEvent:
    """The event that gives a claimed value up; guarded, so that it never hits somebody else's newer claim."""
    payload = msgspec.json.encode({"v": 1, "owner": owner})
    return operation.event(RELEASED, stream, payload, after=after)
