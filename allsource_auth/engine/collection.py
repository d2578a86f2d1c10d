"""What every repository can do, driven by the declaration of its kind.

A repository is thin: it reads states, and it turns a wish into a plan (`plans.py`). Named operations of a kind are in the
module of that kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias, TypeVar

import msgspec

from allsource_auth.codec import is_tombstone
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.context import Context
from allsource_auth.engine.fences import uncovered
from allsource_auth.engine.indexes import entry
from allsource_auth.engine.operation import NO_LINKS, Done, Operation, Plan
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.queries import Queries
from allsource_auth.entities import Entity
from allsource_auth.errors import Conflict, InvalidInput, Json, StoreClosed
from allsource_auth.kinds import ADDED, REMOVED, Index, Kind, Unique
from allsource_auth.logs import log_suppressed
from allsource_auth.store.base import Event, NewEvent

__all__ = ["Collection", "EngineContext", "changed", "declare", "delete_orphan", "index_keys_of", "unique_values_of"]

E = TypeVar("E", bound=Entity)


class Collection(Queries[E]):
    """The entities of one kind."""

    context: EngineContext

    def __init__(self, context: EngineContext, kind: Kind[E]) -> None:
        super().__init__(context, kind)
        context.collections[kind.name] = self

    # What repositories, transactions, maintenance and integrations call

    async def create(self, given: Mapping[str, object], *, key: str | None, again: bool = False) -> E:
        """Create an entity under ``key``, or under a new one. Raises `Conflict`, `InvalidInput`.

        ``again``: a key may be given anew after a removal even where the kind's removals are final.
        """
        kind = self.kind
        made_here = key is None
        values = {"created_at": self.context.now(), **self._touched(), **kind.checked(given)}
        name = kind.make_key() if key is None else key
        kind.stream(name)

        async def decide(operation: Operation) -> Plan:
            nonlocal name
            head = Head(stream=kind.stream(name), event=None, guard=0, seq=0)
            if not made_here or operation.sent:
                head = await self.context.mutations.head(operation, head.stream)
            if made_here and head.event is not None:
                # Somebody who wants one of the values fenced this id, or it was given up: a new one has no such past.
                name = kind.make_key()
                head = Head(stream=kind.stream(name), event=None, guard=0, seq=0)
            if head.event is not None:
                await self._make_room(name, head, again=again)
            payload = kind.codec.new(values | {kind.key: name})
            entity = self.entity_of(payload)
            claims = await self.context.claims.take(operation, kind, unique_values_of(kind, entity), head)
            guarded = not (kind.unguarded_creation and made_here)
            return Plan(
                head=head,
                before=claims + self.index_entries(operation, ADDED, index_keys_of(kind, entity), head),
                commit=operation.event(kind.type("created"), head.stream, payload, after=head, guarded=guarded),
                state=entity,
                compensation=None if guarded else partial(self._void, entity),
            )

        return await self._carried_out(decide, stream_lock=None if made_here else kind.stream(name))

    def _void(self, entity: E, operation: Operation, head: Head) -> list[NewEvent]:
        """A tombstone for an entity whose creation may still arrive; its ``seq`` outranks that of the creation.

        The list entry follows it: had the creation arrived, the tombstone is refused, and the entity stays listed.
        """
        above = msgspec.structs.replace(head, seq=head.seq + 1)
        tombstone = self.kind.codec.tombstone(entity)
        return [
            operation.event(self.kind.type("deleted"), head.stream, tombstone, after=above),
            *self.index_entries(operation, REMOVED, index_keys_of(self.kind, entity), above),
        ]

    async def _make_room(self, key: str, head: Head, *, again: bool) -> None:
        """Allow the creation over a tombstone, once everything of the old entity is gone. Raises `Conflict`."""
        assert head.event is not None
        if not is_tombstone(head.event.payload) or not (self.kind.restorable or again):
            raise Conflict(self.kind.name, self.kind.key)
        self.context.depend_on_state(head.stream)
        await self.cascade(key)

    async def update(
        self,
        key: str,
        given: Mapping[str, object],
        *,
        verb: str = "updated",
        rule: Callable[[dict[str, Any], E], None] = lambda changes, before: None,
        empty_counts: bool = False,
    ) -> E:
        """Set the given attributes, whatever else happens to the entity meanwhile.

        ``UNSET`` attributes are left alone; if all are, nothing is written, unless ``empty_counts``. ``rule`` may adjust the
        changes, or refuse them, with regard to the state that they are decided on.
        Raises the kind's `NotFound`, `Conflict`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
        """
        changes = self.kind.checked({name: value for name, value in given.items() if value is not msgspec.UNSET})

        def decide(before: E) -> Mapping[str, Any] | None:
            if not changes and not empty_counts:
                return None
            adjusted = dict(changes)
            rule(adjusted, before)
            return adjusted

        return await self.change(key, decide, verb=verb, state_dependent=False)

    async def change(
        self,
        key: str,
        wish: Callable[[E], Mapping[str, Any] | None],
        *,
        verb: str = "updated",
        state_dependent: bool = True,
    ) -> E:
        """Change an entity in one guarded step to what ``wish`` makes of its state; ``None`` leaves it alone.

        ``wish`` is asked again when others were faster, and may raise. ``once``: its answer only holds for the very state that
        it saw. Returns the state afterwards. Raises what `_update` raises.
        """
        kind = self.kind
        stream = kind.find_stream(key)
        if stream is None:
            raise kind.not_found
        if state_dependent:
            self.context.depend_on_state(stream)
        left_alone: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal left_alone
            head = await self.context.mutations.head(operation, stream)
            before = self.living(head.event)
            assert head.event is not None
            changes = wish(before)
            if changes is None:
                left_alone = before
                return None
            payload = kind.codec.merged(head.event.payload, {**self._touched(), **changes})
            return await self._rewrite(operation, head, before, payload, verb)

        async with self.context.mutations.stream_lock(stream):
            done = await self.context.mutations.run(decide)
        if done is None:
            assert left_alone is not None
            return left_alone
        return await self._finished(done)

    def _touched(self) -> dict[str, Any]:
        return {"updated_at": self.context.now()} if "updated_at" in self.kind.codec.names else {}

    async def _rewrite(
        self,
        operation: Operation,
        head: Head,
        before: E | None,
        payload: bytes,
        verb: str,
        links: Mapping[str, Any] = NO_LINKS,
    ) -> Plan:
        """The plan that gives an entity a new state: takes the values that it did not have, releases those it gives up."""
        kind = self.kind
        entity = self.entity_of(payload)
        taken, given_up = changed(unique_values_of(kind, before), unique_values_of(kind, entity))
        joined, left = changed(index_keys_of(kind, before), index_keys_of(kind, entity))
        claims = await self.context.claims.take(operation, kind, taken, head)
        releases = await self.context.claims.give_up(operation, kind, given_up, head.stream)
        return Plan(
            head=head,
            before=claims + self.index_entries(operation, ADDED, joined, head),
            commit=operation.event(kind.type(verb), head.stream, payload, after=head, links=links),
            state=entity,
            after=releases + self.index_entries(operation, REMOVED, left, head),
        )

    async def delete(self, key: str, *, only_if: Callable[[E], bool] = lambda entity: True) -> bool:
        """Delete an entity and everything that is its own; whether this call did it. See `_remove`."""
        return await self.remove(key, only_if=only_if) is not None

    async def remove(
        self, key: str, *, verb: str = "deleted", only_if: Callable[[E], bool] = lambda entity: True
    ) -> E | None:
        """Delete an entity and everything that is its own; its last state if this call did it. What is not there stays so.

        Deleting again finishes what an interrupted deletion left. ``only_if`` is asked of the state that the deletion is
        decided on.
        """
        kind = self.kind
        stream = kind.find_stream(key)
        if stream is None:
            return None
        if verb != "deleted":
            self.context.depend_on_state(stream)
        deleted = False
        last: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal deleted, last
            head = await self.context.mutations.head(operation, stream)
            entity = None if head.event is None else kind.decode(head.event)
            deleted = head.event is not None and entity is None
            if entity is None or not only_if(entity):
                return None
            last = entity
            releases = await self.context.claims.give_up(operation, kind, unique_values_of(kind, entity), stream)
            return Plan(
                head=head,
                commit=operation.event(kind.type(verb), stream, kind.codec.tombstone(entity), after=head),
                after=releases + self.index_entries(operation, REMOVED, index_keys_of(kind, entity), head),
            )

        async with self.context.mutations.stream_lock(stream):
            done = await self.context.mutations.run(decide)
            if done is not None:
                await self._shorten_indexes(done)
            if done is not None or deleted:
                await self.cascade(key)
        return None if done is None else last

    async def cascade(self, key: str) -> None:
        """Delete the entities that belong to a deleted one. Can be run again at any time."""
        for collection in self.context.collections.values():
            for index in collection.kind.indexes:
                if index.owner == self.kind.name:
                    await collection.delete_by_index(index, key)
            for unique in collection.kind.unique:
                if unique.owner == self.kind.name:
                    await collection.delete_by_unique(unique, key)

    async def delete_by_unique(self, unique: Unique, value: str) -> None:
        """Delete who has a unique value; one that cannot be decoded stays, so that it does not keep the others."""
        try:
            owner = await self.context.claims.owner(self.kind, unique, (unique.normalize(value),), require_leader=True)
        except Json as error:
            log_suppressed("a cascade met a state that cannot be decoded", error)
            return
        if owner is not None:
            await self.delete(getattr(owner, self.kind.key))

    async def delete_by_index(self, index: Index, value: str) -> int:
        """Delete all entities in a list; how many this call deleted."""
        members = await self.members_of(index, value, require_leader=True)
        deleted = await concurrently([getattr(entity, self.kind.key) for entity in members], self.delete)
        return sum(deleted.values())

    async def delete_where(self, keys: Iterable[str], test: Callable[[E], bool]) -> int:
        """Delete those of ``keys`` whose state passes ``test`` when it is decided; how many this call deleted."""
        deleted = await concurrently(keys, partial(self.delete, only_if=test))
        return sum(deleted.values())

    async def restore(self, key: str) -> E:
        """Bring a deleted entity back as it was, with its unique values; a living one is returned as it is.

        What was deleted with it stays deleted. Raises `Conflict` if somebody else has one of its values by now, and then
        nothing changes; the kind's `NotFound` if there never was one, the parent's if it belongs to a deleted entity;
        `InvalidInput` for a kind whose removals are final.
        """
        kind, stream = self._final_refused("restore", key)
        alive: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal alive
            head = await self.context.mutations.head(operation, stream)
            if head.event is not None and not is_tombstone(head.event.payload):
                alive = self.living(head.event)
                return None
            lived = await self._history.last_state(stream)
            if lived is None:
                raise kind.not_found
            if (parent := await self.deleted_parent(self.living(lived), require_leader=True)) is not None:
                raise parent.not_found
            await self.cascade(key)
            payload = kind.codec.merged(lived.payload, self._touched())
            return await self._rewrite(operation, head, None, payload, "updated", {"restores": lived.id})

        async with self.context.mutations.stream_lock(stream):
            done = await self.context.mutations.run(decide)
        if done is None:
            assert alive is not None
            return alive
        return await self._finished(done)

    async def revert(self, key: str, to: datetime | str) -> E:
        """Give a living entity the state that it had at a time, or right after the event with this id.

        Secrets, used-up codes and counters stay as they are, and so does whose the entity is (``kept`` of its kind): with an id
        that was deleted and given anew, a credential would else go back to its former user.

        Raises `Conflict` if somebody else has one of its former unique values; the kind's `NotFound` if it is not alive;
        `InvalidInput` if it did not live then, or for a kind whose removals are final.
        """
        kind, stream = self._final_refused("revert", key)

        async def decide(operation: Operation) -> Plan:
            head = await self.context.mutations.head(operation, stream)
            before = self.living(head.event)
            former = await self._history.event_as_of(stream, to, field="to", require_leader=True)
            if former is None or is_tombstone(former.payload):
                raise InvalidInput("to", f"the {kind.name} was not alive then")
            assert head.event is not None
            kept = kind.codec.replaced(former.payload, head.event.payload, kind.kept_on_revert)
            payload = kind.codec.merged(kept, self._touched())
            return await self._rewrite(operation, head, before, payload, "updated", {"revertedTo": former.id})

        return await self._carried_out(decide, stream_lock=stream)

    def _final_refused(self, wish: str, key: str) -> tuple[Kind[E], str]:
        kind = self.kind
        if not kind.restorable:
            raise InvalidInput(kind.key, f"cannot {wish} a {kind.name}: that would bring a secret back")
        stream = kind.find_stream(key)
        if stream is None:
            raise kind.not_found
        self.context.depend_on_state(stream)
        return kind, stream

    # Details

    def index_entries(
        self,
        operation: Operation,
        type: str,  # noqa: A002
        index_keys_of: Mapping[Index, str],
        head: Head,
    ) -> list[NewEvent]:
        """The entries for lists that an entity joins or leaves by the event that follows ``head``."""
        return [
            entry(operation, type, self.kind.index_stream(self.context.tenant, index, value), head)
            for index, value in index_keys_of.items()
        ]

    async def _carried_out(self, decide: Callable[[Operation], Awaitable[Plan]], *, stream_lock: str | None) -> E:
        """Carry out a mutation that always has something to do, one at a time per stream; the entity as it is then."""
        async with nullcontext() if stream_lock is None else self.context.mutations.stream_lock(stream_lock):
            done = await self.context.mutations.run(decide)
        assert done is not None
        return await self._finished(done, chosen=stream_lock is not None)

    async def _finished(self, done: Done, *, chosen: bool = True) -> E:
        """What follows a stored mutation; the entity that came of it. ``chosen``: its key was not made for it.

        Raises `Conflict`, and takes the mutation back, if a server that forgets versions let it have what is somebody else's.
        """
        await self._shorten_indexes(done)
        entity = done.state if isinstance(done.state, self.kind.entity) else self.entity_of(done.payload)
        if self._streams.store.loses_versions_on_restart:
            with suppress(StoreClosed):  # what was accepted before the adapter was closed is done
                await self.context.mutations.insist(
                    partial(self.read_back, entity, done.operation.sent[-1].head, chosen), done.operation
                )
        return entity

    async def read_back(self, entity: E, base: Head, chosen: bool, operation: Operation) -> None:
        """Look below the events that were to be the first of their streams (design, section 5); takes the mutation back.

        ``base``: what its event on the entity's stream follows. Raises `Conflict`.
        """
        if chosen and base.guard == 0 and await self._uncovered(operation, base.stream):
            raise Conflict(self.kind.name, self.kind.key)
        given_back = [
            unique
            for unique, value in unique_values_of(self.kind, entity).items()
            if await self.context.claims.give_back(operation, self.kind, unique, value, base.stream)
        ]
        if not given_back:
            return
        key, before = getattr(entity, self.kind.key), base.event
        if before is None or is_tombstone(before.payload):
            await self.delete(key)
        else:
            await self.revert(key, to=before.id)
        raise Conflict(self.kind.name, given_back[0].field)

    async def _uncovered(self, operation: Operation, stream: str) -> bool:
        """Give an entity, which a creation was stored on top of, its state again; whether there was one."""

        def rewrite(covered: Event, head: Head) -> NewEvent | None:
            deleted = is_tombstone(covered.payload)
            if deleted and self.kind.restorable:
                return None
            # Of the kind's own types: a scan of a store that searches by type must meet it.
            type_ = self.kind.type("deleted" if deleted else "updated")
            links = {"revertedTo": covered.id}
            return Operation().event(type_, stream, bytes(covered.payload), after=head, links=links)

        return await uncovered(self._streams, stream, operation.id, rewrite)

    async def _shorten_indexes(self, done: Done) -> None:
        for event, stored in done.stored:
            if event.type in (ADDED, REMOVED):
                await self.context.indexes.shorten_if_due(event.stream, stored.version)

    def entity_of(self, payload: bytes) -> E:
        """The entity in a payload that was just written, exactly as a later read will see it."""
        event = Event(
            id="new",
            type="",
            stream=self.kind.prefix,
            payload=msgspec.Raw(payload),
            metadata=msgspec.Raw(b"null"),
            time=0,
            version=0,
        )
        entity = self.kind.decode(event)
        assert entity is not None
        return entity


EngineContext: TypeAlias = Context[Collection[Any]]
"""The context that the collections of an adapter or a transaction share."""


def declare(context: EngineContext, kind: Kind[Any]) -> Collection[Any]:
    """Add a kind at run time, or replace the declaration of a known kind by one with more attributes.

    Cascades, transactions, `check` and `reindex` include it from then on.
    """
    context.declared[kind.name] = kind
    known = context.collections.get(kind.name)
    if known is None:
        return Collection(context, kind)
    known.use_kind(kind)
    return known


async def delete_orphan(collection: Collection[Any], entity: Entity) -> bool:
    """Delete an entity whose parent was deleted, as the cascade would have; return whether it was one."""
    if await collection.deleted_parent(entity, require_leader=True) is None:
        return False
    await collection.delete(getattr(entity, collection.kind.key), only_if=lambda now: bool(now == entity))
    return True


def unique_values_of(kind: Kind[E], entity: E | None) -> dict[Unique, tuple[str, ...]]:
    """The unique values that an entity has."""
    return {unique: value for unique in kind.unique if (value := unique.value_of(entity)) is not None}


def index_keys_of(kind: Kind[E], entity: E | None) -> dict[Index, str]:
    """The lists that an entity stands in, with the value that they are of."""
    return {index: value for index in kind.indexes if (value := getattr(entity, index.attribute, None)) is not None}


K = TypeVar("K")
V = TypeVar("V")


def changed(old: Mapping[K, V], new: Mapping[K, V]) -> tuple[dict[K, V], dict[K, V]]:
    """What is new or changed, and what is gone or was changed."""
    return (
        {key: value for key, value in new.items() if old.get(key) != value},
        {key: value for key, value in old.items() if new.get(key) != value},
    )
