"""What every repository can do, driven by the declaration of its kind.

A repository is thin: it reads states, and it turns a wish into a plan (`plans.py`). Named operations of a kind are in the
module of that kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import msgspec

from ..entities import Entity
from ..errors import Conflict, InvalidInput, Json, StoreClosed
from ..kinds import ADDED, REMOVED, Kind, Listed, Unique
from ..logs import noticed
from ..store.base import Event, NewEvent
from ..wire import is_tombstone
from .claims import Claims
from .concurrency import concurrently
from .lists import Lists, entry
from .plans import NO_LINKS, Done, Mutations, Operation, Plan, uncovered
from .queries import Queries
from .streams import Head, Streams

__all__ = ["Core", "Repository"]

E = TypeVar("E", bound=Entity)


class Core:
    """What the repositories of one adapter share: streams, mutations, claims, lists, the clock, and one another."""

    def __init__(
        self,
        streams: Streams,
        clock: Callable[[], datetime],
        *,
        once: Callable[[str], None] = lambda stream: None,
        beneath: Claims | None = None,
    ) -> None:
        """``once`` and ``beneath`` are a transaction's.

        ``once`` is told the streams of changes that only hold for the very state they were decided on. ``beneath`` are the
        claims of what is stored.
        """
        self.once = once
        self.streams = streams
        self.mutations = Mutations(streams)
        self.claims = Claims(streams, self._finish_orphan, beneath)
        self.lists = Lists(streams)
        self.clock = clock
        self.repositories: dict[str, Repository[Any]] = {}
        self.declared: dict[str, Kind[Any]] = {}

    def declare(self, kind: Kind[Any]) -> Repository[Any]:
        """Have a kind from now on: a new one, or another declaration of one by its name, with more attributes, say.

        Everything that goes over the repositories knows it then: cascades, transactions, `check`, `reindex`.
        """
        self.declared[kind.name] = kind
        known = self.repositories.get(kind.name)
        if known is None:
            return Repository(self, kind)
        known._be_of(kind)
        return known

    @property
    def tenant(self) -> str:
        return self.streams.store.tenant

    def now(self) -> datetime:
        """The present by the adapter's clock, in UTC."""
        return self.clock().astimezone(UTC)

    async def _finish_orphan(self, kind: Kind[Any], entity: Entity) -> bool:
        """Delete an entity whose parent was deleted, as its cascade would have; whether it was one."""
        repository = self.repositories[kind.name]
        if await repository._dead_parent(entity, decisive=True) is None:
            return False
        await repository._delete(getattr(entity, kind.key), only_if=lambda now: bool(now == entity))
        return True


