"""Several mutations as one (section 3 of the design, "Transactions").

Inside, the ten repositories work on a `View`: their reads see their writes, and nothing is sent. In the end all mutations of
one stream have become one event, and everything is one append: claims and list entries first, then the **decision**, then the
other events, then what tidies up. Where a store keeps the first events of a batch, nothing has happened before the
decision is stored, and once it is, the rest will: the decision's metadata carries it (`rest.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
from allsource_auth.engine.fences import covered_by, fence
from allsource_auth.engine.operation import Done, Operation, Plan
from allsource_auth.engine.ordering import Head
from allsource_auth.engine.roll_forward import RemainingEvent, audit_fields_of, merged, remaining, roll_forward
from allsource_auth.engine.streams import PENDING, Streams
from allsource_auth.entities import Entity
from allsource_auth.errors import AllsourceAuthError, Conflict, InvalidInput, NotFound, StoreClosed, VersionConflict
from allsource_auth.kinds import ADDED, FENCED, REMOVED, Kind, Unique, redacted_stream
from allsource_auth.repositories import Repositories
from allsource_auth.store.base import Event, NewEvent, OpaqueStruct
from allsource_auth.transactions.overlay import Overlay

__all__ = ["Transaction"]

REFUSALS = (Conflict, NotFound, InvalidInput, VersionConflict)
"""What ends a transaction without effect."""

LINKS = ("restores", "revertedTo")
"""What of an event's metadata may name an event of the transaction itself."""

MAX_REMAINING_BYTES = 400_000
"""Of what the decision carries of the other events (section 3 of the design)."""


