"""Starting what is measured over HTTP: each server in a process of its own, so that it shares no event loop with the client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import cores

__all__ = ["NAMES", "Server", "started"]

ROOT = Path(__file__).resolve().parents[1]
SERVE = "from allsource_auth.cli import main; raise SystemExit(main())"
UP_SECONDS = 30.0
DOWN_SECONDS = 10.0

_CORES = {f"core-{version}": version for version in (cores.OLDEST, cores.NEWEST)}

RECOMMENDED = {"ALLSOURCE_FEED_NARROW_INDEX": "0", "ALLSOURCE_STRICT_ARCHIVE_TIMEOUT_SECONDS": "60"}
"""The second one is for large tenants: to load 200,000 events for the feed takes about the 4 s that it has without it."""

NAMES = ("local", *_CORES)
"""What `started` can start."""


@dataclass(frozen=True)
class Server:
    """Where an Allsource answers; ``query_url`` is ``None`` where Core answers everything."""

    core_url: str
    query_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def reads(self) -> str:
        """Where plain reads go."""
        return self.core_url if self.query_url is None else self.query_url


def started(name: str, folder: Path, *, recommended: bool = True) -> AbstractAsyncContextManager[Server]:
    """The server with this name, with its events in ``folder``, old ones included.

    ``recommended``: use the settings of docs/how-to/running-core.md for 0.27, so that sign-ups do not get slower while
    the store is filled. Raises ``CoreMissing`` for a Core that is not built.
    """
    return _local(folder) if name == "local" else _core(_CORES[name], folder, recommended)


@asynccontextmanager
async def _core(version: str, folder: Path, recommended: bool) -> AsyncIterator[Server]:
    data = folder / "core"
    data.mkdir(exist_ok=True)
    async with cores.running(version, data=data, env=RECOMMENDED if recommended else {}) as core:
        yield Server(core.url, api_key=core.api_key)


@asynccontextmanager
async def _local(folder: Path) -> AsyncIterator[Server]:
    arguments = ["serve", "--data", str(folder / "events.db"), "--port", "0", "--query-port", "0"]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVE,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ALLSOURCE_")},
    )
    try:
        async with asyncio.timeout(UP_SECONDS):
            urls = await _announced(child)
        yield Server(urls["ALLSOURCE_CORE_URL"], urls["ALLSOURCE_QUERY_URL"])
    finally:
        await _ended(child)


async def _announced(child: asyncio.subprocess.Process) -> dict[str, str]:
    """The URLs, as the server prints them for the environment."""
    assert child.stdout is not None
    found: dict[str, str] = {}
    while "ALLSOURCE_QUERY_URL" not in found:
        line = await child.stdout.readline()
        if not line:
            raise RuntimeError(f"the local Allsource ended with {await child.wait()}")
        name, _, value = line.decode().strip().partition("=")
        found[name] = value
    return found


async def _ended(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(DOWN_SECONDS):
            await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
