"""Numbers in the metadata of a user, which Core parses and formats again."""

from __future__ import annotations

import math
from random import Random

import pytest

from tests.cores.conftest import at
from tests.support.cores import running

pytestmark = pytest.mark.core

COUNT = 1000


async def stored(version: str, numbers: list[float]) -> list[float]:
    async with running(version) as core, at(core) as adapter:
        await adapter.users.create(id="ada", metadata={"numbers": numbers})
        user = await adapter.users.get("ada")
        assert user is not None
        assert user.metadata is not None
        found: list[float] = user.metadata["numbers"]
        return found


async def test_integers_and_numbers_of_up_to_15_digits_are_unchanged(version: str) -> None:
    random = Random(15)
    numbers = [float(f"{random.uniform(-1, 1):.14e}") for _ in range(COUNT)]
    numbers += [random.randrange(-(2**63), 2**64) for _ in range(COUNT)]
    numbers += [round(random.uniform(0, 1_000_000_000), 2) for _ in range(COUNT)]
    found = await stored(version, numbers)
    assert found == numbers
    assert list(map(type, found)) == list(map(type, numbers))


async def test_last_bit_of_longer_numbers_may_change(version: str) -> None:
    random = Random(17)
    numbers = [random.uniform(-1, 1) for _ in range(COUNT)]
    found = await stored(version, numbers)
    assert found != numbers
    assert all(abs(new - old) <= math.ulp(old) for old, new in zip(numbers, found, strict=True))
