"""Reads of the store per query of the framework, independent of its size, and the warning about full scans."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from better_auth.adapters.base import Where
from better_auth.schema import CORE_SCHEMA, Field, Reference

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from tests.integrations.better_auth.conftest import SCHEMA
from tests.support.wrappers import CountingStore

pytestmark = pytest.mark.integrations

NOW = datetime.now(UTC)
SOON = NOW + timedelta(days=1)


@pytest.fixture
async def filled(database: AllsourceDatabaseAdapter, counted: CountingStore) -> AllsourceDatabaseAdapter:
    """Thirty rows of each model, with distinct values."""
    for number in range(30):
        n = str(number)
        await database.create("user", {"id": n, "name": n, "email": f"{n}@e.org", "username": n, "phoneNumber": n})
        await database.create("session", {"id": n, "token": f"token-{n}", "userId": n, "expiresAt": SOON})
        await database.create("account", {"id": n, "accountId": n, "providerId": "p", "userId": n})
        await database.create("verification", {"id": n, "identifier": n, "value": n, "expiresAt": SOON})
        await database.create("organization", {"id": n, "name": n, "slug": n, "createdAt": NOW})
        for user in (number, number + 100):
            member = {"userId": str(user), "organizationId": n, "createdAt": NOW + timedelta(seconds=user)}
            await database.create("member", member)
        await database.create("apikey", {"id": n, "key": n, "referenceId": n, "createdAt": NOW, "updatedAt": NOW})
        await database.create("rateLimit", {"id": n, "key": n, "count": 0})
        await database.create("deviceCode", {"deviceCode": n, "userCode": n, "expiresAt": SOON, "status": "pending"})
    counted.forget()
    return database


NEWEST = {"sort_by": {"field": "createdAt", "direction": "desc"}, "limit": 1}

LOOK_UPS: list[tuple[int, str, list[Where], dict[str, Any]]] = [
    (1, "user", [Where("id", "7")], {}),
    (2, "user", [Where("email", "7@e.org")], {}),
    (2, "user", [Where("email", "7@E.ORG", mode="insensitive")], {}),
    (2, "user", [Where("username", "7")], {}),
    (2, "user", [Where("phoneNumber", "7")], {}),
    (3, "user", [Where("id", ["7", "8", "9"], "in")], {}),
    (3, "user", [Where("id", "7"), Where("email", "7@e.org", connector="OR")], {}),
    (1, "session", [Where("token", "token-7")], {}),
    (2, "session", [Where("id", "7")], {}),
    (2, "session", [Where("userId", "7")], {}),
    (2, "session", [Where("userId", "7"), Where("expiresAt", NOW, "gt")], {}),
    (2, "account", [Where("providerId", "p"), Where("accountId", "7")], {}),
    (2, "account", [Where("userId", "7")], {}),
    (2, "account", [Where("userId", "7"), Where("providerId", "p")], {}),
    (2, "verification", [Where("identifier", "7")], NEWEST),
    (2, "verification", [Where("value", "7")], {}),
    (2, "member", [Where("organizationId", "7"), Where("userId", "7")], {}),
    (2, "member", [Where("userId", "7"), Where("organizationId", "7")], {}),
    (3, "member", [Where("organizationId", "7")], {}),
    (2, "organization", [Where("slug", "7")], {}),
    (2, "apikey", [Where("key", "7")], {}),
    (2, "apikey", [Where("referenceId", "7")], {}),
    (2, "rateLimit", [Where("key", "7")], {}),
    (2, "deviceCode", [Where("userCode", "7")], {}),
]


@pytest.mark.parametrize(
    ("reads", "model", "where", "options"),
    LOOK_UPS,
    ids=[f"{model}-{'-'.join(clause.field for clause in where)}" for _, model, where, _ in LOOK_UPS],
)
async def test_lookup_reads(
    filled: AllsourceDatabaseAdapter,
    counted: CountingStore,
    reads: int,
    model: str,
    where: list[Where],
    options: dict[str, Any],
) -> None:
    rows = await filled.find_many(model, where, **options)
    assert len(rows) == {"in": 3, "eq": 1}[where[0].operator] + (model == "member" and len(where) == 1)
    assert all("7" in str(row.values()) for row in rows[:1])
    assert (len(counted.reads), counted.scans) == (reads, [])
    counted.forget()
    assert await filled.find_one(model, where) == rows[0]
    assert (len(counted.reads), counted.scans) == (reads, [])


LISTS: list[tuple[str, list[Where], dict[str, Any]]] = [
    ("session", [Where("userId", "u")], {}),
    ("account", [Where("userId", "u")], {}),
    ("apikey", [Where("referenceId", "u")], {}),
    ("verification", [Where("identifier", "u")], NEWEST),
    ("member", [Where("organizationId", "o")], {}),
    ("user", [Where("id", [f"m{number}" for number in range(40)], "in")], {}),
]


@pytest.mark.parametrize(("model", "where", "options"), LISTS, ids=[model for model, _, _ in LISTS])
async def test_a_list_of_any_length_is_two_statements(model: str, where: list[Where], options: dict[str, Any]) -> None:
    log = SqliteLog(None)
    database = AllsourceDatabaseAdapter(AllsourceAuthAdapter.with_store(SqliteStore(log)))
    database.init(SCHEMA)
    for number in range(40):
        n = str(number)
        await database.create("user", {"id": f"m{n}", "name": n, "email": f"{n}@e.org"})
        await database.create("session", {"id": n, "token": f"token-{n}", "userId": "u", "expiresAt": SOON})
        await database.create("account", {"id": n, "accountId": n, "providerId": "p", "userId": "u"})
        await database.create("verification", {"id": n, "identifier": "u", "value": n, "expiresAt": SOON})
        await database.create("member", {"userId": f"m{n}", "organizationId": "o", "createdAt": NOW})
        await database.create("apikey", {"id": n, "key": n, "referenceId": "u", "createdAt": NOW, "updatedAt": NOW})
    statements: list[str] = []
    (await log.open()).set_trace_callback(statements.append)
    assert len(await database.find_many(model, where, **options)) == options.get("limit", 40)
    assert len(statements) <= 2


async def test_missing_row_takes_one_read(filled: AllsourceDatabaseAdapter, counted: CountingStore) -> None:
    for model, where in (
        ("user", [Where("email", "nobody@e.org")]),
        ("session", [Where("token", "none")]),
        ("session", [Where("userId", "none")]),
        ("member", [Where("organizationId", "7"), Where("userId", "8")]),
    ):
        counted.forget()
        assert await filled.find_one(model, where) is None
        assert (len(counted.reads), counted.scans) == (1, [])
    counted.forget()
    for impossible in ("", "x" * 200, "a\nb", "\ud800", True, ["7"]):
        assert await filled.find_many("user", [Where("id", impossible)]) == []
    assert counted.reads == []


async def test_other_conditions_scan_all_rows_and_warn_once(
    filled: AllsourceDatabaseAdapter, counted: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        for name in ("7", "8"):
            found = await filled.find_many("user", [Where("name", name), Where("role", None)])
            assert [row["id"] for row in found] == [name]
    assert await filled.count("user", [Where("email", "@e.org", "contains")]) == 30
    assert await filled.count("user", [Where("id", "7"), Where("banned", True, connector="OR")]) == 1
    assert await filled.count("user") == 30
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "a query scans all rows (user: name eq AND role eq); indexes={'user': ['name']} avoids the scan",
        "a query scans all rows (user: email contains)",
        "a query scans all rows (user: id eq OR banned eq)",
    ]
    assert len(counted.reads) == 0


async def test_index_named_by_the_warning_avoids_the_scan(
    filled: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter, counted: CountingStore
) -> None:
    advised = AllsourceDatabaseAdapter(store, indexes={"user": ["name"]})
    advised.init(SCHEMA)
    assert (await store.reindex()).entries == 30
    counted.forget()
    assert [row["id"] for row in await advised.find_many("user", [Where("name", "7"), Where("role", None)])] == ["7"]
    assert (len(counted.reads), counted.scans) == (2, [])


async def test_reference_is_preferred_to_an_index_of_a_plain_field(
    store: AllsourceAuthAdapter, counted: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Fields that the schema of a plugin indexes, and the addresses of wallets."""
    user = Reference("user", "id")
    role = {
        "role": Field("string", index=True),
        "of": Field("string", references=user),
        "size": Field("number", index=True),
    }
    wallet = {"userId": Field("string", references=user), "address": Field("string"), "chainId": Field("number")}
    database = AllsourceDatabaseAdapter(store)
    database.init({**CORE_SCHEMA, "role": role, "walletAddress": wallet})
    for number in range(30):
        n = str(number)
        await database.create("role", {"id": n, "role": "admin" if number else "owner", "of": n, "size": number})
        await database.create("walletAddress", {"id": n, "userId": n, "address": f"0x{n}", "chainId": 1})
    for reads, model, where, found in (
        (2, "role", [Where("role", "owner")], 1),
        (30, "role", [Where("role", "admin")], 29),
        (2, "role", [Where("role", "admin"), Where("of", "7")], 1),
        (2, "role", [Where("of", "7"), Where("role", "admin")], 1),
        (2, "walletAddress", [Where("address", "0x7"), Where("chainId", 1)], 1),
    ):
        counted.forget()
        assert await database.count(model, where) == found
        assert (len(counted.reads), counted.scans) == (reads, [])
    assert not caplog.records
    assert await database.count("role", [Where("size", 7)]) == 1
    assert len(counted.scans) == 1


