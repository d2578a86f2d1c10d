"""Clients of local Cores in memory, with faults."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from allsource_auth import SqliteLog
from tests.support.api_client import ApiClient, local_api
from tests.support.faults import Faults


@pytest.fixture
async def log() -> AsyncIterator[SqliteLog]:
    opened = SqliteLog(None)
    yield opened
    await opened.close()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def local(log: SqliteLog, faults: Faults) -> AsyncIterator[ApiClient]:
    """A local Core of 0.27 in development mode."""
    async with local_api("0.27", log, middleware=faults) as client:
        yield client


@pytest.fixture
async def local_older(log: SqliteLog, faults: Faults) -> AsyncIterator[ApiClient]:
    """A local Core of 0.23 in development mode."""
    async with local_api("0.23", log, middleware=faults) as client:
        yield client
