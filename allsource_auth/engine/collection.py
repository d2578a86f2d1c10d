"""Collections: the reads and writes of one kind of entity, driven by its declaration (`Kind`).

A write reads the newest state, makes a plan, and executes it (`mutations`). The named operations of the kinds are in
`allsource_auth/repositories/`.
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
from allsource_auth.engine.fences import restore_overwritten
from allsource_auth.engine.indexes import entry
from allsource_auth.engine.operation import NO_LINKS, Done, Operation, Plan
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.queries import Queries
from allsource_auth.entities import Entity
from allsource_auth.errors import Conflict, InvalidInput, Json, StoreClosed
from allsource_auth.kind import ADDED, REMOVED, Index, Kind, Unique
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

    async def create(self, given: Mapping[str, object], *, key: str | None, reuse_key: bool = False) -> E:
        """Create an entity.

        Args:
            given: its attributes.
            key: its key; ``None`` generates one.
            reuse_key: allow reusing the key of a deleted entity even if deletions of the kind are final.

        Raises `Conflict` if the key or a unique value is taken, `InvalidInput` for invalid attributes.
        """
        kind = self.kind
        generated = key is None
        values = {"created_at": self.context.now(), **self._update_time(), **kind.checked(given)}
        name = kind.make_key() if key is None else key
        kind.stream(name)

        async def decide(operation: Operation) -> Plan:
            nonlocal name
            head = Head(stream=kind.stream(name), event=None, guard=0, seq=0)
            if not generated or operation.sent:
                head = await self.context.mutations.head(operation, head.stream)
            if generated and head.event is not None:
                # A contender for one of the values fenced this stream, or the creation was compensated: use a new key.
                name = kind.make_key()
                head = Head(stream=kind.stream(name), event=None, guard=0, seq=0)
            if head.event is not None:
                await self._prepare_reuse(name, head, reuse_key=reuse_key)
            payload = kind.codec.new(values | {kind.key: name})
            entity = self.entity_of(payload)
            claims = await self.context.claims.take(operation, kind, unique_values_of(kind, entity), head)
            guarded = not (kind.unguarded_creation and generated)
            return Plan(
                head=head,
                before=claims + self.index_entries(operation, ADDED, index_keys_of(kind, entity), head),
                commit=operation.event(kind.type("created"), head.stream, payload, after=head, guarded=guarded),
                state=entity,
                compensation=None if guarded else partial(self._compensation, entity),
            )

        return await self._run(decide, locked_stream=None if generated else kind.stream(name))

    def _compensation(self, entity: E, operation: Operation, head: Head) -> list[NewEvent]:
        """Return compensating events for an unguarded creation: a tombstone whose ``seq`` outranks that of the creation.

        The index entry follows the tombstone. If the creation was stored first, the guard of the tombstone fails, and the
        entity stays in its indexes.
        """
        above = msgspec.structs.replace(head, seq=head.seq + 1)
        tombstone = self.kind.codec.tombstone(entity)
        return [
            operation.event(self.kind.type("deleted"), head.stream, tombstone, after=above),
            *self.index_entries(operation, REMOVED, index_keys_of(self.kind, entity), above),
        ]

    async def _prepare_reuse(self, key: str, head: Head, *, reuse_key: bool) -> None:
        """Complete the deletion of the entity that had ``key``. Raises `Conflict` if it lives or its key cannot be reused."""
        assert head.event is not None
        if not is_tombstone(head.event.payload) or not (self.kind.restorable or reuse_key):
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
        """Set the given attributes and return the new state. Concurrent changes of other attributes are kept.

        Args:
            key: the entity.
            given: the attributes to set. ``UNSET`` values are ignored.
            verb: the verb of the event type.
            rule: called with the changes and the state that they are decided on. It may adjust the changes, or raise.
            empty_counts: write an event even if all of ``given`` are ``UNSET``.

        Raises the kind's `NotFound`, `Conflict`, `InvalidInput`; `VersionConflict` after ten seconds of conflicts.
        """
        changes = self.kind.checked({name: value for name, value in given.items() if value is not msgspec.UNSET})

        def change(before: E) -> Mapping[str, Any] | None:
            if not changes and not empty_counts:
                return None
            adjusted = dict(changes)
            rule(adjusted, before)
            return adjusted

        return await self.change(key, change, verb=verb, state_dependent=False)

    async def change(
        self,
        key: str,
        change: Callable[[E], Mapping[str, Any] | None],
        *,
        verb: str = "updated",
        state_dependent: bool = True,
    ) -> E:
        """Change an entity in one guarded append and return the new state.

        Args:
            key: the entity.
            change: returns the attributes to set in a given state; ``None`` to write nothing. It is called again after a
                conflict, and may raise.
            verb: the verb of the event type.
            state_dependent: whether the result of ``change`` is only valid for the state it was called with. This matters in
                a transaction.

        Raises what `update` raises.
        """
        kind = self.kind
        stream = kind.find_stream(key)
        if stream is None:
            raise kind.not_found
        if state_dependent:
            self.context.depend_on_state(stream)
        unchanged: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal unchanged
            head = await self.context.mutations.head(operation, stream)
            before = self.living(head.event)
            assert head.event is not None
            changes = change(before)
            if changes is None:
                unchanged = before
                return None
            payload = kind.codec.merged(head.event.payload, {**self._update_time(), **changes})
            return await self._rewrite(operation, head, before, payload, verb)

        async with self.context.mutations.stream_lock(stream):
            done = await self.context.mutations.run(decide)
        if done is None:
            assert unchanged is not None
            return unchanged
        return await self._finish(done)

    def _update_time(self) -> dict[str, Any]:
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
        """Return the plan that gives an entity a new state: claims new unique values and releases the former ones."""
        kind = self.kind
        entity = self.entity_of(payload)
        claimed, released = changed(unique_values_of(kind, before), unique_values_of(kind, entity))
        added, removed = changed(index_keys_of(kind, before), index_keys_of(kind, entity))
        claims = await self.context.claims.take(operation, kind, claimed, head)
        releases = await self.context.claims.release(operation, kind, released, head.stream)
        return Plan(
            head=head,
            before=claims + self.index_entries(operation, ADDED, added, head),
            commit=operation.event(kind.type(verb), head.stream, payload, after=head, links=links),
            state=entity,
            after=releases + self.index_entries(operation, REMOVED, removed, head),
        )

    async def delete(self, key: str, *, only_if: Callable[[E], bool] = lambda entity: True) -> bool:
        """Delete an entity and its children; return whether this call deleted it. See `remove`."""
        return await self.remove(key, only_if=only_if) is not None

    async def remove(
        self, key: str, *, verb: str = "deleted", only_if: Callable[[E], bool] = lambda entity: True
    ) -> E | None:
        """Delete an entity and its children.

        Repeating the call completes an interrupted cascade.

        Args:
            key: the entity. Nothing happens if it does not exist.
            verb: the verb of the event type.
            only_if: a condition on the state that the deletion is decided on.

        Returns the last state, or ``None`` if this call did not delete the entity.
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
            releases = await self.context.claims.release(operation, kind, unique_values_of(kind, entity), stream)
            return Plan(
                head=head,
                commit=operation.event(kind.type(verb), stream, kind.codec.tombstone(entity), after=head),
                after=releases + self.index_entries(operation, REMOVED, index_keys_of(kind, entity), head),
            )

        async with self.context.mutations.stream_lock(stream):
            done = await self.context.mutations.run(decide)
            if done is not None:
                await self._compact_indexes(done)
            if done is not None or deleted:
                await self.cascade(key)
        return None if done is None else last

    async def cascade(self, key: str) -> None:
        """Delete the children of a deleted entity. Idempotent."""
        for collection in self.context.collections.values():
            for index in collection.kind.indexes:
                if index.owner == self.kind.name:
                    await collection.delete_by_index(index, key)
            for unique in collection.kind.unique:
                if unique.owner == self.kind.name:
                    await collection.delete_by_unique(unique, key)

    async def delete_by_unique(self, unique: Unique, value: str) -> None:
        """Delete the entity with a unique value. One that cannot be decoded is logged and skipped, so the cascade goes on."""
        try:
            owner = await self.context.claims.owner(self.kind, unique, (unique.normalize(value),), require_leader=True)
        except Json as error:
            log_suppressed("a cascade skipped a state that cannot be decoded", error)
            return
        if owner is not None:
            await self.delete(getattr(owner, self.kind.key))

    async def delete_by_index(self, index: Index, value: str) -> int:
        """Delete all entities with an index key; return how many this call deleted."""
        members = await self.members_of(index, value, require_leader=True)
        deleted = await concurrently([getattr(entity, self.kind.key) for entity in members], self.delete)
        return sum(deleted.values())

    async def delete_where(self, keys: Iterable[str], test: Callable[[E], bool]) -> int:
        """Delete those of ``keys`` whose state passes ``test`` at the decision; return how many this call deleted."""
        deleted = await concurrently(keys, partial(self.delete, only_if=test))
        return sum(deleted.values())

    async def restore(self, key: str) -> E:
        """See `RestorableRepository.restore`. Raises `InvalidInput` for a kind whose deletions are final."""
        kind, stream = self._restorable_stream("restore", key)
        unchanged: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal unchanged
            head = await self.context.mutations.head(operation, stream)
            if head.event is not None and not is_tombstone(head.event.payload):
                unchanged = self.living(head.event)
                return None
            last = await self._history.last_state(stream)
            if last is None:
                raise kind.not_found
            if (parent := await self.deleted_parent(self.living(last), require_leader=True)) is not None:
                raise parent.not_found
            await self.cascade(key)
            payload = kind.codec.merged(last.payload, self._update_time())
            return await self._rewrite(operation, head, None, payload, "updated", {"restores": last.id})

        async with self.context.mutations.stream_lock(stream):
            done = await self.context.mutations.run(decide)
        if done is None:
            assert unchanged is not None
            return unchanged
        return await self._finish(done)

    async def revert(self, key: str, to: datetime | str) -> E:
        """See `RestorableRepository.revert`. The attributes in ``kept_on_revert`` of the kind keep their current values.

        Raises `InvalidInput` for a kind whose deletions are final.
        """
        kind, stream = self._restorable_stream("revert", key)

        async def decide(operation: Operation) -> Plan:
            head = await self.context.mutations.head(operation, stream)
            before = self.living(head.event)
            former = await self._history.event_as_of(stream, to, field="to", require_leader=True)
            if former is None or is_tombstone(former.payload):
                raise InvalidInput("to", f"the {kind.name} did not exist at that time")
            assert head.event is not None
            kept = kind.codec.replaced(former.payload, head.event.payload, kind.kept_on_revert)
            payload = kind.codec.merged(kept, self._update_time())
            return await self._rewrite(operation, head, before, payload, "updated", {"revertedTo": former.id})

        return await self._run(decide, locked_stream=stream)

    def _restorable_stream(self, operation: str, key: str) -> tuple[Kind[E], str]:
        """Return the kind and the stream for ``operation``. Raises `InvalidInput` for a kind whose deletions are final."""
        kind = self.kind
        if not kind.restorable:
            raise InvalidInput(
                kind.key, f"cannot {operation} a {kind.name}: that would make a revoked or used secret valid again"
            )
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
        """Return the index entries for the event that follows ``head``, one for each key that it adds or removes."""
        return [
            entry(operation, type, self.kind.index_stream(self.context.tenant, index, value), head)
            for index, value in index_keys_of.items()
        ]

    async def _run(self, decide: Callable[[Operation], Awaitable[Plan]], *, locked_stream: str | None) -> E:
        """Execute a mutation that always makes a plan, and return the new state.

        ``locked_stream``: the stream whose lock is held; ``None`` if the key of the entity is generated.
        """
        async with nullcontext() if locked_stream is None else self.context.mutations.stream_lock(locked_stream):
            done = await self.context.mutations.run(decide)
        assert done is not None
        return await self._finish(done, key_given=locked_stream is not None)

    async def _finish(self, done: Done, *, key_given: bool = True) -> E:
        """Follow up on a stored mutation; return the new state. ``key_given``: the key of the entity was not generated.

        Raises `Conflict` after undoing the mutation if a server that loses versions on restart accepted a key or a unique value
        that another entity has.
        """
        await self._compact_indexes(done)
        entity = done.state if isinstance(done.state, self.kind.entity) else self.entity_of(done.payload)
        if self._streams.store.loses_versions_on_restart:
            with suppress(StoreClosed):  # a mutation that was stored before the adapter was closed has succeeded
                await self.context.mutations.follow_up(
                    partial(self.read_back, entity, done.operation.sent[-1].head, key_given), done.operation
                )
        return entity

    async def read_back(self, entity: E, base: Head, key_given: bool, operation: Operation) -> None:
        """Check that events of ``operation`` that expected a new stream are the first of it; else undo the mutation.

        See "Servers that lose versions on restart" in `docs/explanation/lost-replies.md`.

        Args:
            entity: the state that the operation wrote.
            base: the head that its event on the entity's stream follows.
            key_given: whether the key of the entity was not generated.
            operation: the operation.

        Raises `Conflict` if another entity has the key or a unique value.
        """
        if key_given and base.guard == 0 and await self._restore_overwritten(operation, base.stream):
            raise Conflict(self.kind.name, self.kind.key)
        taken = [
            unique
            for unique, value in unique_values_of(self.kind, entity).items()
            if await self.context.claims.restore_overwritten(operation, self.kind, unique, value, base.stream)
        ]
        if not taken:
            return
        key, before = getattr(entity, self.kind.key), base.event
        if before is None or is_tombstone(before.payload):
            await self.delete(key)
        else:
            await self.revert(key, to=before.id)
        raise Conflict(self.kind.name, taken[0].field)

    async def _restore_overwritten(self, operation: Operation, stream: str) -> bool:
        """Restore the entity that a creation overwrote; return whether there was one."""

        def rewrite(overwritten: Event, head: Head) -> NewEvent | None:
            deleted = is_tombstone(overwritten.payload)
            if deleted and self.kind.restorable:
                return None
            # One of the kind's own event types, so that a scan by type finds it.
            type_ = self.kind.type("deleted" if deleted else "updated")
            links = {"revertedTo": overwritten.id}
            return Operation().event(type_, stream, bytes(overwritten.payload), after=head, links=links)

        return await restore_overwritten(self._streams, stream, operation.id, rewrite)

    async def _compact_indexes(self, done: Done) -> None:
        for event, stored in done.stored:
            if event.type in (ADDED, REMOVED):
                await self.context.indexes.compact_if_due(event.stream, stored.version)

    def entity_of(self, payload: bytes) -> E:
        """Decode a payload that was just written, exactly as a later read will."""
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
    """Delete an entity whose parent was deleted, as the cascade would; return whether its parent was deleted."""
    if await collection.deleted_parent(entity, require_leader=True) is None:
        return False
    await collection.delete(getattr(entity, collection.kind.key), only_if=lambda now: bool(now == entity))
    return True


def unique_values_of(kind: Kind[E], entity: E | None) -> dict[Unique, tuple[str, ...]]:
    """Return the unique values of an entity."""
    return {unique: value for unique in kind.unique if (value := unique.value_of(entity)) is not None}


def index_keys_of(kind: Kind[E], entity: E | None) -> dict[Index, str]:
    """Return the index keys of an entity."""
    return {index: value for index in kind.indexes if (value := getattr(entity, index.attribute, None)) is not None}


K = TypeVar("K")
V = TypeVar("V")


def changed(old: Mapping[K, V], new: Mapping[K, V]) -> tuple[dict[K, V], dict[K, V]]:
    """Return the entries of ``new`` that are not in ``old``, and the entries of ``old`` that are not in ``new``."""
    return (
        {key: value for key, value in new.items() if old.get(key) != value},
        {key: value for key, value in old.items() if new.get(key) != value},
    )
