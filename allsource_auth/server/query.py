"""``GET /events/query``: its parameters, and the SQL that answers them (section 8 of the contract)."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any, Final

import msgspec

from allsource_auth.server.answers import invalid
from allsource_auth.server.events import COLUMNS
from allsource_auth.server.parsing import Parameters
from allsource_auth.store.sqlite.file import snapshot
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["INTEGRITY", "Found", "Query", "conditions", "find", "parse_query"]

INTEGRITY: Final = "integrity"

_KNOWN: Final = frozenset(
    {
        "tenant_id",
        "entity_id",
        "event_type",
        "event_type_prefix",
        "exclude_event_type_prefix",
        "payload_filter",
        "since",
        "until",
        "as_of",
        "limit",
        "offset",
        "order",
    }
)
_KNOWN_NEWER: Final = _KNOWN | {INTEGRITY}

_MOST: Final = 2**63 - 1
"""The largest integer of SQLite."""

_QUICK: Final = 100
"""Pages of one stream up to this many events are read on the event loop."""

# One statement, so that the page and its totals are of one moment. There is always a row; its page part may be NULL.
_PAGE: Final = f"""
    SELECT page.*, totals.matches, totals.version FROM (
        SELECT (SELECT COUNT(*) FROM event {{where}}) AS matches, (SELECT version FROM head WHERE stream = ?) AS version
    ) AS totals LEFT JOIN (
        SELECT {COLUMNS} FROM (SELECT position FROM event {{where}} ORDER BY time {{order}} LIMIT ? OFFSET ?) AS p
        CROSS JOIN event e ON e.position = p.position
    ) AS page ON TRUE
