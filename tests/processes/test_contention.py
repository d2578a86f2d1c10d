"""Two processes that want the same things at the same time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, SqliteLog, SqliteStore
from tests.processes.child import opened, rival
from tests.processes.conftest import Child, StartChild
from tests.support.cores import NEWEST, OLDEST, running
from tests.support.local import local_allsource
from tests.support.ownership import assert_sound
from tests.support.sign_ups import signed_up
from tests.support.updates import assert_nothing_lost, writes
from tests.support.wrappers import PatientStore

EMAIL = "wanted.by.everybody@example.org"

HARMLESS = {"orphan_claim"}
"""What may be found of those who were refused: every reader recognises it, and it is in nobody's way."""


@pytest.fixture(
    params=[
        "file",
        pytest.param("local", marks=pytest.mark.heavy),
        *[pytest.param(version, marks=pytest.mark.core) for version in (OLDEST, NEWEST)],
    ]
)
async def where(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[str]:
    """A file, a local Allsource, or a durable Core of either age."""
    if request.param == "file":
        yield str(path)
    elif request.param == "local":
        async with local_allsource() as server:
            yield server.core_url
    else:
        async with running(request.param, data=path.with_name("core")) as core:
            yield core.url


async def results(children: Sequence[Child]) -> list[dict[str, Any]]:
    """What the children report, who begin once all of them are ready."""
    for child in children:
        await child.ready()
    for child in children:
        child.go()
    return [await child.result() for child in children]


def patient(where: str) -> AllsourceAuthAdapter:
    """An adapter to which every grace period is over."""
    store = AllsourceStore(where) if where.startswith("http") else SqliteStore(SqliteLog(Path(where)))
    return AllsourceAuthAdapter.with_store(PatientStore(store))


@pytest.mark.parametrize("processes", [1, 2])
async def test_one_of_many_sign_ups_wins(start: StartChild, where: str, processes: int) -> None:
    each = 200 // processes
    children = [await start("sign-ups", EMAIL, first, each) for first in range(0, 200, each)]
    counts = Counter[str]()
    for result in await results(children):
        counts.update(result)
    assert counts == {"User": 1, "Conflict": 199}
    async with opened(where) as adapter:
        page = await adapter.users.list()
        assert page.total == 1
        assert await adapter.users.get_by_email(EMAIL) == page.items[0]
        await assert_sound(adapter)


async def test_no_update_from_two_processes_is_lost(start: StartChild, where: str) -> None:
    async with opened(where) as adapter:
        await adapter.users.create(id="u", email="first@example.org", username="first")
    children = [await start("updates", "u", first, 2, 100) for first in (0, 1)]
    await results(children)
    async with opened(where) as adapter:
        changes = await adapter.users.history("u")
        assert_nothing_lost(await adapter.users.get("u"), changes[1:], writes(100))
        assert await adapter.users.get_by_email("first@example.org") is None
        await assert_sound(adapter)


@pytest.mark.parametrize("wanted", ["email", "username"])
async def test_one_of_many_transactions_wins_and_the_others_leave_nothing(
    start: StartChild, where: str, wanted: str
) -> None:
    """What a loser claimed before it was refused, its username or its email, is free after the grace period."""
    winners = []
    for result in await results([await start("transactions", wanted, first, 100) for first in (0, 100)]):
        winners += result["winners"]
    [winner] = winners
    losers = [rival(wanted, number) for number in range(200) if number != winner]
    async with opened(where) as adapter:
        [user] = (await signed_up(adapter)).values()
        assert (user.username, user.email) == rival(wanted, winner)
    async with patient(where) as adapter:
        assert set((await adapter.check()).counts) <= HARMLESS
        if wanted == "email":
            await asyncio.gather(*[adapter.users.create(username=username) for username, _ in losers])
        else:
            await asyncio.gather(*[adapter.users.create(email=email) for _, email in losers])
        assert (await adapter.check(repair=True)).remaining == ()
        assert (await adapter.check()).findings == ()
        assert (await adapter.users.list()).total == 200
        await assert_sound(adapter)


async def test_a_token_is_consumed_once(start: StartChild, where: str) -> None:
    """One race for each of a few tokens, for it is over as soon as somebody has won it."""
    end = datetime.now(UTC) + timedelta(days=1)
    tokens = [f"token-{number}" for number in range(5)]
    async with opened(where) as adapter:
        wanted = [
            await adapter.verifications.create(identifier="ada", value=token, expires_at=end)
            for token in [*tokens, "other"]
        ]
    one, two = await results([await start("consume", "ada", 100, *tokens) for _ in range(2)])
    assert sorted(one["taken"] + two["taken"]) == tokens
    assert one["nothing"] + two["nothing"] == 199 * len(tokens)
    async with opened(where) as adapter:
        assert [found async for found in adapter.verifications.scan()] == wanted[-1:]
        for verification in wanted[:-1]:
            told = await adapter.verifications.history(verification.id)
            assert [change.event for change in told] == ["VerificationCreated", "VerificationConsumed"]
        assert (await adapter.check()).findings == ()


async def test_a_key_is_used_as_often_as_it_may_be(start: StartChild, where: str) -> None:
    async with opened(where) as adapter:
        key = await adapter.api_keys.create(user_id="u", key_hash="h", remaining=100)
    one, two = await results([await start("use", "h", 250) for _ in range(2)])
    assert sorted(one.pop("left") + two.pop("left")) == list(range(100))
    assert Counter(one) + Counter(two) == {"usage_exceeded": 400}
    async with opened(where) as adapter:
        used = await adapter.api_keys.get(key.id)
        assert used is not None
        assert used.remaining == 0
        assert len(await adapter.api_keys.history(key.id)) == 101
        assert (await adapter.check()).findings == ()


async def test_first_processes_agree(start: StartChild, where: str) -> None:
    """Nobody has been there yet: both create the file, if it is one; both write the first settings."""
    children = [await start("sign-ups", f"{name}.of.this.process@example.org", 0, 20) for name in ("one", "two")]
    for child in children:
        child.go()
        await child.ready()
    assert [await child.result() for child in children] == [{"User": 1, "Conflict": 19}] * 2
    async with opened(where) as adapter:
        assert (await adapter.users.list()).total == 2
        await assert_sound(adapter)
