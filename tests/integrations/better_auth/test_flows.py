"""The published package over HTTP, on our database and on its own: the same answers, request by request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from better_auth.adapters.base import BaseAdapter
from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter

from .flows import FLOWS
from .site import Transcript, differences, opened

pytestmark = pytest.mark.integrations


@asynccontextmanager
async def sqlite() -> AsyncIterator[BaseAdapter]:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    try:
        yield SQLAlchemyAdapter(engine)
    finally:
        await engine.dispose()


async def told(flow: str, adapter: BaseAdapter) -> Transcript:
    """The answers that a flow gets."""
    options, steps = FLOWS[flow]
    async with opened(adapter, options) as site:
        await steps(site)
        return site.transcript


@pytest.mark.parametrize("flow", FLOWS)
async def test_the_same_answers(flow: str) -> None:
    async with AllsourceAuthAdapter.embedded() as store, sqlite() as theirs:
        expected = await told(flow, theirs)
        ours = await told(flow, AllsourceDatabaseAdapter(store))
        found = differences(ours, expected)
        assert found == [], found
        assert len(ours) >= 3
        assert not (await store.check()).findings
