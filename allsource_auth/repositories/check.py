"""Checking: what in a store is not as it should be, and repairing what needs no guessing.

What a crash leaves behind (a claim without an owner, half a cascade, an entry of a list that leads nowhere) is recognised
by every reader and harms nobody; `check` finds it, and with ``repair`` clears it away. What somebody has to decide (two
living owners of one value, a state that cannot be decoded) is reported and left alone.

Whatever looks wrong is looked at again before it counts, because others may be writing meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from ..audit import metadata_of
from ..entities import Entity
from ..errors import Json
from ..kinds import CLAIMED, INDEX, REMOVED, Kind, Listed, Unique
from ..store.base import Event
from .base import Core
from .claims import GRACE
from .concurrency import concurrently
from .findings import Checked, Finding, Problem, Undecodable
from .lists import Entry
from .plans import Claim, Operation, Plan, covered_by, fence, release
from .reindex import Held, Index, Progress, entries_plan
from .rest import outstanding, remaining, roll_forward
from .streams import Head, content

__all__ = ["check"]

ENTRY_GRACE = 2 * GRACE
"""Nanoseconds that an entry is left alone: longer than the transaction that it is of, whose decision is stored after it."""

IN_ONE_GO = 500
"""Entries of a list that are looked at, and removed, together."""


async def check(core: Core, *, repair: bool, progress: Progress | None) -> Checked:
    """Look at every event, every living entity, every claim and every list."""
    return await Check(core, repair, progress or (lambda what, count: None)).run()


class Check:
    """One check."""

    def __init__(self, core: Core, repair: bool, progress: Progress) -> None:
        self._core, self._streams, self._repair, self._progress = core, core.streams, repair, progress
        self._undecodable = Undecodable()
        self._findings: list[Finding] = []
        self._events = self._entities = self._index_streams = 0
        self._began: int | None = None

    async def run(self) -> Checked:
        indexes = [Index(repository, self._undecodable) for repository in self._core.repositories.values()]
        for index in indexes:
            decisions = await self._read_events(index.kind)
            await self._each(index.kind, decisions, partial(self._look_at_transaction, index.kind, decisions))
            await self._look_at_entities(index)
            self._findings += index.duplicates
        await self._look_at_index_streams(indexes)
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
        if op is None or self._is_young(decision, GRACE) or not await outstanding(self._streams, op, rest):
            return
        if self._repair:
            await roll_forward(self._streams, op, rest)
        self._found("half_transaction", kind, kind.key, [decision.stream])

    def _is_young(self, event: Event, grace: int) -> bool:
        """Whether an event was less than ``grace`` old when the check began.

        Not now: a transaction that was left alone because it was young must not lose its list entries because they are old.
        """
        began = self._streams.store.server_time() if self._began is None else self._began
        return began - event.time < grace

    # Entities: what they lack

    async def _look_at_entities(self, index: Index) -> None:
        values: dict[str, list[Held]] = {}
        async with aclosing(index.pages()) as pages:
            async for entities in pages:
                self._entities += len(entities)
                if index.kind.parents:
                    await self._each(index.kind, list(entities), partial(self._look_at_parents, index, entities))
                lists = index.lists(entities)
                await self._each(index.kind, lists, partial(self._look_for_entries, index, lists))
                for held in await index.unclaimed(entities):
                    values.setdefault(held.claim, []).append(held)
                self._progress("entities", self._entities)
        await self._each(index.kind, values, partial(self._look_for_claim, index, values))

    async def _look_at_parents(self, index: Index, entities: dict[str, Any], stream: str) -> None:
        """Find a living child of a deleted entity, and take it out of ``entities``."""
        repository = index.repository
        if await repository._dead_parent(entities[stream]) is None:
            return
        child = index.state(await self._streams.head(stream))
        parent = None if child is None else await repository._dead_parent(child, decisive=True)
        if parent is None:
            return
        del entities[stream]
        if self._repair and not await repository.delete_where([index.kind.key_of(stream)], lambda now: now == child):
            return
        self._found("half_cascade", index.kind, parent.name, [stream])

    async def _look_for_entries(self, index: Index, lists: Mapping[str, tuple[Listed, list[str]]], where: str) -> None:
        """Find the members of a list that have no entry in it."""
        listed, members = lists[where]
        lacking = [head.stream for head in await index.missing(listed, where, members)]
        if not lacking or (self._repair and not await index.enter(where, listed, lacking)):
            return
        self._found("missing_entry", index.kind, listed.field, lacking, where)

    async def _look_for_claim(self, index: Index, values: Mapping[str, list[Held]], claim: str) -> None:
        """Find the living entity that has a value without its claim, or several that have the value."""
        lacking: dict[str, Entity] = {}
        taken = False
        for held in values[claim]:
            look = await index.look(held, await self._streams.head(claim))
            if look is not None:
                lacking[held.stream] = look.entity
                taken = taken or look.standing.holder is not None
        if len(lacking) > 1:
            index.share(held.unique, claim, lacking)
        elif lacking and not taken and (not self._repair or await index.claim(held)):
            self._found("missing_claim", index.kind, held.unique.field, lacking, claim)

    # Claims and lists: what leads nowhere

    async def _look_at_index_streams(self, indexes: Sequence[Index]) -> None:
        places: dict[str, tuple[Index, Unique | Listed]] = {}
        for index in indexes:
            places |= {f"{index.kind.name}.{unique.field}": (index, unique) for unique in index.kind.unique}
            places |= {f"{index.kind.name}.by_{listed.field}": (index, listed) for listed in index.kind.lists}
        async with aclosing(self._streams.heads(INDEX, "auth.index.")) as pages:
            async for events in pages:
                self._index_streams += len(events)
                by_place: dict[str, dict[str, Event]] = {}
                for event in events:
                    by_place.setdefault(event.stream.split(":")[1], {})[event.stream] = event
                for place in by_place.keys() & places.keys():
                    index, what = places[place]
                    if isinstance(what, Unique):
                        look = partial(self._look_at_claim, index, what, by_place[place])
                    else:
                        look = partial(self._look_at_list, index, what)
                    await self._each(index.kind, by_place[place], look)
                self._progress("index streams", self._index_streams)

    async def _look_at_claim(self, index: Index, unique: Unique, newest: Mapping[str, Event], stream: str) -> None:
        """Find out whether a claim leads to somebody who has the value, or soon may."""
        if newest[stream].type != CLAIMED:
            return
        owner = content(newest[stream], Claim).owner
        if index.has(unique, stream, await self._streams.newest(owner)):
            return

        async def decide(operation: Operation) -> Plan | None:
            nonlocal owner
            while True:
                head = await self._core.mutations.head(operation, stream)
                standing = await self._core.claims.standing(index.kind, unique, head)
                if standing.owner is None or standing.holder is not None or (standing.pending and standing.young):
                    return None
                if self._repair and not await self._core.claims.settle(standing):
                    continue
                if not self._repair and (await self._streams.head(stream)).event != head.event:
                    continue
                owner = standing.owner.stream
                return Plan(head=head, commit=release(operation, stream, owner, head))

        if await self._core.mutations.carry_out(decide) if self._repair else await decide(Operation()):
            self._found("orphan_claim", index.kind, unique.field, [owner], stream)

    async def _look_at_list(self, index: Index, listed: Listed, where: str) -> None:
        """Find the entries of a list that lead to nothing which stands in it."""
        streams = (await self._core.lists.read(where)).streams
        for start in range(0, len(streams), IN_ONE_GO):
            newest = await self._streams.newest_many(streams[start : start + IN_ONE_GO])
            suspects = [stream for stream, event in newest.items() if self._is_dead(index, listed, where, event)]
            if suspects:
                await self._look_at_members(index, listed, where, suspects)

    async def _look_at_members(self, index: Index, listed: Listed, where: str, suspects: Collection[str]) -> None:
        dead: list[Head] = []

        async def decide(operation: Operation) -> Plan | None:
            nonlocal dead
            heads = await concurrently(suspects, self._streams.head)
            fold = await self._core.lists.read(where, decisive=True)
            # What was listed just now may be about to be created.
            young = {content(event, Entry).stream for event in fold.entries if self._is_young(event, ENTRY_GRACE)}
            listed_now = set(fold.streams)
            dead = [
                head
                for stream, head in heads.items()
                if stream in listed_now
                and self._is_dead(index, listed, where, head.event)
                and not (head.event is None and stream in young)
            ]
            if self._repair:
                dead = [await self._never(head) if head.event is None else head for head in dead]
                dead = [head for head in dead if self._is_dead(index, listed, where, head.event)]
            return entries_plan(operation, REMOVED, where, dead)

        if await index.write_entries(where, decide) if self._repair else await decide(Operation()):
            self._found("dead_entry", index.kind, listed.field, [head.stream for head in dead], where)

    def _is_dead(self, index: Index, listed: Listed, where: str, event: Event | None) -> bool:
        """Whether an entry leads to nothing that stands in the list; a state that cannot be decoded may well stand there."""
        try:
            return not index.stands(listed, where, event)
        except Json as error:
            self._undecodable.add(index.kind.name, error)
            return False

    async def _never(self, head: Head) -> Head:
        """Keep an entity that was listed long ago, but not created, from being created late; its stream after that."""

        async def decide(operation: Operation) -> Plan | None:
            now = await self._core.mutations.head(operation, head.stream)
            # A creation without a guard has ``seq`` 1, and must not outrank this.
            above = msgspec.structs.replace(now, seq=now.seq + 1)
            return None if now.event is not None else Plan(head=now, commit=fence(above, operation))

        done = await self._core.mutations.carry_out(decide)
        if done is not None:
            await covered_by(done.operation, done.operation.sent[-1].head, self._streams)
        return await self._streams.head(head.stream)
