"""Child processes on a file, or on an Allsource."""

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
    """A process that reports line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> dict[str, Any] | None:
        """The next report; ``None`` once the process has ended and everything was read."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        found: dict[str, Any] = json.loads(line)
        return found

    async def ready(self) -> None:
        assert await self.told() == {"ready": True}

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def result(self) -> dict[str, Any]:
        """The last report, after the process has ended well."""
        found = await self.told()
        assert found is not None
        assert await self._process.wait() == 0
        return found

    async def kill(self) -> list[dict[str, Any]]:
        """Kill the process without warning; what it had still reported."""
        self._process.kill()
        rest = []
        while (report := await self.told()) is not None:
            rest.append(report)
        await self._process.wait()
        return rest

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


StartChild = Callable[..., Awaitable[Child]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


@pytest.fixture
def where(path: Path) -> str:
    """What the children work on: a path, or the URL of an Allsource."""
    return str(path)


@pytest.fixture
async def start(where: str) -> AsyncIterator[StartChild]:
    """Start a child; it waits until it is told to go."""
    children: list[Child] = []

    async def started(*arguments: object) -> Child:
        task, *more = arguments
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.processes.child",
            str(task),
            where,
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