class Repository(Queries[E]):
    """The entities of one kind."""

    core: Core

    def __init__(self, core: Core, kind: Kind[E]) -> None:
        super().__init__(core, kind)
        core.repositories[kind.name] = self

    # As the named operations use it

    async def _create(self, given: Mapping[str, object], *, key: str | None, again: bool = False) -> E:
        """Create an entity under ``key``, or under a new one. Raises `Conflict`, `InvalidInput`.

        ``again``: a key may be given anew after a removal even where the kind's removals are final.
        """
        kind = self.kind
        made_here = key is None
        values = {"created_at": self.core.now(), **self._touched(), **kind.checked(given)}
        name = kind.make_key() if key is None else key
        kind.stream(name)

        async def decide(operation: Operation) -> Plan:
            nonlocal name
            head = Head(stream=kind.stream(name), event=None, guard=0, seq=0)
            if not made_here or operation.sent:
                head = await self.core.mutations.head(operation, head.stream)
            if made_here and head.event is not None:
                # Somebody who wants one of the values fenced this id, or it was given up: a new one has no such past.
                name = kind.make_key()
                head = Head(stream=kind.stream(name), event=None, guard=0, seq=0)
            if head.event is not None:
                await self._make_room(name, head, again=again)
            payload = kind.codec.new(values | {kind.key: name})
            entity = self._entity(payload)
            claims = await self.core.claims.take(operation, kind, held(kind, entity), head)
            guarded = not (kind.unguarded and made_here)
            return Plan(
                head=head,
                before=claims + self._entries(operation, ADDED, stood(kind, entity), head),
                commit=operation.event(kind.type("created"), head.stream, payload, after=head, guarded=guarded),
                state=entity,
                instead=None if guarded else partial(self._void, entity),
            )

        return await self._carried_out(decide, turn=None if made_here else kind.stream(name))

    def _void(self, entity: E, operation: Operation, head: Head) -> list[NewEvent]:
        """A tombstone for an entity whose creation may still arrive; its ``seq`` outranks that of the creation.

        The list entry follows it: had the creation arrived, the tombstone is refused, and the entity stays listed.
        """
        above = msgspec.structs.replace(head, seq=head.seq + 1)
        tombstone = self.kind.codec.tombstone(entity)
        return [
            operation.event(self.kind.type("deleted"), head.stream, tombstone, after=above),
            *self._entries(operation, REMOVED, stood(self.kind, entity), above),
        ]

    async def _make_room(self, key: str, head: Head, *, again: bool) -> None:
        """Allow the creation over a tombstone, once everything of the old entity is gone. Raises `Conflict`."""
        assert head.event is not None
        if not is_tombstone(head.event.payload) or not (self.kind.restorable or again):
            raise Conflict(self.kind.name, self.kind.key)
        self.core.once(head.stream)
        await self._cascade(key)

    async def _update(
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

        return await self._change(key, decide, verb=verb, once=False)

    async def _change(
        self, key: str, wish: Callable[[E], Mapping[str, Any] | None], *, verb: str = "updated", once: bool = True
    ) -> E:
        """Change an entity in one guarded step to what ``wish`` makes of its state; ``None`` leaves it alone.

        ``wish`` is asked again when others were faster, and may raise. ``once``: its answer only holds for the very state that
        it saw. Returns the state afterwards. Raises what `_update` raises.
        """
        kind = self.kind
        stream = kind.find(key)
        if stream is None:
            raise kind.not_found
        if once:
            self.core.once(stream)
        left_alone: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal left_alone
            head = await self.core.mutations.head(operation, stream)
            before = self._living(head.event)
            assert head.event is not None
            changes = wish(before)
            if changes is None:
                left_alone = before
                return None
            payload = kind.codec.merged(head.event.payload, {**self._touched(), **changes})
            return await self._rewrite(operation, head, before, payload, verb)

        async with self.core.mutations.turn(stream):
            done = await self.core.mutations.carry_out(decide)
        if done is None:
            assert left_alone is not None
            return left_alone
        return await self._finished(done)

    def _touched(self) -> dict[str, Any]:
        return {"updated_at": self.core.now()} if "updated_at" in self.kind.codec.names else {}

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
        entity = self._entity(payload)
        taken, given_up = changed(held(kind, before), held(kind, entity))
        joined, left = changed(stood(kind, before), stood(kind, entity))
        claims = await self.core.claims.take(operation, kind, taken, head)
        releases = await self.core.claims.give_up(operation, kind, given_up, head.stream)
        return Plan(
            head=head,
            before=claims + self._entries(operation, ADDED, joined, head),
            commit=operation.event(kind.type(verb), head.stream, payload, after=head, links=links),
            state=entity,
            after=releases + self._entries(operation, REMOVED, left, head),
        )

    async def _delete(self, key: str, *, only_if: Callable[[E], bool] = lambda entity: True) -> bool:
        """Delete an entity and everything that is its own; whether this call did it. See `_remove`."""
        return await self._remove(key, only_if=only_if) is not None

    async def _remove(
        self, key: str, *, verb: str = "deleted", only_if: Callable[[E], bool] = lambda entity: True
    ) -> E | None:
        """Delete an entity and everything that is its own; its last state if this call did it. What is not there stays so.

        Deleting again finishes what an interrupted deletion left. ``only_if`` is asked of the state that the deletion is
        decided on.
        """
        kind = self.kind
        stream = kind.find(key)
        if stream is None:
            return None
        if verb != "deleted":
            self.core.once(stream)
        dead = False
        last: E | None = None

        async def decide(operation: Operation) -> Plan | None:
            nonlocal dead, last
            head = await self.core.mutations.head(operation, stream)
            entity = None if head.event is None else kind.decode(head.event)
            dead = head.event is not None and entity is None
            if entity is None or not only_if(entity):
                return None
            last = entity
            releases = await self.core.claims.give_up(operation, kind, held(kind, entity), stream)
            return Plan(
                head=head,
                commit=operation.event(kind.type(verb), stream, kind.codec.tombstone(entity), after=head),
                after=releases + self._entries(operation, REMOVED, stood(kind, entity), head),
            )

        async with self.core.mutations.turn(stream):
            done = await self.core.mutations.carry_out(decide)
            if done is not None:
                await self._lists_grown(done)
            if done is not None or dead:
                await self._cascade(key)
        return None if done is None else last

    async def _cascade(self, key: str) -> None:
        """Delete the entities that belong to a deleted one. Can be run again at any time."""
        for repository in self.core.repositories.values():
            for listed in repository.kind.lists:
                if listed.owner == self.kind.name:
                    await repository._delete_listed(listed, key)
            for unique in repository.kind.unique:
                if unique.owner == self.kind.name:
                    await repository._delete_owner(unique, key)

    async def _delete_owner(self, unique: Unique, value: str) -> None:
        """Delete who has a unique value; one that cannot be decoded stays, so that it does not keep the others."""
        try:
            owner = await self.core.claims.owner(self.kind, unique, (unique.normal(value),), decisive=True)
        except Json as error:
            noticed("a cascade met a state that cannot be decoded", error)
            return
        if owner is not None:
            await self._delete(getattr(owner, self.kind.key))

    async def _delete_listed(self, listed: Listed, value: str) -> int:
        """Delete all entities in a list; how many this call deleted."""
        members = await self._members(listed, value, decisive=True)
        deleted = await concurrently([getattr(entity, self.kind.key) for entity in members], self._delete)
        return sum(deleted.values())

    async def delete_where(self, keys: Iterable[str], test: Callable[[E], bool]) -> int:
        """Delete those of ``keys`` whose state passes ``test`` when it is decided; how many this call deleted."""
        deleted = await concurrently(keys, partial(self._delete, only_if=test))
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
            head = await self.core.mutations.head(operation, stream)
            if head.event is not None and not is_tombstone(head.event.payload):
                alive = self._living(head.event)
                return None
            lived = await self._history.last_state(stream)
            if lived is None:
                raise kind.not_found
            if (parent := await self._dead_parent(self._living(lived), decisive=True)) is not None:
                raise parent.not_found
            await self._cascade(key)
            payload = kind.codec.merged(lived.payload, self._touched())
            return await self._rewrite(operation, head, None, payload, "updated", {"restores": lived.id})

        async with self.core.mutations.turn(stream):
            done = await self.core.mutations.carry_out(decide)
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
            head = await self.core.mutations.head(operation, stream)
            before = self._living(head.event)
            former = await self._history.event_as_of(stream, to, field="to", decisive=True)
            if former is None or is_tombstone(former.payload):
                raise InvalidInput("to", f"the {kind.name} was not alive then")
            assert head.event is not None
            kept = kind.codec.replaced(former.payload, head.event.payload, kind.kept)
            payload = kind.codec.merged(kept, self._touched())
            return await self._rewrite(operation, head, before, payload, "updated", {"revertedTo": former.id})

        return await self._carried_out(decide, turn=stream)

    def _final_refused(self, wish: str, key: str) -> tuple[Kind[E], str]:
        kind = self.kind
        if not kind.restorable:
            raise InvalidInput(kind.key, f"cannot {wish} a {kind.name}: that would bring a secret back")
        stream = kind.find(key)
        if stream is None:
            raise kind.not_found
        self.core.once(stream)
        return kind, stream

    # Details

    def _entries(
        self,
        operation: Operation,
        type: str,  # noqa: A002
        stood: Mapping[Listed, str],
        head: Head,
    ) -> list[NewEvent]:
        """The entries for lists that an entity joins or leaves by the event that follows ``head``."""
        return [
            entry(operation, type, self.kind.list_stream(self.core.tenant, listed, value), head)
            for listed, value in stood.items()
        ]

    async def _carried_out(self, decide: Callable[[Operation], Awaitable[Plan]], *, turn: str | None) -> E:
        """Carry out a mutation that always has something to do, one at a time per stream; the entity as it is then."""
        async with nullcontext() if turn is None else self.core.mutations.turn(turn):
            done = await self.core.mutations.carry_out(decide)
        assert done is not None
        return await self._finished(done, chosen=turn is not None)

    async def _finished(self, done: Done, *, chosen: bool = True) -> E:
        """What follows a stored mutation; the entity that came of it. ``chosen``: its key was not made for it.

        Raises `Conflict`, and takes the mutation back, if a server that forgets versions let it have what is somebody else's.
        """
        await self._lists_grown(done)
        entity = done.state if isinstance(done.state, self.kind.entity) else self._entity(done.payload)
        if self._streams.store.forgetful:
            with suppress(StoreClosed):  # what was accepted before the adapter was closed is done
                await self.core.mutations.insist(
                    partial(self._read_back, entity, done.operation.sent[-1].head, chosen), done.operation
                )
        return entity

    async def _read_back(self, entity: E, base: Head, chosen: bool, operation: Operation) -> None:
        """Look below the events that were to be the first of their streams (design, section 5); takes the mutation back.

        ``base``: what its event on the entity's stream follows. Raises `Conflict`.
        """
        if chosen and base.guard == 0 and await self._uncovered(operation, base.stream):
            raise Conflict(self.kind.name, self.kind.key)
        given_back = [
            unique
            for unique, value in held(self.kind, entity).items()
            if await self.core.claims.give_back(operation, self.kind, unique, value, base.stream)
        ]
        if not given_back:
            return
        key, before = getattr(entity, self.kind.key), base.event
        if before is None or is_tombstone(before.payload):
            await self._delete(key)
        else:
            await self.revert(key, to=before.id)
        raise Conflict(self.kind.name, given_back[0].field)

    async def _uncovered(self, operation: Operation, stream: str) -> bool:
        """Give an entity, which a creation was stored on top of, its state again; whether there was one."""

        def rewrite(covered: Event, head: Head) -> NewEvent | None:
            dead = is_tombstone(covered.payload)
            if dead and self.kind.restorable:
                return None
            # Of the kind's own types: a scan of a store that searches by type must meet it.
            type_ = self.kind.type("deleted" if dead else "updated")
            links = {"revertedTo": covered.id}
            return Operation().event(type_, stream, bytes(covered.payload), after=head, links=links)

        return await uncovered(self._streams, stream, operation.id, rewrite)

    async def _lists_grown(self, done: Done) -> None:
        for event, stored in done.stored:
            if event.type in (ADDED, REMOVED):
                await self.core.lists.grown(event.stream, stored.version)

    def _entity(self, payload: bytes) -> E:
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


def held(kind: Kind[E], entity: E | None) -> dict[Unique, tuple[str, ...]]:
    """The unique values that an entity has."""
    return {unique: value for unique in kind.unique if (value := unique.of(entity)) is not None}


def stood(kind: Kind[E], entity: E | None) -> dict[Listed, str]:
    """The lists that an entity stands in, with the value that they are of."""
    return {listed: value for listed in kind.lists if (value := getattr(entity, listed.attribute, None)) is not None}


K = TypeVar("K")
V = TypeVar("V")


def changed(old: Mapping[K, V], new: Mapping[K, V]) -> tuple[dict[K, V], dict[K, V]]:
    """What is new or changed, and what is gone or was changed."""
    return (
        {key: value for key, value in new.items() if old.get(key) != value},
        {key: value for key, value in old.items() if new.get(key) != value},
    )
