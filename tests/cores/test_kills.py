"""Cores with a data directory that are killed during a deletion with its cascade, or a transaction.

In some rounds the client continues after the restart; in the others it crashes together with the server. All rounds use one
server, each with its own tenant.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, AllsourceStore, User
from tests.cores.conftest import at
from tests.cores.fatal_store import FatalStore
from tests.support.cores import Core, running
from tests.support.exploring import size
from tests.support.families import children, living
from tests.support.ownership import assert_sound
from tests.support.samples import SAMPLES, Sample
from tests.support.sign_ups import sign_up, signed_up
from tests.support.wrappers import PatientStore

pytestmark = pytest.mark.core

ROUNDS = size(4, 50)

PER_KIND = 9
"""Entities of each kind of which a user can have several; with the second factor 55 children."""

CONCURRENT = 16


def tenant(number: int) -> str:
    return f"round-{number}"


def fatal_store(core: Core, number: int, random: Random, *, appends: int, dies: bool) -> FatalStore:
    store = AllsourceStore(core.url, api_key=core.api_key, tenant_id=tenant(number))
    return FatalStore(store, core, random, appends=appends, dies=dies)


def patient_adapter(core: Core, number: int) -> AllsourceAuthAdapter:
    """An adapter for which every grace period is over."""
    store = AllsourceStore(core.url, api_key=core.api_key, tenant_id=tenant(number))
    return AllsourceAuthAdapter.with_store(PatientStore(store))


async def all_entities(adapter: AllsourceAuthAdapter) -> list[Any]:
    return [entity for sample in SAMPLES async for entity in sample.of(adapter).scan()]


async def create_two_families(adapter: AllsourceAuthAdapter) -> tuple[list[Any], list[tuple[Sample, Any]]]:
    """Create Bob with an entity of each kind, and Ada with children. Returns all entities without Ada's, and her children."""
    await adapter.users.create(id="bob", email="bob@example.org", username="bob")
    await children(adapter, "bob", count=1)
    for sample in SAMPLES:
        if sample.name in ("verification", "org"):
            await sample.create(adapter)
    remaining = await all_entities(adapter)
    await adapter.users.create(id="ada", email="ada@example.org", username="ada")
    return remaining, await children(adapter, "ada", count=PER_KIND)


async def killed_deletion(core: Core, number: int) -> list[Any]:
    """Kill Core while Ada is deleted, then complete the deletion. Returns the entities that must remain."""
    random = Random(number)
    async with at(core, tenant_id=tenant(number)) as adapter:
        remaining, made = await create_two_families(adapter)
    store = fatal_store(core, number, random, appends=1 + len(made), dies=number % 2 == 0)
    acknowledged = False
    async with AllsourceAuthAdapter.with_store(store) as client:
        try:
            await client.users.delete("ada")
            acknowledged = True
        except AllsourceAuthError:
            pass
        await store.restarted()
    async with at(core, tenant_id=tenant(number)) as adapter:
        kinds = [sample.name for sample, _ in made]
        if await adapter.users.exists("ada"):
            assert not acknowledged
            assert await living(adapter, made) == kinds
            await adapter.users.delete("ada")
        elif acknowledged:
            assert await living(adapter, made) == []
        elif random.random() < 0.5:
            await adapter.users.delete("ada")
        else:
            await adapter.check(repair=True)
        assert await living(adapter, made) == []
        assert await all_entities(adapter) == remaining
        assert (await adapter.check(repair=True)).remaining == ()
        assert (await adapter.check()).findings == ()
        await adapter.users.create(email="ada@example.org", username="ada", id="ada")
        assert await living(adapter, made) == []
        await adapter.users.delete("ada")
    return remaining


async def test_deletion_during_a_kill_of_core_is_complete_and_spares_other_users(version: str, tmp_path: Path) -> None:
    async with running(version, data=tmp_path) as core:
        remaining = [await killed_deletion(core, number) for number in range(ROUNDS)]
        for number in range(ROUNDS):
            async with at(core, tenant_id=tenant(number)) as adapter:
                assert await all_entities(adapter) == remaining[number]
                await assert_sound(adapter)


async def killed_sign_ups(core: Core, number: int) -> dict[str | None, User]:
    """Kill Core during concurrent sign-ups as transactions, then repair and complete them. Returns all users."""
    store = fatal_store(core, number, Random(number), appends=CONCURRENT, dies=number % 4 > 0)
    names = [f"user-{number}" for number in range(CONCURRENT)]
    async with AllsourceAuthAdapter.with_store(store) as client:

        async def run(name: str) -> None:
            async with client.transaction() as tx:
                await sign_up(tx, name, f"{name}@example.org")

        await client.users.get("nobody")
        ends = dict(zip(names, await asyncio.gather(*map(run, names), return_exceptions=True), strict=True))
        await store.restarted()
    async with patient_adapter(core, number) as adapter:
        assert (await adapter.check(repair=True)).remaining == ()
        assert (await adapter.check()).findings == ()
        users = await signed_up(adapter)
        for name, end in ends.items():
            if end is None:
                assert name in users
            else:
                assert isinstance(end, AllsourceAuthError)
                if not (end.ambiguous or store.has_crashed):
                    assert name not in users
        for name in names:
            if name not in users:
                async with adapter.transaction() as tx:
                    await sign_up(tx, name, f"{name}@example.org")
        return await signed_up(adapter)


async def test_transaction_during_a_kill_of_core_is_atomic(version: str, tmp_path: Path) -> None:
    async with running(version, data=tmp_path) as core:
        signed = [await killed_sign_ups(core, number) for number in range(ROUNDS)]
        for number in range(ROUNDS):
            assert len(signed[number]) == CONCURRENT
            async with at(core, tenant_id=tenant(number)) as adapter:
                assert await signed_up(adapter) == signed[number]
