"""Access of the routes to the log: append one event, find the events of a query."""

from __future__ import annotations

from typing import Protocol

from allsource_auth.server.query import Found, Query, find
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Batch, Record
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["DirectAccess", "LogAccess"]


class LogAccess(Protocol):
    """The operations on the log that the routes of both ports use. `Middleware.log_access` can replace them."""

    async def append(self, tenant: str, record: Record, /) -> Acknowledged:
        """Append one event. Raises `VersionConflict` if its guard fails, `Storage` or `StoreClosed`."""
        ...

    async def find(self, query: Query, /, *, limit: int | None) -> Found:
        """Return a page of at most ``limit`` events. ``query.tenant`` is set. Raises `Storage` or `StoreClosed`."""
        ...


class DirectAccess:
    """Access to a `SqliteLog`."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def append(self, tenant: str, record: Record, /) -> Acknowledged:
        size = len(record.payload) + len(record.metadata)
        (acknowledged,) = await self._log.append(Batch(tenant, [record]), size)
        return acknowledged

    async def find(self, query: Query, /, *, limit: int | None) -> Found:
        return await find(self._log, query, limit=limit)
