"""The shared state of one adapter or transaction: its streams, mutations, claims, indexes, clock and collections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from allsource_auth.engine.claims import Claims
from allsource_auth.engine.indexes import Indexes
from allsource_auth.engine.mutations import Mutations
from allsource_auth.engine.streams import Streams
from allsource_auth.entities import Entity
from allsource_auth.kind import Kind

__all__ = ["Context"]

C = TypeVar("C")


class Context(Generic[C]):
    """What all collections of one adapter, or of one transaction, share. ``C`` is the type of the collections.

    Args:
        streams: access to the store.
        clock: returns the current time as a timezone-aware datetime.
        delete_orphan: deletes an entity whose parent was deleted and returns whether it was one. `Claims` calls it before
            it reports a unique value as taken.
        committed_claims: in a transaction, the claims as they are stored, without the writes of the transaction.
        depend_on_state: in a transaction, called with each stream whose change is only valid for the state it was decided on.
    """

    def __init__(
        self,
        streams: Streams,
        clock: Callable[[], datetime],
        delete_orphan: Callable[[C, Entity], Awaitable[bool]],
        *,
        committed_claims: Claims | None = None,
        depend_on_state: Callable[[str], None] = lambda stream: None,
    ) -> None:
        self.streams = streams
        self.clock = clock
        self.depend_on_state = depend_on_state
        self.mutations: Mutations = Mutations(streams)
        self.indexes: Indexes = Indexes(streams)
        self.collections: dict[str, C] = {}
        self.declared: dict[str, Kind[Any]] = {}
        """The kinds that were declared at run time, by name."""

        async def delete_orphan_of(kind: Kind[Any], entity: Entity) -> bool:
            return await delete_orphan(self.collections[kind.name], entity)

        self.claims: Claims = Claims(streams, delete_orphan_of, committed_claims)

    @property
    def tenant(self) -> str:
        """The tenant of the store."""
        return self.streams.store.tenant

    def now(self) -> datetime:
        """The current time of the adapter's clock, in UTC."""
        return self.clock().astimezone(UTC)
