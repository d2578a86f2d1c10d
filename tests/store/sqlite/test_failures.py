"""Failures of an open SQLite file: the reported error, and that stored events remain."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from allsource_auth.errors import Storage
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from tests.store.sqlite.files import CANARY, event, files


async def test_permanent_lock_is_an_error_and_stores_nothing(store: SqliteStore, path: Path) -> None:
    await store.append([event(guard=0)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(*(store.append([event(guard=1)]) for _ in range(3)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, Storage)
        assert (outcome.reason, outcome.ambiguous) == ("locked", False)
        assert str(path) in str(outcome)
    assert (await store.latest("s")).version == 1  # readers are not blocked
    other.execute("ROLLBACK")
    other.close()
    assert (await store.append([event(guard=1)]))[0].version == 2


async def test_full_disk_stores_nothing_and_is_recoverable(store: SqliteStore) -> None:
    await store.append([event(guard=0)])
    writer = store._log._file._writer
    assert writer is not None
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    large = event(guard=1, payload=f'"{"x" * 100_000}"')
    outcomes = await asyncio.gather(store.append([event("t"), large]), store.append([large]), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, Storage)
        assert (outcome.reason, outcome.ambiguous) == ("full", False)
    assert [(await store.latest(stream)).version for stream in "st"] == [1, 0]
    writer.execute("PRAGMA max_page_count = 1000000")
    assert (await store.append([large]))[0].version == 2


@pytest.mark.parametrize("where", ["middle", "first page"])
async def test_damage_is_reported_and_not_repaired(path: Path, where: str) -> None:
    store = SqliteStore(SqliteLog(path))
    await store.append([event(f"s{n}", payload='"' + "x" * 300 + '"') for n in range(400)])
    await store.close()
    size = path.stat().st_size
    start = 100 if where == "first page" else 4_096
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * (3_900 if where == "first page" else size - 2 * 4_096))
    before = files(path.parent)
    store = SqliteStore(SqliteLog(path))
    uses: list[Callable[[], Any]] = [
        lambda: store.latest("s7"),
        lambda: store.read("s7"),
        lambda: store.append([event("s7")]),
        lambda: anext(store.scan("")),
        lambda: anext(store.heads("", "")),
    ]
    for use in uses:
        with pytest.raises(Storage) as caught:
            await use()
        assert (caught.value.reason, caught.value.ambiguous) == ("corrupt", False)
        assert str(path) in str(caught.value)
    await store.close()
    assert {name: content for name, content in files(path.parent).items() if content} == before


async def test_undamaged_parts_can_still_be_read(path: Path) -> None:
    store = SqliteStore(SqliteLog(path))
    await store.append([event("early")])
    for n in range(20):
        await store.append([event(f"s{n}", payload='"' + "x" * 9_000 + '"')])
    await store.close()
    with path.open("r+b") as file:
        file.seek(-4_096, os.SEEK_END)
        file.write(b"\xa5" * 4_096)
    store = SqliteStore(SqliteLog(path))
    latest = await store.latest("early")
    assert latest.event is not None
    assert bytes(latest.event.payload) == f'"{CANARY}"'.encode()
    await store.close()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that any user can enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


# Runs in a separate process, because its user id and its limit on file sizes would affect the other tests.
CHILD = """
import asyncio, os, resource, sys, urllib.parse  # now: later the interpreter's own files may be out of reach
from allsource_auth.errors import Storage
from allsource_auth.store.base import NewEvent
from allsource_auth.store.sqlite.store import SqliteLog, SqliteStore

def event(guard=None, size=1):
    payload = b'"' + b"x" * size + b'"'
    return NewEvent(type="auth.user.updated", stream="s", payload=payload, metadata=b"", guard=guard)

async def attempt(call):
    try:
        await call
    except Storage as error:
        print(error.reason, error.ambiguous)
    else:
        print("done")

async def main():
    store = SqliteStore(SqliteLog(sys.argv[2]))
    if sys.argv[1] == "unprivileged":
        if os.geteuid() == 0:
            os.setuid(65534)
        await attempt(store.latest("s"))
        await attempt(store.append([event()]))
    else:
        await attempt(store.append([event(guard=0)]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        await attempt(store.append([event(guard=1, size=400_000)]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print((await store.latest("s")).version)
        await attempt(store.append([event(guard=1)]))
    await store.close()

asyncio.run(main())
"""


def child(what: str, path: Path) -> list[str]:
    # No coverage in the child process: without privileges it could not write the data.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, what, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="users and modes of POSIX")
@pytest.mark.parametrize("protected", ["file", "folder"])
async def test_read_only_file_is_refused_unchanged(open_to_all: Path, protected: str) -> None:
    path = open_to_all / "events.db"
    store = SqliteStore(SqliteLog(path))
    await store.append([event()])
    await store.close()
    path.chmod(0o444 if protected == "file" else 0o666)
    open_to_all.chmod(0o777 if protected == "file" else 0o555)
    before = files(open_to_all)
    assert child("unprivileged", path) == ["read-only False", "read-only False"]
    assert files(open_to_all) == before
    open_to_all.chmod(0o777)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_disk_error_during_commit_is_ambiguous_and_recoverable(path: Path) -> None:
    assert child("limited", path) == ["done", "input/output True", "1", "done"]
