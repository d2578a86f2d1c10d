"""Checking: find inconsistencies in a store, and repair those that have only one possible repair.

A crash can leave a claim without an owner, an incomplete cascade or transaction, or an index entry without an entity. Readers
recognise these, so they are harmless. `check` reports them, and removes or completes them with ``repair``. Problems that an
operator has to decide about (two living entities with one unique value, a state that cannot be decoded) are only reported.

Other processes may write during a check. So each suspect is read again from the leader before it is reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.engine.claims import GRACE, Claim, release_event
from allsource_auth.engine.collection import EngineContext
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.fences import fence, restore_after_fence
from allsource_auth.engine.indexes import Entry
from allsource_auth.engine.operation import Operation, Plan
from allsource_auth.engine.ordering import Head, content
from allsource_auth.engine.roll_forward import outstanding, remaining, roll_forward
from allsource_auth.entities import Entity
from allsource_auth.errors import Json
from allsource_auth.kind import CLAIMED, INDEX_PREFIX, REMOVED, Index, Kind, Unique
from allsource_auth.maintenance.findings import Checked, Finding, Problem, Undecodable
from allsource_auth.maintenance.inspection import Inspection, OwnedValue, Progress, entries_plan
from allsource_auth.store.base import Event

__all__ = ["check"]

ENTRY_GRACE = 2 * GRACE
"""Index entries younger than this, in nanoseconds, are not checked. The decision of a transaction is stored after its entries,
so this is longer than the grace period of transactions."""

BATCH = 500
"""Number of index entries that are checked, and removed, together."""


async def check(context: EngineContext, *, repair: bool, progress: Progress | None) -> Checked:
    """Check every event, every living entity, every claim and every index."""
    return await Check(context, repair, progress or (lambda step, count: None)).run()


class Check:
    """One run of a check."""

    def __init__(self, context: EngineContext, repair: bool, progress: Progress) -> None:
        self._context, self._streams, self._repair, self._progress = context, context.streams, repair, progress
        self._undecodable = Undecodable()
        self._findings: list[Finding] = []
        self._events = self._entities = self._index_streams = 0
        self._began: int | None = None

    async def run(self) -> Checked:
        """Check the kinds one after another, then all index streams."""
        inspections = [Inspection(collection, self._undecodable) for collection in self._context.collections.values()]
        for inspection in inspections:
            decisions = await self._read_events(inspection.kind)
            await self._each(inspection.kind, decisions, partial(self._check_transaction, inspection.kind, decisions))
            await self._check_entities(inspection)
            self._findings += inspection.duplicates
        await self._check_index_streams(inspections)
        return Checked(
            entities=self._entities,
            events=self._events,
            index_streams=self._index_streams,
            findings=(*self._findings, *self._undecodable.findings),
        )

    def _report(
        self, problem: Problem, kind: Kind[Any], field: str, streams: Iterable[str], index_stream: str | None = None
    ) -> None:
        self._findings.append(
            Finding(
                problem=problem,
                kind=kind.name,
                field=field,
                keys=tuple(map(kind.key_of, streams)),
                stream=index_stream,
                repaired=self._repair,
            )
        )

    async def _each(self, kind: Kind[Any], names: Iterable[str], check_one: Callable[[str], Awaitable[None]]) -> None:
        """Call ``check_one`` for several names concurrently. A state that cannot be decoded is a finding of its own."""

        async def guarded(name: str) -> None:
            try:
                await check_one(name)
            except Json as error:
                self._undecodable.add(kind.name, error)

        await concurrently(names, guarded)

    async def _read_events(self, kind: Kind[Any]) -> dict[str, Event]:
        """Decode every event of a kind, because histories read them all. Returns the decisions of transactions by event id."""
        decisions: dict[str, Event] = {}
        async with aclosing(self._streams.scan(kind.types)) as pages:
            async for events in pages:
                self._events += len(events)
                self._progress("events", self._events)
                if self._began is None:
                    self._began = self._streams.store.server_time()
                for event in events:
                    if remaining(event):
                        decisions[event.id] = event
                    try:
                        kind.decode(event)
                    except Json as error:
                        self._undecodable.add(kind.name, error)
        return decisions

    async def _check_transaction(self, kind: Kind[Any], decisions: Mapping[str, Event], name: str) -> None:
        """Check that the remaining events of a decision are stored, unless the decision is within the grace period."""
        decision = decisions[name]
        op, events = metadata_of(decision).op, remaining(decision)
        if op is None or self._is_within_grace(decision, GRACE) or not await outstanding(self._streams, op, events):
            return
        if self._repair:
            await roll_forward(self._streams, op, events)
        self._report("half_transaction", kind, kind.key, [decision.stream])

    def _is_within_grace(self, event: Event, grace: int) -> bool:
        """Whether an event was younger than ``grace`` nanoseconds when the check began.

        The current time would be wrong: the grace period of an entry must not end during the check if the transaction of the
        entry was skipped because of its own.
        """
        began = self._streams.store.server_time() if self._began is None else self._began
        return began - event.time < grace

    # Entities and what is missing for them

    async def _check_entities(self, inspection: Inspection) -> None:
        values: dict[str, list[OwnedValue]] = {}
        async with aclosing(inspection.pages()) as pages:
            async for entities in pages:
                self._entities += len(entities)
                if inspection.kind.parents:
                    await self._each(
                        inspection.kind, list(entities), partial(self._check_parents, inspection, entities)
                    )
                indexes = inspection.indexes(entities)
                await self._each(inspection.kind, indexes, partial(self._check_entries, inspection, indexes))
                for owned in await inspection.unclaimed(entities):
                    values.setdefault(owned.claim, []).append(owned)
                self._progress("entities", self._entities)
        await self._each(inspection.kind, values, partial(self._check_claims, inspection, values))

    async def _check_parents(self, inspection: Inspection, entities: dict[str, Any], stream: str) -> None:
        """Report a living child of a deleted entity, and remove it from ``entities``."""
        collection = inspection.collection
        if await collection.deleted_parent(entities[stream]) is None:
            return
        child = inspection.state(await self._streams.head(stream))
        parent = None if child is None else await collection.deleted_parent(child, require_leader=True)
        if parent is None:
            return
        del entities[stream]
        if self._repair and not await collection.delete_where(
            [inspection.kind.key_of(stream)], lambda now: now == child
        ):
            return
        self._report("half_cascade", inspection.kind, parent.name, [stream])

    async def _check_entries(
        self, inspection: Inspection, indexes: Mapping[str, tuple[Index, list[str]]], index_stream: str
    ) -> None:
        """Report living entities without an entry in an index."""
        index, members = indexes[index_stream]
        missing = [head.stream for head in await inspection.missing_members(index, index_stream, members)]
        if not missing or (self._repair and not await inspection.add(index_stream, index, missing)):
            return
        self._report("missing_entry", inspection.kind, index.field, missing, index_stream)

    async def _check_claims(self, inspection: Inspection, values: Mapping[str, list[OwnedValue]], claim: str) -> None:
        """Report a living entity that has a value without a claim, or several entities that have the same value."""
        unclaimed: dict[str, Entity] = {}
        without_claim: list[OwnedValue] = []
        taken = False
        for owned in values[claim]:
            missing = await inspection.missing_claim(owned, await self._streams.head(claim))
            if missing is not None:
                unclaimed[owned.stream] = missing.entity
                without_claim.append(owned)
                taken = taken or missing.claim_state.holder is not None
        if not without_claim:
            return
        unique = without_claim[0].unique
        if len(without_claim) > 1:
            inspection.add_duplicates(unique, claim, unclaimed)
        elif not taken and (not self._repair or await inspection.claim(without_claim[0])):
            self._report("missing_claim", inspection.kind, unique.field, unclaimed, claim)

    # Claims without an owner and index entries without an entity

    async def _check_index_streams(self, inspections: Sequence[Inspection]) -> None:
        by_name: dict[str, tuple[Inspection, Unique | Index]] = {}
        for inspection in inspections:
            by_name |= {
                f"{inspection.kind.name}.{unique.field}": (inspection, unique) for unique in inspection.kind.unique
            }
            by_name |= {
                f"{inspection.kind.name}.by_{index.field}": (inspection, index) for index in inspection.kind.indexes
            }
        async with aclosing(self._streams.heads(INDEX_PREFIX, "auth.index.")) as pages:
            async for events in pages:
                self._index_streams += len(events)
                events_by_name: dict[str, dict[str, Event]] = {}
                for event in events:
                    events_by_name.setdefault(event.stream.split(":")[1], {})[event.stream] = event
                for name in events_by_name.keys() & by_name.keys():
                    inspection, declared = by_name[name]
                    if isinstance(declared, Unique):
                        check_one = partial(self._check_claim, inspection, declared, events_by_name[name])
                    else:
                        check_one = partial(self._check_index, inspection, declared)
                    await self._each(inspection.kind, events_by_name[name], check_one)
                self._progress("index streams", self._index_streams)

    async def _check_claim(
        self, inspection: Inspection, unique: Unique, newest: Mapping[str, Event], stream: str
    ) -> None:
        """Report a claim whose owner does not have the value, unless it is pending within the grace period."""
        if newest[stream].type != CLAIMED:
            return
        owner = content(newest[stream], Claim).owner
        if inspection.has_value(unique, stream, await self._streams.newest(owner)):
            return

        async def decide(operation: Operation) -> Plan | None:
            nonlocal owner
            while True:
                head = await self._context.mutations.head(operation, stream)
                claim_state = await self._context.claims.resolve(inspection.kind, unique, head)
                if (
                    claim_state.owner is None
                    or claim_state.holder is not None
                    or (claim_state.pending and claim_state.within_grace)
                ):
                    return None
                if self._repair and not await self._context.claims.settle(claim_state):
                    continue
                if not self._repair and (await self._streams.head(stream)).event != head.event:
                    continue
                owner = claim_state.owner.stream
                return Plan(head=head, commit=release_event(operation, stream, owner, head))

        if await self._context.mutations.run(decide) if self._repair else await decide(Operation()):
            self._report("orphan_claim", inspection.kind, unique.field, [owner], stream)

    async def _check_index(self, inspection: Inspection, index: Index, index_stream: str) -> None:
        """Report the entries of an index whose entities do not have its key."""
        streams = (await self._context.indexes.read(index_stream)).streams
        for start in range(0, len(streams), BATCH):
            newest = await self._streams.newest_many(streams[start : start + BATCH])
            suspects = [
                stream for stream, event in newest.items() if self._is_dead(inspection, index, index_stream, event)
            ]
            if suspects:
                await self._check_members(inspection, index, index_stream, suspects)

    async def _check_members(
        self, inspection: Inspection, index: Index, index_stream: str, suspects: Sequence[str]
    ) -> None:
        dead: list[Head] = []

        async def decide(operation: Operation) -> Plan | None:
            nonlocal dead
            heads = await concurrently(suspects, self._streams.head)
            found = await self._context.indexes.read(index_stream, require_leader=True)
            # The entity of a recent entry may be about to be created.
            within_grace = {
                content(event, Entry).stream for event in found.entries if self._is_within_grace(event, ENTRY_GRACE)
            }
            members = set(found.streams)
            dead = [
                head
                for stream, head in heads.items()
                if stream in members
                and self._is_dead(inspection, index, index_stream, head.event)
                and not (head.event is None and stream in within_grace)
            ]
            if self._repair:
                dead = [await self._fence_empty_stream(head) if head.event is None else head for head in dead]
                dead = [head for head in dead if self._is_dead(inspection, index, index_stream, head.event)]
            return entries_plan(operation, REMOVED, index_stream, dead)

        if await inspection.write_entries(index_stream, decide) if self._repair else await decide(Operation()):
            self._report("dead_entry", inspection.kind, index.field, [head.stream for head in dead], index_stream)

    def _is_dead(self, inspection: Inspection, index: Index, index_stream: str, event: Event | None) -> bool:
        """Whether the entity of an entry does not have the index key. Unknown, thus false, if it cannot be decoded."""
        try:
            return not inspection.is_member(index, index_stream, event)
        except Json as error:
            self._undecodable.add(inspection.kind.name, error)
            return False

    async def _fence_empty_stream(self, head: Head) -> Head:
        """Fence a stream whose index entry has no entity, so that a delayed creation fails. Returns its new head."""

        async def decide(operation: Operation) -> Plan | None:
            now = await self._context.mutations.head(operation, head.stream)
            # An unguarded creation has ``seq`` 1. The fence gets 2, so that it outranks the creation.
            above = msgspec.structs.replace(now, seq=now.seq + 1)
            return None if now.event is not None else Plan(head=now, commit=fence(above, operation))

        done = await self._context.mutations.run(decide)
        if done is not None:
            await restore_after_fence(done.operation, done.operation.sent[-1].head, self._streams)
        return await self._streams.head(head.stream)
