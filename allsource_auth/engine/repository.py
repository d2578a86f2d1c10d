"""The public reading operations that all ten repositories share, and those of repositories whose entities can be restored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Generic, TypeVar

from allsource_auth.audit import Change
from allsource_auth.engine.collection import Collection
from allsource_auth.entities import Entity

__all__ = ["Repository", "RestorableRepository"]

E = TypeVar("E", bound=Entity)


class Repository(Generic[E]):
    """The entities of one kind. Their key is the id; the key of a session is its token."""

    def __init__(self, collection: Collection[E]) -> None:
        self._collection = collection

    async def get(self, key: str, /) -> E | None:
        """Return the entity with this key, or ``None`` if there is none or it was deleted.

        One read. Raises `Json` if its state cannot be decoded.
        """
        return await self._collection.get(key)

    async def get_many(self, keys: Iterable[str], /) -> dict[str, E]:
        """Return the living entities among ``keys``, by key, in the order given.

        One read for each key, up to 16 at a time; an embedded store reads all of them in a few statements.
        Raises `Json` if a state cannot be decoded.
        """
        return await self._collection.get_many(keys)

    async def exists(self, key: str, /) -> bool:
        """Return whether a living entity has this key. One read; the state is not decoded."""
        return await self._collection.exists(key)

    def scan(self) -> AsyncIterator[E]:
        """Iterate over all living entities, ordered by key, reading in pages.

        An entity that is written during the scan appears in its old or its new state. Raises `Json` if a state cannot be
        decoded.
        """
        return self._collection.scan()

    async def history(
        self, key: str, /, *, limit: int | None = None, newest_first: bool = False, fences: bool = False
    ) -> list[Change[E]]:
        """Return the changes of an entity, also of a deleted one; an empty list if it never existed.

        Args:
            key: the entity.
            limit: the maximum number of changes, counted from the oldest or, with ``newest_first``, from the newest.
            newest_first: return the newest change first.
            fences: include the events that only protect a unique value from a late write. They change no state.

        Raises `InvalidInput` for a negative limit, `Json` if a state cannot be decoded.
        """
        return await self._collection.history(key, limit=limit, newest_first=newest_first, fences=fences)

    def iter_history(self, key: str, /, *, fences: bool = False) -> AsyncIterator[Change[E]]:
        """Iterate over the changes of an entity, oldest first, reading in pages; for histories of any length."""
        return self._collection.iter_history(key, fences=fences)

    async def as_of(self, key: str, /, when: datetime | str) -> E | None:
        """Return the state of an entity at a time, or ``None`` if it did not exist then.

        ``when`` is a timezone-aware time, and everything up to the end of its microsecond counts. Or it is the id of an event
        of this entity: then the result is the state right after that event.
        Raises `InvalidInput` for a naive time and for the id of an event that this entity does not have.
        """
        return await self._collection.as_of(key, when)


class RestorableRepository(Repository[E]):
    """A repository whose entities can be restored after a deletion and reverted to an earlier state."""

    async def restore(self, key: str, /) -> E:
        """Restore a deleted entity with its last state and its unique values. A living entity is returned unchanged.

        What was deleted together with it stays deleted.

        Raises:
            Conflict: another entity has one of its unique values by now. Nothing changes.
            NotFound: of this kind if it never existed, of the parent's kind if its parent is deleted.
        """
        return await self._collection.restore(key)

    async def revert(self, key: str, /, to: datetime | str) -> E:
        """Give a living entity the state that it had at a time, or right after the event with this id.

        Secrets, used codes and counters keep their current values, and so does the owner: otherwise a credential whose id
        was deleted and created again would return to its former user.

        Raises:
            Conflict: another entity has one of the former unique values. Nothing changes.
            NotFound: the entity is not alive.
            InvalidInput: it was not alive at that time, or the event is not one of its own.
        """
        return await self._collection.revert(key, to)
