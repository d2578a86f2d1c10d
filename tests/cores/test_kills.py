"""Durable Cores that are killed in the middle of what takes many events: a deletion with its cascade, a transaction.

In some rounds whoever was at it goes on as soon as the server is back; in the others it dies with the server. The rounds have
one server, which has been killed so often before, and tenants of their own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, AllsourceStore, User
from tests.cores.conftest import at
from tests.cores.fatal import FatalStore
from tests.support.cores import Core, running
from tests.support.exploring import size
from tests.support.families import children, living
from tests.support.ownership import assert_sound
from tests.support.samples import SAMPLES, Sample
from tests.support.sign_ups import sign_up, signed_up
from tests.support.wrappers import PatientStore

pytestmark = pytest.mark.core

ROUNDS = size(4, 50)

OF_A_KIND = 9
"""So many of each kind that a user can have several of, and a second factor: 55 children."""

AT_ONCE = 16


def tenant(number: int) -> str:
    return f"round-{number}"


def doomed(core: Core, number: int, drawn: Random, *, appends: int, dies: bool) -> FatalStore:
    store = AllsourceStore(core.url, api_key=core.api_key, tenant_id=tenant(number))
    return FatalStore(store, core, drawn, appends=appends, dies=dies)


def patient(core: Core, number: int) -> AllsourceAuthAdapter:
    """An adapter to which everything is old."""
    store = AllsourceStore(core.url, api_key=core.api_key, tenant_id=tenant(number))
    return AllsourceAuthAdapter.with_store(PatientStore(store))


async def everything(adapter: AllsourceAuthAdapter) -> list[Any]:
    return [entity for sample in SAMPLES async for entity in sample.of(adapter).scan()]


async def two_families(adapter: AllsourceAuthAdapter) -> tuple[list[Any], list[tuple[Sample, Any]]]:
    """Somebody who stays, with everything; and Ada's children. Returns what stays, and the children."""
    await adapter.users.create(id="bob", email="bob@example.org", username="bob")
    await children(adapter, "bob", count=1)
    for sample in SAMPLES:
        if sample.name in ("verification", "org"):
            await sample.create(adapter)
    stays = await everything(adapter)
    await adapter.users.create(id="ada", email="ada@example.org", username="ada")
    return stays, await children(adapter, "ada", count=OF_A_KIND)


async def killed_deletion(core: Core, number: int) -> list[Any]:
    """Kill Core while Ada is deleted, and see to the end of it. Returns what has to stay."""
    drawn = Random(number)
    async with at(core, tenant_id=tenant(number)) as adapter:
        stays, made = await two_families(adapter)
    store = doomed(core, number, drawn, appends=1 + len(made), dies=number % 2 == 0)
    is_done = False
    async with AllsourceAuthAdapter.with_store(store) as dying:
        try:
            await dying.users.delete("ada")
            is_done = True
        except AllsourceAuthError:
            pass
        await store.restarted()
    async with at(core, tenant_id=tenant(number)) as adapter:
        kinds = [sample.name for sample, _ in made]
        if await adapter.users.exists("ada"):
            assert not is_done
            assert await living(adapter, made) == kinds
            await adapter.users.delete("ada")
        elif is_done:
            assert await living(adapter, made) == []
        elif drawn.random() < 0.5:
            await adapter.users.delete("ada")
        else:
            await adapter.check(repair=True)
        assert await living(adapter, made) == []
        assert await everything(adapter) == stays
        assert (await adapter.check(repair=True)).remaining == ()
        assert (await adapter.check()).findings == ()
        await adapter.users.create(email="ada@example.org", username="ada", id="ada")
        assert await living(adapter, made) == []
        await adapter.users.delete("ada")
    return stays


async def test_a_deletion_in_which_core_is_killed_takes_all_of_the_user_and_nothing_of_others(
    version: str, tmp_path: Path
) -> None:
    async with running(version, data=tmp_path) as core:
        stays = [await killed_deletion(core, number) for number in range(ROUNDS)]
        for number in range(ROUNDS):
            async with at(core, tenant_id=tenant(number)) as adapter:
                assert await everything(adapter) == stays[number]
                await assert_sound(adapter)


async def killed_sign_ups(core: Core, number: int) -> dict[str | None, User]:
    """Kill Core while several sign up, each as a transaction, and see to the end of it. Returns who has signed up."""
    store = doomed(core, number, Random(number), appends=AT_ONCE, dies=number % 4 > 0)
    names = [f"user-{number}" for number in range(AT_ONCE)]
    async with AllsourceAuthAdapter.with_store(store) as dying:

        async def run(name: str) -> None:
            async with dying.transaction() as tx:
                await sign_up(tx, name, f"{name}@example.org")

        await dying.users.get("nobody")
        ends = dict(zip(names, await asyncio.gather(*map(run, names), return_exceptions=True), strict=True))
        await store.restarted()
    async with patient(core, number) as adapter:
        assert (await adapter.check(repair=True)).remaining == ()
        assert (await adapter.check()).findings == ()
        there = await signed_up(adapter)
        for name, end in ends.items():
            if end is None:
                assert name in there
            else:
                assert isinstance(end, AllsourceAuthError)
                if not (end.ambiguous or store.is_dead):
                    assert name not in there
        for name in names:
            if name not in there:
                async with adapter.transaction() as tx:
                    await sign_up(tx, name, f"{name}@example.org")
        return await signed_up(adapter)


async def test_a_transaction_in_which_core_is_killed_happens_whole_or_not_at_all(version: str, tmp_path: Path) -> None:
    async with running(version, data=tmp_path) as core:
        there = [await killed_sign_ups(core, number) for number in range(ROUNDS)]
        for number in range(ROUNDS):
            assert len(there[number]) == AT_ONCE
            async with at(core, tenant_id=tenant(number)) as adapter:
                assert await signed_up(adapter) == there[number]
