"""Claims: a unique value belongs to at most one living entity. The protocol is explained in `docs/explanation/uniqueness.md`.

A claim names the stream of its owner and the version that the owner's commit point is guarded with. The state of the owner
decides whether the value is taken:

1. *Live*: the owner has the value. It is taken.
2. *Void*: the owner's stream is at another version, and the owner does not have the value. It is free.
3. *Pending*: the owner's stream is still at the version of the claim, so the commit point may yet be stored. After a grace
   period the contender **fences** the owner: it appends an event to the owner's stream that changes nothing. The guard of a
   late commit then fails, and the value is free.

A free value is taken by a claim event that is guarded by the version of the claim stream. No guarantee depends on the length
of the grace period. It only spares slow writers a retry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.engine.fences import fence, restore_after_fence
from allsource_auth.engine.operation import Operation
from allsource_auth.engine.ordering import Head, before_operation, content, newest_of
from allsource_auth.engine.roll_forward import outstanding, remaining, roll_forward
from allsource_auth.engine.streams import PENDING_PREFIX, SECOND, Streams
from allsource_auth.entities import Entity
from allsource_auth.errors import Conflict, VersionConflict
from allsource_auth.kind import CLAIMED, RELEASED, Kind, Unique
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["Claims"]

E = TypeVar("E", bound=Entity)

GRACE = 2 * SECOND
"""Minimum grace period of a pending claim, in nanoseconds."""

GRACE_APPENDS = 20
"""The grace period is also at least this many times the duration of this client's slowest recent append."""


class Claim(OpaqueStruct, frozen=True, rename="camel"):
    """The payload of a claim or of its release.

    ``decision`` and ``decision_version`` are set in a transaction: the stream of its decision, and the version that the
    decision is guarded with.
    """

    owner: str
    owner_version: int = -1
    decision: str | None = None
    decision_version: int = -1

    @property
    def decided_elsewhere(self) -> bool:
        """Whether the commit point is a transaction's decision on another stream than the owner's."""
        return self.decision is not None and self.decision != self.owner


class ClaimState(OpaqueStruct, frozen=True, kw_only=True):
    """The resolved state of a claim.

    ``owner`` is the head of the owner's stream, ``None`` if the value is not claimed. ``holder`` is the owner's state if it has
    the value. ``pending``: the owner does not have the value, but the mutation that claimed it may still be committed.
    ``within_grace``: the grace period is not over.
    """

    owner: Head | None = None
    holder: Entity | None = None
    pending: bool = False
    within_grace: bool = False
    claim: Head | None = None


NO_HEADS: Mapping[str, Head] = MappingProxyType({})

DeleteOrphan = Callable[[Kind[Any], Entity], Awaitable[bool]]
"""Deletes an entity whose parent was deleted, and returns whether it was one."""


