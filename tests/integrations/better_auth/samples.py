"""A schema with a field of each type, sample rows, and the three adapters to compare: ours, SQLAlchemy, in-memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from better_auth.adapters.memory import MemoryAdapter
from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
from better_auth.schema import CORE_SCHEMA, Field, Reference, merge_schema
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter

__all__ = ["NOW", "ROWS", "SCHEMA", "Adapters", "adapters", "whole"]

Row = dict[str, Any]

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

SCHEMA = merge_schema(
    CORE_SCHEMA,
    {
        "thing": {
            "text": Field("string", required=True),
            "note": Field("string"),
            "code": Field("string", unique=True),
            "size": Field("number"),
            "flag": Field("boolean"),
            "when": Field("datetime"),
            "data": Field("json"),
            "tags": Field("string[]"),
            "ownerId": Field("string", references=Reference("user", "id")),
        }
    },
)

ROWS: tuple[Row, ...] = (
    {
        "id": "1",
        "text": "Alpha",
        "note": "a_b",
        "code": "c1",
        "size": 1,
        "flag": True,
        "when": NOW,
        "data": {"a": 1},
        "tags": ["x", "y"],
        "ownerId": "u1",
    },
    {
        "id": "2",
        "text": "beta",
        "note": None,
        "code": "c2",
        "size": 2,
        "flag": False,
        "when": NOW + timedelta(days=1),
        "data": None,
        "tags": [],
        "ownerId": "u1",
    },
    {
        "id": "3",
        "text": "Beta",
        "note": "100%",
        "code": None,
        "size": None,
        "flag": None,
        "when": None,
        "data": [1],
        "tags": None,
        "ownerId": None,
    },
    {"id": "4", "text": "ALPHA", "note": "", "size": 0, "ownerId": "u2"},
    {
        "id": "5",
        "text": "ähnlich",
        "note": "Ä",
        "code": "c5",
        "size": -3,
        "flag": True,
        "when": NOW - timedelta(days=400),
        "data": '{"b": 2}',
        "tags": ["X"],
        "ownerId": "u2",
    },
)
"""Nulls, fields that are absent, empty texts and lists, wildcards, capitals beyond ASCII, JSON given as text."""


class Adapters:
    """The same rows three times."""

    def __init__(self, ours: AllsourceDatabaseAdapter, sql: SQLAlchemyAdapter, memory: MemoryAdapter) -> None:
        self.ours, self.sql, self.memory = ours, sql, memory

    def __iter__(self) -> Any:
        return iter((self.ours, self.sql, self.memory))

    async def fill(self) -> None:
        """Have exactly `ROWS`."""
        for adapter in self:
            await adapter.delete_many("thing", [])
            for row in ROWS:
                await adapter.create("thing", dict(row))


@asynccontextmanager
async def adapters() -> AsyncIterator[Adapters]:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    sql, memory = SQLAlchemyAdapter(engine), MemoryAdapter()
    async with AllsourceAuthAdapter.embedded() as store:
        ours = AllsourceDatabaseAdapter(store)
        for adapter in (ours, sql, memory):
            adapter.init(SCHEMA)
        await sql.create_tables()
        try:
            yield Adapters(ours, sql, memory)
        finally:
            await engine.dispose()


def whole(row: Row | None) -> Row | None:
    """A row with every field of the model; the memory adapter leaves out what was never given, and keeps JSON text."""
    if row is None:
        return None
    found = {name: row.get(name) for name in ("id", *SCHEMA["thing"])}
    if isinstance(found["data"], str):
        found["data"] = {"b": 2}
    return found
