"""Starting worker processes, see `tests.processes.child`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Child:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def report(self) -> dict[str, Any] | None:
        """The next report; ``None`` when the process has exited and all reports were read."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        found: dict[str, Any] = json.loads(line)
        return found

    async def ready(self) -> None:
        assert await self.report() == {"ready": True}

    def go(self) -> None:
        """Let the process start its task."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def result(self) -> dict[str, Any]:
        """The last report. Waits for the exit of the process, which must be successful."""
        found = await self.report()
        assert found is not None
        assert await self._process.wait() == 0
        return found

    async def kill(self) -> list[dict[str, Any]]:
        """Kill the process. Returns its unread reports."""
        self._process.kill()
        reports = []
        while (report := await self.report()) is not None:
            reports.append(report)
        await self._process.wait()
        return reports

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


StartChild = Callable[..., Awaitable[Child]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


@pytest.fixture
def location(path: Path) -> str:
    """The path or URL that the processes work on."""
    return str(path)


@pytest.fixture
async def start(location: str) -> AsyncIterator[StartChild]:
    """Start a process. It waits for `Child.go`."""
    children: list[Child] = []

    async def started(*arguments: object) -> Child:
        task, *more = arguments
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.processes.child",
            str(task),
            location,
            *map(str, more),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        children.append(Child(process))
        return children[-1]

    yield started
    for child in children:
        await child.end()
