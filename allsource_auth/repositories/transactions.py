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

from ..entities import Entity
from ..errors import AllsourceAuthError, Conflict, InvalidInput, NotFound, StoreClosed, VersionConflict
from ..kinds import ADDED, FENCED, REMOVED, Kind, Unique, shown
from ..store.base import Event, NewEvent, Quiet
from ..wire import is_tombstone
from .base import Core, Repository, changed, held, stood
from .group import Repositories
from .plans import Done, Operation, Plan, covered_by, fence
from .rest import Rest, merged, remaining, roll_forward, said_of
from .streams import PENDING, Head, Streams
from .view import View

__all__ = ["Transaction"]

REFUSALS = (Conflict, NotFound, InvalidInput, VersionConflict)
"""What ends a transaction without effect."""

LINKS = ("restores", "revertedTo")
"""What of an event's metadata may name an event of the transaction itself."""

MAX_REST_BYTES = 400_000
"""Of what the decision carries of the other events (section 3 of the design)."""


class Commit(Quiet, frozen=True, kw_only=True):
    """What a transaction does to one entity: the event that follows ``base``, and the states before and after it.

    ``once``: only on the very state that ``base`` is.
    """

    repository: Repository[Any]
    base: Head
    type: str
    payload: bytes
    said: dict[str, Any]
    before: Entity | None
    after: Entity | None
    once: bool

    @property
    def kind(self) -> Kind[Any]:
        return self.repository.kind

    @property
    def stream(self) -> str:
        return self.base.stream

    def rest(self) -> Rest:
        """The event, as the decision's metadata carries it."""
        return Rest(
            type=self.type,
            stream=self.stream,
            payload=msgspec.Raw(self.payload),
            guard=self.base.guard,
            after=None if self.base.event is None else self.base.event.id,
            said=self.said,
        )

    async def undo(self) -> None:
        """Give the entity the state again that it had before, where its kind allows that."""
        key = self.kind.key_of(self.stream)
        if self.before is None:
            await self.repository._delete(key)
        elif self.kind.restorable and self.after is None:
            await self.repository.restore(key)
        elif self.kind.restorable and self.base.event is not None:
            await self.repository.revert(key, to=self.base.event.id)

    def event(self, operation: Operation, said: Mapping[str, Any]) -> NewEvent:
        return operation.event(self.type, self.stream, self.payload, after=self.base, links={**self.said, **said})


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

    def __init__(self, core: Core) -> None:
        self._core = core
        self._view = View(core.streams)
        self._once: set[str] = set()
        inside = Core(Streams(self._view), core.clock, once=self._once.add, beneath=core.claims)
        self._open(inside)
        for kind in core.declared.values():
            inside.declare(kind)

    async def __aenter__(self) -> Self:
        self._view.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.end()
        if kind is None:
            commits = self._commits()
            if commits:
                await _to_its_end(self._carry_out(commits))

    def __repr__(self) -> str:
        return f"Transaction({len(self._view.written)} streams written)"

    # What was written, as one event for each entity

    def _commits(self) -> list[Commit]:
        found = []
        for stream, events in self._view.written.items():
            repository = self._repository(stream)
            if repository is not None and (commit := self._folded(repository, stream, events)) is not None:
                found.append(commit)
        if sum(commit.once for commit in found) > 1:
            raise InvalidInput(
                "transaction",
                "at most one entity may be changed in a way that depends on its very state (taken once, restored, compared)",
            )
        # The decision: on a stream that exists, if there is one, for it can be lost to others; then as they were written.
        found.sort(key=lambda commit: (not commit.once, commit.base.event is None))
        size = len(msgspec.json.encode([commit.rest() for commit in found[1:]]))
        if size > MAX_REST_BYTES:
            raise InvalidInput(
                "transaction", f"takes {size} bytes beside what decides it, at most {MAX_REST_BYTES} can be"
            )
        return found

    def _repository(self, stream: str) -> Repository[Any] | None:
        for repository in self._core.repositories.values():
            if stream.startswith(repository.kind.prefix):
                return repository
        return None

    def _folded(self, repository: Repository[Any], stream: str, events: list[Event]) -> Commit | None:
        base, last, kind = self._view.base(stream), events[-1], repository.kind
        before = None if base.event is None else kind.decode(base.event)
        after = kind.decode(last)
        if before is None and after is None:
            return None  # made and removed inside
        type_ = last.type
        if after is not None:
            type_ = events[0].type if before is None else type_
            if before is not None and type_ == kind.type("created"):
                type_ = kind.type("updated")  # removed and made again inside
        said = said_of(last)
        for link in LINKS:
            if str(said.get(link)).startswith(PENDING):
                del said[link]  # to an event that is folded into this one
        return Commit(
            repository=repository,
            base=base,
            type=type_,
            payload=bytes(last.payload),
            said=said,
            before=before,
            after=after,
            once=stream in self._once and base.event is not None,
        )

    # The append

    async def _carry_out(self, commits: list[Commit]) -> None:
        core = self._core

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

        done = await core.mutations.carry_out(decide)
        assert done is not None
        if not done.stored:
            await core.mutations.insist(partial(self._finish, commits[0].stream), done.operation)
        await self._follow_up(commits, done)

    async def _on_what_is_stored(self, operation: Operation, commits: list[Commit]) -> list[Commit]:
        """The commits once more, after an append of them failed; ends the operation if it is found stored after all."""
        heads = [await self._core.mutations.head(operation, commits[0].stream)]
        heads += [await self._core.streams.head(commit.stream) for commit in commits[1:]]
        return [_rebased(commit, head) for commit, head in zip(commits, heads, strict=True)]

    async def _make_void(self, operation: Operation, stream: str) -> None:
        """Keep the decision from being stored late; ends the operation if it is stored by now.

        What refuses the transaction may be on another stream than its decision, and may be an event of its own. Where batches
        are atomic, what is somebody else's keeps all of it from being stored.
        """
        if self._core.streams.store.atomic:
            await self._core.mutations.head(operation, stream)
            return
        streams, sent = self._core.streams, {plan.head.guard for plan in operation.sent}
        while (head := await self._core.mutations.head(operation, stream)).guard in sent:
            fencing = Operation()
            with suppress(VersionConflict):
                await streams.append([fence(head, fencing)])
                await covered_by(fencing, head, streams)
                return

    async def _plan(self, operation: Operation, commits: list[Commit]) -> Plan:
        core, decision = self._core, commits[0]
        known = {} if operation.sent else self._view.bases
        several = len(commits) > 1 and not core.streams.store.atomic
        claims: list[NewEvent] = []
        entries: list[NewEvent] = []
        releases: list[NewEvent] = []
        for commit in commits:
            kind, repository = commit.kind, commit.repository
            taken, given_up = changed(held(kind, commit.before), held(kind, commit.after))
            joined, left = changed(stood(kind, commit.before), stood(kind, commit.after))
            for unique, value in taken.items():
                self._refuse_handing_over(commits, commit, unique, value)
            claims += await core.claims.take(
                operation, kind, taken, commit.base, decision=decision.base if several else None, known=known
            )
            releases += await core.claims.give_up(operation, kind, given_up, commit.stream)
            entries += repository._entries(operation, ADDED, joined, commit.base)
            releases += repository._entries(operation, REMOVED, left, commit.base)
        rest = [commit.rest() for commit in commits[1:]] if several else []
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
            if same and other.before is not None and unique.of(other.before) == value:
                raise Conflict(commit.kind.name, unique.field)

    async def _finish(self, stream: str, operation: Operation) -> None:
        """Append what is missing after the decision on ``stream``, which is stored."""
        streams = self._core.streams
        made = await streams.written_since(await streams.head(stream), operation.id, since=None)
        assert made is not None
        await roll_forward(streams, operation.id, remaining(made))

    async def _follow_up(self, commits: list[Commit], done: Done) -> None:
        core = self._core
        for event, stored in done.stored:
            if event.type in (ADDED, REMOVED):
                await core.lists.grown(event.stream, stored.version)
        if core.streams.store.forgetful:
            with suppress(StoreClosed):
                await self._read_back(commits, done)
        for commit in commits:
            if commit.after is None:
                # What came to belong to it since the transaction looked.
                await commit.repository._cascade(commit.kind.key_of(commit.stream))

    async def _read_back(self, commits: list[Commit], done: Done) -> None:
        """Undo everything if a server that forgets versions let one of the entities have what is somebody else's."""
        refused: Conflict | None = None
        kept = []
        for commit in commits:
            try:
                if commit.after is not None:
                    look = partial(commit.repository._read_back, commit.after, commit.base, True)
                    await self._core.mutations.insist(look, done.operation)
            except Conflict as conflict:
                refused = conflict
            else:
                kept.append(commit)
        if refused is None:
            return
        kinds = list(self._core.repositories)
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
    dead = is_tombstone(new.payload)
    fenced = new.type == FENCED and dead == (old is None or is_tombstone(old.payload))
    if fenced and (old is None or not commit.once or bytes(old.payload) == bytes(new.payload)):
        return msgspec.structs.replace(commit, base=head)
    if old is None:
        raise Conflict(commit.kind.name, commit.kind.key)
    if commit.once or (dead and commit.after is None):
        raise VersionConflict(expected=commit.base.guard, actual=head.guard, stream=shown(commit.stream))
    if dead:
        raise commit.kind.not_found
    before = commit.kind.decode(new)
    if commit.after is None:
        return msgspec.structs.replace(commit, base=head, before=before)
    payload = merged(commit.payload, new, old)
    return msgspec.structs.replace(
        commit, base=head, before=before, payload=payload, after=commit.repository._entity(payload)
    )


async def _to_its_end(carrying: Any) -> None:
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
