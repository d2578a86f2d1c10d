"""A user's accounts at OAuth providers."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from fastapi_users.exceptions import UserAlreadyExists

from allsource_auth import AllsourceAuthAdapter, InvalidInput
from allsource_auth.integrations.fastapi_users import AllsourceUserDatabase, OAuthAccountTaken, UserGone
from tests.integrations.fastapi_users.people import OAuthUser, User
from tests.support.canaries import CANARY, email
from tests.support.clocks import ManualClock

pytestmark = pytest.mark.integrations

Database = AllsourceUserDatabase[OAuthUser, uuid.UUID]


def account(**changes: Any) -> dict[str, Any]:
    return {
        "oauth_name": "service",
        "access_token": f"access {CANARY}",
        "account_id": "user-1",
        "account_email": email("Ada.Private"),
        "expires_at": 1_900_000_000,
        "refresh_token": f"refresh {CANARY}",
    } | changes


@pytest.fixture
def database(adapter: AllsourceAuthAdapter) -> Database:
    return AllsourceUserDatabase(adapter, OAuthUser)


@pytest.fixture
async def ada(database: Database) -> OAuthUser:
    return await database.create({"email": email("Ada"), "hashed_password": "hash"})


async def test_an_account_is_added_and_finds_its_user(
    database: Database, adapter: AllsourceAuthAdapter, ada: OAuthUser
) -> None:
    assert ada.oauth_accounts == []
    assert await database.add_oauth_account(ada, account()) is ada
    (added,) = ada.oauth_accounts
    assert isinstance(added.id, uuid.UUID)
    assert added.user_id == ada.id
    assert {name: getattr(added, name) for name in account()} == account()
    assert CANARY not in repr(ada)
    assert await database.get(ada.id) == ada
    assert await database.get_by_email(ada.email) == ada
    assert await database.get_by_oauth_account("service", "user-1") == ada
    assert await database.get_by_oauth_account("service", "user-2") is None
    assert await database.get_by_oauth_account("other", "user-1") is None
    stored = await adapter.accounts.get_by_provider("service", "user-1")
    assert stored is not None
    assert (stored.user_id, stored.access_token) == (str(ada.id), f"access {CANARY}")
    assert stored.access_token_expires_at is not None
    assert stored.access_token_expires_at.timestamp() == 1_900_000_000


async def test_credential_account_is_not_an_oauth_account(database: Database, ada: OAuthUser) -> None:
    assert ada.hashed_password == "hash"
    assert await database.get_by_oauth_account("credential", str(ada.id)) is None
    with pytest.raises(InvalidInput, match="oauth_name"):
        await database.add_oauth_account(ada, account(oauth_name="credential"))


async def test_accounts_are_in_order_of_creation(database: Database, ada: OAuthUser, clock: ManualClock) -> None:
    for number in range(3):
        clock.move(timedelta(seconds=1))
        await database.add_oauth_account(ada, account(account_id=f"user-{number}"))
    found = await database.get(ada.id)
    assert found is not None
    assert [one.account_id for one in found.oauth_accounts] == ["user-0", "user-1", "user-2"]


async def test_new_tokens_are_stored(database: Database, ada: OAuthUser) -> None:
    await database.add_oauth_account(ada, account())
    changes = {"access_token": "new", "expires_at": None, "refresh_token": None, "account_email": email("Grace")}
    assert await database.update_oauth_account(ada, ada.oauth_accounts[0], account(**changes)) is ada
    (found,) = ada.oauth_accounts
    assert {name: getattr(found, name) for name in changes} == changes
    assert await database.get(ada.id) == ada
    # A part of it is enough.
    await database.update_oauth_account(ada, found, {"access_token": "newer"})
    assert ada.oauth_accounts[0].access_token == "newer"
    assert ada.oauth_accounts[0].account_email == email("Grace")


async def test_user_update_keeps_accounts(database: Database, ada: OAuthUser) -> None:
    await database.add_oauth_account(ada, account())
    await database.update(ada, {"first_name": "Ada", "hashed_password": "new"})
    assert (ada.first_name, len(ada.oauth_accounts)) == ("Ada", 1)
    assert await database.get(ada.id) == ada


async def test_an_account_belongs_to_one_user(
    database: Database, adapter: AllsourceAuthAdapter, ada: OAuthUser
) -> None:
    grace = await database.create({"email": email("Grace"), "hashed_password": "hash"})
    await database.add_oauth_account(ada, account())
    with pytest.raises(OAuthAccountTaken) as refused:
        await database.add_oauth_account(grace, account())
    assert isinstance(refused.value, UserAlreadyExists)
    assert refused.value.status_code == 400
    assert grace.oauth_accounts == []
    assert not (await adapter.check()).findings


async def test_adding_an_account_again_updates_it(database: Database, ada: OAuthUser) -> None:
    await database.add_oauth_account(ada, account())
    await database.add_oauth_account(ada, account(access_token="new"))
    (found,) = ada.oauth_accounts
    assert found.access_token == "new"


async def test_accounts_added_concurrently_are_all_kept(
    database: Database, adapter: AllsourceAuthAdapter, ada: OAuthUser
) -> None:
    given = [account(account_id=f"user-{number}", account_email=f"{number}@example.org") for number in range(8)]
    copies = [await database.get(ada.id) for _ in given]
    await asyncio.gather(
        *(database.add_oauth_account(user, one) for user, one in zip(copies, given, strict=True) if user)
    )
    found = await database.get(ada.id)
    assert found is not None
    emails = {one.account_id: one.account_email for one in found.oauth_accounts}
    assert emails == {one["account_id"]: one["account_email"] for one in given}
    assert not (await adapter.check()).findings


async def test_accounts_written_by_other_code_are_read(
    database: Database, adapter: AllsourceAuthAdapter, ada: OAuthUser
) -> None:
    await adapter.accounts.create(user_id=str(ada.id), provider_id="service", account_id="user-1")
    found = await database.get_by_oauth_account("service", "user-1")
    assert found is not None
    (one,) = found.oauth_accounts
    assert (one.access_token, one.expires_at, one.account_email) == ("", None, ada.email)


async def test_deleted_user_gets_no_account(database: Database, adapter: AllsourceAuthAdapter, ada: OAuthUser) -> None:
    await database.add_oauth_account(ada, account())
    (added,) = ada.oauth_accounts
    await database.delete(ada)
    assert await database.get_by_oauth_account("service", "user-1") is None
    with pytest.raises(UserGone):
        await database.add_oauth_account(ada, account())
    with pytest.raises(UserGone):
        await database.update_oauth_account(ada, added, account())
    assert [one async for one in adapter.accounts.scan()] == []


async def test_invalid_account_is_refused(database: Database, ada: OAuthUser) -> None:
    await database.add_oauth_account(ada, account())
    (added,) = ada.oauth_accounts
    with pytest.raises(InvalidInput, match="scope"):
        await database.add_oauth_account(ada, account(scope="all"))
    with pytest.raises(InvalidInput, match="account_id"):
        await database.update_oauth_account(ada, added, {"account_id": "user-2"})
    with pytest.raises(InvalidInput, match="expires_at"):
        await database.update_oauth_account(ada, added, {"expires_at": "soon"})
    assert await database.get(ada.id) == ada


async def test_user_type_without_accounts_is_refused(adapter: AllsourceAuthAdapter) -> None:
    database = AllsourceUserDatabase[User, uuid.UUID](adapter, User)
    ada = await database.create({"email": email("Ada"), "hashed_password": "hash"})
    with pytest.raises(InvalidInput, match="oauth_accounts"):
        await database.get_by_oauth_account("service", "user-1")
    with pytest.raises(InvalidInput, match="oauth_accounts"):
        await database.add_oauth_account(ada, account())
