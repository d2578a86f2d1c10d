"""Reads of the entities of one kind: by key, by index, by unique value, and their histories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import Any, Generic, TypeVar

from allsource_auth.audit import Change
from allsource_auth.codec import is_tombstone
from allsource_auth.engine.context import Context
from allsource_auth.engine.history import History
from allsource_auth.entities import Entity
from allsource_auth.errors import InvalidInput
from allsource_auth.kind import Index, Kind, Unique
from allsource_auth.store.base import Event
from allsource_auth.values import count, is_unicode, string

__all__ = ["Queries"]

E = TypeVar("E", bound=Entity)

DECODED_PER_YIELD = 64
"""The event loop runs other tasks after this many decoded states of a scan."""


class Queries(Generic[E]):
    """The reading half of a `Collection`."""

    context: Context[Any]

    def __init__(self, context: Context[Any], kind: Kind[E]) -> None:
        self.context = context
        self._streams = context.streams
        self.use_kind(kind)

    def use_kind(self, kind: Kind[E]) -> None:
        """Set the declaration of the kind, or replace it."""
        self.kind = kind
        self._history = History(self._streams, kind)
        self._decode = kind.codec.decode

    async def get(self, key: str) -> E | None:
        """See `Repository.get`. The methods up to `as_of` are documented there under the same names."""
        stream = self.kind.find_stream(key)
        if stream is None:
            return None
        event = await self._streams.newest(stream)
        return None if event is None else self._decode(event)

    async def get_many(self, keys: Iterable[str]) -> dict[str, E]:
        wanted = {key: stream for key in keys if (stream := self.kind.find_stream(key)) is not None}
        newest = await self._streams.newest_many(wanted.values())
        found = {
            key: None if (event := newest[stream]) is None else self._decode(event) for key, stream in wanted.items()
        }
        return {key: entity for key, entity in found.items() if entity is not None}

    async def exists(self, key: str) -> bool:
        stream = self.kind.find_stream(key)
        event = await self._streams.newest(stream) if stream else None
        return event is not None and not is_tombstone(event.payload)

    async def scan(self) -> AsyncIterator[E]:
        async with aclosing(self._streams.heads(self.kind.prefix, self.kind.types)) as pages:
            async for events in pages:
                for number, event in enumerate(events, 1):
                    entity = self.kind.decode(event)
                    if entity is not None:
                        yield entity
                    if number % DECODED_PER_YIELD == 0:
                        await asyncio.sleep(0)

    async def history(
        self, key: str, *, limit: int | None = None, newest_first: bool = False, fences: bool = False
    ) -> list[Change[E]]:
        if limit is not None:
            count("limit", limit)
        stream = self.kind.find_stream(key)
        if stream is None or limit == 0:
            return []
        return await self._history.changes(stream, limit=limit, newest_first=newest_first, fences=fences)

    async def iter_history(self, key: str, *, fences: bool = False) -> AsyncIterator[Change[E]]:
        stream = self.kind.find_stream(key)
        if stream is not None:
            async with aclosing(self._history.iterate(stream, fences=fences)) as changes:
                async for change in changes:
                    yield change

    async def as_of(self, key: str, when: datetime | str) -> E | None:
        stream = self.kind.find_stream(key)
        event = await self._history.event_as_of(stream, when) if stream else None
        return None if event is None else self.kind.decode(event)

    # Indexes and unique values

    async def list_by_index(self, field: str, value: str, *, oldest_first: bool = False) -> list[E]:
        """Return the living entities with an index key, newest first. Reads the index, and each entity in it once."""
        members = await self.members_of(self.index(field), value)
        members.sort(key=lambda entity: (entity.created_at, entity.id), reverse=not oldest_first)
        return members

    def index(self, field: str) -> Index:
        """Return the index of the kind with this name."""
        return next(found for found in self.kind.indexes if found.field == field)

    async def members_of(self, index: Index, value: str, *, require_leader: bool = False) -> list[E]:
        """Return the living entities whose index key is ``value``, in any order. Compacts the index if that is due."""
        if not is_unicode(string(index.attribute, value)):
            return []
        stream = self.kind.index_stream(self.context.tenant, index, value)
        found = await self.context.indexes.read(stream, require_leader=require_leader)
        newest = await self._streams.newest_many(found.streams, require_leader=require_leader)
        states = {member: self.kind.decode_if_readable(event) for member, event in newest.items() if event is not None}
        deleted = {member for member, event in newest.items() if event is not None and is_tombstone(event.payload)}
        await self.context.indexes.compact(stream, found, deleted)
        wanted = index.normalize(value)
        return [
            state
            for state in states.values()
            if state is not None and index.normalize(getattr(state, index.attribute)) == wanted
        ]

    async def find_by_unique(
        self, unique: Unique, wanted: tuple[str, ...], *, require_leader: bool = False
    ) -> E | None:
        """Return the living entity with these unique values, or ``None``. Two reads. Invalid values have no owner."""
        for attribute, value in zip(unique.attributes, wanted, strict=True):
            string(attribute, value)
            try:
                self.kind.checks[attribute](attribute, value)
            except InvalidInput:
                return None
        normal = tuple(unique.normalize(value) for value in wanted)
        return await self.context.claims.owner(self.kind, unique, normal, require_leader=require_leader)

    async def authenticate_by_unique(
        self, unique: Unique, wanted: tuple[str, ...], *, require_leader: bool = False
    ) -> E | None:
        """Like `find_by_unique`, but return ``None`` for a child of a deleted entity. One more read."""
        entity = await self.find_by_unique(unique, wanted, require_leader=require_leader)
        if entity is None or await self.deleted_parent(entity, require_leader=require_leader) is not None:
            return None
        return entity

    async def deleted_parent(self, entity: E, *, require_leader: bool = False) -> Kind[Any] | None:
        """Return the kind of a deleted parent of ``entity``; ``None`` if no parent of it was deleted."""
        for name, attribute in self.kind.parents:
            parent: Queries[Any] | None = self.context.collections.get(name)
            stream = None if parent is None else parent.kind.find_stream(getattr(entity, attribute))
            event = None if stream is None else await self._streams.newest(stream, require_leader=require_leader)
            if parent is not None and event is not None and is_tombstone(event.payload):
                return parent.kind
        return None

    def living(self, event: Event | None) -> E:
        """Return the living entity in the newest event of its stream. Raises the kind's `NotFound` if there is none."""
        entity = None if event is None else self.kind.decode(event)
        if entity is None:
            raise self.kind.not_found
        return entity
