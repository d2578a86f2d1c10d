"""Looking up users by id, email and username."""

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, InvalidInput, User
from tests.support.canaries import email
from tests.support.events import new_event, stored_user
from tests.support.names import claim_stream

LOOKUPS = ("get", "get_by_email", "get_by_username")


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("value", ["nobody", "", " ", " x", "a\x00b", "x" * 5000, "\ud800", "é"])
async def test_unknown_user_is_none(adapter: AllsourceAuthAdapter, lookup: str, value: str) -> None:
    assert await getattr(adapter.users, lookup)(value) is None


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("value", [None, 7, b"ada"])
async def test_value_that_is_not_text_is_refused(adapter: AllsourceAuthAdapter, lookup: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        await getattr(adapter.users, lookup)(value)
    assert caught.value.field == {"get": "id", "get_by_email": "email", "get_by_username": "username"}[lookup]


async def test_email_is_found_ignoring_case_and_keeps_its_spelling(adapter: AllsourceAuthAdapter, ada: User) -> None:
    for spelling in (email("Ada"), email("ada"), email("Ada").upper()):
        found = await adapter.users.get_by_email(spelling)
        assert found is not None
        assert found == ada
        assert found.email == email("Ada")


async def test_email_with_composed_and_decomposed_letters_is_the_same(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(email="e\u0301@example.org")
    assert user.email == "e\u0301@example.org"
    assert await adapter.users.get_by_email("\u00c9@EXAMPLE.org") == user


async def test_username_is_found_exactly(adapter: AllsourceAuthAdapter, ada: User) -> None:
    assert await adapter.users.get_by_username("ada") == ada
    assert await adapter.users.get_by_username("Ada") is None


async def test_id_is_exact(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(id="Ada")
    assert await adapter.users.get("Ada") == user
    assert await adapter.users.get("ada") is None


async def test_email_is_no_username(adapter: AllsourceAuthAdapter) -> None:
    await adapter.users.create(email="ada")
    assert await adapter.users.get_by_username("ada") is None


async def test_deleted_user_is_none_everywhere(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.delete(ada.id)
    assert await adapter.users.get(ada.id) is None
    assert await adapter.users.get_by_email(email("Ada")) is None
    assert await adapter.users.get_by_username("ada") is None


async def test_changed_email_is_found_and_the_old_one_is_not(adapter: AllsourceAuthAdapter, ada: User) -> None:
    changed = await adapter.users.update(ada.id, email=email("new"))
    assert await adapter.users.get_by_email(email("new")) == changed
    assert await adapter.users.get_by_email(email("Ada")) is None


async def test_claim_without_its_owner_reads_as_none(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    """A sign-up was interrupted between its claim and its commit point."""
    claim = {"v": 1, "owner": "auth-user:never", "ownerVersion": 0}
    await store.append([new_event(claim_stream("email", "lost@example.org"), claim, type="auth.index.claimed")])
    assert await adapter.users.get_by_email("lost@example.org") is None


async def test_claim_whose_owner_has_another_email_reads_as_none(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    claim = {"v": 1, "owner": "auth-user:moved", "ownerVersion": 0}
    await store.append(
        [
            new_event(claim_stream("email", "old@example.org"), claim, type="auth.index.claimed"),
            new_event("auth-user:moved", stored_user("moved", email="new@example.org")),
        ]
    )
    assert await adapter.users.get_by_email("old@example.org") is None
