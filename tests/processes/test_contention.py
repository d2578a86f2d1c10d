"""Two processes that compete for the same values and entities."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, SqliteLog, SqliteStore
from tests.processes.child import open_adapter, rival
from tests.processes.conftest import Child, StartChild
from tests.support.cores import NEWEST, OLDEST, running
from tests.support.local import local_allsource
from tests.support.ownership import assert_sound
from tests.support.sign_ups import signed_up
from tests.support.updates import assert_nothing_lost, writes
from tests.support.wrappers import PatientStore

EMAIL = "wanted.by.everybody@example.org"

HARMLESS = {"orphan_claim"}
"""Findings that rejected transactions may leave: readers recognise them, and they do not block other writers."""


@pytest.fixture(
    params=[
        "file",
        pytest.param("local", marks=pytest.mark.heavy),
        *[pytest.param(version, marks=pytest.mark.core) for version in (OLDEST, NEWEST)],
    ]
)
async def location(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[str]:
    """A file, a local Allsource, or a Core of either version with a data directory."""
    if request.param == "file":
        yield str(path)
    elif request.param == "local":
        async with local_allsource() as server:
            yield server.core_url
    else:
        async with running(request.param, data=path.with_name("core")) as core:
            yield core.url


async def results(children: Sequence[Child]) -> list[dict[str, Any]]:
    """The results of the processes, which start their tasks when all are ready."""
    for child in children:
        await child.ready()
    for child in children:
        child.go()
    return [await child.result() for child in children]


def patient_adapter(location: str) -> AllsourceAuthAdapter:
    """An adapter for which every grace period is over."""
    store = AllsourceStore(location) if location.startswith("http") else SqliteStore(SqliteLog(Path(location)))
    return AllsourceAuthAdapter.with_store(PatientStore(store))


@pytest.mark.parametrize("processes", [1, 2])
async def test_one_of_many_sign_ups_wins(start: StartChild, location: str, processes: int) -> None:
    each = 200 // processes
    children = [await start("sign-ups", EMAIL, first, each) for first in range(0, 200, each)]
    counts = Counter[str]()
    for result in await results(children):
        counts.update(result)
    assert counts == {"User": 1, "Conflict": 199}
    async with open_adapter(location) as adapter:
        page = await adapter.users.list()
        assert page.total == 1
        assert await adapter.users.get_by_email(EMAIL) == page.items[0]
        await assert_sound(adapter)


async def test_no_update_from_two_processes_is_lost(start: StartChild, location: str) -> None:
    async with open_adapter(location) as adapter:
        await adapter.users.create(id="u", email="first@example.org", username="first")
    children = [await start("updates", "u", first, 2, 100) for first in (0, 1)]
    await results(children)
    async with open_adapter(location) as adapter:
        changes = await adapter.users.history("u")
        assert_nothing_lost(await adapter.users.get("u"), changes[1:], writes(100))
        assert await adapter.users.get_by_email("first@example.org") is None
        await assert_sound(adapter)


@pytest.mark.parametrize("wanted", ["email", "username"])
async def test_one_of_many_transactions_wins_and_others_have_no_effect(
    start: StartChild, location: str, wanted: str
) -> None:
    """The username or email that a rejected transaction had claimed is free after the grace period."""
    winners = []
    for result in await results([await start("transactions", wanted, first, 100) for first in (0, 100)]):
        winners += result["winners"]
    [winner] = winners
    losers = [rival(wanted, number) for number in range(200) if number != winner]
    async with open_adapter(location) as adapter:
        [user] = (await signed_up(adapter)).values()
        assert (user.username, user.email) == rival(wanted, winner)
    async with patient_adapter(location) as adapter:
        assert set((await adapter.check()).counts) <= HARMLESS
        if wanted == "email":
            await asyncio.gather(*[adapter.users.create(username=username) for username, _ in losers])
        else:
            await asyncio.gather(*[adapter.users.create(email=email) for _, email in losers])
        assert (await adapter.check(repair=True)).remaining == ()
        assert (await adapter.check()).findings == ()
        assert (await adapter.users.list()).total == 200
        await assert_sound(adapter)


async def test_token_is_consumed_once(start: StartChild, location: str) -> None:
    """Several tokens, because each race is over after its first call."""
    end = datetime.now(UTC) + timedelta(days=1)
    tokens = [f"token-{number}" for number in range(5)]
    async with open_adapter(location) as adapter:
        wanted = [
            await adapter.verifications.create(identifier="ada", value=token, expires_at=end)
            for token in [*tokens, "other"]
        ]
    one, two = await results([await start("consume", "ada", 100, *tokens) for _ in range(2)])
    assert sorted(one["taken"] + two["taken"]) == tokens
    assert one["nothing"] + two["nothing"] == 199 * len(tokens)
    async with open_adapter(location) as adapter:
        assert [found async for found in adapter.verifications.scan()] == wanted[-1:]
        for verification in wanted[:-1]:
            changes = await adapter.verifications.history(verification.id)
            assert [change.event for change in changes] == ["VerificationCreated", "VerificationConsumed"]
        assert (await adapter.check()).findings == ()


async def test_api_key_is_used_up_to_its_limit(start: StartChild, location: str) -> None:
    async with open_adapter(location) as adapter:
        key = await adapter.api_keys.create(user_id="u", key_hash="h", remaining=100)
    one, two = await results([await start("use", "h", 250) for _ in range(2)])
    assert sorted(one.pop("left") + two.pop("left")) == list(range(100))
    assert Counter(one) + Counter(two) == {"usage_exceeded": 400}
    async with open_adapter(location) as adapter:
        used = await adapter.api_keys.get(key.id)
        assert used is not None
        assert used.remaining == 0
        assert len(await adapter.api_keys.history(key.id)) == 101
        assert (await adapter.check()).findings == ()


async def test_first_processes_of_a_store_do_not_conflict(start: StartChild, location: str) -> None:
    """On an empty location both processes create the file, if it is one, and both write the first settings."""
    children = [await start("sign-ups", f"{name}.of.this.process@example.org", 0, 20) for name in ("one", "two")]
    for child in children:
        child.go()
        await child.ready()
    assert [await child.result() for child in children] == [{"User": 1, "Conflict": 19}] * 2
    async with open_adapter(location) as adapter:
        assert (await adapter.users.list()).total == 2
        await assert_sound(adapter)
