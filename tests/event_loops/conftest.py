"""A local Allsource in a thread of its own, and adapters on it and on files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.support.local import local_allsource

__all__ = ["OpenAdapter"]

OpenAdapter = Callable[[], AllsourceAuthAdapter]


@pytest.fixture(scope="module")
def core_url() -> Iterator[str]:
    """The URL of a Core that another thread serves, so that it outlives the event loops of a test."""
    urls: list[str] = []
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        async with local_allsource() as running:
            urls.append(running.core_url)
            started.set()
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(60)
    yield urls[0]
    stop[0]()
    thread.join()


@pytest.fixture(params=["http", "file", "memory"])
def open_adapter(request: pytest.FixtureRequest, tmp_path: Path) -> OpenAdapter:
    """Opens adapters: over HTTP, on one file, or in memory."""
    if request.param == "http":
        url: str = request.getfixturevalue("core_url")
        return lambda: AllsourceAuthAdapter(url)
    return lambda: AllsourceAuthAdapter.embedded(tmp_path / "auth.db" if request.param == "file" else None)
