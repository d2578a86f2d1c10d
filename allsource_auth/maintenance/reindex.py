"""Reindexing: what others wrote becomes searchable (section 9 of the design).

Writers such as the Rust crate leave only the streams of the entities, without claims and lists. `reindex` looks at every
living entity and writes what it lacks: a claim for each unique value, an entry in each list. A claim that is written for
a living owner is live at once, because the owner has the value (rule 1 of `claims.py`), and an entry is a hint that readers
verify; so both may be written while others write, and stopping half-way leaves nothing wrong.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from allsource_auth.engine.claims import Claim, ClaimState
from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.fences import uncovered
from allsource_auth.engine.indexes import LOOK_EVERY, entry
from allsource_auth.engine.operation import Decide, Operation, Plan
from allsource_auth.engine.ordering import Head, content
from allsource_auth.entities import Entity
from allsource_auth.errors import Json
from allsource_auth.kinds import ADDED, CLAIMED, Index, Unique
from allsource_auth.maintenance.findings import Finding, Reindexed, Undecodable
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["Index", "Progress", "reindex"]

Progress = Callable[[str, int], None]
"""Takes what is worked on, such as a kind, and how much of it is done."""


async def reindex(context: EngineContext, progress: Progress | None) -> Reindexed:
    """Give every living entity the claims and list entries that it lacks."""
    undecodable = Undecodable()
    met = claims = entries = 0
    duplicates: list[Finding] = []
    for collection in context.collections.values():
        inspection = Inspection(collection, undecodable, take_over=True)
        of_kind = 0
        async with aclosing(inspection.pages()) as pages:
            async for entities in pages:
                claims += await inspection.claim_all(await inspection.unclaimed(entities))
                entries += await inspection.enter_all(entities)
                of_kind += len(entities)
                if progress is not None:
                    progress(collection.kind.name, of_kind)
        met += of_kind
        duplicates += inspection.duplicates
    return Reindexed(
        entities=met,
        claims=claims,
        entries=entries,
        duplicates=tuple(duplicates),
        undecodable=undecodable.findings,
    )


class OwnedValue(OpaqueStruct, frozen=True):
    """A unique value that a living entity has, by the stream of its claim."""

    unique: Unique
    claim: str
    stream: str


class Look(OpaqueStruct, frozen=True, kw_only=True):
    """A value whose claim does not lead to the living entity that has it: the claim's stream, and what it comes to."""

    head: Head
    claim_state: ClaimState
    mine: Head
    entity: Entity


