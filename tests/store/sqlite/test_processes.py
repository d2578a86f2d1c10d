"""Several processes on one file, and processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from allsource_auth.store.base import Event, NewEvent
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore

# Prints "ready", waits for a line of input, and then runs the command in the first argument.
WORKER = """
import asyncio, sys
from allsource_auth.errors import VersionConflict
from allsource_auth.store.base import NewEvent
from allsource_auth.store.sqlite.store import SqliteLog, SqliteStore

role, path, name = sys.argv[1:]

def event(stream, guard=None):
    return NewEvent(type="auth.user.updated", stream=stream, payload=f'"{name}"'.encode(), metadata=b"", guard=guard)

def say(*words):
    print(*words, flush=True)

async def compete(store):
    while True:
        version = (await store.latest("s")).version
        if version >= 60:
            return
        try:
            await store.append([event("s", version)])
        except VersionConflict as conflict:
            assert conflict.actual > version
        else:
            say(version + 1)

async def load(store, caller):
    while True:
        acknowledged = await store.append([event(f"{name}.{caller}") for _ in range(3)])
        say(f"{name}.{caller}", acknowledged[-1].version)

async def main():
    store = SqliteStore(SqliteLog(path, busy_timeout=60))
    say("ready")
    sys.stdin.readline()
    if role == "compete":
        await compete(store)
    elif role == "create":
        say((await store.append([event("s")]))[0].version)
    else:
        await asyncio.gather(*(load(store, caller) for caller in range(8)))
    await store.close()

asyncio.run(main())
"""


def start(role: str, path: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER, role, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Without the debug mode of asyncio, which would report the wait for input as a slow callback.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONASYNCIODEBUG": ""},
    )


def go(processes: list[subprocess.Popen[str]]) -> None:
    """Start the work of all processes at once, when all are ready."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def finish(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, outputs, strict=True)] == [
        (0, "") for _ in processes
    ]
    return [out.splitlines() for out, _ in outputs]


async def everything(path: Path) -> list[Event]:
    store = SqliteStore(SqliteLog(path))
    events = [event async for page in store.scan("") for event in page]
    for stream in {event.stream for event in events}:
        own = [event for event in events if event.stream == stream]
        assert [event.version for event in own] == list(range(1, len(own) + 1))
        assert (await store.latest(stream)).event == own[-1]
    await store.close()
    times = [event.time for event in events]
    assert times == sorted(set(times))
    return events


async def test_one_append_per_version_wins_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    processes = [start("compete", path, str(n)) for n in range(2)]
    go(processes)
    won = finish(processes)
    assert sorted(int(version) for versions in won for version in versions) == list(range(1, 61))
    stored = Counter(bytes(event.payload) for event in await everything(path))
    assert stored == {f'"{n}"'.encode(): len(versions) for n, versions in enumerate(won) if versions}


@pytest.mark.parametrize("attempt", range(5))
async def test_processes_create_one_file_concurrently(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "events.db"
    processes = [start("create", path, str(n)) for n in range(4)]
    go(processes)
    assert sorted(finish(processes)) == [["1"], ["2"], ["3"], ["4"]]
    assert len(await everything(path)) == 4
    assert path.stat().st_mode & 0o777 == 0o600


async def test_killed_process_loses_no_acknowledged_event(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    acknowledged: dict[str, int] = {}
    for attempt in range(5):
        process = start("load", path, f"p{attempt}")
        go([process])
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(50 + 37 * attempt)]
        process.kill()
        # Continue with the same reader, which has buffered output. The last line may be incomplete.
        lines += process.stdout.readlines()
        process.communicate(timeout=60)
        for line in lines:
            if line.endswith("\n"):
                name, number = line.split()
                acknowledged[name] = int(number)
        stored = Counter(event.stream for event in await everything(path))
        assert len(acknowledged) == 8 * (attempt + 1)
        for stream, version in acknowledged.items():
            assert stored[stream] >= version
        assert all(count % 3 == 0 for count in stored.values())
    store = SqliteStore(SqliteLog(path))
    new = NewEvent(type="auth.user.updated", stream="after", payload=b"{}", metadata=b"", guard=0)
    assert (await store.append([new]))[0].version == 1
    await store.close()
