"""Replies to queries: ordinary pages and strict reads, with the limits of each generation.

The limits are those of ``docs/reference/allsource-api.md``, "Queries" and "Strict reads".
"""

from __future__ import annotations

from typing import Final

import msgspec

from allsource_auth.server.events import WireEvent, wire_event
from allsource_auth.server.log_access import LogAccess
from allsource_auth.server.query import Query, parse_query
from allsource_auth.server.replies import (
    JSON,
    Rejected,
    Reply,
    encode,
    error_reply,
    invalid_input,
    storage_failure,
    tagged_reply,
)
from allsource_auth.server.rules import check_entity, check_tenant

__all__ = ["Page", "Reader"]

MAX_PAGE: Final = 10_000
MAX_REPLY: Final = 16 * 1024 * 1024
"""The limits of a page of 0.27, in events and bytes."""

STRICT: Final = "retained-entity-v1"
STRICT_EVENTS: Final = 1001
STRICT_BYTES: Final = 2 * 1024 * 1024


class Page(msgspec.Struct, kw_only=True):
    """The reply to a query."""

    events: list[WireEvent]
    count: int
    total_count: int
    has_more: bool
    entity_version: int | msgspec.UnsetType = msgspec.UNSET
    archive_integrity: dict[str, str] | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return f"Page(count={self.count}, total_count={self.total_count})"


class Reader:
    """Answers queries from the log. ``newer``: with the strict reads, limits and ETags of 0.27."""

    def __init__(self, access: LogAccess, *, newer: bool) -> None:
        self._access = access
        self._newer = newer

    async def query(self, query_string: bytes) -> Page:
        """The page for a query string. Raises `Rejected`, and `Storage` if the log cannot be used."""
        query = parse_query(query_string, newer=self._newer)
        if query.integrity is not None:
            return await self._strict_page(query)
        return await self.page(query)

    async def page(self, query: Query) -> Page:
        """The page for an ordinary query. Raises `Storage` if the log cannot be used."""
        if not query.tenant:
            # Core does not take the tenant from the credential here, so such a query matches nothing.
            return Page(events=[], count=0, total_count=0, has_more=False)
        limit = query.limit
        if self._newer:
            limit = MAX_PAGE if limit is None else min(limit, MAX_PAGE)
        found = await self._access.find(query, limit=limit)
        events = [wire_event(row, true_version=self._newer) for row in found.rows]
        return _page(events, found.matches, query, msgspec.UNSET if query.entity is None else found.version)

    def reply(self, page: Page) -> Reply:
        """Encode a page. On 0.27 it has an ETag, and more than 16 MiB are rejected (413)."""
        body = encode(page)
        if not self._newer:
            return Reply(200, body, JSON)
        if len(body) > MAX_REPLY:
            raise error_reply(413, "response_too_large", message="Request a smaller bounded page.")
        return tagged_reply(body)

    async def _strict_page(self, query: Query) -> Page:
        filters = (query.prefix, query.since, query.until)
        filtered = query.offset or query.newest_first or any(value is not None for value in filters)
        if query.integrity != STRICT or filtered:
            raise _strict_rule()
        tenant, entity = query.tenant, query.entity
        if tenant is None or entity is None or not 1 <= (query.limit or 0) <= STRICT_EVENTS:
            raise invalid_input("Strict retained read requires tenant_id, entity_id and limit 1..1001")
        check_tenant(tenant)
        check_entity(entity)
        found = await self._access.find(query, limit=STRICT_EVENTS)
        if found.matches > STRICT_EVENTS:
            raise storage_failure("Strict retained entity exceeds its event budget")
        # Times in the archive have microseconds.
        events = [wire_event(row, true_version=True, digits=6) for row in found.rows]
        if len(encode(events)) > STRICT_BYTES:
            raise storage_failure("Strict retained read encoded data budget exceeded")
        complete = found.matches <= (query.limit or 0)
        version = max((event.version for event in events), default=0) if complete else msgspec.UNSET
        page = _page(events[: query.limit], found.matches, query, version)
        page.archive_integrity = {"protocol": STRICT, "tenant_id": tenant, "entity_id": entity}
        return page


def _page(events: list[WireEvent], matches: int, query: Query, version: int | msgspec.UnsetType) -> Page:
    return Page(
        events=events,
        count=len(events),
        total_count=matches,
        has_more=query.offset + len(events) < matches,
        entity_version=version,
    )


def _strict_rule() -> Rejected:
    return invalid_input("Strict retained read requires retained-entity-v1 without filters, offset or descending order")
