"""Two processes that want the same things at the same time."""

import asyncio
from collections import Counter
from pathlib import Path

from allsource_auth import AllsourceAuthAdapter
from tests.processes.conftest import StartChild
from tests.support.ownership import assert_sound
from tests.support.updates import assert_nothing_lost, writes

EMAIL = "wanted.by.everybody@example.org"


async def test_one_of_many_sign_ups_from_two_processes_wins(start: StartChild, path: Path) -> None:
    children = [await start("sign-ups", EMAIL, first, 100) for first in (0, 100)]
    for child in children:
        await child.ready()
    for child in children:
        child.go()
    counts = Counter[str]()
    for child in children:
        counts.update(await child.result())
    assert counts == {"User": 1, "Conflict": 199}
    async with AllsourceAuthAdapter.embedded(path) as adapter:
        page = await adapter.users.list()
        assert page.total == 1
        assert await adapter.users.get_by_email(EMAIL) == page.items[0]
        await assert_sound(adapter)


async def test_no_update_from_two_processes_is_lost(start: StartChild, path: Path) -> None:
    async with AllsourceAuthAdapter.embedded(path) as adapter:
        await adapter.users.create(id="u", email="first@example.org", username="first")
    children = [await start("updates", "u", first, 2, 100) for first in (0, 1)]
    for child in children:
        await child.ready()
    for child in children:
        child.go()
    await asyncio.gather(*[child.result() for child in children])
    async with AllsourceAuthAdapter.embedded(path) as adapter:
        changes = await adapter.users.history("u")
        assert_nothing_lost(await adapter.users.get("u"), changes[1:], writes(100))
        assert await adapter.users.get_by_email("first@example.org") is None
        await assert_sound(adapter)


async def test_processes_that_make_the_file_together_agree(start: StartChild, path: Path) -> None:
    """Nobody has opened the file yet: both create it, both write the first settings."""
    children = [await start("sign-ups", f"{name}.of.this.process@example.org", 0, 20) for name in ("one", "two")]
    for child in children:
        child.go()
        await child.ready()
    assert [await child.result() for child in children] == [{"User": 1, "Conflict": 19}] * 2
    async with AllsourceAuthAdapter.embedded(path) as adapter:
        assert (await adapter.users.list()).total == 2
        await assert_sound(adapter)
