"""Two tenants of one Core with the same ids, emails and tokens.

Core counts the events of a stream id over all tenants (section 6 of the contract); and where one tenant's part of an archived
stream was resolved, 0.27 does not see the versions of the other's (section 3 of the contract of 0.27).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Conflict
from tests.cores.book import Book
from tests.cores.conftest import at
from tests.support.clocks import START
from tests.support.cores import Core, running
from tests.support.events import whole_log
from tests.support.updates import assert_nothing_lost, writes

pytestmark = pytest.mark.core

LATER = START + timedelta(days=7)
TENANTS = ("acme", "globex")


@asynccontextmanager
async def both(core: Core) -> AsyncIterator[list[AllsourceAuthAdapter]]:
    async with AsyncExitStack() as adapters:
        yield [await adapters.enter_async_context(at(core, tenant_id=tenant)) for tenant in TENANTS]


async def the_same_people(books: list[Book], adapters: list[AllsourceAuthAdapter]) -> None:
    for name in ("ada", "bob"):
        for book, adapter in zip(books, adapters, strict=True):
            await book.enter(adapter.users.create(id=name, email=f"{name}@example.org", username=name))
            await book.sign_in(adapter, name, LATER, token=f"session_of_{name}")
            await book.sign_in(adapter, name, LATER)


async def assert_kept(books: list[Book], adapters: list[AllsourceAuthAdapter]) -> None:
    for book, adapter in zip(books, adapters, strict=True):
        await book.assert_kept(adapter)


async def test_nothing_of_one_tenant_shows_in_the_other(version: str, tmp_path: Path) -> None:
    books = [Book(), Book()]
    async with running(version, data=tmp_path) as core, both(core) as adapters:
        await the_same_people(books, adapters)
        one, other = adapters
        await books[0].enter(one.users.update("ada", name="Ada", email="lovelace@example.org"))
        await books[0].enter(one.users.create(id="only", email="only@example.org", username="only"))
        await books[0].sign_in(one, "only", LATER, token="session_only")
        await books[1].delete(other, "bob")
        await assert_kept(books, adapters)
        assert await other.users.get("only") is None
        assert await other.users.get_by_email("only@example.org") is None
        assert await other.users.get_by_username("only") is None
        assert await other.sessions.get("session_only") is None
        assert await other.users.history("only") == []
        assert (await other.users.list(search_value="only")).total == 0
        await books[1].enter(other.users.create(id="only", email="lovelace@example.org", username="only"))
        await books[1].sign_in(other, "only", LATER, token="session_only")
        await assert_kept(books, adapters)
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
async def test_updates_of_one_id_alternate_through_restarts(version: str, fresh: bool, tmp_path: Path) -> None:
    books = [Book(), Book()]
    async with running(version, data=tmp_path) as core, AsyncExitStack() as stack:
        adapters = await stack.enter_async_context(both(core))
        await the_same_people(books, adapters)
        for number in range(12):
            if number % 2:
                await core.restart()
                await core.restart()
                if fresh:
                    adapters = await stack.enter_async_context(both(core))
            turns = list(zip(books, adapters, TENANTS, strict=True))
            for book, adapter, tenant in turns[:: 1 if number % 4 < 2 else -1]:
                await book.enter(adapter.users.update("ada", name=f"{tenant} {number}"))
                await book.enter(adapter.users.update("ada", email=f"{number}@example.org"))
                await book.extend(adapter, "session_of_ada", LATER + timedelta(days=number))
                if number % 3 == 0:
                    await book.delete(adapter, "bob")
                elif number % 3 == 1:
                    await book.enter(adapter.users.restore("bob"))
        await assert_kept(books, adapters)


async def test_concurrent_updates_of_one_id_are_not_lost_in_either_tenant(version: str, tmp_path: Path) -> None:
    written = writes(48)
    async with running(version, data=tmp_path) as core, both(core) as adapters:
        await asyncio.gather(*[adapter.users.create(id="ada", email="first@example.org") for adapter in adapters])
        await core.restart()
        await core.restart()
        await asyncio.gather(
            *[adapter.users.update("ada", **{field: value}) for field, value in written for adapter in adapters]
        )
        for adapter in adapters:
            changes = await adapter.users.history("ada")
            assert_nothing_lost(await adapter.users.get("ada"), changes[1:], written)


async def test_both_sign_up_at_once_with_the_same_values(version: str, tmp_path: Path) -> None:
    async with running(version, data=tmp_path) as core, both(core) as adapters:
        for number in range(10):
            name = f"user-{number}"
            users = await asyncio.gather(
                *[adapter.users.create(id=name, email=f"{name}@example.org", username=name) for adapter in adapters]
            )
            assert [await adapter.users.get_by_email(f"{name}@EXAMPLE.org") for adapter in adapters] == users
