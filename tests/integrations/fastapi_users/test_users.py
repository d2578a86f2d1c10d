"""The user database: the interface of fastapi-users, and where its fields are stored."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from datetime import date, timedelta
from typing import Any, TypeVar

import pytest
from fastapi_users.exceptions import InvalidID, InvalidVerifyToken, UserAlreadyExists, UserNotExists
from fastapi_users.password import PasswordHelper

from allsource_auth import AllsourceAuthAdapter, InvalidInput, Json
from allsource_auth.integrations.fastapi_users import (
    NO_PASSWORD,
    AllsourceBaseUserUUID,
    AllsourceUserDatabase,
    StringIDMixin,
    UserChanged,
    UserGone,
)
from tests.integrations.fastapi_users.people import Colour, OAuthUser, Rich, Text, User
from tests.support.canaries import CANARY, email
from tests.support.clocks import ManualClock
from tests.support.targets import Site
from tests.support.wrappers import CountingStore

pytestmark = pytest.mark.integrations

Database = AllsourceUserDatabase[User, uuid.UUID]
HASH = f"hash-{CANARY}"
T = TypeVar("T")


async def there(read: Awaitable[T | None]) -> T:
    found = await read
    assert found is not None
    return found


@pytest.fixture
def database(adapter: AllsourceAuthAdapter) -> Database:
    return AllsourceUserDatabase(adapter, User)


@pytest.fixture
async def ada(database: Database) -> User:
    return await database.create({"email": email("Ada"), "hashed_password": HASH, "first_name": "Ada"})


async def test_a_new_user_has_the_defaults(database: Database, ada: User) -> None:
    assert isinstance(ada.id, uuid.UUID)
    assert (ada.email, ada.hashed_password, ada.first_name) == (email("Ada"), HASH, "Ada")
    assert (ada.is_active, ada.is_superuser, ada.is_verified) == (True, False, False)
    assert await database.get(ada.id) == ada


async def test_missing_user_is_none(database: Database) -> None:
    assert await database.get(uuid.uuid4()) is None
    assert await database.get_by_email("nobody@example.org") is None
    assert await database.get_by_email("") is None


async def test_emails_are_found_case_insensitively(database: Database, ada: User) -> None:
    assert await database.get_by_email(ada.email.upper()) == ada
    assert await database.get_by_email(ada.email.lower()) == ada


async def test_an_email_belongs_to_one_user(database: Database, adapter: AllsourceAuthAdapter, ada: User) -> None:
    with pytest.raises(UserAlreadyExists):
        await database.create({"email": ada.email.upper(), "hashed_password": "other"})
    assert (await adapter.users.list()).total == 1
    assert not (await adapter.check()).findings


async def test_one_of_many_sign_ups_gets_the_email_and_others_leave_no_rows(
    database: Database, adapter: AllsourceAuthAdapter
) -> None:
    async def sign_up(number: int) -> uuid.UUID | None:
        try:
            return (await database.create({"email": email("Ada"), "hashed_password": f"hash {number}"})).id
        except UserAlreadyExists:
            return None

    found = [id_ for id_ in await asyncio.gather(*map(sign_up, range(30))) if id_ is not None]
    assert len(found) == 1
    assert [user.id async for user in adapter.users.scan()] == [str(found[0])]
    assert [account.user_id async for account in adapter.accounts.scan()] == [str(found[0])]
    assert not (await adapter.check()).findings


async def test_the_store_has_a_user_and_its_credential_account(adapter: AllsourceAuthAdapter, ada: User) -> None:
    user = await adapter.users.get(str(ada.id))
    account = await adapter.accounts.get_by_provider("credential", str(ada.id))
    assert user is not None
    assert account is not None
    assert (user.email, user.email_verified, user.banned, user.role) == (ada.email, False, False, None)
    assert user.metadata == {"first_name": "Ada"}
    assert (account.user_id, account.password) == (user.id, HASH)


async def test_flags_are_stored_as_ban_role_and_email_verified(
    database: Database, adapter: AllsourceAuthAdapter
) -> None:
    flags = {"is_active": False, "is_superuser": True, "is_verified": True}
    made = await database.create({"email": email("Ada"), "hashed_password": HASH, **flags})
    assert (made.is_active, made.is_superuser, made.is_verified) == (False, True, True)
    assert await database.get(made.id) == made
    user = await adapter.users.get(str(made.id))
    assert user is not None
    assert (user.banned, user.role, user.email_verified) == (True, "admin", True)
    assert [change.event for change in await adapter.users.history(user.id)] == ["UserCreated"]

    await database.update(made, {"is_active": True, "is_superuser": False, "is_verified": False})
    assert (made.is_active, made.is_superuser, made.is_verified) == (True, False, False)
    assert await database.get(made.id) == made
    user = await adapter.users.get(str(made.id))
    assert user is not None
    assert (user.banned, user.role, user.email_verified) == (False, None, False)


async def test_a_superuser_keeps_its_other_roles(database: Database, adapter: AllsourceAuthAdapter, ada: User) -> None:
    key = str(ada.id)
    await adapter.users.update(key, role="editor, admin")
    found = await there(database.get(ada.id))
    assert found.is_superuser
    await database.update(found, {"is_superuser": False})
    user = await there(adapter.users.get(key))
    assert user.role == "editor"
    await database.update(found, {"is_superuser": True})
    user = await there(adapter.users.get(key))
    assert user.role == "editor,admin"
    await adapter.users.update(key, role="administrator")
    found = await there(database.get(ada.id))
    assert not found.is_superuser


async def test_update_does_not_extend_a_ban_that_expires(
    database: Database, adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    ends = clock() + timedelta(hours=1)
    await adapter.users.update(str(ada.id), banned=True, ban_reason="spam", ban_expires=ends)
    found = await there(database.get(ada.id))
    assert not found.is_active
    await database.update(found, {"is_active": False})  # as a form sends it that shows all fields
    user = await there(adapter.users.get(str(ada.id)))
    assert (user.ban_reason, user.ban_expires) == ("spam", ends)
    clock.move(timedelta(hours=2))
    found = await there(database.get(ada.id))
    assert found.is_active
    await database.update(found, {"is_active": False})
    user = await there(adapter.users.get(str(ada.id)))
    assert (user.banned, user.ban_reason, user.ban_expires) == (True, None, None)


async def test_inactive_user_has_no_valid_session(
    database: Database, adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    session = await adapter.sessions.create(user_id=str(ada.id), expires_at=clock() + timedelta(days=1))
    await database.update(ada, {"is_active": False})
    assert await adapter.load_session(session.token) is None


async def test_update_changes_the_user_object(database: Database, ada: User) -> None:
    changes = {"email": email("Grace"), "hashed_password": "new", "first_name": None, "is_verified": False}
    assert await database.update(ada, changes) is ada
    assert (ada.email, ada.hashed_password, ada.first_name) == (email("Grace"), "new", None)
    assert await database.get(ada.id) == ada
    assert await database.get_by_email(email("Ada")) is None


async def test_a_sign_up_is_one_append(site: Site, clock: ManualClock) -> None:
    store = CountingStore(site.store("default"))
    adapter = AllsourceAuthAdapter.with_store(store, clock=clock)
    await adapter.users.create()  # the first write of an adapter also settles the settings
    store.forget()
    given = {"email": email("Ada"), "hashed_password": HASH, "is_active": False, "first_name": "Ada"}
    await AllsourceUserDatabase[User, uuid.UUID](adapter, User).create(given)
    (batch,) = store.appends
    kinds = [event.stream.partition(":")[0] for event in batch if not event.stream.startswith("auth-idx:")]
    assert kinds == ["auth-user", "auth-account"]


async def test_an_update_of_email_and_password_is_one_append(site: Site, clock: ManualClock) -> None:
    store = CountingStore(site.store("default"))
    adapter = AllsourceAuthAdapter.with_store(store, clock=clock)
    database = AllsourceUserDatabase[User, uuid.UUID](adapter, User)
    ada = await database.create({"email": email("Ada"), "hashed_password": HASH})
    store.forget()
    await database.update(ada, {"email": email("Grace"), "hashed_password": "new"})
    assert len(store.appends) == 1
    other = await database.create({"email": email("Ada"), "hashed_password": "other"})
    with pytest.raises(UserAlreadyExists):
        await database.update(other, {"email": email("Grace"), "hashed_password": "newer"})
    stored = await there(database.get(other.id))
    assert (stored.email, stored.hashed_password) == (email("Ada"), "other")


async def test_email_taken_concurrently_is_refused(database: Database, ada: User) -> None:
    grace = await database.create({"email": email("Grace"), "hashed_password": HASH})
    with pytest.raises(UserAlreadyExists):
        await database.update(grace, {"email": ada.email})
    assert await database.get(grace.id) == grace


async def test_updates_of_different_fields_all_survive(adapter: AllsourceAuthAdapter) -> None:
    database = AllsourceUserDatabase[Rich, uuid.UUID](adapter, Rich)
    user = await database.create({"email": email("Ada"), "hashed_password": HASH})
    await adapter.users.update(str(user.id), metadata={"theirs": [1]})
    changes: list[dict[str, Any]] = [{"born": date(1815, 12, 10)}, {"colour": Colour.BLUE}, {"settings": {"a": 1}}]
    same = [await database.get(user.id) for _ in changes]
    await asyncio.gather(*(database.update(one, change) for one, change in zip(same, changes, strict=True) if one))
    found = await there(database.get(user.id))
    assert (found.born, found.colour, found.settings) == (date(1815, 12, 10), Colour.BLUE, {"a": 1})
    stored = await there(adapter.users.get(str(user.id)))
    assert stored.metadata == {"theirs": [1], "born": "1815-12-10", "colour": "blue", "settings": {"a": 1}}


async def test_added_fields_round_trip(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    database = AllsourceUserDatabase[Rich, uuid.UUID](adapter, Rich)
    friends = [uuid.uuid4(), uuid.uuid4()]
    given = {"name": "Ada", "username": "ada", "born": date(1815, 12, 10), "colour": Colour.BLUE, "friends": friends}
    made = await database.create({"email": email("Ada"), "hashed_password": HASH, **given})
    found = await database.get(made.id)
    assert found == made
    assert {name: getattr(made, name) for name in given} == given
    assert made.created_at == clock()
    user = await there(adapter.users.get_by_username("ada"))
    assert user.name == "Ada"
    with pytest.raises(UserAlreadyExists) as refused:
        await database.create({"email": email("Grace"), "hashed_password": HASH, "username": "ada"})
    assert "username" in str(refused.value.__cause__)


async def test_a_password_replaces_the_one_that_was_read(database: Database, ada: User) -> None:
    same = [await database.get(ada.id) for _ in range(10)]

    async def reset(number: int, user: User | None) -> bool:
        assert user is not None
        try:
            await database.update(user, {"hashed_password": f"new {number}"})
        except UserChanged:
            return False
        return True

    won = await asyncio.gather(*(reset(number, user) for number, user in enumerate(same)))
    assert sum(won) == 1
    found = await there(database.get(ada.id))
    assert found.hashed_password == f"new {won.index(True)}"


async def test_removed_password_is_not_restored(database: Database, adapter: AllsourceAuthAdapter, ada: User) -> None:
    (account,) = await adapter.accounts.list_for_user(str(ada.id))
    await adapter.accounts.delete(account.id)
    with pytest.raises(UserChanged):
        await database.update(ada, {"hashed_password": "new"})
    found = await there(database.get(ada.id))
    assert found.hashed_password == NO_PASSWORD
    await database.update(found, {"hashed_password": "new"})
    assert await database.get(ada.id) == found


async def test_verification_applies_to_the_email_that_was_read(database: Database, ada: User) -> None:
    read = await database.get(ada.id)
    assert read is not None
    await database.update(ada, {"email": email("Grace"), "is_verified": False})
    with pytest.raises(InvalidVerifyToken):
        await database.update(read, {"is_verified": True})
    found = await there(database.get(ada.id))
    assert not found.is_verified


async def test_update_of_a_deleted_user_raises_user_gone(database: Database, ada: User) -> None:
    read = await database.get(ada.id)
    assert read is not None
    await database.delete(ada)
    with pytest.raises(UserGone):
        await database.update(read, {"first_name": "A."})
    with pytest.raises(UserNotExists):
        await database.update(read, {"first_name": "A."})
    with pytest.raises(UserGone):
        await database.update(read, {"hashed_password": "new"})


async def test_deleting_a_user_deletes_its_accounts_and_sessions(
    database: Database, adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    session = await adapter.sessions.create(user_id=str(ada.id), expires_at=clock() + timedelta(days=1))
    await database.delete(ada)
    assert await database.get(ada.id) is None
    assert await database.get_by_email(ada.email) is None
    assert await adapter.sessions.get(session.token) is None
    assert [account async for account in adapter.accounts.scan()] == []
    await database.delete(ada)
    again = await database.create({"email": ada.email, "hashed_password": "new"})
    assert again.id != ada.id


async def test_a_user_is_two_reads_and_an_email_three(site: Site, clock: ManualClock) -> None:
    store = CountingStore(site.store("default"))
    database = AllsourceUserDatabase[User, uuid.UUID](AllsourceAuthAdapter.with_store(store, clock=clock), User)
    ada = await database.create({"email": email("Ada"), "hashed_password": HASH})
    store.forget()
    assert await database.get(ada.id) == ada
    assert sorted(store.reads) == [f"auth-account:{ada.id}", f"auth-user:{ada.id}"]
    store.forget()
    assert await database.get_by_email(ada.email) == ada
    assert len(store.reads) == 3


async def test_user_and_account_are_read_concurrently(adapter: AllsourceAuthAdapter) -> None:
    database = AllsourceUserDatabase[User, uuid.UUID](adapter, User)
    ada = await database.create({"email": email("Ada"), "hashed_password": HASH})
    both = asyncio.Event()
    waiting = 0
    ours, theirs = adapter.users.get, adapter.accounts.get

    async def meet() -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 2:
            both.set()
        async with asyncio.timeout(10):
            await both.wait()

    async def user(key: str) -> Any:
        await meet()
        return await ours(key)

    async def account(key: str) -> Any:
        await meet()
        return await theirs(key)

    adapter.users.get, adapter.accounts.get = user, account  # type: ignore[method-assign]
    assert await database.get(ada.id) == ada


async def test_users_written_by_other_code_are_read(adapter: AllsourceAuthAdapter, database: Database) -> None:
    user = await adapter.users.create(email=email("Ada"))
    found = await there(database.get(uuid.UUID(user.id)))
    assert found.hashed_password == NO_PASSWORD
    await adapter.accounts.create(user_id=user.id, provider_id="credential", account_id=user.id, password=HASH)
    found = await there(database.get(uuid.UUID(user.id)))
    assert found.hashed_password == HASH
    await database.update(found, {"hashed_password": "new"})
    (account,) = await adapter.accounts.list_for_user(user.id)
    assert account.password == "new"


async def test_no_password_matches_a_user_without_password(adapter: AllsourceAuthAdapter, database: Database) -> None:
    user = await adapter.users.create(email=email("Ada"))
    found = await there(database.get(uuid.UUID(user.id)))
    helper = PasswordHelper()
    assert helper.verify_and_update("", found.hashed_password) == (False, None)
    assert helper.verify_and_update("A" * 43, found.hashed_password) == (False, None)
    await database.update(found, {"hashed_password": HASH})  # as a password reset does
    found = await there(database.get(uuid.UUID(user.id)))
    assert found.hashed_password == HASH
    assert not (await adapter.check()).findings


async def test_concurrently_deleted_user_gets_no_password(adapter: AllsourceAuthAdapter, database: Database) -> None:
    user = await adapter.users.create(email=email("Ada"))
    found = await there(database.get(uuid.UUID(user.id)))
    await adapter.users.delete(user.id)
    for changes in ({"hashed_password": HASH}, {"hashed_password": HASH, "is_active": True}):
        with pytest.raises(UserGone):
            await database.update(found, changes)
    assert [account async for account in adapter.accounts.scan()] == []


@pytest.mark.parametrize("more", [{}, {"is_active": True}])
async def test_deletion_concurrent_with_a_first_password_wins(
    site: Site, clock: ManualClock, more: dict[str, Any]
) -> None:
    store = Touching(site.store("default"))
    adapter = AllsourceAuthAdapter.with_store(store, clock=clock)
    database = AllsourceUserDatabase[User, uuid.UUID](adapter, User)
    user = await adapter.users.create(email=email("Ada"))
    found = await there(database.get(uuid.UUID(user.id)))
    others = AllsourceAuthAdapter.with_store(site.store("default"), clock=clock)
    store.touch = lambda: others.users.delete(user.id)
    with pytest.raises(UserGone):
        await database.update(found, {"hashed_password": HASH, **more})
    assert store.touch is None
    assert [account async for account in adapter.accounts.scan()] == []


async def test_password_set_concurrently_is_not_replaced(adapter: AllsourceAuthAdapter, database: Database) -> None:
    user = await adapter.users.create(email=email("Ada"))
    first = await there(database.get(uuid.UUID(user.id)))
    second = await there(database.get(uuid.UUID(user.id)))
    await database.update(first, {"hashed_password": "first"})
    with pytest.raises(UserChanged):
        await database.update(second, {"hashed_password": "second"})
    assert await database.get(first.id) == first


async def test_user_without_email_is_none(adapter: AllsourceAuthAdapter, database: Database) -> None:
    user = await adapter.users.create(username="ada")
    assert await database.get(uuid.UUID(user.id)) is None


async def test_ids_may_be_text(adapter: AllsourceAuthAdapter) -> None:
    database = AllsourceUserDatabase[Text, str](adapter, Text)
    await adapter.users.create(id="Zk3vT0aXqP", email=email("Ada"))
    found = await there(database.get("Zk3vT0aXqP"))
    assert found.id == "Zk3vT0aXqP"
    assert await database.get("") is None
    made = await database.create({"id": "chosen", "email": email("Grace"), "hashed_password": HASH})
    assert made.id == "chosen"
    with pytest.raises(UserAlreadyExists):
        await database.create({"id": "chosen", "email": email("Bob"), "hashed_password": HASH})
    assert StringIDMixin().parse_id("chosen") == "chosen"
    with pytest.raises(InvalidID):
        StringIDMixin().parse_id(5)


async def test_error_names_the_stored_field_that_does_not_fit(
    adapter: AllsourceAuthAdapter, database: Database
) -> None:
    await adapter.users.create(id="Zk3vT0aXqP", email=email("Ada"))
    with pytest.raises(Json) as failed:
        await database.get_by_email(email("Ada"))
    assert failed.value.path == "$.id"
    await adapter.users.create(email=email("Grace"), metadata={"first_name": [CANARY]})
    with pytest.raises(Json) as failed:
        await database.get_by_email(email("Grace"))
    assert failed.value.path == "$.first_name"


async def test_value_that_cannot_be_read_back_is_not_stored(adapter: AllsourceAuthAdapter) -> None:
    database = AllsourceUserDatabase[Rich, uuid.UUID](adapter, Rich)
    with pytest.raises(Json):
        await database.create({"email": email("Ada"), "hashed_password": HASH, "colour": "green"})
    assert await adapter.users.get_by_email(email("Ada")) is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"hashed_password": HASH}, "email"),
        ({"email": "a@example.org", "hashed_password": ""}, "hashed_password"),
        ({"email": "a@example.org", "hashed_password": HASH, "last_name": "L."}, "last_name"),
        ({"email": "a@example.org", "hashed_password": HASH, "role": "admin"}, "role"),
        ({"email": "a@example.org", "hashed_password": HASH, "first_name": object()}, "first_name"),
        ({"email": "a@example.org", "hashed_password": HASH, "is_superuser": "no"}, "is_superuser"),
        ({"email": " a@example.org", "hashed_password": HASH}, "email"),
    ],
)
async def test_invalid_field_is_refused(given: dict[str, Any], field: str) -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        with pytest.raises(InvalidInput) as refused:
            await AllsourceUserDatabase(adapter, User).create(given)
        assert refused.value.field == field
        assert (await adapter.users.list()).total == 0


async def test_read_only_field_is_refused(database: Database, ada: User) -> None:
    refused_changes: list[dict[str, Any]] = [
        {"id": uuid.uuid4()},
        {"last_name": "L."},
        {"oauth_accounts": []},
        {"updated_at": 1},
    ]
    for changes in refused_changes:
        with pytest.raises(InvalidInput) as refused:
            await database.update(ada, changes)
        assert refused.value.field == min(changes)


async def test_none_from_schemas_leaves_fields_unchanged(database: Database, ada: User) -> None:
    nothing = {"password": None, "is_active": None, "is_superuser": None, "is_verified": None, "email": None}
    assert await database.update(ada, nothing) is ada
    assert await database.get(ada.id) == ada


@pytest.mark.parametrize("name", ["role", "banned", "metadata", "email_verified", "password", "oauth_account_emails"])
def test_reserved_field_names_are_refused(name: str) -> None:
    kind = type("Kind", (AllsourceBaseUserUUID,), {"__annotations__": {name: str}, name: ""})
    with pytest.raises(InvalidInput, match=name):
        AllsourceUserDatabase(AllsourceAuthAdapter.embedded(), kind)


def test_user_type_must_be_a_subclass() -> None:
    with pytest.raises(InvalidInput, match="user_type"):
        AllsourceUserDatabase(AllsourceAuthAdapter.embedded(), dict)  # type: ignore[type-var]
    with pytest.raises(InvalidInput, match="no_password"):
        AllsourceUserDatabase(AllsourceAuthAdapter.embedded(), User, no_password="")


def test_repr_of_a_user_hides_personal_data() -> None:
    id_ = uuid.uuid4()
    shown = repr(OAuthUser(id=id_, email=email("Ada"), hashed_password=HASH, first_name=CANARY))
    assert shown == f"OAuthUser(id={id_!r}, is_active=True, is_superuser=False, is_verified=False)"


async def test_password_is_set_although_its_account_changes(site: Site, clock: ManualClock) -> None:
    store = site.store("default")
    adapter = AllsourceAuthAdapter.with_store(Touching(store), clock=clock)
    database = AllsourceUserDatabase[User, uuid.UUID](adapter, User)
    ada = await database.create({"email": email("Ada"), "hashed_password": HASH})
    others = AllsourceAuthAdapter.with_store(site.store("default"), clock=clock)
    touching = adapter._store
    assert isinstance(touching, Touching)
    touching.touch = lambda: others.accounts.update(str(ada.id), scope="email")
    await database.update(ada, {"hashed_password": "new"})
    assert touching.touch is None
    (account,) = await adapter.accounts.list_for_user(str(ada.id))
    assert (account.password, account.scope) == ("new", "email")


class Touching(CountingStore):
    """Calls ``touch`` once, just before an append."""

    touch: Any = None

    async def append(self, events: Any) -> Any:
        touch, self.touch = self.touch, None
        if touch is not None:
            await touch()
        return await super().append(events)
