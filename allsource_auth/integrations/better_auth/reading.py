"""How rows are found: candidates of an access path, or a scan of all entities of a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import anyio.to_thread
from better_auth.adapters.base import Where

from allsource_auth.engine.collection import EngineContext
from allsource_auth.integrations.better_auth.models import TEXT_TYPES, Table
from allsource_auth.integrations.better_auth.where import AccessPath
from allsource_auth.kind import Kind
from allsource_auth.store.base import Event

__all__ = ["advice_for", "fetch", "scan", "shape_of"]

MAX_EVENTS_ON_LOOP = 50
"""Maximum events of a scanned page that are decoded on the event loop. Larger pages are decoded in a worker thread."""


async def fetch(context: EngineContext, kind: Kind[Any], path: AccessPath) -> Iterable[Any]:
    """Return the candidates of an access path, without duplicates."""
    collection = context.collections[kind.name]
    if len(path.keys) == 1 and not path.claims and not path.indexes:
        only = await collection.get(path.keys[0])
        return () if only is None else (only,)
    found: dict[str, Any] = await collection.get_many(path.keys)
    for unique, value in path.claims:
        owner = await context.claims.owner(kind, unique, value)
        if owner is not None:
            found[getattr(owner, kind.key)] = owner
    for index, text in path.indexes:
        for member in await collection.members_of(index, text):
            found[getattr(member, kind.key)] = member
    return found.values()


async def scan(context: EngineContext, table: Table, matches: Callable[[dict[str, Any]], bool]) -> list[Any]:
    """Return the matching entities after reading all entities of the kind."""
    kind = context.collections[table.kind.name].kind

    def select(events: list[Event]) -> list[Any]:
        states = map(kind.decode_if_readable, events)
        return [state for state in states if state is not None and matches(table.row(state))]

    found: list[Any] = []
    async with aclosing(context.streams.newest_of_each(kind.prefix, kind.types)) as pages:
        async for events in pages:
            if len(events) <= MAX_EVENTS_ON_LOOP:
                found += select(events)
            else:
                found += await anyio.to_thread.run_sync(select, events)
    return found


def shape_of(table: Table, where: Sequence[Where]) -> str:
    """Describe a condition without its values."""
    shape = " ".join(f"{clause.connector} {clause.field} {clause.operator}" for clause in where)
    return f"{table.model}: {shape.removeprefix('AND ').removeprefix('OR ')}"


def advice_for(table: Table, where: Sequence[Where]) -> str:
    """Return the option that avoids a scan for a condition, as the end of a log message; empty if there is none."""
    found = {table.kind.key, "id", *(index.attribute for index in table.kind.indexes)}
    found |= {unique.attributes[0] for unique in table.kind.unique if len(unique.attributes) == 1}
    worth = [
        clause.field
        for clause in where
        if clause.operator in ("eq", "in") and clause.value is not None and clause.mode != "insensitive"
        if table.columns[clause.field].type in TEXT_TYPES and table.columns[clause.field].attribute not in found
    ]
    return f"; indexes={{{table.model!r}: [{worth[0]!r}]}} avoids the scan" if worth else ""
