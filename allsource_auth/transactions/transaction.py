"""Transactions: several mutations in one append. See "Transactions" in `docs/explanation/mutations-and-transactions.md`.

Inside the block the ten repositories work on an `Overlay`: they read their own writes, and nothing is sent. At the end all
events of one entity become one event, and everything becomes one append:

1. claims and index entries,
2. the **decision**: the event that makes the transaction happen,
3. the events of the other entities,
4. releases and the removal of index entries.

A store may keep only the first events of the append. Before the decision is stored, nothing has happened. Once it is stored,
the remaining events are completed by `roll_forward`, because the metadata of the decision carries them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec

from allsource_auth.codec import is_tombstone
from allsource_auth.engine.collection import (
    Collection,
    EngineContext,
    changed,
    declare,
    delete_orphan,
    index_keys_of,
    unique_values_of,
)
from allsource_auth.engine.context import Context
from allsource_auth.engine.fences import fence, only_fences, restore_after_fence
from allsource_auth.engine.operation import Done, Operation, Plan
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.roll_forward import RemainingEvent, audit_fields_of, merge, remaining, roll_forward
from allsource_auth.engine.streams import PENDING_PREFIX, Streams
from allsource_auth.entities import Entity
from allsource_auth.errors import AllsourceAuthError, Conflict, InvalidInput, NotFound, StoreClosed, VersionConflict
from allsource_auth.kind import ADDED, FENCED, REMOVED, Kind, Unique
from allsource_auth.kinds import redacted_stream
from allsource_auth.repositories import Repositories
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct
from allsource_auth.transactions.overlay import Overlay

__all__ = ["Transaction"]

REFUSALS = (Conflict, NotFound, InvalidInput, VersionConflict)
"""Errors that end a transaction without effect."""

LINKS = ("restores", "revertedTo")
"""Members of the metadata that may contain the id of an event of the same transaction."""

MAX_REMAINING_BYTES = 400_000
"""Maximum size of the remaining events in the metadata of the decision."""


class Commit(OpaqueStruct, frozen=True, kw_only=True):
    """The effect of a transaction on one entity: the event that follows ``base``, and the states before and after it.

    ``state_dependent``: the event is only valid after the state of ``base``.
    """

    collection: Collection[Any]
    base: Head
    type: str
    payload: bytes
    audit_fields: dict[str, Any]
    before: Entity | None
    after: Entity | None
    state_dependent: bool

    @property
    def kind(self) -> Kind[Any]:
        return self.collection.kind

    @property
    def stream(self) -> str:
        return self.base.stream

    def remaining_event(self) -> RemainingEvent:
        """Return the event in the form that the metadata of the decision carries."""
        return RemainingEvent(
            type=self.type,
            stream=self.stream,
            payload=msgspec.Raw(self.payload),
            guard=self.base.guard,
            after=None if self.base.event is None else self.base.event.id,
            audit_fields=self.audit_fields,
        )

    async def undo(self) -> None:
        """Restore the state before the transaction, if the kind allows that."""
        key = self.kind.key_of(self.stream)
        if self.before is None:
            await self.collection.delete(key)
        elif self.kind.restorable and self.after is None:
            await self.collection.restore(key)
        elif self.kind.restorable and self.base.event is not None:
            await self.collection.revert(key, to=self.base.event.id)

    def event(self, operation: Operation, audit_fields: Mapping[str, Any]) -> NewEvent:
        return operation.event(
            self.type, self.stream, self.payload, after=self.base, links={**self.audit_fields, **audit_fields}
        )


class Transaction(Repositories):
    """Several mutations that are stored together or not at all: ``async with adapter.transaction() as tx``.

    ``tx`` has the ten repositories of the adapter. Reads inside the block include the writes of the transaction. Other readers
    see no write before the block ends. If an exception leaves the block, including a cancellation, nothing is stored.

    At the end of the block:

    Raises:
        Conflict: a unique value was taken in the meantime, or one entity gives a value up that another one takes.
        NotFound: an entity that the transaction changes was deleted in the meantime.
        VersionConflict: the transaction depends on the exact state of an entity (a single-use operation, a restoration, a
            comparison with ``expected``), and it was changed in the meantime. Nothing was stored. Run the block again.
        InvalidInput: more than one change depends on the exact state of an entity, or the events take more than 400,000
            bytes.
        Http, Unavailable, Json: the store failed. ``ambiguous`` tells whether the transaction may have been stored.
    """

    def __init__(self, context: EngineContext) -> None:
        self._committed = context
        self._overlay = Overlay(context.streams)
        self._state_dependent: set[str] = set()
        inside: EngineContext = Context(
            Streams(self._overlay),
            context.clock,
            delete_orphan,
            committed_claims=context.claims,
            depend_on_state=self._state_dependent.add,
        )
        self._open(inside)
        for kind in context.declared.values():
            declare(inside, kind)

    async def __aenter__(self) -> Self:
        self._overlay.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._overlay.end()
        if kind is None:
            commits = self._commits()
            if commits:
                await _run_uncancelled(self._commit(commits))

    def __repr__(self) -> str:
        return f"Transaction({len(self._overlay.written)} streams written)"

    # One event for each entity

    def _commits(self) -> list[Commit]:
        """Return one commit for each entity, the decision first. Raises `InvalidInput` for what a transaction cannot hold."""
        found: list[Commit] = []
        for stream, events in self._overlay.written.items():
            collection = self._collection_of(stream)
            if collection is not None and (commit := self._commit_of(collection, stream, events)) is not None:
                found.append(commit)
        if sum(commit.state_dependent for commit in found) > 1:
            raise InvalidInput(
                "transaction",
                "at most one change may depend on the exact state of an entity (single-use, restore, compared with `expected`)",
            )
        # The first commit is the decision: the state-dependent one, else one on an existing stream, because only that can
        # conflict with other writers, else the first that was written.
        found.sort(key=lambda commit: (not commit.state_dependent, commit.base.event is None))
        size = len(msgspec.json.encode([commit.remaining_event() for commit in found[1:]]))
        if size > MAX_REMAINING_BYTES:
            raise InvalidInput(
                "transaction",
                f"the events beside the decision take {size} bytes, at most {MAX_REMAINING_BYTES} are allowed; "
                "use several transactions",
            )
        return found

    def _collection_of(self, stream: str) -> Collection[Any] | None:
        for collection in self._committed.collections.values():
            if stream.startswith(collection.kind.prefix):
                return collection
        return None

    def _commit_of(self, collection: Collection[Any], stream: str, events: list[Event]) -> Commit | None:
        """Merge the events of one entity into one commit; ``None`` if the entity was created and deleted inside."""
        base, last, kind = self._overlay.base(stream), events[-1], collection.kind
        before = None if base.event is None else kind.decode(base.event)
        after = kind.decode(last)
        if before is None and after is None:
            return None
        type_ = last.type
        if after is not None:
            type_ = events[0].type if before is None else type_
            if before is not None and type_ == kind.type("created"):
                type_ = kind.type("updated")  # deleted and created again inside
        audit_fields = audit_fields_of(last)
        for link in LINKS:
            if str(audit_fields.get(link)).startswith(PENDING_PREFIX):
                del audit_fields[link]  # it names an event that is merged into this one
        return Commit(
            collection=collection,
            base=base,
            type=type_,
            payload=bytes(last.payload),
            audit_fields=audit_fields,
            before=before,
            after=after,
            state_dependent=stream in self._state_dependent and base.event is not None,
        )

    # The append

    async def _commit(self, commits: list[Commit]) -> None:
        context = self._committed

        async def decide(operation: Operation) -> Plan:
            nonlocal commits
            try:
                if operation.sent:
                    commits = await self._rebase(operation, commits)
                return await self._plan(operation, commits)
            except REFUSALS:
                if operation.ambiguous:
                    await self._fence_decision(operation, commits[0].stream)
                raise

        done = await context.mutations.run(decide)
        assert done is not None
        if not done.stored:
            await context.mutations.follow_up(partial(self._complete, commits[0].stream), done.operation)
        await self._finish(commits, done)

    async def _rebase(self, operation: Operation, commits: list[Commit]) -> list[Commit]:
        """Rebase the commits on the stored states after a failed append. Ends the operation if it is found stored."""
        heads = [await self._committed.mutations.head(operation, commits[0].stream)]
        heads += [await self._committed.streams.head(commit.stream) for commit in commits[1:]]
        return [
            _rebased(commit, head, only_fenced=await self._is_only_fenced(commit.base.event, head))
            for commit, head in zip(commits, heads, strict=True)
        ]

    async def _is_only_fenced(self, base: Event | None, head: Head) -> bool:
        """Whether nothing but fences was stored on the stream of ``head`` since ``base``, the event that was decided on."""
        if head.event is None or head.event.type != FENCED:
            return False
        found, since = await self._committed.streams.read_since(head.stream, None if base is None else base.id)
        return (found is None) == (base is None) and only_fences(base, since)

    async def _fence_decision(self, operation: Operation, stream: str) -> None:
        """Fence the decision of a refused transaction, so that a delayed append fails. Ends the operation if it is stored.

        The event that refuses the transaction may be on another stream than the decision, and it may be the transaction's own.
        On a store with atomic batches no fence is needed: an event of another writer makes the whole append fail.
        """
        if self._committed.streams.store.atomic_batches:
            await self._committed.mutations.head(operation, stream)
            return
        streams, sent = self._committed.streams, {plan.head.guard for plan in operation.sent}
        while (head := await self._committed.mutations.head(operation, stream)).guard in sent:
            fencing = Operation()
            with suppress(VersionConflict):
                await streams.append([fence(head, fencing)])
                await restore_after_fence(fencing, head, streams)
                return

    async def _plan(self, operation: Operation, commits: list[Commit]) -> Plan:
        context, decision = self._committed, commits[0]
        known_free = {} if operation.sent else self._overlay.bases
        several = len(commits) > 1 and not context.streams.store.atomic_batches
        claims: list[NewEvent] = []
        entries: list[NewEvent] = []
        releases: list[NewEvent] = []
        for commit in commits:
            kind, collection = commit.kind, commit.collection
            claimed, released = changed(unique_values_of(kind, commit.before), unique_values_of(kind, commit.after))
            added, removed = changed(index_keys_of(kind, commit.before), index_keys_of(kind, commit.after))
            for unique, value in claimed.items():
                self._refuse_moved_value(commits, commit, unique, value)
            claims += await context.claims.take(
                operation,
                kind,
                claimed,
                commit.base,
                decision=decision.base if several else None,
                known_free=known_free,
            )
            releases += await context.claims.release(operation, kind, released, commit.stream)
            entries += collection.index_entries(operation, ADDED, added, commit.base)
            releases += collection.index_entries(operation, REMOVED, removed, commit.base)
        remaining_events = [commit.remaining_event() for commit in commits[1:]] if several else []
        return Plan(
            head=decision.base,
            before=claims + entries,
            commit=decision.event(operation, {"rest": remaining_events} if remaining_events else {}),
            after=[commit.event(operation, {}) for commit in commits[1:]] + releases,
        )

    def _refuse_moved_value(
        self, commits: list[Commit], commit: Commit, unique: Unique, value: tuple[str, ...]
    ) -> None:
        """Raise `Conflict` if another entity gives up the value that ``commit`` takes.

        Moving a unique value between entities inside one transaction is unsupported: a stored prefix could leave the value with
        both entities, or with none.
        """
        for other in commits:
            same = other.kind is commit.kind and other.stream != commit.stream
            if same and other.before is not None and unique.value_of(other.before) == value:
                raise Conflict(commit.kind.name, unique.field)

    async def _complete(self, stream: str, operation: Operation) -> None:
        """Append the remaining events that are missing after the stored decision on ``stream``."""
        streams = self._committed.streams
        made = await streams.written_since(await streams.head(stream), operation.id, since=None)
        assert made is not None
        await roll_forward(streams, operation.id, remaining(made))

    async def _finish(self, commits: list[Commit], done: Done) -> None:
        """Follow up on a stored transaction: compact indexes, read back, delete children of deleted entities."""
        context = self._committed
        for event, stored in done.stored:
            if event.type in (ADDED, REMOVED):
                await context.indexes.compact_if_due(event.stream, stored.version)
        if context.streams.store.loses_versions_on_restart:
            with suppress(StoreClosed):
                await self._read_back(commits, done)
        for commit in commits:
            if commit.after is None:
                # Children may have been created since the transaction read them.
                await commit.collection.cascade(commit.kind.key_of(commit.stream))

    async def _read_back(self, commits: list[Commit], done: Done) -> None:
        """Read back each entity with `Collection.read_back`; undo the transaction if one of them raises `Conflict`."""
        refused: Conflict | None = None
        accepted: list[Commit] = []
        for commit in commits:
            try:
                if commit.after is not None:
                    read_back = partial(commit.collection.read_back, commit.after, commit.base, True)
                    await self._committed.mutations.follow_up(read_back, done.operation)
            except Conflict as conflict:
                refused = conflict
            else:
                accepted.append(commit)
        if refused is None:
            return
        kinds = list(self._committed.collections)
        for commit in sorted(accepted, key=lambda commit: kinds.index(commit.kind.name)):  # parents before children
            with suppress(*REFUSALS):  # another writer has changed it since
                await commit.undo()
        raise refused


def _rebased(commit: Commit, head: Head, *, only_fenced: bool) -> Commit:
    """Return the commit for the new head of its stream. Raises an error of `Transaction` if that is impossible.

    ``only_fenced``: only fences were stored since the commit's base.
    """
    old, new = commit.base.event, head.event
    if only_fenced or (None if old is None else old.id) == (None if new is None else new.id):
        return msgspec.structs.replace(commit, base=head)
    assert new is not None
    deleted = is_tombstone(new.payload)
    if old is None:
        raise Conflict(commit.kind.name, commit.kind.key)
    if commit.state_dependent or (deleted and commit.after is None):
        raise VersionConflict(expected=commit.base.guard, actual=head.guard, stream=redacted_stream(commit.stream))
    if deleted:
        raise commit.kind.not_found
    before = commit.kind.decode(new)
    if commit.after is None:
        return msgspec.structs.replace(commit, base=head, before=before)
    payload = merge(commit.payload, new, old)
    return msgspec.structs.replace(
        commit, base=head, before=before, payload=payload, after=commit.collection.entity_of(payload)
    )


async def _run_uncancelled(commit: Coroutine[Any, Any, None]) -> None:
    """Run the commit of a transaction to completion, even if the caller is cancelled; then raise the cancellation."""
    task = asyncio.ensure_future(commit)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            with suppress(AllsourceAuthError):
                task.result()
        raise