class Inspection:
    """The claims and lists of the entities of one kind.

    ``take_over``: of several living entities with one value, the oldest gets the claim; else nothing is written for them.
    """

    def __init__(self, collection: Collection[Any], undecodable: Undecodable, *, take_over: bool = False) -> None:
        self.collection, self.kind = collection, collection.kind
        self._context = collection.context
        self._streams = collection.context.streams
        self._undecodable = undecodable
        self._take_over = take_over
        self._shared: dict[str, tuple[Unique, dict[str, Entity]]] = {}

    async def pages(self) -> AsyncGenerator[dict[str, Any]]:
        """The living entities by their streams, in pages; those that cannot be decoded are remembered."""
        async with aclosing(self._streams.heads(self.kind.prefix, self.kind.types)) as pages:
            async for events in pages:
                found: dict[str, Entity] = {}
                for event in events:
                    try:
                        entity = self.kind.decode(event)
                    except Json as error:
                        self._undecodable.add(self.kind.name, error)
                        continue
                    if entity is not None:
                        found[event.stream] = entity
                yield found

    def state(self, head: Head) -> Any:
        """The living entity at the head of its stream, or ``None``. Raises `Json`."""
        return None if head.event is None else self.kind.decode(head.event)

    def share(self, unique: Unique, claim: str, living: Mapping[str, Entity]) -> None:
        """Remember that several living entities have one value."""
        self._shared.setdefault(claim, (unique, {}))[1].update(living)

    @property
    def duplicates(self) -> list[Finding]:
        """The values that several living entities were found to have."""
        return [
            Finding(
                problem="duplicate",
                kind=self.kind.name,
                field=unique.field,
                keys=tuple(self.kind.key_of(stream) for stream in sorted(members, key=lambda one: _age(members[one]))),
                stream=claim,
            )
            for claim, (unique, members) in self._shared.items()
        ]

    # Claims

    async def unclaimed(self, entities: Mapping[str, Entity]) -> list[OwnedValue]:
        """The values of ``entities`` whose claims do not name them; one read for each value."""
        found = await concurrently(entities, lambda stream: self._unclaimed(stream, entities[stream]))
        return [owned for values in found.values() for owned in values]

    async def _unclaimed(self, stream: str, entity: Entity) -> list[OwnedValue]:
        found = []
        for unique in self.kind.unique:
            claim = self._claim_stream(unique, entity)
            if claim is None:
                continue
            newest = await self._streams.newest(claim)
            try:
                named = newest is not None and newest.type == CLAIMED and content(newest, Claim).owner == stream
            except Json as error:
                self._undecodable.add(self.kind.name, error)
                continue
            if not named:
                found.append(OwnedValue(unique, claim, stream))
        return found

    async def look(self, owned: OwnedValue, head: Head) -> Look | None:
        """Look again, on the write side, at a value whose claim is ``head``.

        ``None`` if its claim leads to its entity, or that does not have the value any more. Raises `Json`.
        """
        claim_state = await self._context.claims.resolve(self.kind, owned.unique, head)
        own = claim_state.owner is not None and claim_state.owner.stream == owned.stream
        mine = claim_state.owner if own and claim_state.owner is not None else await self._streams.head(owned.stream)
        entity = self.state(mine)
        if own and claim_state.holder is not None:
            return None
        if entity is None or self._claim_stream(owned.unique, entity) != owned.claim:
            return None
        if claim_state.holder is not None and claim_state.owner is not None:
            self.share(owned.unique, owned.claim, {owned.stream: entity, claim_state.owner.stream: claim_state.holder})
        return Look(head=head, claim_state=claim_state, mine=mine, entity=entity)

    def has(self, unique: Unique, claim: str, event: Event | None) -> bool:
        """Whether an entity, with this as its newest event, is alive and has the value of a claim. Raises `Json`."""
        entity = None if event is None else self.kind.decode(event)
        return entity is not None and self._claim_stream(unique, entity) == claim

    async def claim_all(self, values: Iterable[OwnedValue]) -> int:
        """Write the claims that these values lack; how many there were. Those with one value take their turns."""
        wanted: dict[str, list[OwnedValue]] = {}
        for owned in values:
            wanted.setdefault(owned.claim, []).append(owned)

        async def for_one(claim: str) -> int:
            return sum([await self.claim(owned) for owned in wanted[claim]])

        return sum((await concurrently(wanted, for_one)).values())

    async def claim(self, owned: OwnedValue) -> bool:
        """Write the claim of a value for the living entity that has it; whether there was something to write.

        Who is about to take the value from it is fenced, whatever his claim's age: he would have to be refused.
        """

        async def decide(operation: Operation) -> Plan | None:
            while True:
                head = await self._context.mutations.head(operation, owned.claim)
                look = await self.look(owned, head)
                if look is None:
                    return None
                if look.claim_state.holder is not None:
                    if not (self._take_over and await self._is_before(look.entity, look.claim_state.holder)):
                        return None
                elif not await self._context.claims.settle(look.claim_state):
                    continue
                payload = msgspec.json.encode({"v": 1, "owner": owned.stream, "ownerVersion": look.mine.guard})
                return Plan(head=head, commit=operation.event(CLAIMED, owned.claim, payload, after=head))

        mutations = self._context.mutations
        try:
            while True:
                async with mutations.stream_lock(owned.stream):
                    done = await mutations.run(decide)
                if done is None:
                    return False
                first = done.operation.sent[-1].commit.guard == 0
                if not (first and self._streams.store.loses_versions_on_restart):
                    return True
                if not await mutations.insist(partial(self._uncovered, owned), done.operation):
                    return True
        except Json as error:
            self._undecodable.add(self.kind.name, error)
            return False

    async def _uncovered(self, owned: OwnedValue, operation: Operation) -> bool:
        """Put a claim back on top that a server which forgets versions let ours be stored on; whether there was one."""

        def again(covered: Event, head: Head) -> NewEvent | None:
            if covered.type != CLAIMED or content(covered, Claim).owner == owned.stream:
                return None
            return Operation().event(CLAIMED, owned.claim, bytes(covered.payload), after=head)

        return await uncovered(self._streams, owned.claim, operation.id, again)

    async def _is_before(self, entity: Entity, other: Entity) -> bool:
        """Whether a value belongs rather to ``entity``: it is the older one, and not the child of a deleted entity."""
        deleted = [
            await self.collection.deleted_parent(one, require_leader=True) is not None for one in (entity, other)
        ]
        return (deleted[0], *_age(entity)) < (deleted[1], *_age(other))

    def _claim_stream(self, unique: Unique, entity: Entity) -> str | None:
        value = unique.value_of(entity)
        return None if value is None else self.kind.claim_stream(self._context.tenant, unique, value)

    # Lists

    def indexes(self, entities: Mapping[str, Entity]) -> dict[str, tuple[Index, list[str]]]:
        """The lists in which ``entities`` stand, by the stream of the list, each with their streams."""
        found: dict[str, tuple[Index, list[str]]] = {}
        for stream, entity in entities.items():
            for index in self.kind.indexes:
                if (where := self._list_stream(index, entity)) is not None:
                    found.setdefault(where, (index, []))[1].append(stream)
        return found

    def _list_stream(self, index: Index, entity: Entity) -> str | None:
        value = getattr(entity, index.attribute)
        return None if value is None else self.kind.index_stream(self._context.tenant, index, value)

    async def missing(self, index: Index, where: str, members: Sequence[str]) -> list[Head]:
        """Those of ``members`` that stand in a list and have no entry in it, as the write side has it now. Raises `Json`."""
        known = set((await self._context.indexes.read(where, require_leader=True)).streams)
        heads = await concurrently([stream for stream in members if stream not in known], self._streams.head)
        return [head for head in heads.values() if self.stands(index, where, head.event)]

    def stands(self, index: Index, where: str, event: Event | None) -> bool:
        """Whether an entity, with this as its newest event, is alive and stands in a list. Raises `Json`."""
        entity = None if event is None else self.kind.decode(event)
        return entity is not None and self._list_stream(index, entity) == where

    async def enter_all(self, entities: Mapping[str, Entity]) -> int:
        """Write the entries that lists lack of ``entities``; how many there were."""
        indexes = self.indexes(entities)
        return sum((await concurrently(indexes, lambda where: self.enter(where, *indexes[where]))).values())

    async def enter(self, where: str, index: Index, members: Sequence[str]) -> int:
        """Write the entries that one list lacks of ``members``, in one append; how many there were."""

        async def decide(operation: Operation) -> Plan | None:
            return entries_plan(operation, ADDED, where, await self.missing(index, where, members))

        try:
            return await self.write_entries(where, decide)
        except Json as error:
            self._undecodable.add(self.kind.name, error)
            return 0

    async def write_entries(self, where: str, decide: Decide) -> int:
        """Carry out what ``decide`` plans with `entries_plan`; how many entries that were. The list is kept short."""

        async def found(operation: Operation) -> Plan | None:
            if operation.sent:
                await self._context.mutations.head(operation, where)  # ends here if an append came through after all
            return await decide(operation)

        done = await self._context.mutations.run(found)
        if done is None:
            return 0
        due = [stored.version for _, stored in done.stored if stored.version % LOOK_EVERY == 0]
        if due:
            await self._context.indexes.shorten_if_due(where, due[-1])
        return len(done.operation.sent[0].events)


def entries_plan(operation: Operation, type: str, where: str, heads: Sequence[Head]) -> Plan | None:  # noqa: A002
    """The plan that adds entities to a list, or removes them, as they stand with the newest event of their streams."""
    events = [entry(operation, type, where, msgspec.structs.replace(head, seq=head.seq - 1)) for head in heads]
    if not events:
        return None
    unread = Head(stream=where, event=None, guard=0, seq=0)  # entries commute: they are decided on nothing
    return Plan(head=unread, before=events[:-1], commit=events[-1])


def _age(entity: Entity) -> tuple[datetime, str]:
    return entity.created_at, entity.id