"""  # noqa: S608
_CANDIDATES: Final = "SELECT position, CAST(payload AS BLOB) FROM event {where} ORDER BY time {order}"
_HEAD: Final = "SELECT version FROM head WHERE stream = ?"
_EVENT: Final = f"SELECT {COLUMNS} FROM event e WHERE position = ?"  # noqa: S608


class Query(msgspec.Struct, kw_only=True):
    """The parameters, read and checked. Times are nanoseconds; ``until`` is the earlier of ``until`` and ``as_of``."""

    tenant: str | None = None
    entity: str | None = None
    type: str | None = None
    prefix: str | None = None
    excluded: tuple[str, ...] = ()
    matching: dict[str, Any] | None = None
    since: int | None = None
    until: int | None = None
    limit: int | None = None
    offset: int = 0
    newest_first: bool = False
    integrity: str | None = None

    def __repr__(self) -> str:
        return "Query(...)"


class Found(msgspec.Struct):
    """A page of rows of `COLUMNS`, all matches before the window, the version of the stream that was asked for."""

    rows: list[tuple[Any, ...]]
    matches: int
    version: int

    def __repr__(self) -> str:
        return f"Found(rows={len(self.rows)}, matches={self.matches})"


def parse_query(query_string: bytes, *, newer: bool) -> Query:
    """The query of a request. ``newer``: with the parameter of 0.27. Raises `Refused` (400)."""
    given = Parameters(query_string, _KNOWN_NEWER if newer else _KNOWN)
    ends = [end for end in (given.instant("until"), given.instant("as_of")) if end is not None]
    excluded = (part.strip() for part in (given.text("exclude_event_type_prefix") or "").split(","))
    return Query(
        tenant=given.text("tenant_id"),
        entity=given.text("entity_id"),
        type=given.text("event_type"),
        prefix=given.text("event_type_prefix"),
        excluded=tuple(part for part in excluded if part),
        matching=_matching(given.text("payload_filter")),
        since=given.instant("since"),
        until=min(ends, default=None),
        limit=given.number("limit"),
        offset=given.number("offset") or 0,
        newest_first=_newest_first(given.text("order")),
        integrity=given.text(INTEGRITY),
    )


def _newest_first(order: str | None) -> bool:
    if order is not None and order.lower() not in ("asc", "desc"):
        raise invalid(f"invalid 'order' value '{order}': expected 'asc' or 'desc'")
    return order is not None and order.lower() == "desc"


def _matching(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        reason = f"invalid 'payload_filter': expected a JSON object of field/value pairs, got '{text}'"
        raise invalid(reason) from None


def conditions(query: Query, tenant: str, horizon: int | None = None) -> tuple[str, list[object]]:
    """``WHERE`` with the index to use, and its arguments; ``horizon`` is one more latest time."""
    terms: list[str] = ["tenant = ?"]
    arguments: list[object] = [tenant]
    index = ""
    if query.entity is not None:
        index = "INDEXED BY event_by_stream"
        terms.append("stream = ?")
        arguments.append(query.entity)
    if query.type is not None:
        index = index or "INDEXED BY event_by_type"
        terms.append("type = ?")
        arguments.append(query.type)
    # With an exact type the prefix counts only if there is an entity, too (section 8.4 of the contract).
    if query.prefix and (query.type is None or query.entity is not None):
        index = index or "INDEXED BY event_by_type"
        # No type holds the last character of Unicode.
        terms.append("type >= ? AND type < ?")
        arguments += [query.prefix, query.prefix + "\U0010ffff"]
    for prefix in query.excluded:
        terms.append("substr(type, 1, ?) <> ?")
        arguments += [len(prefix), prefix]
    for comparison, time in ((">=", query.since), ("<=", query.until), ("<=", horizon)):
        if time is not None:
            terms.append(f"time {comparison} ?")
            arguments.append(max(min(time, _MOST), -_MOST))
    return f"{index} WHERE {' AND '.join(terms)}", arguments


async def find(log: SqliteLog, query: Query, tenant: str, *, limit: int | None, horizon: int | None) -> Found:
    """The page of ``query`` with at most ``limit`` events. Raises `Storage`."""
    where, arguments = conditions(query, tenant, horizon)
    order = "DESC" if query.newest_first else "ASC"
    window = (-1 if limit is None else min(limit, _MOST), min(query.offset, _MOST))
    # The empty filter matches every payload, also one that is no object.
    if query.matching:
        statement = _CANDIDATES.format(where=where, order=order)
        fetch = partial(_matching_page, statement, tuple(arguments), query.matching, query.entity, window)
        return await log.page(fetch)
    statement = _PAGE.format(where=where, order=order)
    everything = (*arguments, query.entity, *arguments, *window)
    if query.entity is not None and limit is not None and limit <= _QUICK:
        rows = await log.read(statement, everything)
    else:
        rows = await log.page(lambda connection: connection.execute(statement, everything).fetchall())
    *_, matches, version = rows[0]
    page = [row[:-2] for row in rows if row[0] is not None]
    # Rows come as the inner select has them, but only an order of the outer one would be a promise.
    page.sort(key=lambda row: row[5], reverse=query.newest_first)
    return Found(page, matches, version or 0)


def _matching_page(
    statement: str,
    arguments: tuple[object, ...],
    wanted: dict[str, Any],
    entity: str | None,
    window: tuple[int, int],
    connection: sqlite3.Connection,
) -> Found:
    limit, offset = window
    with snapshot(connection):
        candidates = connection.execute(statement, arguments)
        positions = [position for position, payload in candidates if _holds(payload, wanted)]
        chosen = positions[offset:] if limit < 0 else positions[offset : offset + limit]
        rows = [connection.execute(_EVENT, (position,)).fetchone() for position in chosen]
        head = connection.execute(_HEAD, (entity,)).fetchone()
    return Found(rows, len(positions), head[0] if head else 0)


def _holds(payload: bytes, wanted: dict[str, Any]) -> bool:
    """Whether the payload is an object with all these members (section 8.3 of the contract)."""
    document = msgspec.json.decode(payload)
    return isinstance(document, dict) and all(
        name in document and _same(document[name], value) for name, value in wanted.items()
    )


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON: 1 is neither 1.0 nor true."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