class Claims:
    """The claims of one tenant."""

    def __init__(self, streams: Streams, delete_orphan: DeleteOrphan, committed_claims: Claims | None = None) -> None:
        """``committed_claims``: in a transaction, where ``streams`` is the overlay, the claims as they are stored."""
        self._streams = streams
        self._delete_orphan = delete_orphan
        self._committed_claims = committed_claims

    async def owner(
        self, kind: Kind[E], unique: Unique, wanted: tuple[str, ...], *, require_leader: bool = False
    ) -> E | None:
        """Return the entity that has these values, or ``None``, also for a pending claim. Two reads."""
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
        known_free: Mapping[str, Head] = NO_HEADS,
    ) -> list[NewEvent]:
        """Return the events that claim ``wanted`` for the stream ``owner``.

        Args:
            operation: the mutation that takes the values.
            kind: the kind of the owner.
            wanted: the values.
            owner: the head that the owner's commit point is guarded with.
            decision: in a transaction, the head that its decision is guarded with.
            known_free: the heads of claim streams whose values were already found free.

        Raises `Conflict` for a value that another entity has, or may be about to get.
        """
        members: dict[str, Any] = {"v": 1, "owner": owner.stream, "ownerVersion": owner.guard}
        if decision is not None:
            members |= {"decision": decision.stream, "decisionVersion": decision.guard}
        payload = msgspec.json.encode(members)
        found: list[NewEvent] = []
        for unique, value in wanted.items():
            stream = kind.claim_stream(self._streams.store.tenant, unique, value)
            free = known_free.get(stream) or await self._free_head(
                kind, unique, value, stream, owner.stream, operation.id
            )
            found.append(operation.event(CLAIMED, stream, payload, after=free))
        return found

    async def release(
        self,
        operation: Operation,
        kind: Kind[Any],
        released: dict[Unique, tuple[str, ...]],
        owner: str,
    ) -> list[NewEvent]:
        """Return the events that release the values of the stream ``owner``, for the end of a plan."""
        found: list[NewEvent] = []
        for unique, value in released.items():
            head = await self._streams.head(kind.claim_stream(self._streams.store.tenant, unique, value))
            if head.event is not None and head.event.type == CLAIMED and content(head.event, Claim).owner == owner:
                found.append(release_event(operation, head.stream, owner, head))
        return found

    async def restore_overwritten(
        self, operation: Operation, kind: Kind[Any], unique: Unique, value: tuple[str, ...], taker: str
    ) -> bool:
        """Restore the claim of another entity that ``operation`` overwrote when it took the value for the stream ``taker``.

        Returns whether there was one. A server that loses versions on restart may store a claim that expects a new stream
        after existing claims.
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
                return False  # another mutation of the same entity claimed the same value
            owner = await self._streams.head(claim.owner)
            living = owner.event is not None and unique.value_of(kind.decode(owner.event)) == value
            if not living and owner.guard != claim.owner_version:
                return False
            restored = Operation().event(CLAIMED, stream, bytes(older.payload), after=await self._streams.head(stream))
            try:
                await self._streams.append([restored])
            except VersionConflict:
                continue
            return True

    async def resolve(self, kind: Kind[Any], unique: Unique, claim: Head) -> ClaimState:
        """Return the state of a claim, whose value need not be known. ``claim`` is the head of the claim stream.

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
        if claimed.decided_elsewhere:
            pending = await self._may_transaction_commit(claimed, claim)
        else:
            pending = owner.guard == claimed.owner_version
        return ClaimState(owner=owner, pending=pending, within_grace=self._is_within_grace(claim.event), claim=claim)

    async def _may_transaction_commit(self, claimed: Claim, claim: Head) -> bool:
        """Whether the transaction that made a claim may still write to the claim's owner."""
        assert claimed.decision is not None
        decision = await self._streams.head(claimed.decision)
        made = None if claim.op is None else await self._streams.written_since(decision, claim.op, since=None)
        if made is None or claim.op is None:
            return decision.guard == claimed.decision_version
        of_owner = [event for event in remaining(made) if event.stream == claimed.owner]
        return bool(await outstanding(self._streams, claim.op, of_owner))

    async def settle(self, claim_state: ClaimState) -> bool:
        """Fence the pending commit of an ownerless claim, whatever its age. Returns false if the claim must be read again."""
        if not claim_state.pending or claim_state.owner is None:
            return True
        if claim_state.claim is not None and claim_state.claim.event is not None:
            claimed = content(claim_state.claim.event, Claim)
            if claimed.decided_elsewhere:
                await self._settle_transaction(claimed, claim_state.claim, None)
                return False
        return await self._fence(claim_state.owner)

    async def _free_head(
        self,
        kind: Kind[Any],
        unique: Unique,
        wanted: tuple[str, ...],
        stream: str,
        contender: str,
        op: str | None = None,
    ) -> Head:
        """Return the head of a claim stream once no other entity than ``contender`` has the value or can get it by this claim.

        An earlier claim of the same operation ``op`` needs no settling: both have the same commit point. Raises `Conflict` if
        the value is taken, or pending within the grace period.
        """
        while True:
            head = await self._streams.head(stream)
            if head.event is None or head.event.type != CLAIMED or (op is not None and head.op == op):
                return head
            if self._committed_claims is not None and not head.event.id.startswith(PENDING_PREFIX):
                # Claims of others are judged and settled on what is stored, not on the writes of this transaction.
                committed = await self._committed_claims._free_head(kind, unique, wanted, stream, contender)
                if committed.guard == head.guard:
                    return head
                continue
            claim = content(head.event, Claim)
            # The decision of a transaction is settled first: it decides about the commit on the owner's stream.
            if claim.decided_elsewhere and not await self._settle_transaction(
                claim, head, Conflict(kind.name, unique.field)
            ):
                continue
            if claim.owner == contender:
                # Both commit points are guarded on the same stream, so at most one of them is stored.
                return head
            owner = await self._streams.head(claim.owner)
            holder = None if owner.event is None else kind.decode(owner.event)
            if holder is not None and unique.value_of(holder) == wanted:
                if await self._delete_orphan(kind, holder):
                    continue
                raise Conflict(kind.name, unique.field)
            if claim.decided_elsewhere:
                return head
            if owner.guard != claim.owner_version or await self._is_committed(kind, unique, wanted, owner, head.op):
                return head
            if self._is_within_grace(head.event):
                raise Conflict(kind.name, unique.field)
            if await self._fence(owner):
                return head

    async def _settle_transaction(self, claim: Claim, head: Head, conflict: Conflict | None) -> bool:
        """Complete the transaction that made a claim, or fence its decision. Returns false if the claim must be read again.

        Raises ``conflict``, unless it is ``None``, while the transaction is undecided and within the grace period.
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

    async def _is_committed(
        self, kind: Kind[Any], unique: Unique, wanted: tuple[str, ...], owner: Head, op: str | None
    ) -> bool:
        """Whether the claiming operation is committed, although the owner's version still is the version of the claim.

        The version counter of a server can be too low after a crash or an upgrade. Whether the operation is committed and
        whether the owner has the value are judged on one read, because the commit may be stored between two reads. Raises
        `Conflict` if the owner has the value.
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
        """Make a commit that was decided on ``owner`` impossible. Returns false if the stream has changed since."""
        operation = Operation()
        try:
            await self._streams.append([fence(owner, operation)])
        except VersionConflict:
            return False
        return not await restore_after_fence(operation, owner, self._streams)

    def _is_within_grace(self, claim: Event) -> bool:
        grace = max(GRACE, GRACE_APPENDS * round(self._streams.slowest_append * SECOND))
        return self._streams.store.server_time() - claim.time < grace


def release_event(operation: Operation, stream: str, owner: str, after: Head) -> NewEvent:
    """Return the event that releases a claimed value. It is guarded, so that it cannot release a newer claim."""
    payload = msgspec.json.encode({"v": 1, "owner": owner})
    return operation.event(RELEASED, stream, payload, after=after)
