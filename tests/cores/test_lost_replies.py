"""Real Cores behind a proxy that loses replies: each mutation must have exactly one effect and succeed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Event
from tests.cores.conftest import at
from tests.cores.expected_state import ExpectedState
from tests.support.clocks import START
from tests.support.cores import Core, running
from tests.support.events import metadata, whole_log
from tests.support.exploring import size
from tests.support.proxy import FaultProxy
from tests.support.sign_ups import sign_up, signed_up

pytestmark = pytest.mark.core

USERS = size(8, 20)
LOSSES = size(40, 400)
LATER = START + timedelta(days=7)

EVENTS_OF_ONE_USER = {
    "auth.user.created": 1,
    "auth.user.updated": 3,  # two changes and the restoration
    "auth.user.deleted": 1,
    "auth.session.created": 2,
    "auth.session.expiry_updated": 1,
    "auth.session.updated": 1,
    "auth.session.deleted": 2,  # one alone and one with its user
    "auth.index.claimed": 5,  # email and username, another email, both again after the restoration
    "auth.index.released": 3,
    "auth.index.added": 2,
    "auth.index.removed": 2,
}

TRANSACTIONS = size(16, 100)

EVENTS_OF_TWO_TRANSACTIONS = {
    "auth.user.created": 1,
    "auth.user.updated": 1,
    "auth.account.created": 1,
    "auth.account.updated": 1,
    "auth.session.created": 2,
    "auth.session.deleted": 1,
    "auth.index.claimed": 4,  # email, username and account, another email
    "auth.index.released": 1,
    "auth.index.added": 3,
    "auth.index.removed": 1,
}


async def run_mutations(
    expected: ExpectedState, adapter: AllsourceAuthAdapter, proxy: FaultProxy, name: str, losses: int
) -> None:
    """Run ten mutations of one user. Before each, ``losses`` lost replies to appends are armed."""
    user = await expected.record(adapter.users.create(email=f"{name}@example.org", username=name))
    token = f"session_of_{name}"
    for mutation in (
        lambda: expected.record(adapter.users.update(user.id, name=name)),
        lambda: expected.record(adapter.users.update(user.id, email=f"{name}.2@example.org")),
        lambda: expected.sign_in(adapter, user.id, LATER),
        lambda: expected.sign_in(adapter, user.id, LATER, token=token),
        lambda: expected.extend(adapter, token, LATER + timedelta(days=1)),
        lambda: expected.record_session(adapter.sessions.set_active_organization(token, "org")),
        lambda: expected.sign_out(adapter, token),
        lambda: expected.delete(adapter, user.id),
        lambda: expected.record(adapter.users.restore(user.id)),
    ):
        proxy.lose_reply(losses)
        await mutation()
    proxy.lose_reply(losses)


def assert_one_effect_each(log: list[Event], expected: Mapping[str, int], times: int) -> None:
    counted = Counter(event.type for event in log)
    assert counted.pop("auth.index.configured") == 1
    counted.pop("auth.index.snapshot", 0)
    assert counted == {type: count * times for type, count in expected.items()}  # noqa: A001
    by_operation = Counter((event.stream, event.type, metadata(event)["op"]) for event in log)
    assert set(by_operation.values()) == {1}


async def test_every_mutation_whose_reply_is_lost_has_one_effect(version: str, tmp_path: Path) -> None:
    expected = ExpectedState()
    async with running(version, data=tmp_path) as core, FaultProxy(core.url) as proxy, at(core, proxy.url) as adapter:
        assert await adapter.users.get("nobody") is None
        proxy.lose_reply(1)
        for number in range(USERS):
            await run_mutations(expected, adapter, proxy, f"user-{number}", 1)
        assert proxy.connections > LOSSES
        async with at(core) as other:
            await expected.assert_stored(other)
        store = AllsourceStore(core.url)
        assert_one_effect_each(await whole_log(store), EVENTS_OF_ONE_USER, USERS)
        await store.close()


async def test_concurrent_mutations_whose_replies_are_lost_have_one_effect(version: str, tmp_path: Path) -> None:
    expected = ExpectedState()
    async with running(version, data=tmp_path) as core, FaultProxy(core.url) as proxy, at(core, proxy.url) as adapter:
        proxy.lose_reply(LOSSES)
        await asyncio.gather(*[run_mutations(expected, adapter, proxy, f"user-{number}", 0) for number in range(USERS)])
        assert len([method for method, _ in proxy.requests if method == "POST"]) >= LOSSES
        async with at(core) as other:
            await expected.assert_stored(other)
        store = AllsourceStore(core.url)
        assert_one_effect_each(await whole_log(store), EVENTS_OF_ONE_USER, USERS)
        await store.close()


async def two_transactions(adapter: AllsourceAuthAdapter, proxy: FaultProxy, name: str, losses: int) -> None:
    """Sign up, then change email, password and session. Before each transaction, ``losses`` lost replies are armed."""
    proxy.lose_reply(losses)
    async with adapter.transaction() as tx:
        user = await sign_up(tx, name, f"{name}@example.org")
    [account] = await adapter.accounts.list_for_user(user.id)
    [session] = await adapter.sessions.list_for_user(user.id)
    proxy.lose_reply(losses)
    async with adapter.transaction() as tx:
        await tx.users.update(user.id, email=f"{name}.2@example.org")
        await tx.accounts.update(account.id, password="$argon2$y")
        await tx.sessions.delete(session.token)
        await tx.sessions.create(user_id=user.id, expires_at=session.expires_at, token=f"session_of_{name}")


async def assert_two_transactions_each(core: Core, names: list[str]) -> None:
    async with at(core) as adapter:
        people = await signed_up(adapter)
        assert set(people) == set(names)
        for name in names:
            user = people[name]
            assert user.email == f"{name}.2@example.org"
            assert [account.password for account in await adapter.accounts.list_for_user(user.id)] == ["$argon2$y"]
            assert [found.token for found in await adapter.sessions.list_for_user(user.id)] == [f"session_of_{name}"]
            assert await adapter.users.get_by_email(f"{name}@example.org") is None
        assert (await adapter.check()).findings == ()
    store = AllsourceStore(core.url)
    assert_one_effect_each(await whole_log(store), EVENTS_OF_TWO_TRANSACTIONS, len(names))
    await store.close()


def appends(proxy: FaultProxy) -> int:
    return [method for method, _ in proxy.requests].count("POST")


async def test_every_transaction_whose_reply_is_lost_has_one_effect(version: str, tmp_path: Path) -> None:
    names = [f"user-{number}" for number in range(TRANSACTIONS // 2)]
    async with running(version, data=tmp_path) as core, FaultProxy(core.url) as proxy, at(core, proxy.url) as adapter:
        assert await adapter.users.get("nobody") is None
        proxy.lose_reply(1)  # of the first settings
        for name in names:
            await two_transactions(adapter, proxy, name, 1)
        assert appends(proxy) == 1 + TRANSACTIONS
        await assert_two_transactions_each(core, names)


async def test_concurrent_transactions_whose_replies_are_lost_have_one_effect(version: str, tmp_path: Path) -> None:
    names = [f"user-{number}" for number in range(TRANSACTIONS // 2)]
    async with running(version, data=tmp_path) as core, FaultProxy(core.url) as proxy, at(core, proxy.url) as adapter:
        await two_transactions(adapter, proxy, "first", 0)
        before = appends(proxy)
        proxy.lose_reply(TRANSACTIONS)
        await asyncio.gather(*[two_transactions(adapter, proxy, name, 0) for name in names])
        assert appends(proxy) == before + TRANSACTIONS
        await assert_two_transactions_each(core, ["first", *names])
