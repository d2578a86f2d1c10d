"""The SQLite file: creation, opening, and files that are refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from allsource_auth.errors import InvalidInput, Storage
from allsource_auth.store.sqlite import file as sqlite_file
from allsource_auth.store.sqlite.file import APPLICATION_ID, FILE_FORMAT
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from tests.store.sqlite.files import CANARY, event, files


async def refused(path: Path, reason: str, **options: Any) -> Storage:
    """Check that every operation fails with ``reason``, and that the message names the file but shows no content."""
    store = SqliteStore(SqliteLog(path, busy_timeout=0.05, **options))
    uses: list[Callable[[], Any]] = [
        lambda: store.latest("s"),
        lambda: store.append([event()]),
        lambda: anext(store.scan("")),
    ]
    for use in uses:
        with pytest.raises(Storage) as caught:
            await use()
        assert caught.value.reason == reason
        assert not caught.value.ambiguous
        assert str(path) in str(caught.value)
        assert CANARY not in str(caught.value)
    await store.close()
    return caught.value


def build(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_file_and_its_wal_and_shm_are_private(store: SqliteStore, path: Path) -> None:
    previous = os.umask(0o000)
    try:
        await store.append([event()])
        await store.latest("s")
    finally:
        os.umask(previous)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert modes == {"events.db": 0o600, "events.db-wal": 0o600, "events.db-shm": 0o600}


async def test_file_has_an_application_id_and_contains_json(store: SqliteStore, path: Path) -> None:
    await store.append([event(payload='{"name": "Zoë"}')])
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (FILE_FORMAT,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT payload ->> 'name', json_type(metadata) FROM event").fetchone() == ("Zoë", "null")
    assert connection.execute("SELECT * FROM head").fetchone() == ("s", 1, "default", 1)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_durability_sets_the_sync_mode(path: Path, durability: Any, level: int) -> None:
    store = SqliteStore(SqliteLog(path, durability=durability))
    await store.append([event()])
    writer = store._log._file._writer
    assert writer is not None
    assert writer.execute("PRAGMA synchronous").fetchone() == (level,)
    await store.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("path", ""),
        ("path", ":memory:"),
        ("path", "a\0b"),
        ("durability", "off"),
        ("busy_timeout", -1),
        ("busy_timeout", float("nan")),
    ],
)
def test_error_names_the_invalid_option(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        SqliteLog(**{"path": None, option: value})
    assert caught.value.field == option


async def test_special_characters_in_a_file_name_have_no_meaning(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&b#c %41 ü.db"
    store = SqliteStore(SqliteLog(path))
    await store.append([event()])
    await store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


async def test_relative_path_ignores_a_later_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = SqliteLog("events.db")
    monkeypatch.chdir("/")
    store = SqliteStore(log)
    await store.append([event()])
    await store.close()
    assert (tmp_path / "events.db").exists()


async def test_dangling_link_creates_a_private_target(tmp_path: Path, path: Path) -> None:
    path.symlink_to(tmp_path / "target.db")
    store = SqliteStore(SqliteLog(path))
    await store.append([event()])
    await store.close()
    assert (tmp_path / "target.db").stat().st_mode & 0o777 == 0o600


async def test_empty_file_is_initialized(path: Path) -> None:
    path.touch(0o600)
    store = SqliteStore(SqliteLog(path))
    await store.append([event(guard=0)])
    await store.close()


async def test_newer_format_is_refused_unchanged(path: Path) -> None:
    store = SqliteStore(SqliteLog(path))
    await store.append([event()])
    await store.close()
    build(path, f"PRAGMA user_version = {FILE_FORMAT + 1}")
    before = files(path.parent)
    error = await refused(path, "newer format")
    assert "upgrade" in str(error)
    assert {name: content for name, content in files(path.parent).items() if content} == before


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE notes (text)", f"INSERT INTO notes VALUES ('{CANARY}')"),
        ("PRAGMA application_id = 77", "CREATE TABLE event (position)"),
        ("PRAGMA user_version = 1", "CREATE TABLE event (position)"),
        ("PRAGMA journal_mode = WAL", "CREATE TABLE notes (text)"),
    ],
    ids=["no id", "foreign id", "our version alone", "wal"],
)
async def test_database_of_another_application_is_refused_unchanged(path: Path, statements: tuple[str, ...]) -> None:
    build(path, *statements)
    before = files(path.parent)
    await refused(path, "another application")
    assert {name: content for name, content in files(path.parent).items() if content} == before


async def test_wal_of_another_application_is_not_checkpointed(path: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    live = sqlite3.connect(origin / "notes.db")
    live.execute("PRAGMA journal_mode = WAL")
    live.execute("CREATE TABLE notes (text)")
    live.commit()
    folder = tmp_path / "crashed"
    folder.mkdir()
    for name in ("notes.db", "notes.db-wal"):
        shutil.copy(origin / name, folder / name)
    live.close()
    before = files(folder)
    assert before["notes.db-wal"]
    await refused(folder / "notes.db", "another application")
    assert files(folder) == before


@pytest.mark.parametrize("size", [5, 600, 5_000])
async def test_file_that_is_not_a_database_is_refused_unchanged(path: Path, size: int) -> None:
    content = (CANARY * 500)[:size]
    path.write_text(content)
    await refused(path, "another application")
    assert files(path.parent) == {"events.db": content.encode()}


async def test_a_directory_cannot_be_opened(tmp_path: Path) -> None:
    await refused(tmp_path, "cannot open")


async def test_a_missing_directory_cannot_be_opened(tmp_path: Path) -> None:
    await refused(tmp_path / "missing" / "events.db", "cannot open")
    assert list(tmp_path.iterdir()) == []


async def test_a_device_cannot_be_opened() -> None:
    await refused(Path("/dev/null"), "cannot open")


async def test_failed_open_can_be_retried(tmp_path: Path) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "later" / "events.db"))
    with pytest.raises(Storage):
        await store.latest("s")
    (tmp_path / "later").mkdir()
    assert (await store.append([event(guard=0)]))[0].version == 1
    await store.close()


async def test_concurrent_callers_share_the_failure_of_one_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(SqliteLog(tmp_path / "missing" / "events.db"))
    file = store._log._file
    attempts = []
    create = file._create_or_check
    all_asked = threading.Event()

    def counted(target: str) -> None:
        assert all_asked.wait(60)
        attempts.append(target)
        create(target)

    monkeypatch.setattr(file, "_create_or_check", counted)
    tasks = [asyncio.ensure_future(store.latest("s")) for _ in range(20)]
    await asyncio.sleep(0)
    all_asked.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Storage}
    assert len({id(outcome) for outcome in outcomes}) == 20
    assert len(attempts) == 1
    await store.close()


async def test_open_waits_for_another_process_that_creates_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch(0o600)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        other.execute("ROLLBACK")

    monkeypatch.setattr(sqlite_file, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    store = SqliteStore(SqliteLog(path))
    await store.append([event(guard=0)])
    assert len(waits) == 1
    await store.close()
    other.close()


async def test_exclusively_locked_file_is_reported_as_locked(store: SqliteStore, path: Path) -> None:
    await store.append([event()])
    await store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM head WHERE 0")
    await refused(path, "locked")
    other.close()
