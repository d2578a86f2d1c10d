"""Inspection of one kind: finding and writing missing claims and index entries. Used by `check` and `reindex`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from allsource_auth.engine.claims import Claim, ClaimState
from allsource_auth.engine.collection import Collection
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.fences import restore_overwritten
from allsource_auth.engine.indexes import CHECK_INTERVAL, entry
from allsource_auth.engine.operation import Decide, Operation, Plan
from allsource_auth.engine.ordering import Head, content
from allsource_auth.entities import Entity
from allsource_auth.errors import Json
from allsource_auth.kind import ADDED, CLAIMED, Index, Kind, Unique
from allsource_auth.maintenance.findings import Finding, Undecodable
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct

__all__ = ["Inspection", "MissingClaim", "OwnedValue", "Progress", "entries_plan"]

Progress = Callable[[str, int], None]
"""Takes the name of the current step, such as a kind, and the number of items done in it."""


class OwnedValue(OpaqueStruct, frozen=True):
    """A unique value of a living entity: the stream of its claim, and the stream of the entity."""

    unique: Unique
    claim: str
    stream: str


class MissingClaim(OpaqueStruct, frozen=True, kw_only=True):
    """A unique value of a living entity whose claim does not name the entity.

    ``head`` is the head of the claim stream and ``claim_state`` its resolved state. ``owner`` is the head of the entity's
    stream.
    """

    head: Head
    claim_state: ClaimState
    owner: Head
    entity: Entity


class Inspection:
    """Finds and writes missing claims and index entries of the entities of one kind.

    ``take_over``: if several living entities have one value, the oldest one gets the claim. Otherwise no claim is written for
    them.
    """

    def __init__(self, collection: Collection[Any], undecodable: Undecodable, *, take_over: bool = False) -> None:
        self.collection: Collection[Any] = collection
        self.kind: Kind[Any] = collection.kind
        self._context = collection.context
        self._streams = collection.context.streams
        self._undecodable = undecodable
        self._take_over = take_over
        self._duplicates: dict[str, tuple[Unique, dict[str, Entity]]] = {}

    async def pages(self) -> AsyncGenerator[dict[str, Any]]:
        """Iterate over pages of the living entities, by stream. Those that cannot be decoded are recorded."""
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
        """Return the living entity at the head of its stream, or ``None``. Raises `Json`."""
        return None if head.event is None else self.kind.decode(head.event)

    def add_duplicates(self, unique: Unique, claim: str, living: Mapping[str, Entity]) -> None:
        """Record that several living entities have one unique value."""
        self._duplicates.setdefault(claim, (unique, {}))[1].update(living)

    @property
    def duplicates(self) -> list[Finding]:
        """The unique values that several living entities have."""
        return [
            Finding(
                problem="duplicate",
                kind=self.kind.name,
                field=unique.field,
                keys=tuple(
                    self.kind.key_of(stream)
                    for stream in sorted(members, key=lambda stream: _creation(members[stream]))
                ),
                stream=claim,
            )
            for claim, (unique, members) in self._duplicates.items()
        ]

    # Claims

    async def unclaimed(self, entities: Mapping[str, Entity]) -> list[OwnedValue]:
        """Return the unique values of ``entities`` whose claims do not name them. One read for each value."""
        found = await concurrently(entities, lambda stream: self._unclaimed(stream, entities[stream]))
        return [owned for values in found.values() for owned in values]

    async def _unclaimed(self, stream: str, entity: Entity) -> list[OwnedValue]:
        found: list[OwnedValue] = []
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

    async def missing_claim(self, owned: OwnedValue, head: Head) -> MissingClaim | None:
        """Check again, on the side that accepts writes, whether the claim of a value is missing.

        ``head`` is the head of the claim stream. Returns ``None`` if the claim names the entity, or if the entity does not have
        the value any more. Raises `Json`.
        """
        claim_state = await self._context.claims.resolve(self.kind, owned.unique, head)
        named = claim_state.owner is not None and claim_state.owner.stream == owned.stream
        owner = claim_state.owner if named and claim_state.owner is not None else await self._streams.head(owned.stream)
        entity = self.state(owner)
        if named and claim_state.holder is not None:
            return None
        if entity is None or self._claim_stream(owned.unique, entity) != owned.claim:
            return None
        if claim_state.holder is not None and claim_state.owner is not None:
            self.add_duplicates(
                owned.unique, owned.claim, {owned.stream: entity, claim_state.owner.stream: claim_state.holder}
            )
        return MissingClaim(head=head, claim_state=claim_state, owner=owner, entity=entity)

    def has_value(self, unique: Unique, claim: str, event: Event | None) -> bool:
        """Return whether the entity whose newest event this is lives and has the value of a claim. Raises `Json`."""
        entity = None if event is None else self.kind.decode(event)
        return entity is not None and self._claim_stream(unique, entity) == claim

    async def claim_all(self, values: Iterable[OwnedValue]) -> int:
        """Write the missing claims of values; return their number. Holders of the same value are processed sequentially."""
        wanted: dict[str, list[OwnedValue]] = {}
        for owned in values:
            wanted.setdefault(owned.claim, []).append(owned)

        async def claim_one_by_one(claim: str) -> int:
            return sum([await self.claim(owned) for owned in wanted[claim]])

        return sum((await concurrently(wanted, claim_one_by_one)).values())

    async def claim(self, owned: OwnedValue) -> bool:
        """Write the claim of a value for the living entity that has it; return whether it was missing.

        The commit of a pending claim of another entity is fenced, whatever its age: it would have to be refused anyway.
        """

        async def decide(operation: Operation) -> Plan | None:
            while True:
                head = await self._context.mutations.head(operation, owned.claim)
                missing = await self.missing_claim(owned, head)
                if missing is None:
                    return None
                if missing.claim_state.holder is not None:
                    if not (self._take_over and await self._has_precedence(missing.entity, missing.claim_state.holder)):
                        return None
                elif not await self._context.claims.settle(missing.claim_state):
                    continue
                payload = msgspec.json.encode({"v": 1, "owner": owned.stream, "ownerVersion": missing.owner.guard})
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
                if not await mutations.follow_up(partial(self._restore_overwritten, owned), done.operation):
                    return True
        except Json as error:
            self._undecodable.add(self.kind.name, error)
            return False

    async def _restore_overwritten(self, owned: OwnedValue, operation: Operation) -> bool:
        """Restore the claim of another entity that the claim of ``operation`` overwrote; return whether there was one."""

        def rewrite(overwritten: Event, head: Head) -> NewEvent | None:
            if overwritten.type != CLAIMED or content(overwritten, Claim).owner == owned.stream:
                return None
            return Operation().event(CLAIMED, owned.claim, bytes(overwritten.payload), after=head)

        return await restore_overwritten(self._streams, owned.claim, operation.id, rewrite)

    async def _has_precedence(self, entity: Entity, other: Entity) -> bool:
        """Whether ``entity`` gets the claim of a shared value: children of deleted entities come last, then by age."""
        orphaned = [
            await self.collection.deleted_parent(one, require_leader=True) is not None for one in (entity, other)
        ]
        return (orphaned[0], *_creation(entity)) < (orphaned[1], *_creation(other))

    def _claim_stream(self, unique: Unique, entity: Entity) -> str | None:
        value = unique.value_of(entity)
        return None if value is None else self.kind.claim_stream(self._context.tenant, unique, value)

    # Indexes

    def indexes(self, entities: Mapping[str, Entity]) -> dict[str, tuple[Index, list[str]]]:
        """Return the index streams that ``entities`` belong to, each with its index and the streams of the entities."""
        found: dict[str, tuple[Index, list[str]]] = {}
        for stream, entity in entities.items():
            for index in self.kind.indexes:
                if (index_stream := self._index_stream(index, entity)) is not None:
                    found.setdefault(index_stream, (index, []))[1].append(stream)
        return found

    def _index_stream(self, index: Index, entity: Entity) -> str | None:
        value = getattr(entity, index.attribute)
        return None if value is None else self.kind.index_stream(self._context.tenant, index, value)

    async def missing_members(self, index: Index, index_stream: str, members: Sequence[str]) -> list[Head]:
        """Return the heads of those of ``members`` that lack an entry in an index. Reads from the leader. Raises `Json`."""
        known = set((await self._context.indexes.read(index_stream, require_leader=True)).streams)
        heads = await concurrently([stream for stream in members if stream not in known], self._streams.head)
        return [head for head in heads.values() if self.is_member(index, index_stream, head.event)]

    def is_member(self, index: Index, index_stream: str, event: Event | None) -> bool:
        """Return whether the entity whose newest event this is lives and has the key of an index stream. Raises `Json`."""
        entity = None if event is None else self.kind.decode(event)
        return entity is not None and self._index_stream(index, entity) == index_stream

    async def add_all(self, entities: Mapping[str, Entity]) -> int:
        """Write the missing index entries of ``entities``; return their number."""
        indexes = self.indexes(entities)
        return sum((await concurrently(indexes, lambda stream: self.add(stream, *indexes[stream]))).values())

    async def add(self, index_stream: str, index: Index, members: Sequence[str]) -> int:
        """Write the missing entries of ``members`` in one index, in one append; return their number."""

        async def decide(operation: Operation) -> Plan | None:
            missing = await self.missing_members(index, index_stream, members)
            return entries_plan(operation, ADDED, index_stream, missing)

        try:
            return await self.write_entries(index_stream, decide)
        except Json as error:
            self._undecodable.add(self.kind.name, error)
            return 0

    async def write_entries(self, index_stream: str, decide: Decide) -> int:
        """Execute the `entries_plan` that ``decide`` makes; return its number of entries. Compacts the index if due."""

        async def decide_again(operation: Operation) -> Plan | None:
            if operation.sent:
                await self._context.mutations.head(operation, index_stream)  # ends here if an earlier append was stored
            return await decide(operation)

        done = await self._context.mutations.run(decide_again)
        if done is None:
            return 0
        due = [stored.version for _, stored in done.stored if stored.version % CHECK_INTERVAL == 0]
        if due:
            await self._context.indexes.compact_if_due(index_stream, due[-1])
        return len(done.operation.sent[0].events)


def entries_plan(operation: Operation, type: str, index_stream: str, heads: Sequence[Head]) -> Plan | None:  # noqa: A002
    """Return the plan that adds entities to an index or removes them; ``None`` without ``heads``.

    ``heads`` are the heads of the entities' streams. The entries belong to their newest events.
    """
    events = [entry(operation, type, index_stream, msgspec.structs.replace(head, seq=head.seq - 1)) for head in heads]
    if not events:
        return None
    # Index entries commute. So the plan is not decided on a state of the index.
    unread = Head(stream=index_stream, event=None, guard=0, seq=0)
    return Plan(head=unread, before=events[:-1], commit=events[-1])


def _creation(entity: Entity) -> tuple[datetime, str]:
    return entity.created_at, entity.id
