"""Concurrent callers: each row is consumed once, each increment is counted, each unique value has one owner."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from better_auth.adapters.base import Where

from allsource_auth import AllsourceAuthAdapter, EventStore, Latest, SqliteLog, SqliteStore
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, UniqueViolation
from tests.integrations.better_auth.conftest import SCHEMA
from tests.support.wrappers import WrappedStore

pytestmark = pytest.mark.integrations

SOON = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(params=["one adapter", "two adapters on one file"])
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    number = 1 if request.param == "one adapter" else 2
    stores = [AllsourceAuthAdapter.embedded(tmp_path / "auth.db") for _ in range(number)]
    found = [AllsourceDatabaseAdapter(store) for store in stores]
    for database in found:
        database.init(SCHEMA)
    yield found * (200 // number)
    for store in stores:
        await store.aclose()


async def test_one_of_200_callers_consumes_a_row(databases: list[AllsourceDatabaseAdapter]) -> None:
    for model, given in (
        ("verification", {"id": "v", "identifier": "i", "value": "x", "expiresAt": SOON}),
        ("deviceCode", {"id": "v", "deviceCode": "d", "userCode": "u", "expiresAt": SOON, "status": "approved"}),
    ):
        await databases[0].create(model, given)
        where = (
            [Where("id", "v")] if model == "verification" else [Where("deviceCode", "d"), Where("status", "approved")]
        )
        taken = await asyncio.gather(*(each.consume_one(model, where) for each in databases))
        assert [row["id"] for row in taken if row is not None] == ["v"]
        assert await databases[0].count(model) == 0


async def test_each_of_several_rows_is_consumed_once(databases: list[AllsourceDatabaseAdapter]) -> None:
    for number in range(20):
        await databases[0].create(
            "verification", {"id": str(number), "identifier": "i", "value": "x", "expiresAt": SOON}
        )
    taken = await asyncio.gather(
        *(each.consume_one("verification", [Where("identifier", "i")]) for each in databases[:50])
    )
    assert Counter(row["id"] for row in taken if row is not None) == Counter(map(str, range(20)))


async def test_100_concurrent_increments_are_counted(databases: list[AllsourceDatabaseAdapter]) -> None:
    await databases[0].create("rateLimit", {"key": "k", "count": 0})
    where = [Where("key", "k"), Where("count", 70, "lt")]
    rows = await asyncio.gather(*(each.increment_one("rateLimit", where, {"count": 1}) for each in databases[50:150]))
    assert sorted(row["count"] for row in rows if row is not None) == list(range(1, 71))
    assert (await databases[0].find_one("rateLimit", [Where("key", "k")]) or {})["count"] == 70


async def test_one_of_200_creates_gets_the_email(databases: list[AllsourceDatabaseAdapter]) -> None:
    async def sign_up(number: int) -> str:
        try:
            row = await databases[number].create(
                "user", {"name": "n", "email": "Ada@example.org" if number % 2 else "ada@example.org"}
            )
        except UniqueViolation as refused:
            return refused.code
        return str(row["id"])

    outcomes = Counter(await asyncio.gather(*map(sign_up, range(200))))
    assert outcomes.pop("USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL") == 199
    (winner,) = outcomes
    assert [row["id"] for row in await databases[0].find_many("user")] == [winner]


async def test_one_of_200_conditional_updates_applies(databases: list[AllsourceDatabaseAdapter]) -> None:
    await databases[0].create(
        "deviceCode", {"id": "d", "deviceCode": "d", "userCode": "u", "expiresAt": SOON, "status": "pending"}
    )
    where = [Where("id", "d"), Where("status", "pending")]
    counts = await asyncio.gather(
        *(each.update_many("deviceCode", where, {"status": "approved"}) for each in databases)
    )
    assert Counter(counts) == {1: 1, 0: 199}


async def test_updates_of_different_fields_all_survive(databases: list[AllsourceDatabaseAdapter]) -> None:
    await databases[0].create("user", {"id": "u", "name": "n", "email": "a@b.c"})
    fields = ("name", "image", "role", "banReason", "username", "displayUsername", "phoneNumber")
    changes = [({field: f"new {field}"}, databases[number]) for number, field in enumerate(fields)]
    await asyncio.gather(*(database.update("user", [Where("id", "u")], change) for change, database in changes))
    row = await databases[0].find_one("user", [Where("id", "u")])
    assert row is not None
    assert {field: row[field] for field in fields} == {field: f"new {field}" for field in fields}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("verification", {"id": "v", "identifier": "i", "value": "x", "expiresAt": SOON}),
        ("deviceCode", {"id": "v", "deviceCode": "d", "userCode": "u", "expiresAt": SOON, "status": "approved"}),
    ],
)
async def test_one_of_several_transactions_consumes_a_row(
    databases: list[AllsourceDatabaseAdapter], model: str, given: dict[str, Any]
) -> None:
    await databases[0].create(model, given)

    async def use(database: AllsourceDatabaseAdapter) -> bool:
        async def step(inside: Any) -> bool:
            if await inside.consume_one(model, [Where("id", "v")]) is None:
                return False
            await inside.delete_many(model, [Where("id", "v")])
            await inside.create("jwks", {"publicKey": "p", "privateKey": "s", "createdAt": SOON})
            return True

        done: bool = await database.transaction(step)
        return done

    outcomes = await asyncio.gather(*map(use, databases[75:125]))
    assert sum(outcomes) == 1
    assert await databases[0].count("jwks") == 1


async def test_caller_that_is_kept_waiting_is_refused_as_well(tmp_path: Path) -> None:
    """The framework hashes passwords on the event loop, so minutes may pass between two steps of a mutation."""
    async with AllsourceAuthAdapter.embedded(tmp_path / "auth.db") as store:
        database = AllsourceDatabaseAdapter(store)
        database.init(SCHEMA)
        minutes = itertools.count(step=60.0)
        store.context.mutations.now = lambda: next(minutes)
        given = {"name": "n", "email": "ada@example.org"}
        outcomes = await asyncio.gather(*(database.create("user", given) for _ in range(20)), return_exceptions=True)
        assert Counter(type(outcome) for outcome in outcomes) == {dict: 1, UniqueViolation: 19}
        rows = await asyncio.gather(
            *(database.increment_one("rateLimit", [Where("key", "k")], {"count": 1}) for _ in range(3))
        )
        assert rows == [None, None, None]


class Behind(WrappedStore):
    """Simulates a stopped replica: plain reads repeat their first result; reads with ``require_leader`` are current."""

    def __init__(self, store: EventStore) -> None:
        super().__init__(store)
        self._seen: dict[str, Latest] = {}

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        found = await super().latest(stream, require_leader=require_leader)
        return found if require_leader else self._seen.setdefault(stream, found)


async def test_stopped_replica_does_not_block_callers(tmp_path: Path) -> None:
    """The replica returns consumed rows repeatedly, so each row is tried only once."""
    path = tmp_path / "auth.db"
    behind = AllsourceAuthAdapter.with_store(Behind(SqliteStore(SqliteLog(path))))
    async with AllsourceAuthAdapter.embedded(path) as ahead, behind:
        one, other = AllsourceDatabaseAdapter(ahead), AllsourceDatabaseAdapter(behind)
        one.init(SCHEMA)
        other.init(SCHEMA)
        await one.create("verification", {"id": "v", "identifier": "i", "value": "x", "expiresAt": SOON})
        await one.create("rateLimit", {"id": "r", "key": "k", "count": 1, "lastRequest": 0})
        token, counter = [Where("id", "v")], [Where("id", "r"), Where("count", 2, "lt")]
        assert await other.find_one("verification", token) is not None
        assert await other.find_one("rateLimit", counter) is not None
        assert await one.consume_one("verification", token) is not None
        assert await one.increment_one("rateLimit", counter, {"count": 1}) is not None
        async with asyncio.timeout(20):
            assert await other.consume_one("verification", token) is None
            assert await other.increment_one("rateLimit", counter, {"count": 1}) is None
