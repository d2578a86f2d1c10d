"""What a server knows of the log: everything, unless it was restarted or is short of memory.

The log itself never forgets. Core does: 0.23 counts the events of an archived stream only once the tenant was queried
(section 6.1 of the contract), and 0.27 without memory for a tenant answers from its archive, which is behind (the contract
of 0.27, section 4). Both are laid over the log here, for tests; by default nothing is.
"""

from __future__ import annotations

import asyncio

from allsource_auth.errors import VersionConflict
from allsource_auth.server.answers import refusal
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Batch, Record
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["Memory"]


class Memory:
    """The counters and events that the server has in mind; ``forgets`` is whether it loses counters in a restart."""

    def __init__(self, log: SqliteLog, *, forgets: bool) -> None:
        self._log = log
        self._forgets = forgets
        self._loaded: set[str] | None = None  # the tenants queried since the restart; None: it remembers all
        self._counted: dict[str, int] = {}  # the appends since the restart, by stream
        self._turn = asyncio.Lock()
        self._short = False
        self._short_stream: str | None = None
        self._archived_until = 0

    def forget(self) -> None:
        """Restart with a data directory: counters begin at 0 until their tenant is queried. Nothing on 0.27."""
        if self._forgets:
            self._loaded = set()
            self._counted = {}

    def load(self, tenant: str) -> None:
        """A query of the tenant brings its counters back."""
        if self._loaded is not None:
            self._loaded.add(tenant)

    def run_short(self, stream: str | None) -> None:
        """From now on, ordinary queries of ``stream`` (``None``: any) do not see what is appended later."""
        self._short, self._short_stream = True, stream
        self._archived_until = self._log.newest

    def recover(self) -> None:
        """Remember everything again."""
        self._loaded = None
        self._short = False

    def horizon(self, stream: str | None) -> int | None:
        """The time up to which an ordinary query of ``stream`` sees events, in nanoseconds; ``None``: all.

        Raises `Refused` (503) for a query without a stream while memory is short.
        """
        if not self._short:
            return None
        if stream is None:
            headers = {"retry-after": "30"}
            raise refusal(503, "archive_hydration_refused", headers, needed_bytes=1 << 30, available_bytes=1 << 20)
        return self._archived_until if self._short_stream in (None, stream) else None

    async def append(self, tenant: str, record: Record) -> Acknowledged:
        """Append one event. Raises `VersionConflict`, or what the log raises."""
        if self._cold(tenant):
            # One at a time: the counter here and the head in the log move together.
            async with self._turn:
                if self._cold(tenant):
                    return await self._append_cold(tenant, record)
        return await self._store(tenant, record)

    def _cold(self, tenant: str) -> bool:
        return self._loaded is not None and tenant not in self._loaded

    async def _store(self, tenant: str, record: Record) -> Acknowledged:
        size = len(record.payload) + len(record.metadata)
        (acknowledged,) = await self._log.append(Batch(tenant, [record]), size)
        return acknowledged

    async def _append_cold(self, tenant: str, record: Record) -> Acknowledged:
        counted = self._counted.get(record.stream, 0)
        if record.guard is not None and record.guard != counted:
            raise VersionConflict(expected=record.guard, actual=counted, stream=record.stream)
        acknowledged = await self._store(tenant, record._replace(guard=None))
        self._counted[record.stream] = counted + 1
        return Acknowledged(id=acknowledged.id, time=acknowledged.time, version=counted + 1)
