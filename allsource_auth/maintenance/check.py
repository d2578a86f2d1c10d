"""Checking: what in a store is not as it should be, and repairing what needs no guessing.

What a crash leaves behind (a claim without an owner, half a cascade, an entry of a list that leads nowhere) is recognised
by every reader and harms nobody; `check` finds it, and with ``repair`` clears it away. What somebody has to decide (two
living owners of one value, a state that cannot be decoded) is reported and left alone.

Whatever looks wrong is looked at again before it counts, because others may be writing meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from allsource_auth.audit import metadata_of
from allsource_auth.engine.claims import GRACE, Claim, release
from allsource_auth.engine.collection import EngineContext
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.fences import covered_by, fence
from allsource_auth.engine.indexes import Entry
from allsource_auth.engine.operation import Operation, Plan
from allsource_auth.engine.ordering import Head, content
from allsource_auth.engine.roll_forward import outstanding, remaining, roll_forward
from allsource_auth.entities import Entity
from allsource_auth.errors import Json
from allsource_auth.kinds import CLAIMED, INDEX_PREFIX, REMOVED, Index, Kind, Unique
from allsource_auth.maintenance.findings import Checked, Finding, Problem, Undecodable
from allsource_auth.maintenance.reindex import Inspection, OwnedValue, Progress, entries_plan
from allsource_auth.store.base import Event

__all__ = ["check"]

ENTRY_GRACE = 2 * GRACE
"""Nanoseconds that an entry is left alone: longer than the transaction that it is of, whose decision is stored after it."""

IN_ONE_GO = 500
"""Entries of a list that are looked at, and removed, together."""


async def check(context: EngineContext, *, repair: bool, progress: Progress | None) -> Checked:
    """Look at every event, every living entity, every claim and every list."""
    return await Check(context, repair, progress or (lambda what, count: None)).run()


class Check:
    """One check."""

    def __init__(self, context: EngineContext, repair: bool, progress: Progress) -> None:
        self._context, self._streams, self._repair, self._progress = context, context.streams, repair, progress
        self._undecodable = Undecodable()
        self._findings: list[Finding] = []
        self._events = self._entities = self._index_streams = 0
        self._began: int | None = None

    async def run(self) -> Checked:
        inspections = [Inspection(collection, self._undecodable) for collection in self._context.collections.values()]
        for inspection in inspections:
            decisions = await self._read_events(inspection.kind)
            await self._each(inspection.kind, decisions, partial(self._look_at_transaction, inspection.kind, decisions))
            await self._look_at_entities(inspection)
            self._findings += inspection.duplicates
        await self._look_at_index_streams(inspections)
        return Checked(
            entities=self._entities,
            events=self._events,
            index_streams=self._index_streams,
            findings=(*self._findings, *self._undecodable.findings),
        )

    def _found(
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

    async def _each(self, kind: Kind[Any], names: Iterable[str], look: Callable[[str], Awaitable[None]]) -> None:
        """``look`` at several things at a time; what cannot be decoded on the way is a finding of its own."""

        async def one(name: str) -> None:
            try:
                await look(name)
            except Json as error:
                self._undecodable.add(kind.name, error)

        await concurrently(names, one)

    async def _read_events(self, kind: Kind[Any]) -> dict[str, Event]:
        """Every event of a kind, not only the newest of a stream: the history reads them all. Returns what decides more."""
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

    async def _look_at_transaction(self, kind: Kind[Any], decisions: Mapping[str, Event], name: str) -> None:
        """Find out whether everything that a decision says remains has happened, except what is young."""
        decision = decisions[name]
        op, rest = metadata_of(decision).op, remaining(decision)
        if op is None or self._is_within_grace(decision, GRACE) or not await outstanding(self._streams, op, rest):
            return
        if self._repair:
            await roll_forward(self._streams, op, rest)
        self._found("half_transaction", kind, kind.key, [decision.stream])

    def _is_within_grace(self, event: Event, grace: int) -> bool:
        """Whether an event was less than ``grace`` old when the check began.

        Not now: a transaction that was left alone because it was young must not lose its list entries because they are old.
        """
        began = self._streams.store.server_time() if self._began is None else self._began
        return began - event.time < grace

    # Entities: what they lack

    async def _look_at_entities(self, inspection: Inspection) -> None:
        values: dict[str, list[OwnedValue]] = {}
        async with aclosing(inspection.pages()) as pages:
            async for entities in pages:
                self._entities += len(entities)
                if inspection.kind.parents:
                    await self._each(
                        inspection.kind, list(entities), partial(self._look_at_parents, inspection, entities)
                    )
                indexes = inspection.indexes(entities)
                await self._each(inspection.kind, indexes, partial(self._look_for_entries, inspection, indexes))
                for owned in await inspection.unclaimed(entities):
                    values.setdefault(owned.claim, []).append(owned)
                self._progress("entities", self._entities)
        await self._each(inspection.kind, values, partial(self._look_for_claim, inspection, values))

    async def _look_at_parents(self, inspection: Inspection, entities: dict[str, Any], stream: str) -> None:
        """Find a living child of a deleted entity, and take it out of ``entities``."""
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
        self._found("half_cascade", inspection.kind, parent.name, [stream])

    async def _look_for_entries(
        self, inspection: Inspection, indexes: Mapping[str, tuple[Index, list[str]]], where: str
    ) -> None:
        """Find the members of a list that have no entry in it."""
        index, members = indexes[where]
        lacking = [head.stream for head in await inspection.missing(index, where, members)]
        if not lacking or (self._repair and not await inspection.enter(where, index, lacking)):
            return
        self._found("missing_entry", inspection.kind, index.field, lacking, where)

    async def _look_for_claim(self, inspection: Inspection, values: Mapping[str, list[OwnedValue]], claim: str) -> None:
        """Find the living entity that has a value without its claim, or several that have the value."""
        lacking: dict[str, Entity] = {}
        taken = False
        for owned in values[claim]:
            look = await inspection.look(owned, await self._streams.head(claim))
            if look is not None:
                lacking[owned.stream] = look.entity
                taken = taken or look.claim_state.holder is not None
        if len(lacking) > 1:
            inspection.share(owned.unique, claim, lacking)
        elif lacking and not taken and (not self._repair or await inspection.claim(owned)):
            self._found("missing_claim", inspection.kind, owned.unique.field, lacking, claim)

    # Claims and lists: what leads nowhere

    async def _look_at_index_streams(self, inspections: Sequence[Inspection]) -> None:
        places: dict[str, tuple[Inspection, Unique | Index]] = {}
        for inspection in inspections:
            places |= {
                f"{inspection.kind.name}.{unique.field}": (inspection, unique) for unique in inspection.kind.unique
            }
            places |= {
                f"{inspection.kind.name}.by_{index.field}": (inspection, index) for index in inspection.kind.indexes
            }
        async with aclosing(self._streams.heads(INDEX_PREFIX, "auth.index.")) as pages:
            async for events in pages:
                self._index_streams += len(events)
                by_place: dict[str, dict[str, Event]] = {}
                for event in events:
                    by_place.setdefault(event.stream.split(":")[1], {})[event.stream] = event
                for place in by_place.keys() & places.keys():
                    inspection, what = places[place]
                    if isinstance(what, Unique):
                        look = partial(self._look_at_claim, inspection, what, by_place[place])
                    else:
                        look = partial(self._look_at_index, inspection, what)
                    await self._each(inspection.kind, by_place[place], look)
                self._progress("index streams", self._index_streams)

    async def _look_at_claim(
        self, inspection: Inspection, unique: Unique, newest: Mapping[str, Event], stream: str
    ) -> None:
        """Find out whether a claim leads to somebody who has the value, or soon may."""
        if newest[stream].type != CLAIMED:
            return
        owner = content(newest[stream], Claim).owner
        if inspection.has(unique, stream, await self._streams.newest(owner)):
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
                return Plan(head=head, commit=release(operation, stream, owner, head))

        if await self._context.mutations.run(decide) if self._repair else await decide(Operation()):
            self._found("orphan_claim", inspection.kind, unique.field, [owner], stream)

    async def _look_at_index(self, inspection: Inspection, index: Index, where: str) -> None:
        """Find the entries of a list that lead to nothing which stands in it."""
        streams = (await self._context.indexes.read(where)).streams
        for start in range(0, len(streams), IN_ONE_GO):
            newest = await self._streams.newest_many(streams[start : start + IN_ONE_GO])
            suspects = [stream for stream, event in newest.items() if self._is_dead(inspection, index, where, event)]
            if suspects:
                await self._look_at_members(inspection, index, where, suspects)

    async def _look_at_members(self, inspection: Inspection, index: Index, where: str, suspects: Sequence[str]) -> None:
        deleted: list[Head] = []

        async def decide(operation: Operation) -> Plan | None:
            nonlocal deleted
            heads = await concurrently(suspects, self._streams.head)
            fold = await self._context.indexes.read(where, require_leader=True)
            # What was listed just now may be about to be created.
            within_grace = {
                content(event, Entry).stream for event in fold.entries if self._is_within_grace(event, ENTRY_GRACE)
            }
            listed_now = set(fold.streams)
            deleted = [
                head
                for stream, head in heads.items()
                if stream in listed_now
                and self._is_dead(inspection, index, where, head.event)
                and not (head.event is None and stream in within_grace)
            ]
            if self._repair:
                deleted = [await self._never(head) if head.event is None else head for head in deleted]
                deleted = [head for head in deleted if self._is_dead(inspection, index, where, head.event)]
            return entries_plan(operation, REMOVED, where, deleted)

        if await inspection.write_entries(where, decide) if self._repair else await decide(Operation()):
            self._found("dead_entry", inspection.kind, index.field, [head.stream for head in deleted], where)

    def _is_dead(self, inspection: Inspection, index: Index, where: str, event: Event | None) -> bool:
        """Whether an entry leads to nothing that stands in the list; a state that cannot be decoded may well stand there."""
        try:
            return not inspection.stands(index, where, event)
        except Json as error:
            self._undecodable.add(inspection.kind.name, error)
            return False

    async def _never(self, head: Head) -> Head:
        """Keep an entity that was listed long ago, but not created, from being created late; its stream after that."""

        async def decide(operation: Operation) -> Plan | None:
            now = await self._context.mutations.head(operation, head.stream)
            # A creation without a guard has ``seq`` 1, and must not outrank this.
            above = msgspec.structs.replace(now, seq=now.seq + 1)
            return None if now.event is not None else Plan(head=now, commit=fence(above, operation))

        done = await self._context.mutations.run(decide)
        if done is not None:
            await covered_by(done.operation, done.operation.sent[-1].head, self._streams)
        return await self._streams.head(head.stream)
