"""The event feed: the events of a tenant in stored order (``docs/reference/allsource-api.md``, "Event feed").

A position is the number of events of the tenant up to and including that event. As in Core, the feed keeps an index in
memory with one number per event; here it is the event's position in the log. An epoch lasts as long as this index, that
is until the server stops.
"""

from __future__ import annotations

import random
import sqlite3
from array import array
from bisect import bisect_right
from functools import partial
from typing import Any, Final

import msgspec

from allsource_auth.errors import VersionConflict
from allsource_auth.server.events import COLUMNS, WireEvent, wire_event
from allsource_auth.server.parsing import Parameters
from allsource_auth.server.replies import Reply, conflict, encode, invalid_input, json_reply
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["Feed"]

MAX_PAGE: Final = 500
DEFAULT_PAGE: Final = 100
WINDOW: Final = 10_000
"""How many positions one request looks at."""

PAGE_BYTES: Final = 512 * 1024
EVENT_BYTES: Final = 511 * 1024

_KNOWN: Final = frozenset({"epoch", "position", "limit", "prefixes", "entity_id", "tenant_id"})
_SELECT_NEW: Final = "SELECT position, tenant FROM event WHERE position > ? ORDER BY position"
_SELECT_WINDOW: Final = f"""
    SELECT {COLUMNS}, e.position FROM event e NOT INDEXED
    WHERE e.position >= ? AND e.position <= ? AND e.tenant = ? {{more}} ORDER BY e.position LIMIT ?
"""  # noqa: S608


class _Cursor(msgspec.Struct):
    epoch: int
    position: int


class _FeedPage(msgspec.Struct, kw_only=True):
    caught_up: bool
    cursor: _Cursor
    events: list[WireEvent]
    head: _Cursor
    positions: list[int]
    tenant_id: str


class _Request(msgspec.Struct):
    cursor: _Cursor | None
    limit: int
    prefixes: tuple[str, ...]
    entity: str | None


class _Index:
    """The positions in the log of each tenant's events, as far as the log was read, and the epochs of the tenants."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self._positions: dict[str, array[int]] = {}
        self._read_to = 0

    def positions(self, tenant: str, connection: sqlite3.Connection) -> array[int]:
        """The positions of all events of ``tenant``, in order. Later calls extend the same array."""
        for position, owner in connection.execute(_SELECT_NEW, (self._read_to,)):
            self._positions.setdefault(owner, array("q")).append(position)
            self._read_to = position
        return self._positions.get(tenant, array("q"))


class Feed:
    """The feeds of all tenants of ``log``."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log
        self._index = _Index()

    def restart(self) -> None:
        """Start new epochs, as a server without a durable feed log does when it starts."""
        self._index = _Index()

    def tenant(self, query_string: bytes) -> str | None:
        """The tenant that a request names, if any. Raises `Rejected` (400)."""
        return Parameters(query_string, _KNOWN).text("tenant_id")

    async def reply(self, query_string: bytes, tenant: str) -> Reply:
        """The page for a query string.

        Raises `Rejected`: 400 for an invalid parameter or an event that is too large for a page, 409 for a cursor of
        another epoch or beyond the end. Raises `Storage` if the log cannot be used.
        """
        request = _parse(Parameters(query_string, _KNOWN))
        index = self._index
        stored = await self._log.page(partial(index.positions, tenant))
        epoch = index.epochs.setdefault(tenant, random.getrandbits(52))
        head = _Cursor(epoch, len(stored))
        start = request.cursor or _Cursor(epoch, 0)
        if start.epoch != epoch or start.position > head.position:
            raise conflict(VersionConflict(expected=start.epoch, actual=epoch))
        if request.limit == 0:
            return json_reply(_page(tenant, head, head.position, [], []))
        window = stored[start.position : start.position + WINDOW]
        rows = []
        if window:
            rows = await self._log.page(partial(_select_window, tenant, request, window[0], window[-1]))
        events, full = _fitting(rows)
        positions = [bisect_right(stored, row[-1]) for row in rows[: len(events)]]
        ended_early = full or len(events) == request.limit
        reached = positions[-1] if ended_early else start.position + len(window)
        return json_reply(_page(tenant, head, reached, events, positions))


def _parse(given: Parameters) -> _Request:
    epoch, position, limit = given.number("epoch"), given.number("position"), given.number("limit")
    if limit is not None and limit > MAX_PAGE:
        raise invalid_input("feed limit must be 0..500")
    if (epoch is None) != (position is None):
        raise invalid_input("feed cursor requires epoch and position")
    prefixes = tuple(part.strip() for part in (given.text("prefixes") or "").split(",") if part.strip())
    if len(prefixes) > 8 or any(len(prefix.encode()) > 128 for prefix in prefixes):
        raise invalid_input("feed permits at most 8 prefixes of 128 bytes")
    cursor = None if epoch is None or position is None else _Cursor(epoch, position)
    return _Request(cursor, DEFAULT_PAGE if limit is None else limit, prefixes, given.text("entity_id"))


def _select_window(
    tenant: str, request: _Request, first: int, last: int, connection: sqlite3.Connection
) -> list[tuple[Any, ...]]:
    terms = ""
    arguments: list[object] = [first, last, tenant]
    if request.entity is not None:
        terms += " AND e.stream = ?"
        arguments.append(request.entity)
    if request.prefixes:
        terms += f" AND ({' OR '.join(['substr(e.type, 1, ?) = ?'] * len(request.prefixes))})"
        for prefix in request.prefixes:
            arguments += [len(prefix), prefix]
    return connection.execute(_SELECT_WINDOW.format(more=terms), [*arguments, request.limit]).fetchall()


def _fitting(rows: list[tuple[Any, ...]]) -> tuple[list[WireEvent], bool]:
    """The events that fit into a page, and whether some were left out."""
    events: list[WireEvent] = []
    size = 0
    for row in rows:
        event = wire_event(row[:-1], true_version=True)
        length = len(encode(event))
        if not events and length > EVENT_BYTES:
            raise invalid_input("single feed event exceeds bounded feed response")
        size += length
        if size > PAGE_BYTES:
            return events, True
        events.append(event)
    return events, False


def _page(tenant: str, head: _Cursor, reached: int, events: list[WireEvent], positions: list[int]) -> _FeedPage:
    return _FeedPage(
        caught_up=reached == head.position,
        cursor=_Cursor(head.epoch, reached),
        events=events,
        head=head,
        positions=positions,
        tenant_id=tenant,
    )
