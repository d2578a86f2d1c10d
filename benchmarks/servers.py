"""Starting the measured servers, each in its own process, so that it does not share an event loop with the client."""

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
"""The timeout is for large tenants: loading 200,000 events for the feed takes about as long as the default timeout of 4 s."""

NAMES = ("local", *_CORES)
"""The servers that `started` can start."""


@dataclass(frozen=True)
class Server:
    """The URLs of an Allsource. ``query_url`` is ``None`` if Core answers all reads."""

    core_url: str
    query_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def reads(self) -> str:
        """The URL for reads that need not go to Core."""
        return self.core_url if self.query_url is None else self.query_url


def started(name: str, folder: Path, *, recommended: bool = True) -> AbstractAsyncContextManager[Server]:
    """Run the server with this name on the events in ``folder``, while the block runs.

    ``recommended``: use the settings that docs/how-to/running-core.md recommends for 0.27, with which sign-ups do not get
    slower as the store grows. Raises ``CoreMissing`` if the Core is not built.
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
            urls = await _printed_urls(child)
        yield Server(urls["ALLSOURCE_CORE_URL"], urls["ALLSOURCE_QUERY_URL"])
    finally:
        await _stop(child)


async def _printed_urls(child: asyncio.subprocess.Process) -> dict[str, str]:
    """The URLs that the server prints as environment variables."""
    assert child.stdout is not None
    found: dict[str, str] = {}
    while "ALLSOURCE_QUERY_URL" not in found:
        line = await child.stdout.readline()
        if not line:
            raise RuntimeError(f"the local Allsource ended with {await child.wait()}")
        name, _, value = line.decode().strip().partition("=")
        found[name] = value
    return found


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(DOWN_SECONDS):
            await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
