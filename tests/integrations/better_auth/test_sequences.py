"""Random sequences of writes and transactions, compared with the framework's SQLite adapter.

No transaction moves a unique value from one row to another, because the library does not support that.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from better_auth.adapters.base import BaseAdapter, Where
from sqlalchemy.exc import IntegrityError

from allsource_auth import Conflict
from tests.integrations.better_auth.samples import Adapters, adapters

pytestmark = pytest.mark.integrations

REFUSED = "refused"


class GivenUp(Exception):
    """Raised to roll back a transaction."""


async def step(adapter: BaseAdapter, kind: str, number: int, draw: random.Random) -> Any:
    """Perform one write, determined by the state of ``draw``."""
    key, code = str(draw.randrange(8)), draw.choice([None, "c1", "c2", "c3"])
    here = [Where("id", key)]
    if kind == "create":
        row = {
            "id": key,
            "text": f"t{number}",
            "code": code,
            "size": number,
            "ownerId": draw.choice(["u1", "u2", None]),
        }
        return await adapter.create("thing", row)
    if kind == "update":
        return await adapter.update("thing", here, {"code": code, "note": f"n{number}"})
    if kind == "update_many":
        where = [Where("ownerId", draw.choice(["u1", "u2"])), Where("size", draw.randrange(40), "lt")]
        return await adapter.update_many("thing", where, {"note": f"n{number}", "flag": draw.choice([True, None])})
    if kind == "increment":
        return await adapter.increment_one(
            "thing", [*here, Where("size", 30, "lt")], {"size": 3}, {"note": f"i{number}"}
        )
    if kind == "consume":
        return await adapter.consume_one("thing", [*here, Where("code", code)])
    if kind == "delete_many":
        return await adapter.delete_many("thing", [Where("ownerId", "u1"), *here])
    return await adapter.find_many("thing", [Where("code", code), Where("id", key, connector="OR")], sort_by=BY_ID)


BY_ID = {"field": "id", "direction": "asc"}
ALONE = ("create", "create", "create", "update", "update_many", "increment", "consume", "delete_many", "find")
# In a transaction one row may be taken or counted.
INSIDE = ("create", "create", "update", "update_many", "delete_many", "find")


async def outcome(adapter: BaseAdapter, seed: int, number: int) -> Any:
    """Perform a write, or a transaction of several, and return its outcome."""
    draw = random.Random(f"{seed} {number}")
    if draw.random() < 0.7:
        kinds, given_up = [draw.choice(ALONE)], False
    else:
        kinds, given_up = draw.choices(INSIDE, k=draw.randrange(1, 5)), draw.random() < 0.3

    async def all_of_it(inside: BaseAdapter) -> list[Any]:
        found = [await step(inside, kind, number, draw) for kind in kinds]
        if given_up:
            raise GivenUp
        return found

    try:
        return await (all_of_it(adapter) if len(kinds) == 1 and not given_up else adapter.transaction(all_of_it))
    except GivenUp:
        return "given up"
    except (IntegrityError, Conflict):
        return REFUSED


@pytest.mark.parametrize("seed", range(12))
async def test_random_sequences_match_the_sqlite_adapter(seed: int) -> None:
    async with adapters() as three:
        refused = 0
        for number in range(60):
            ours, theirs = await outcome(three.ours, seed, number), await outcome(three.sql, seed, number)
            assert ours == theirs, (seed, number)
            refused += ours == REFUSED
            assert await rows(three, "ours") == await rows(three, "sql"), (seed, number)
        assert refused > 3
        assert not (await three.ours.store.check()).findings


async def rows(three: Adapters, which: str) -> Any:
    return await getattr(three, which).find_many("thing", sort_by=BY_ID, limit=100)
