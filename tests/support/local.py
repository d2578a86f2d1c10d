"""A local Allsource with a log in memory, on free ports of the loopback interface."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, Running, serving

__all__ = ["local_allsource"]


@asynccontextmanager
async def local_allsource(
    *, generation: Literal["0.23", "0.27"] = "0.27", clock_ns: Callable[[], int] = time.time_ns
) -> AsyncIterator[Running]:
    log = SqliteLog(None, clock_ns=clock_ns)
    try:
        async with serving(LocalAllsource(log, generation=generation)) as running:
            yield running
    finally:
        await log.close()
