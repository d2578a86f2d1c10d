"""What is asked of the entities of one kind: states, lists, who has a unique value, and what was before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from ..audit import Change
from ..entities import Entity
from ..errors import InvalidInput
from ..kinds import Kind, Listed, Unique
from ..store.base import Event
from ..values import is_unicode
from ..wire import is_tombstone
from .claims import Claims
from .history import History
from .lists import Lists
from .streams import Streams

__all__ = ["Queries", "Shared"]

E = TypeVar("E", bound=Entity)


class Shared(Protocol):
    """What the repositories of one adapter share, as far as reading goes; `Core` has it, and what writing takes."""

    @property
    def tenant(self) -> str: ...

    @property
    def streams(self) -> Streams: ...

    @property
    def claims(self) -> Claims: ...

    @property
    def lists(self) -> Lists: ...

    @property
    def repositories(self) -> Mapping[str, Queries[Any]]: ...


class Queries(Generic[E]):
    """The reading half of a `Repository`."""

    core: Shared

    def __init__(self, core: Shared, kind: Kind[E]) -> None:
        self.core = core
        self._streams = core.streams
        self._be_of(kind)

    def _be_of(self, kind: Kind[E]) -> None:
        self.kind = kind
        self._history = History(self._streams, kind)
        self._decode = kind.codec.decode

    async def get(self, key: str) -> E | None:
        """The entity with this key (its id; for sessions the token), or ``None`` if there is none or it was deleted.

        One read. Raises `Json` if its state cannot be decoded.
        """
        stream = self.kind.find(key)
        if stream is None:
            return None
        event = await self._streams.newest(stream)
        return None if event is None else self._decode(event)

    async def get_many(self, keys: Iterable[str]) -> dict[str, E]:
        """The living entities among ``keys``, by key, in the order given; a bounded number of reads at a time."""
        wanted = {key: stream for key in keys if (stream := self.kind.find(key)) is not None}
        newest = await self._streams.newest_many(wanted.values())
        found = {
            key: None if (event := newest[stream]) is None else self._decode(event) for key, stream in wanted.items()
        }
        return {key: entity for key, entity in found.items() if entity is not None}

    async def exists(self, key: str) -> bool:
        """Whether a living entity has this key. One read; the state is not decoded."""
        stream = self.kind.find(key)
        event = await self._streams.newest(stream) if stream else None
        return event is not None and not is_tombstone(event.payload)

    async def scan(self) -> AsyncIterator[E]:
        """Every living entity, any number, ordered by key. One that is written meanwhile is met in its old or new state."""
        async with aclosing(self._streams.heads(self.kind.prefix, self.kind.types)) as pages:
            async for events in pages:
                for event in events:
                    entity = self.kind.decode(event)
                    if entity is not None:
                        yield entity

    async def history(
        self, key: str, *, limit: int | None = None, newest_first: bool = False, fences: bool = False
    ) -> list[Change[E]]:
        """What happened to an entity, deleted ones too; empty if there never was one.

        At most ``limit`` changes, from the oldest or the newest on. ``fences`` includes the events that only kept a
        writer of another entity from finishing late; they change nothing.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise InvalidInput("limit", "must be a whole number of at least 0")
        stream = self.kind.find(key)
        if stream is None or limit == 0:
            return []
        return await self._history.changes(stream, limit=limit, newest_first=newest_first, fences=fences)

    async def iter_history(self, key: str, *, fences: bool = False) -> AsyncIterator[Change[E]]:
        """Like `history`, oldest first and read in pages, for histories of any length."""
        stream = self.kind.find(key)
        if stream is not None:
            async with aclosing(self._history.iterate(stream, fences=fences)) as changes:
                async for change in changes:
                    yield change

    async def as_of(self, key: str, when: datetime | str) -> E | None:
        """The state right after everything that the store had recorded by the end of that microsecond.

        ``when`` is a time in any zone, or the id of an event. Raises `InvalidInput` for a naive time, or an event id that
        is not of this entity.
        """
        stream = self.kind.find(key)
        event = await self._history.event_as_of(stream, when) if stream else None
        return None if event is None else self.kind.decode(event)

    # Lists and unique values

    async def _listed(self, field: str, value: str, *, oldest_first: bool = False) -> list[E]:
        """The living entities in a list, newest first. Reads of the list, and one read per entity in it."""
        members = await self._members(self._list(field), value)
        members.sort(key=lambda entity: (entity.created_at, entity.id), reverse=not oldest_first)
        return members

    def _list(self, field: str) -> Listed:
        return next(found for found in self.kind.lists if found.field == field)

    async def _members(self, listed: Listed, value: str, *, decisive: bool = False) -> list[E]:
        if not isinstance(value, str):
            raise InvalidInput(listed.attribute, f"must be text, not {type(value).__name__}")
        if not is_unicode(value):
            return []
        stream = self.kind.list_stream(self.core.tenant, listed, value)
        fold = await self.core.lists.read(stream, decisive=decisive)
        newest = await self._streams.newest_many(fold.streams, decisive=decisive)
        states = {member: self.kind.readable(event) for member, event in newest.items() if event is not None}
        dead = {member for member, event in newest.items() if event is not None and is_tombstone(event.payload)}
        await self.core.lists.shorten(stream, fold, dead)
        wanted = listed.normal(value)
        return [
            state
            for state in states.values()
            if state is not None and listed.normal(getattr(state, listed.attribute)) == wanted
        ]

    async def _owner(self, unique: Unique, wanted: tuple[str, ...], *, decisive: bool = False) -> E | None:
        """The living entity with these unique values; two reads. What nobody can have belongs to nobody."""
        for attribute, value in zip(unique.attributes, wanted, strict=True):
            if not isinstance(value, str):
                raise InvalidInput(attribute, f"must be text, not {type(value).__name__}")
            try:
                self.kind.checks[attribute](attribute, value)
            except InvalidInput:
                return None
        normal = tuple(unique.normal(value) for value in wanted)
        return await self.core.claims.owner(self.kind, unique, normal, decisive=decisive)

    async def _authentic(self, unique: Unique, wanted: tuple[str, ...], *, decisive: bool = False) -> E | None:
        """Like `_owner`, but a child of a deleted entity does not authenticate; one more read."""
        entity = await self._owner(unique, wanted, decisive=decisive)
        if entity is None or await self._dead_parent(entity, decisive=decisive) is not None:
            return None
        return entity

    async def _dead_parent(self, entity: E, *, decisive: bool = False) -> Kind[Any] | None:
        """The kind of the deleted entity that ``entity`` belongs to; ``None`` if all of them live, or never did."""
        for name, attribute in self.kind.parents:
            parent = self.core.repositories.get(name)
            stream = None if parent is None else parent.kind.find(getattr(entity, attribute))
            event = None if stream is None else await self._streams.newest(stream, decisive=decisive)
            if parent is not None and event is not None and is_tombstone(event.payload):
                return parent.kind
        return None

    def _living(self, event: Event | None) -> E:
        entity = None if event is None else self.kind.decode(event)
        if entity is None:
            raise self.kind.not_found
        return entity