async def test_model_with_the_name_but_not_the_field_of_a_plugin(store: AllsourceAuthAdapter) -> None:
    database = AllsourceDatabaseAdapter(store)
    database.init({**CORE_SCHEMA, "walletAddress": {"address": Field("number")}})
    await database.create("walletAddress", {"address": 7})
    assert await database.count("walletAddress", [Where("address", 7)]) == 1


async def test_a_thousand_rows_are_counted_off_the_loop(database: AllsourceDatabaseAdapter) -> None:
    async def many(inside: Any) -> None:
        for number in range(1200):
            await inside.create("jwks", {"publicKey": str(number), "privateKey": "s", "createdAt": NOW})

    await database.transaction(many)
    assert await database.count("jwks") == 1200
    assert await database.count("jwks", [Where("publicKey", "11", "starts_with")]) == 111
    assert len(await database.find_many("jwks", limit=5000)) == 1200
    assert len(await database.find_many("jwks")) == database.advanced.default_find_many_limit


@pytest.mark.parametrize(("model", "appends"), [("user", 1), ("session", 1), ("verification", 1)])
async def test_a_create_is_one_append(
    filled: AllsourceDatabaseAdapter, counted: CountingStore, model: str, appends: int
) -> None:
    given: dict[str, dict[str, Any]] = {
        "user": {"name": "new", "email": "new@e.org"},
        "session": {"token": "new", "userId": "7", "expiresAt": SOON},
        "verification": {"identifier": "new", "value": "v", "expiresAt": SOON},
    }
    await filled.create(model, given[model])
    assert len(counted.appends) == appends
