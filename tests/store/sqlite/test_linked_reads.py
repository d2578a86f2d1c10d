"""Linked reads of `SqliteStore`: a session and its user in one statement."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, Session, SqliteLog, SqliteStore
from tests.support.clocks import START

pytestmark = pytest.mark.usefixtures("watch")

LATER = START + timedelta(days=36_500)


async def signed_in(adapter: AllsourceAuthAdapter, name: str = "ada") -> Session:
    await adapter.users.create(id=name)
    return await adapter.sessions.create(user_id=name, expires_at=LATER)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "auth.db")
    yield log
    await log.close()


async def test_sqlite_runs_one_statement(log: SqliteLog) -> None:
    adapter = AllsourceAuthAdapter.with_store(SqliteStore(log, owns_log=False))
    session = await signed_in(adapter)
    reader = await log.open()
    statements: list[str] = []
    reader.set_trace_callback(statements.append)
    assert await adapter.load_session(session.token) is not None
    assert await adapter.load_session("nothing") is None
    reader.set_trace_callback(None)
    assert len(statements) == 2


async def test_sqlite_without_json_takes_two_reads(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = AllsourceAuthAdapter.with_store(SqliteStore(log, owns_log=False))
    session = await signed_in(adapter)
    reader = await log.open()

    def deny(action: int, first: str | None, function: str | None, *rest: object) -> int:
        return sqlite3.SQLITE_DENY if function == "json_extract" else sqlite3.SQLITE_OK

    reader.set_authorizer(deny)
    found = await adapter.load_session(session.token)
    reader.set_authorizer(None)
    assert found is not None
    assert (found.session, found.user.id) == (session, "ada")
