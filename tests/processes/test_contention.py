"""Two processes that want the same things at the same time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processes.child import opened
from tests.processes.conftest import StartChild
from tests.support.cores import NEWEST, OLDEST, running
from tests.support.ownership import assert_sound
from tests.support.updates import assert_nothing_lost, writes

EMAIL = "wanted.by.everybody@example.org"


@pytest.fixture(params=["file", *[pytest.param(version, marks=pytest.mark.core) for version in (OLDEST, NEWEST)]])
async def where(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[str]:
    """A file, or a durable Core of either age."""
    if request.param == "file":
        yield str(path)
    else:
        async with running(request.param, data=path.with_name("core")) as core:
            yield core.url


@pytest.mark.parametrize("processes", [1, 2])
async def test_one_of_many_sign_ups_wins(start: StartChild, where: str, processes: int) -> None:
    each = 200 // processes
    children = [await start("sign-ups", EMAIL, first, each) for first in range(0, 200, each)]
    for child in children:
        await child.ready()
    for child in children:
        child.go()
    counts = Counter[str]()
    for child in children:
        counts.update(await child.result())
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
    for child in children:
        await child.ready()
    for child in children:
        child.go()
    await asyncio.gather(*[child.result() for child in children])
    async with opened(where) as adapter:
        changes = await adapter.users.history("u")
        assert_nothing_lost(await adapter.users.get("u"), changes[1:], writes(100))
        assert await adapter.users.get_by_email("first@example.org") is None
        await assert_sound(adapter)


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
