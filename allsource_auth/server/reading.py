"""The answers of Core's read endpoints: queries, strict reads, one event, the state of an entity."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec

from allsource_auth.server.answers import (
    Answer,
    Refused,
    encode,
    failed,
    instant_text,
    invalid,
    json_answer,
    malformed,
    missing,
    refusal,
    tagged,
)
from allsource_auth.server.events import COLUMNS, WireEvent, wire_event
from allsource_auth.server.memory import Memory
from allsource_auth.server.parsing import Parameters
from allsource_auth.server.query import Query, conditions, find, parse_query
from allsource_auth.server.rules import check_entity, check_tenant
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["Page", "Reader"]

LARGEST_PAGE: Final = 10_000
LARGEST_ANSWER: Final = 16 * 1024 * 1024
"""The limits of 0.27 (section 4 of its contract), in events and bytes."""

STRICT_EVENTS: Final = 1001
STRICT_BYTES: Final = 2 * 1024 * 1024
STRICT_MATCHES: Final = 10_000

_STATE: Final = f"SELECT {COLUMNS} FROM event e WHERE e.stream = ? {{more}} ORDER BY e.time"  # noqa: S608
_BY_ID: Final = f"SELECT {COLUMNS} FROM event e WHERE e.id = ?"  # noqa: S608
_STATE_KNOWN: Final = frozenset({"tenant_id", "as_of", "history"})
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Page(msgspec.Struct, kw_only=True):
    """The envelope of a query."""

    events: list[WireEvent]
    count: int
    total_count: int
    has_more: bool
    entity_version: int | msgspec.UnsetType = msgspec.UNSET
    archive_integrity: dict[str, str] | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return f"Page(count={self.count}, total_count={self.total_count})"


class Reader:
    """Answers reads of ``log`` as far as ``memory`` has it. ``newer``: as 0.27 does."""

    def __init__(self, log: SqliteLog, memory: Memory, *, newer: bool) -> None:
        self._log = log
        self._memory = memory
        self._newer = newer

    async def query(self, query_string: bytes) -> Page:
        """The page that a query string asks for. Raises `Refused`, `Storage`."""
        query = parse_query(query_string, newer=self._newer)
        if query.integrity is not None:
            return await self._strict_page(query)
        return await self.page(query)

    async def page(self, query: Query) -> Page:
        """The page of a query that asks for no integrity."""
        if not query.tenant:
            # No credential is looked at on this path, so there is no tenant to fall back on.
            return Page(events=[], count=0, total_count=0, has_more=False)
        self._memory.load(query.tenant)
        horizon = self._memory.horizon(query.entity)
        limit = query.limit
        if self._newer:
            limit = LARGEST_PAGE if limit is None else min(limit, LARGEST_PAGE)
        found = await find(self._log, query, query.tenant, limit=limit, horizon=horizon)
        events = [wire_event(row, true_version=self._newer) for row in found.rows]
        return _page(events, found.matches, query, msgspec.UNSET if query.entity is None else found.version)

    def answer(self, page: Page, if_none_match: str | None) -> Answer:
        """The page as bytes: on 0.27 with an entity tag, and not beyond 16 MiB."""
        return self._bounded(encode(page), if_none_match)

    def _bounded(self, body: bytes, if_none_match: str | None) -> Answer:
        if not self._newer:
            return Answer(200, body, "application/json")
        if len(body) > LARGEST_ANSWER:
            raise refusal(413, "response_too_large", message="Request a smaller bounded page.")
        return tagged(body, if_none_match)

    async def _strict_page(self, query: Query) -> Page:
        if query.integrity == "retained-entity-v1":
            return await self._strict_entity(query)
        if query.integrity == "retained-prefix-v1":
            return await self._strict_prefix(query)
        raise _strict_rule()

    async def _strict_entity(self, query: Query) -> Page:
        asked_more = (query.type, query.prefix, query.matching, query.since, query.until)
        if query.excluded or query.offset or query.newest_first or any(part is not None for part in asked_more):
            raise _strict_rule()
        tenant, entity = query.tenant, query.entity
        if tenant is None or entity is None or not 1 <= (query.limit or 0) <= STRICT_EVENTS:
            raise invalid("Strict retained read requires tenant_id, entity_id and limit 1..1001")
        check_tenant(tenant)
        check_entity(entity)
        found = await find(self._log, query, tenant, limit=STRICT_EVENTS, horizon=None)
        if found.matches > STRICT_EVENTS:
            raise failed("Strict retained entity exceeds its event budget")
        # Events of the archive have microseconds.
        events = [wire_event(row, true_version=True, digits=6) for row in found.rows]
        if len(encode(events)) > STRICT_BYTES:
            raise failed("Strict retained read encoded data budget exceeded")
        complete = found.matches <= (query.limit or 0)
        version = max((event.version for event in events), default=0) if complete else msgspec.UNSET
        page = _page(events[: query.limit], found.matches, query, version)
        page.archive_integrity = {"protocol": "retained-entity-v1", "tenant_id": tenant, "entity_id": entity}
        return page

    async def _strict_prefix(self, query: Query) -> Page:
        if not query.tenant or not query.prefix or query.entity is not None:
            raise invalid("Strict prefix read requires tenant_id and nonempty event_type_prefix without entity_id")
        where, arguments = conditions(query, query.tenant)
        size = f"SELECT COUNT(*), SUM(length(payload) + length(metadata) + 250) FROM event {where}"  # noqa: S608
        ((matches, total),) = await self._log.page(lambda connection: connection.execute(size, arguments).fetchall())
        if matches > STRICT_MATCHES or (total or 0) > STRICT_BYTES:
            raise failed("Prefix query encoded budget exceeded")
        limit = LARGEST_PAGE if query.limit is None else min(query.limit, LARGEST_PAGE)
        found = await find(self._log, query, query.tenant, limit=limit, horizon=None)
        events = [wire_event(row, true_version=True) for row in found.rows]
        return _page(events, found.matches, query, msgspec.UNSET)

    async def event(self, event_id: str) -> Answer:
        """One event, of whatever tenant (section 8.6 of the contract)."""
        try:
            known = str(uuid.UUID(event_id))
        except ValueError:
            raise malformed(
                f"Invalid URL: Cannot parse `event_id` with value `{event_id}`: UUID parsing failed"
            ) from None
        rows = await self._log.page(lambda connection: connection.execute(_BY_ID, (known,)).fetchall())
        if not rows:
            raise missing(f"Event '{known}' not found")
        return json_answer({"event": wire_event(rows[0], true_version=self._newer), "found": True})

    async def state(self, entity: str, query_string: bytes, if_none_match: str | None) -> Answer:
        """The merged payloads of an entity (section 9.1 of the contract; on 0.27 section 9 of its own)."""
        given = Parameters(query_string, _STATE_KNOWN)
        tenant, as_of = given.text("tenant_id"), given.instant("as_of")
        with_history = not self._newer or given.flag("history")
        terms, arguments = "", [entity]
        if tenant is not None:
            self._memory.load(tenant)
            terms, arguments = "AND e.tenant = ?", [entity, tenant]
        statement = _STATE.format(more=terms)
        rows = await self._log.page(lambda connection: connection.execute(statement, arguments).fetchall())
        ends = [end for end in (as_of, self._memory.horizon(entity)) if end is not None]
        if ends:
            rows = [row for row in rows if row[5] <= min(ends)]
        if not rows:
            raise missing(entity)
        events = [wire_event(row, true_version=True) for row in rows]
        document: dict[str, Any] = {
            "as_of": None if as_of is None else instant_text(as_of),
            "current_state": _merged(events),
            "entity_id": entity,
            "event_count": len(events),
        }
        if with_history:
            document["history"] = [
                {"event_id": event.id, "payload": event.payload, "timestamp": event.timestamp, "type": event.event_type}
                for event in events
            ]
        document["last_updated"] = events[-1].timestamp
        if self._newer:
            document["version"] = len(events)
        return self._bounded(encode(document), if_none_match)


def _page(events: list[WireEvent], matches: int, query: Query, version: int | msgspec.UnsetType) -> Page:
    return Page(
        events=events,
        count=len(events),
        total_count=matches,
        has_more=query.offset + len(events) < matches,
        entity_version=version,
    )


def _strict_rule() -> Refused:
    return invalid("Strict retained read requires retained-entity-v1 without filters, offset or descending order")


def _merged(events: list[WireEvent]) -> dict[str, msgspec.Raw]:
    """Each key has the value that it was given last; payloads that are no objects count for nothing."""
    state: dict[str, msgspec.Raw] = {}
    for event in events:
        try:
            state.update(_decode_members(event.payload))
        except msgspec.ValidationError:
            continue
    return dict(sorted(state.items()))
