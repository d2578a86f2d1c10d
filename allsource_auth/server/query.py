"""``GET /events/query``: its parameters, and the SQL that answers them.

Filters of Core that the library does not use are rejected with 501: ignoring them would return wrong events.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from allsource_auth.server.events import COLUMNS
from allsource_auth.server.parsing import Parameters
from allsource_auth.server.replies import error_reply, invalid_input
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["Found", "Query", "find", "parse_query"]

_SUPPORTED: Final = frozenset(
    {"tenant_id", "entity_id", "event_type_prefix", "since", "until", "limit", "offset", "order"}
)
_SUPPORTED_BY_NEWER: Final = _SUPPORTED | {"integrity"}
_UNSUPPORTED: Final = frozenset({"event_type", "exclude_event_type_prefix", "payload_filter", "as_of"})

_MAX_INTEGER: Final = 2**63 - 1
"""The largest integer of SQLite."""

_INLINE_EVENTS: Final = 100
"""Pages of one stream with at most this many events are read on the event loop."""

# One statement, so that the page and its totals are of one snapshot. It returns at least one row, whose page part may
# be NULL.
_PAGE: Final = f"""
    SELECT page.*, totals.matches, totals.version FROM (
        SELECT (SELECT COUNT(*) FROM event {{where}}) AS matches, (SELECT version FROM head WHERE stream = ?) AS version
    ) AS totals LEFT JOIN (
        SELECT {COLUMNS} FROM (SELECT position FROM event {{where}} ORDER BY time {{order}} LIMIT ? OFFSET ?) AS p
        CROSS JOIN event e ON e.position = p.position
    ) AS page ON TRUE
"""  # noqa: S608


class Query(msgspec.Struct, kw_only=True):
    """The parsed parameters of a query. Times are nanoseconds since the epoch."""

    tenant: str | None = None
    entity: str | None = None
    prefix: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int | None = None
    offset: int = 0
    newest_first: bool = False
    integrity: str | None = None

    def __repr__(self) -> str:
        return "Query(...)"


class Found(msgspec.Struct):
    """A page: rows of `COLUMNS`, the number of matches before ``limit`` and ``offset``, the version of the entity."""

    rows: list[tuple[Any, ...]]
    matches: int
    version: int

    def __repr__(self) -> str:
        return f"Found(rows={len(self.rows)}, matches={self.matches})"


def parse_query(query_string: bytes, *, newer: bool) -> Query:
    """Parse a query string. ``newer``: with the parameter ``integrity`` of 0.27.

    Raises `Rejected`: 400 for an invalid value, 501 for a filter that this server does not support.
    """
    given = Parameters(query_string, (_SUPPORTED_BY_NEWER if newer else _SUPPORTED) | _UNSUPPORTED)
    for name in _UNSUPPORTED:
        if given.text(name) is not None:
            raise error_reply(501, f"the local server does not support the parameter '{name}'")
    return Query(
        tenant=given.text("tenant_id"),
        entity=given.text("entity_id"),
        prefix=given.text("event_type_prefix"),
        since=given.instant("since"),
        until=given.instant("until"),
        limit=given.number("limit"),
        offset=given.number("offset") or 0,
        newest_first=_newest_first(given.text("order")),
        integrity=given.text("integrity"),
    )


def _newest_first(order: str | None) -> bool:
    if order is not None and order.lower() not in ("asc", "desc"):
        raise invalid_input(f"invalid 'order' value '{order}': expected 'asc' or 'desc'")
    return order is not None and order.lower() == "desc"


async def find(log: SqliteLog, query: Query, *, limit: int | None) -> Found:
    """The page of ``query`` with at most ``limit`` events. Raises `Storage` or `StoreClosed`."""
    where, arguments = _conditions(query)
    statement = _PAGE.format(where=where, order="DESC" if query.newest_first else "ASC")
    window = (-1 if limit is None else min(limit, _MAX_INTEGER), min(query.offset, _MAX_INTEGER))
    everything = (*arguments, query.entity, *arguments, *window)
    if query.entity is not None and limit is not None and limit <= _INLINE_EVENTS:
        rows = await log.read(statement, everything)
    else:
        rows = await log.page(lambda connection: connection.execute(statement, everything).fetchall())
    *_, matches, version = rows[0]
    page = [row[:-2] for row in rows if row[0] is not None]
    # SQL guarantees the order of the inner SELECT only if the outer one has the same ORDER BY.
    page.sort(key=lambda row: row[5], reverse=query.newest_first)
    return Found(page, matches, version or 0)


def _conditions(query: Query) -> tuple[str, list[object]]:
    """The WHERE clause with the index to use, and its arguments."""
    terms: list[str] = ["tenant = ?"]
    arguments: list[object] = [query.tenant]
    index = ""
    if query.entity is not None:
        index = "INDEXED BY event_by_stream"
        terms.append("stream = ?")
        arguments.append(query.entity)
    if query.prefix:
        index = index or "INDEXED BY event_by_type"
        # No event type contains the last code point of Unicode.
        terms.append("type >= ? AND type < ?")
        arguments += [query.prefix, query.prefix + "\U0010ffff"]
    for comparison, time in ((">=", query.since), ("<=", query.until)):
        if time is not None:
            terms.append(f"time {comparison} ?")
            arguments.append(max(min(time, _MAX_INTEGER), -_MAX_INTEGER))
    return f"{index} WHERE {' AND '.join(terms)}", arguments
