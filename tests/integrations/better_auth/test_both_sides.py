"""The library reads what the framework writes, and the reverse: the same streams, values, indexes and history."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from better_auth.adapters.base import Where
from better_auth.config import AdvancedDatabase
from better_auth.schema import CORE_SCHEMA, Field, Reference, merge_schema
from better_auth.types import APIError

from allsource_auth import AllsourceAuthAdapter, Conflict, InvalidInput, UserNotFound, audit
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, UniqueViolation
from tests.integrations.better_auth.conftest import SCHEMA

pytestmark = pytest.mark.integrations

WEEK = timedelta(days=7)


def now() -> datetime:
    return datetime.now(UTC)


async def signed_up(database: AllsourceDatabaseAdapter, who: str = "ada", **more: Any) -> dict[str, Any]:
    given = {"id": f"id-{who}", "name": who.title(), "email": f"{who}@example.org", **more}
    user: dict[str, Any] = await database.create("user", given)
    return user


async def test_users_of_framework_and_library_are_the_same(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    with audit(actor="sign-up", ip="203.0.113.7"):
        row = await signed_up(database, username="ada")
    user = await store.users.get_by_email("ADA@example.org")
    assert user is not None
    assert (user.id, user.name, user.username, user.created_at) == (row["id"], "Ada", "ada", row["createdAt"])
    (change,) = await store.users.history(user.id)
    assert (change.event, change.actor, change.ip) == ("UserCreated", "sign-up", "203.0.113.7")
    await store.users.update(user.id, name="Countess", role="admin", email="countess@example.org")
    found = await database.find_one("user", [Where("email", "countess@example.org")])
    assert found is not None
    assert (found["id"], found["name"], found["role"], found["username"]) == (row["id"], "Countess", "admin", "ada")
    assert await database.find_one("user", [Where("email", "ada@example.org")]) is None
    await database.update("user", [Where("id", user.id)], {"banned": True, "banReason": "spam"})
    after = await store.users.get(user.id)
    assert after is not None
    assert (after.banned, after.ban_reason, after.name) == (True, "spam", "Countess")
    labels = [change.event for change in await store.users.history(user.id)]
    assert labels == ["UserCreated", "UserUpdated", "UserUpdated"]


async def test_writes_of_one_side_keep_fields_of_the_other(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    await signed_up(database, phoneNumber="+44 1", phoneNumberVerified=True)
    await store.users.update("id-ada", metadata={"plan": "gold"}, name="A")
    row = await database.update("user", [Where("id", "id-ada")], {"name": "B"})
    assert row is not None
    assert (row["phoneNumber"], row["phoneNumberVerified"], row["name"]) == ("+44 1", True, "B")
    user = await store.users.get("id-ada")
    assert user is not None
    assert (user.metadata, user.phone_number) == ({"plan": "gold"}, "+44 1")  # type: ignore[attr-defined]
    await store.users.revert("id-ada", to=(await store.users.history("id-ada"))[0].event_id)
    assert (await database.find_one("user", [Where("phoneNumber", "+44 1")]) or {})["name"] == "Ada"


async def test_unique_fields_of_plugins_after_delete_and_restore(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    await signed_up(database, "ada", phoneNumber="+44 1")
    with pytest.raises(UniqueViolation) as refused:
        await signed_up(database, "bob", phoneNumber="+44 1")
    assert (refused.value.status, refused.value.code, refused.value.field) == (
        400,
        "PHONE_NUMBER_EXIST",
        "phone_number",
    )
    await store.users.delete("id-ada")
    await signed_up(database, "bob", phoneNumber="+44 1")
    with pytest.raises(Conflict):
        await store.users.restore("id-ada")
    await database.update("user", [Where("id", "id-bob")], {"phoneNumber": None})
    await store.users.restore("id-ada")
    with pytest.raises(UniqueViolation):
        await database.update("user", [Where("id", "id-bob")], {"phoneNumber": "+44 1"})
    assert not (await store.check()).findings


async def test_check_and_reindex_know_the_kinds_of_plugins(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    await database.create("rateLimit", {"key": "k", "count": 1})
    await database.create("jwks", {"publicKey": "p", "privateKey": "s", "createdAt": now()})
    team = {"name": "T", "organizationId": "o", "createdAt": now()}
    await database.create("team", team)
    done = await store.reindex()
    assert (done.entities, done.claims, done.entries) == (3, 0, 0)
    assert not (await store.check()).findings


@pytest.mark.parametrize(
    ("model", "given", "refusal"),
    [
        ("user", {"name": "X", "email": "Ada@Example.org"}, (422, "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL")),
        ("user", {"name": "X", "email": "x@y.z", "username": "ada"}, (400, "USERNAME_IS_ALREADY_TAKEN")),
        ("user", {"name": "X", "email": "x@y.z", "id": "id-ada"}, (409, "UNIQUE_CONSTRAINT_VIOLATION")),
        ("organization", {"name": "O", "slug": "org", "createdAt": now()}, (400, "ORGANIZATION_ALREADY_EXISTS")),
        ("rateLimit", {"key": "k", "count": 1}, (409, "UNIQUE_CONSTRAINT_VIOLATION")),
    ],
)
async def test_taken_unique_value_is_refused(
    database: AllsourceDatabaseAdapter, model: str, given: dict[str, Any], refusal: tuple[int, str]
) -> None:
    await signed_up(database, username="ada")
    await database.create("organization", {"name": "O", "slug": "org", "createdAt": now()})
    await database.create("rateLimit", {"key": "k", "count": 1})
    before = await database.count(model)
    with pytest.raises(UniqueViolation) as refused:
        await database.create(model, given)
    assert isinstance(refused.value, APIError)
    assert isinstance(refused.value, Conflict)
    assert (refused.value.status, refused.value.code) == refusal
    assert not any(value in str(refused.value) for value in ("Ada@", "id-ada"))
    # The device plugin tells a value that is taken by these words.
    assert refusal[0] != 409 or "unique constraint" in str(refused.value)
    assert await database.count(model) == before


async def test_sessions_of_framework_and_library_are_the_same(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    await signed_up(database)
    given = {
        "id": "s1",
        "token": "t" * 32,
        "userId": "id-ada",
        "expiresAt": now() + WEEK,
        "ipAddress": "",
        "userAgent": None,
    }
    row = await database.create("session", given)
    assert {name: row[name] for name in given} == given
    loaded = await store.load_session("t" * 32)
    assert loaded is not None
    assert (loaded.session.id, loaded.user.name) == ("s1", "Ada")
    later = now() + 2 * WEEK
    changed = await database.update("session", [Where("token", "t" * 32)], {"expiresAt": later, "activeTeamId": "team"})
    assert changed is not None
    assert (changed["expiresAt"], changed["activeTeamId"], changed["id"]) == (later, "team", "s1")
    # Another model refers to sessions by their id, so they are found by it, and it is unique.
    assert (await database.find_one("session", [Where("id", "s1")]) or {})["token"] == "t" * 32
    with pytest.raises(UniqueViolation):
        await database.create("session", {**given, "token": "u" * 32})
    assert [found.id for found in await store.sessions.list_for_user("id-ada")] == ["s1"]
    await database.delete("session", [Where("token", "t" * 32)])
    assert await store.load_session("t" * 32) is None
    assert await database.find_one("session", [Where("id", "s1")]) is None


async def test_update_of_a_key_finds_no_row(database: AllsourceDatabaseAdapter) -> None:
    await signed_up(database)
    assert await database.update("user", [Where("id", "id-ada")], {"id": "other", "name": "X"}) is None
    same = await database.update("user", [Where("id", "id-ada")], {"id": "id-ada", "name": "X"})
    assert same is not None
    assert same["name"] == "X"


async def test_deleting_a_user_cascades(database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter) -> None:
    await signed_up(database)
    await database.create("session", {"token": "t", "userId": "id-ada", "expiresAt": now() + WEEK})
    await database.create("account", {"accountId": "a", "providerId": "p", "userId": "id-ada"})
    await database.create("apikey", {"key": "h", "referenceId": "id-ada", "createdAt": now(), "updatedAt": now()})
    await database.create("twoFactor", {"secret": "s", "backupCodes": "[]", "userId": "id-ada"})
    await database.create("passkey", PASSKEY)
    assert await database.delete_many("user", [Where("id", "id-ada")]) == 1
    for model in ("session", "account", "apikey", "twoFactor", "passkey"):
        assert await database.count(model) == 0, model
    assert not (await store.check()).findings


PASSKEY = {
    "publicKey": "k",
    "userId": "id-ada",
    "credentialID": "c",
    "counter": 0,
    "deviceType": "multiDevice",
    "backedUp": True,
    "aaguid": "guid",
}


async def test_an_api_key_and_a_passkey(database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter) -> None:
    moment = now()
    key = {"key": "hash", "referenceId": "id-ada", "createdAt": moment, "updatedAt": moment, "metadata": {"a": 1}}
    row = await database.create("apikey", key)
    assert (row["configId"], row["referenceId"], row["metadata"]) == ("default", "id-ada", '{"a": 1}')
    (known,) = await store.api_keys.list_for_user("id-ada")
    assert (known.key_hash, known.user_id, known.rate_limit_max) == ("hash", "id-ada", 10)
    used = await database.increment_one("apikey", [Where("key", "hash")], increment={"requestCount": 1})
    assert used is not None
    assert (used["requestCount"], used["updatedAt"]) == (1, moment)
    await database.create("passkey", PASSKEY)
    passkey = await store.passkeys.get_by_credential_id("c")
    assert passkey is not None
    assert (passkey.user_id, passkey.backed_up, passkey.aaguid) == ("id-ada", True, "guid")  # type: ignore[attr-defined]


async def test_metadata_of_an_organization_is_converted_from_json_text(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    given = {"name": "O", "slug": "o", "createdAt": now(), "metadata": '{"plan":"gold","seats":[1,2]}'}
    row = await database.create("organization", given)
    assert row["metadata"] == given["metadata"]
    organization = await store.organizations.get_by_slug("o")
    assert organization is not None
    assert organization.metadata == {"plan": "gold", "seats": [1, 2]}
    await store.organizations.update(organization.id, metadata={"plan": "lead"})
    found = await database.find_one("organization", [Where("slug", "o")])
    assert found is not None
    assert json.loads(found["metadata"]) == {"plan": "lead"}
    cleared = await database.update("organization", [Where("slug", "o")], {"metadata": None})
    assert cleared is not None
    assert cleared["metadata"] is None
    for text in ("[1]", "no JSON", "5"):
        with pytest.raises(InvalidInput, match="metadata"):
            await database.update("organization", [Where("slug", "o")], {"metadata": text})


async def test_id_of_a_removed_verification_can_be_reused(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter
) -> None:
    """The framework derives the id of a reservation from its name, so a later reservation has the same id."""
    for value in ("first", "second"):
        given = {"id": "reserved", "identifier": "name", "value": value, "expiresAt": now() + WEEK}
        await database.create("verification", given)
        with pytest.raises(UniqueViolation):
            await database.create("verification", given)
        taken = await database.consume_one("verification", [Where("id", "reserved")])
        assert taken is not None
        assert taken["value"] == value
    labels = [change.event for change in await store.verifications.history("reserved")]
    assert labels == ["VerificationCreated", "VerificationConsumed"] * 2
    with pytest.raises(InvalidInput, match="secret"):
        await store.context.collections["verification"].restore("reserved")


async def test_null_and_absent_fields_of_rows(database: AllsourceDatabaseAdapter) -> None:
    absent = await signed_up(database, "ada")
    null = await signed_up(database, "bob", image=None, username=None)
    assert ("image" in absent, "image" in null, null["image"]) == (False, True, None)
    for name in ("ada", "bob"):
        row = await database.find_one("user", [Where("id", f"id-{name}")])
        assert row is not None
        assert row.keys() == {"id", *SCHEMA["user"]}
        assert (row["image"], row["username"], row["banned"]) == (None, None, False)
    assert await database.count("user", [Where("username", None)]) == 2
    await database.update("user", [Where("id", "id-ada")], {"image": "i"})
    kept = await database.update("user", [Where("id", "id-ada")], {"name": "A"})
    assert kept is not None
    assert kept["image"] == "i"
    # Where the library has no null, it is the default.
    row = await database.update("user", [Where("id", "id-ada")], {"banned": None})
    assert row is not None
    assert row["banned"] is False
    for missing in ({"name": None}, {"email": None}):
        with pytest.raises(InvalidInput, match="must have one"):
            await database.update("user", [Where("id", "id-ada")], missing)
        with pytest.raises(InvalidInput, match="must have one"):
            await database.create("user", {"name": "X", "email": "x@y.z", **missing})


@pytest.mark.parametrize("way", [False, "uuid", lambda model: f"{model}-1"])
async def test_ids_are_made_as_configured(store: AllsourceAuthAdapter, way: Any) -> None:
    database = AllsourceDatabaseAdapter(store, advanced=AdvancedDatabase(generate_id=way))
    database.init(SCHEMA)
    row = await database.create("user", {"name": "X", "email": "x@y.z"})
    assert row["id"] == "user-1" if callable(way) else len(row["id"]) == 36
    assert await store.users.get(row["id"]) is not None


async def test_framework_sets_the_times_of_a_row(database: AllsourceDatabaseAdapter) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    row = await signed_up(database, createdAt=old, updatedAt=old.replace(tzinfo=None))
    found = await database.find_one("user", [Where("id", "id-ada")])
    assert found is not None
    assert row["createdAt"] == row["updatedAt"] == found["createdAt"] == found["updatedAt"] == old
    touched = await database.update("user", [Where("id", "id-ada")], {"name": "X"})
    assert touched is not None
    assert touched["updatedAt"] > old
    assert touched["createdAt"] == old


# Models of an application

OWN = merge_schema(
    CORE_SCHEMA,
    {
        "user": {"class": Field("string"), "user_id": Field("number"), "1st": Field("boolean"), "name_": Field("json")},
        "Project2": {
            "title": Field("string", required=True),
            "number": Field("number", unique=True),
            "ownerId": Field("string", references=Reference("user", "id", on_delete="cascade")),
            "secretKey": Field("string", returned=False),
            "updatedAt": Field("datetime"),
        },
        "task": {
            "projectId": Field("string", required=True, references=Reference("Project2", "id", on_delete="cascade")),
            "label": Field("string"),
        },
    },
)


@pytest.fixture
def own(store: AllsourceAuthAdapter) -> AllsourceDatabaseAdapter:
    adapter = AllsourceDatabaseAdapter(store, indexes={"task": ["label"]})
    adapter.init(OWN)
    return adapter


async def test_models_of_an_application_are_kinds(own: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter) -> None:
    fields: dict[str, Any] = {"class": "first", "user_id": 5, "1st": True, "name_": {"a": [None]}}
    await signed_up(own, **fields)
    found = await own.find_one("user", [Where("id", "id-ada")])
    assert found is not None
    assert (found["class"], found["user_id"], found["1st"], found["name_"]) == ("first", 5, True, {"a": [None]})
    project = await own.create("Project2", {"title": "T", "number": 7, "ownerId": "id-ada", "secretKey": "hidden"})
    await own.create("task", {"projectId": project["id"], "label": "urgent"})
    with pytest.raises(UniqueViolation):
        await own.create("Project2", {"title": "U", "number": 7.0})
    assert (await own.find_one("Project2", [Where("number", 7)]) or {})["updatedAt"] is None
    repository = own.repository("Project2")
    (change,) = await repository.history(project["id"])
    assert (change.event, change.wire_type) == ("Project2Created", "auth.project2.created")
    assert isinstance(repository, RestorableRepository)
    assert "hidden" not in repr(change)
    assert "hidden" not in repr(change.diff)
    await store.users.delete("id-ada")
    assert (await own.count("Project2"), await own.count("task")) == (0, 0)
    restored = await repository.restore(project["id"]) if await store.users.restore("id-ada") else None
    assert restored is not None
    assert await own.count("Project2", [Where("number", 7)]) == 1
    assert not (await store.check()).findings


async def test_two_schemas_on_one_store_add_up(store: AllsourceAuthAdapter) -> None:
    first, second = AllsourceDatabaseAdapter(store), AllsourceDatabaseAdapter(store)
    first.init(SCHEMA)
    second.init(OWN)
    await signed_up(first, phoneNumber="+44 1")
    await second.update("user", [Where("id", "id-ada")], {"class": "c"})
    assert (await first.find_one("user", [Where("phoneNumber", "+44 1")]) or {})["id"] == "id-ada"
    await store.users.delete("id-ada")
    await signed_up(first, "bob", phoneNumber="+44 1")
    declared = dict(store.context.declared)
    first.init(SCHEMA)
    assert store.context.declared == declared


@pytest.mark.parametrize(
    ("schema", "lists", "message"),
    [
        ({"org": {"a": Field("string")}}, {}, "'org'"),
        ({"2fa": {"a": Field("string")}}, {}, "must start with a letter"),
        ({"index": {"a": Field("string")}}, {}, "'index'"),
        ({"aB": {"a": Field("string")}, "a_b": {"a": Field("string")}}, {}, "collides with the model"),
        ({"x": {"a": Field("blob")}}, {}, "unknown type 'blob'"),
        ({"x": {"_deleted": Field("string")}}, {}, "_deleted"),
        ({"x": {"createdAt": Field("number")}}, {}, "datetime"),
        ({"x": {"a": Field("number")}}, {"x": ["a"]}, "text"),
        ({"x": {"a": Field("number")}}, {"x": ["b"]}, "no field 'b'"),
    ],
)
def test_unsupported_schema_is_refused(store: AllsourceAuthAdapter, schema: Any, lists: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        AllsourceDatabaseAdapter(store, indexes=lists).init(schema)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("name", "\ud800"),
        ("emailVerified", "yes"),
        ("banExpires", "2026-01-01"),
        ("phoneNumber", 5),
        ("nothing", 1),
        ("email", " a@b.c"),
    ],
)
async def test_invalid_value_is_refused(database: AllsourceDatabaseAdapter, field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"name|email|ban_expires|phone_number|nothing"):
        await signed_up(database, **{field: value})
    assert await database.count("user") == 0


# Transactions


async def test_a_transaction_is_one_append(
    database: AllsourceDatabaseAdapter, store: AllsourceAuthAdapter, counted: Any
) -> None:
    await signed_up(database, "warm")
    counted.forget()

    async def sign_up(inside: Any) -> dict[str, Any]:
        user = await signed_up(inside)
        await inside.create("account", {"accountId": user["id"], "providerId": "credential", "userId": user["id"]})
        await database.create("session", {"token": "t", "userId": user["id"], "expiresAt": now() + WEEK})
        assert await inside.count("account", [Where("userId", user["id"])]) == 1
        assert await database.find_one("user", [Where("email", "ada@example.org")]) is not None
        assert await inside.transaction(lambda again: again.count("user")) == 2
        assert await store.users.get("id-ada") is None
        return user

    assert (await database.transaction(sign_up))["id"] == "id-ada"
    assert len(counted.appends) == 1
    assert await store.load_session("t") is not None


async def test_a_transaction_that_fails_leaves_nothing(database: AllsourceDatabaseAdapter, counted: Any) -> None:
    await signed_up(database, "warm")
    counted.forget()

    async def fail(inside: Any) -> None:
        await signed_up(inside)
        await inside.update("user", [Where("id", "id-warm")], {"name": "changed"})
        raise UserNotFound

    with pytest.raises(UserNotFound):
        await database.transaction(fail)
    assert counted.appends == []
    assert await database.count("user") == 1

    async def taken(inside: Any) -> None:
        await signed_up(inside, "other", email="warm@example.org")

    with pytest.raises(Conflict) as refused:
        await database.transaction(taken)
    # Where several things are to happen, the framework has its own words for a failure.
    assert not isinstance(refused.value, APIError)


async def test_transaction_is_retried_after_a_version_conflict(database: AllsourceDatabaseAdapter) -> None:
    await database.create("rateLimit", {"id": "r", "key": "k", "count": 1})
    runs = 0

    async def count(inside: Any) -> Any:
        nonlocal runs
        runs += 1
        row = await inside.increment_one("rateLimit", [Where("key", "k")], increment={"count": 1})
        if runs == 1:
            token = database._transactions.set(())  # a concurrent writer outside the transaction
            await database.increment_one("rateLimit", [Where("key", "k")], increment={"count": 10})
            database._transactions.reset(token)
        return row

    assert (await database.transaction(count))["count"] == 12
    assert runs == 2


async def test_transaction_checks_the_condition_of_a_consumed_row_again(database: AllsourceDatabaseAdapter) -> None:
    soon = now() + WEEK
    given = {"id": "d", "deviceCode": "d", "userCode": "u", "expiresAt": soon, "status": "approved"}
    await database.create("deviceCode", given)
    runs = 0

    async def take(inside: Any) -> Any:
        nonlocal runs
        runs += 1
        row = await inside.consume_one("deviceCode", [Where("id", "d"), Where("status", "approved")])
        if runs == 1:
            token = database._transactions.set(())  # a concurrent writer outside the transaction
            await database.update("deviceCode", [Where("id", "d")], {"status": "denied"})
            database._transactions.reset(token)
        return row

    assert await database.transaction(take) is None
    assert runs == 2
    assert await database.count("deviceCode") == 1


async def test_plugin_added_later_finds_existing_rows_after_reindex(store: AllsourceAuthAdapter) -> None:
    before = AllsourceDatabaseAdapter(store)
    before.init(CORE_SCHEMA)
    await before.create("session", {"id": "s", "token": "t", "userId": "u", "expiresAt": now() + WEEK})
    later = AllsourceDatabaseAdapter(store)
    later.init(SCHEMA)
    assert (await store.reindex()).claims == 1
    assert (await later.find_one("session", [Where("id", "s")]) or {})["token"] == "t"
    assert (await before.find_one("session", [Where("id", "s")]) or {})["token"] == "t"


async def test_no_secret_in_repr_logs_or_errors(
    database: AllsourceDatabaseAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = "c4n4ry"
    await database.create("jwks", {"publicKey": "p", "privateKey": secret, "createdAt": now()})
    device = {"deviceCode": secret, "userCode": f"u{secret}", "expiresAt": now() + WEEK, "status": "pending"}
    row = await database.create("deviceCode", device)
    session = {"token": secret, "userId": secret, "expiresAt": now() + WEEK}
    await database.create("session", session)
    texts = [repr(database), repr(database.repository("deviceCode"))]
    for model, given in (("deviceCode", device), ("session", session), ("deviceCode", {**device, "status": [secret]})):
        with pytest.raises((UniqueViolation, InvalidInput)) as refused:
            await database.create(model, given)
        texts += [str(refused.value), repr(refused.value)]
    assert await database.count("jwks", [Where("privateKey", secret)]) == 1
    for model in ("jwks", "deviceCode"):
        async for entity in database.repository(model).scan():
            texts += [
                repr(entity),
                *(repr(change.diff) for change in await database.repository(model).history(entity.id)),
            ]
    texts += [repr(change) for change in await database.repository("deviceCode").history(row["id"])]
    texts += [
        record.getMessage() + repr(record.__dict__) for record in caplog.records if record.name.startswith("allsource")
    ]
    assert not [text for text in texts if secret in text]
