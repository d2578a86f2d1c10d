"""A child that was created for a deleted parent does not block its unique value."""

# ruff: noqa: PT012 - a transaction is a block, and ends with it

import pytest

from allsource_auth import AllsourceAuthAdapter


@pytest.fixture(autouse=True)
async def orphan(adapter: AllsourceAuthAdapter) -> None:
    await adapter.users.create(id="gone")
    await adapter.users.delete("gone")
    await adapter.accounts.create(id="orphan", user_id="gone", provider_id="github", account_id="1")


async def test_value_of_an_orphan_is_free(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create()
    account = await adapter.accounts.create(user_id=user.id, provider_id="github", account_id="1")
    assert await adapter.accounts.get_by_provider("github", "1") == account
    assert await adapter.accounts.get("orphan") is None


async def test_value_of_an_orphan_is_free_in_a_transaction(adapter: AllsourceAuthAdapter) -> None:
    async with adapter.transaction() as tx:
        user = await tx.users.create()
        account = await tx.accounts.create(user_id=user.id, provider_id="github", account_id="1")
    assert await adapter.accounts.get_by_provider("github", "1") == account
    assert await adapter.accounts.get("orphan") is None


async def test_orphan_is_deleted_even_if_the_transaction_is_not_stored(
    adapter: AllsourceAuthAdapter,
) -> None:
    with pytest.raises(LookupError):
        async with adapter.transaction() as tx:
            await tx.accounts.create(user_id="u", provider_id="github", account_id="1")
            raise LookupError
    assert await adapter.accounts.get("orphan") is None
    assert (await adapter.check()).findings == ()
