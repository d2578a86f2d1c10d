"""Two tenants of one Core with the same ids, emails and tokens.

Core counts the events of a stream id over all tenants. On 0.27, once one tenant's part of an archived stream was looked up, the
versions of the other's part stay unseen (``docs/reference/allsource-api.md``, "Versions" and "Restarts").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Conflict
from tests.cores.conftest import at
from tests.cores.expected_state import ExpectedState
from tests.support.clocks import START
from tests.support.cores import Core, running
from tests.support.events import whole_log
from tests.support.updates import assert_nothing_lost, writes

pytestmark = pytest.mark.core

LATER = START + timedelta(days=7)
TENANTS = ("acme", "globex")


@asynccontextmanager
async def two_adapters(core: Core) -> AsyncIterator[list[AllsourceAuthAdapter]]:
    async with AsyncExitStack() as adapters:
        yield [await adapters.enter_async_context(at(core, tenant_id=tenant)) for tenant in TENANTS]


async def create_same_people(expected_states: list[ExpectedState], adapters: list[AllsourceAuthAdapter]) -> None:
    for name in ("ada", "bob"):
        for expected, adapter in zip(expected_states, adapters, strict=True):
            await expected.record(adapter.users.create(id=name, email=f"{name}@example.org", username=name))
            await expected.sign_in(adapter, name, LATER, token=f"session_of_{name}")
            await expected.sign_in(adapter, name, LATER)


async def assert_stored(expected_states: list[ExpectedState], adapters: list[AllsourceAuthAdapter]) -> None:
    for expected, adapter in zip(expected_states, adapters, strict=True):
        await expected.assert_stored(adapter)


async def test_tenants_are_isolated(version: str, tmp_path: Path) -> None:
    expected_states = [ExpectedState(), ExpectedState()]
    async with running(version, data=tmp_path) as core, two_adapters(core) as adapters:
        await create_same_people(expected_states, adapters)
        one, other = adapters
        await expected_states[0].record(one.users.update("ada", name="Ada", email="lovelace@example.org"))
        await expected_states[0].record(one.users.create(id="only", email="only@example.org", username="only"))
        await expected_states[0].sign_in(one, "only", LATER, token="session_only")
        await expected_states[1].delete(other, "bob")
        await assert_stored(expected_states, adapters)
        assert await other.users.get("only") is None
        assert await other.users.get_by_email("only@example.org") is None
        assert await other.users.get_by_username("only") is None
        assert await other.sessions.get("session_only") is None
        assert await other.users.history("only") == []
        assert (await other.users.list(search_value="only")).total == 0
        await expected_states[1].record(other.users.create(id="only", email="lovelace@example.org", username="only"))
        await expected_states[1].sign_in(other, "only", LATER, token="session_only")
        await assert_stored(expected_states, adapters)
        for tenant in TENANTS:
            async with at(core, tenant_id=tenant) as adapter:
                with pytest.raises(Conflict):
                    await adapter.users.create(email="LOVELACE@example.org")
        ids: list[set[str]] = []
        for tenant in TENANTS:
            store = AllsourceStore(core.url, tenant_id=tenant)
            ids.append({event.id for event in await whole_log(store)})
            await store.close()
        assert not ids[0] & ids[1]


@pytest.mark.parametrize("fresh", [False, True], ids=["connected", "fresh"])
async def test_alternating_updates_of_one_id_across_restarts(version: str, fresh: bool, tmp_path: Path) -> None:
    expected_states = [ExpectedState(), ExpectedState()]
    async with running(version, data=tmp_path) as core, AsyncExitStack() as stack:
        adapters = await stack.enter_async_context(two_adapters(core))
        await create_same_people(expected_states, adapters)
        for number in range(12):
            if number % 2:
                await core.restart()
                await core.restart()
                if fresh:
                    adapters = await stack.enter_async_context(two_adapters(core))
            order = list(zip(expected_states, adapters, TENANTS, strict=True))
            for expected, adapter, tenant in order[:: 1 if number % 4 < 2 else -1]:
                await expected.record(adapter.users.update("ada", name=f"{tenant} {number}"))
                await expected.record(adapter.users.update("ada", email=f"{number}@example.org"))
                await expected.extend(adapter, "session_of_ada", LATER + timedelta(days=number))
                if number % 3 == 0:
                    await expected.delete(adapter, "bob")
                elif number % 3 == 1:
                    await expected.record(adapter.users.restore("bob"))
        await assert_stored(expected_states, adapters)


async def test_concurrent_updates_of_one_id_are_not_lost_in_either_tenant(version: str, tmp_path: Path) -> None:
    written = writes(48)
    async with running(version, data=tmp_path) as core, two_adapters(core) as adapters:
        await asyncio.gather(*[adapter.users.create(id="ada", email="first@example.org") for adapter in adapters])
        await core.restart()
        await core.restart()
        await asyncio.gather(
            *[adapter.users.update("ada", **{field: value}) for field, value in written for adapter in adapters]
        )
        for adapter in adapters:
            changes = await adapter.users.history("ada")
            assert_nothing_lost(await adapter.users.get("ada"), changes[1:], written)


async def test_concurrent_sign_ups_with_the_same_values_in_two_tenants(version: str, tmp_path: Path) -> None:
    async with running(version, data=tmp_path) as core, two_adapters(core) as adapters:
        for number in range(10):
            name = f"user-{number}"
            users = await asyncio.gather(
                *[adapter.users.create(id=name, email=f"{name}@example.org", username=name) for adapter in adapters]
            )
            assert [await adapter.users.get_by_email(f"{name}@EXAMPLE.org") for adapter in adapters] == users