class Commit(OpaqueStruct, frozen=True, kw_only=True):
    """What a transaction does to one entity: the event that follows ``base``, and the states before and after it.

    ``once``: only on the very state that ``base`` is.
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
        """The event, as the decision's metadata carries it."""
        return RemainingEvent(
            type=self.type,
            stream=self.stream,
            payload=msgspec.Raw(self.payload),
            guard=self.base.guard,
            after=None if self.base.event is None else self.base.event.id,
            audit_fields=self.audit_fields,
        )

    async def undo(self) -> None:
        """Give the entity the state again that it had before, where its kind allows that."""
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
    """Several mutations that happen together or not at all; ``async with adapter.transaction() as tx``.

    ``tx`` has the ten repositories of the adapter. What is read inside shows what was written inside; everybody else sees
    nothing of it before the block ends. An exception inside, a cancellation included, leaves nothing behind.

    At the end of the block:

    Raises:
        Conflict: a unique value was taken in the meantime, or is given up by one entity and taken by another inside.
        NotFound: an entity that was changed inside was deleted in the meantime.
        VersionConflict: an entity was changed in the meantime on whose state something inside depended (a value taken once,
            a restoration, a comparison with ``expected``). Nothing has happened; run the block again.
        InvalidInput: more than one such thing inside; more than 400,000 bytes.
        Http, Unavailable, Json: ``ambiguous`` says whether it may have happened.
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
                await _run_to_the_end(self._commit(commits))

    def __repr__(self) -> str:
        return f"Transaction({len(self._overlay.written)} streams written)"

    # What was written, as one event for each entity

    def _commits(self) -> list[Commit]:
        found = []
        for stream, events in self._overlay.written.items():
            collection = self._collection_of(stream)
            if collection is not None and (commit := self._folded(collection, stream, events)) is not None:
                found.append(commit)
        if sum(commit.state_dependent for commit in found) > 1:
            raise InvalidInput(
                "transaction",
                "at most one entity may be changed in a way that depends on its very state (taken once, restored, compared)",
            )
        # The decision: on a stream that exists, if there is one, for it can be lost to others; then as they were written.
        found.sort(key=lambda commit: (not commit.state_dependent, commit.base.event is None))
        size = len(msgspec.json.encode([commit.remaining_event() for commit in found[1:]]))
        if size > MAX_REMAINING_BYTES:
            raise InvalidInput(
                "transaction", f"takes {size} bytes beside what decides it, at most {MAX_REMAINING_BYTES} can be"
            )
        return found

    def _collection_of(self, stream: str) -> Collection[Any] | None:
        for collection in self._committed.collections.values():
            if stream.startswith(collection.kind.prefix):
                return collection
        return None

    def _folded(self, collection: Collection[Any], stream: str, events: list[Event]) -> Commit | None:
        base, last, kind = self._overlay.base(stream), events[-1], collection.kind
        before = None if base.event is None else kind.decode(base.event)
        after = kind.decode(last)
        if before is None and after is None:
            return None  # made and removed inside
        type_ = last.type
        if after is not None:
            type_ = events[0].type if before is None else type_
            if before is not None and type_ == kind.type("created"):
                type_ = kind.type("updated")  # removed and made again inside
        audit_fields = audit_fields_of(last)
        for link in LINKS:
            if str(audit_fields.get(link)).startswith(PENDING):
                del audit_fields[link]  # to an event that is folded into this one
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
                    commits = await self._on_what_is_stored(operation, commits)
                return await self._plan(operation, commits)
            except REFUSALS:
                if operation.ambiguous:
                    await self._make_void(operation, commits[0].stream)
                raise

        done = await context.mutations.run(decide)
        assert done is not None
        if not done.stored:
            await context.mutations.insist(partial(self._finish, commits[0].stream), done.operation)
        await self._follow_up(commits, done)

    async def _on_what_is_stored(self, operation: Operation, commits: list[Commit]) -> list[Commit]:
        """The commits once more, after an append of them failed; ends the operation if it is found stored after all."""
        heads = [await self._committed.mutations.head(operation, commits[0].stream)]
        heads += [await self._committed.streams.head(commit.stream) for commit in commits[1:]]
        return [_rebased(commit, head) for commit, head in zip(commits, heads, strict=True)]

    async def _make_void(self, operation: Operation, stream: str) -> None:
        """Keep the decision from being stored late; ends the operation if it is stored by now.

        What refuses the transaction may be on another stream than its decision, and may be an event of its own. Where batches
        are atomic, what is somebody else's keeps all of it from being stored.
        """
        if self._committed.streams.store.atomic_batches:
            await self._committed.mutations.head(operation, stream)
            return
        streams, sent = self._committed.streams, {plan.head.guard for plan in operation.sent}
        while (head := await self._committed.mutations.head(operation, stream)).guard in sent:
            fencing = Operation()
            with suppress(VersionConflict):
                await streams.append([fence(head, fencing)])
                await covered_by(fencing, head, streams)
                return

    async def _plan(self, operation: Operation, commits: list[Commit]) -> Plan:
        context, decision = self._committed, commits[0]
        known = {} if operation.sent else self._overlay.bases
        several = len(commits) > 1 and not context.streams.store.atomic_batches
        claims: list[NewEvent] = []
        entries: list[NewEvent] = []
        releases: list[NewEvent] = []
        for commit in commits:
            kind, collection = commit.kind, commit.collection
            taken, given_up = changed(unique_values_of(kind, commit.before), unique_values_of(kind, commit.after))
            joined, left = changed(index_keys_of(kind, commit.before), index_keys_of(kind, commit.after))
            for unique, value in taken.items():
                self._refuse_handing_over(commits, commit, unique, value)
            claims += await context.claims.take(
                operation, kind, taken, commit.base, decision=decision.base if several else None, known=known
            )
            releases += await context.claims.give_up(operation, kind, given_up, commit.stream)
            entries += collection.index_entries(operation, ADDED, joined, commit.base)
            releases += collection.index_entries(operation, REMOVED, left, commit.base)
        rest = [commit.remaining_event() for commit in commits[1:]] if several else []
        return Plan(
            head=decision.base,
            before=claims + entries,
            commit=decision.event(operation, {"rest": rest} if rest else {}),
            after=[commit.event(operation, {}) for commit in commits[1:]] + releases,
        )

    def _refuse_handing_over(
        self, commits: list[Commit], commit: Commit, unique: Unique, value: tuple[str, ...]
    ) -> None:
        """Refuse that a value goes from one entity to another inside: a part of that could leave two with it, or none."""
        for other in commits:
            same = other.kind is commit.kind and other.stream != commit.stream
            if same and other.before is not None and unique.value_of(other.before) == value:
                raise Conflict(commit.kind.name, unique.field)

    async def _finish(self, stream: str, operation: Operation) -> None:
        """Append what is missing after the decision on ``stream``, which is stored."""
        streams = self._committed.streams
        made = await streams.written_since(await streams.head(stream), operation.id, since=None)
        assert made is not None
        await roll_forward(streams, operation.id, remaining(made))

    async def _follow_up(self, commits: list[Commit], done: Done) -> None:
        context = self._committed
        for event, stored in done.stored:
            if event.type in (ADDED, REMOVED):
                await context.indexes.shorten_if_due(event.stream, stored.version)
        if context.streams.store.loses_versions_on_restart:
            with suppress(StoreClosed):
                await self.read_back(commits, done)
        for commit in commits:
            if commit.after is None:
                # What came to belong to it since the transaction looked.
                await commit.collection.cascade(commit.kind.key_of(commit.stream))

    async def read_back(self, commits: list[Commit], done: Done) -> None:
        """Undo everything if a server that forgets versions let one of the entities have what is somebody else's."""
        refused: Conflict | None = None
        kept = []
        for commit in commits:
            try:
                if commit.after is not None:
                    look = partial(commit.collection.read_back, commit.after, commit.base, True)
                    await self._committed.mutations.insist(look, done.operation)
            except Conflict as conflict:
                refused = conflict
            else:
                kept.append(commit)
        if refused is None:
            return
        kinds = list(self._committed.collections)
        for commit in sorted(kept, key=lambda commit: kinds.index(commit.kind.name)):  # parents before their children
            with suppress(*REFUSALS):  # others have changed it since
                await commit.undo()
        raise refused


def _rebased(commit: Commit, head: Head) -> Commit:
    """A commit on top of what is stored by now. Raises what `Transaction` raises where that cannot be."""
    old, new = commit.base.event, head.event
    if (None if old is None else old.id) == (None if new is None else new.id):
        return msgspec.structs.replace(commit, base=head)
    assert new is not None
    deleted = is_tombstone(new.payload)
    fenced = new.type == FENCED and deleted == (old is None or is_tombstone(old.payload))
    if fenced and (old is None or not commit.state_dependent or bytes(old.payload) == bytes(new.payload)):
        return msgspec.structs.replace(commit, base=head)
    if old is None:
        raise Conflict(commit.kind.name, commit.kind.key)
    if commit.state_dependent or (deleted and commit.after is None):
        raise VersionConflict(expected=commit.base.guard, actual=head.guard, stream=redacted_stream(commit.stream))
    if deleted:
        raise commit.kind.not_found
    before = commit.kind.decode(new)
    if commit.after is None:
        return msgspec.structs.replace(commit, base=head, before=before)
    payload = merged(commit.payload, new, old)
    return msgspec.structs.replace(
        commit, base=head, before=before, payload=payload, after=commit.collection.entity_of(payload)
    )


async def _run_to_the_end(carrying: Any) -> None:
    """Carry a transaction out to its end even if the caller is cancelled meanwhile: what is decided happens."""
    task = asyncio.ensure_future(carrying)
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
