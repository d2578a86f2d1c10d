"""Creating users."""

import uuid
from datetime import UTC

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import CANARY, email
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored_user, written_by


async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    user = await adapter.users.create(
        email=email("Ada"),
        name="Ada Lovelace",
        image="https://example.org/ada.png",
        email_verified=True,
        username="Ada",
        display_username="ADA",
        role="admin,user",
        metadata={"theme": "dark", "n": [1, 2.5, None, {"secret": CANARY}]},
    )
    assert user == User(
        id=user.id,
        created_at=clock(),
        updated_at=clock(),
        email=email("Ada"),
        name="Ada Lovelace",
        image="https://example.org/ada.png",
        email_verified=True,
        username="Ada",
        display_username="ADA",
        role="admin,user",
        metadata={"theme": "dark", "n": [1, 2.5, None, {"secret": CANARY}]},
    )
    assert await adapter.users.get(user.id) == user


async def test_nothing_is_required(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    user = await adapter.users.create()
    assert user == User(id=user.id, created_at=clock(), updated_at=clock())
    assert user.created_at.tzinfo is UTC
    assert await adapter.users.get(user.id) == user


async def test_generated_id_is_a_uuid4(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create()
    assert str(uuid.UUID(user.id, version=4)) == user.id


async def test_caller_may_choose_the_id(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(id="my/ID @ é")
    assert user.id == "my/ID @ é"
    assert await adapter.users.get("my/ID @ é") == user


async def test_second_sign_up_with_same_email_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.users.create(email=email("Ada"))
    assert (caught.value.kind, caught.value.field) == ("user", "email")
    assert written.events == []


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ("ada@example.org", "ADA@Example.ORG"),
        ("élodie@example.org", "ÉLODIE@example.org"),
        ("e\u0301lodie@example.org", "\u00e9lodie@example.org"),
        ("E\u0301lodie@example.org", "\u00e9lodie@example.org"),
        ("\u03a9mega@example.org", "\u2126mega@example.org"),
    ],
    ids=["ascii", "accent", "decomposed", "decomposed-capital", "ohm-sign"],
)
async def test_emails_conflict_ignoring_case_and_composition(
    adapter: AllsourceAuthAdapter, taken: str, wanted: str
) -> None:
    await adapter.users.create(email=taken)
    with pytest.raises(Conflict):
        await adapter.users.create(email=wanted)


async def test_usernames_are_exact(adapter: AllsourceAuthAdapter, ada: User) -> None:
    other = await adapter.users.create(username="Ada")
    assert await adapter.users.get_by_username("Ada") == other
    with pytest.raises(Conflict) as caught:
        await adapter.users.create(username="ada")
    assert (caught.value.kind, caught.value.field) == ("user", "username")


async def test_missing_emails_and_usernames_never_collide(adapter: AllsourceAuthAdapter) -> None:
    first, second = await adapter.users.create(), await adapter.users.create()
    assert first.id != second.id


async def test_id_that_exists_conflicts_and_changes_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.users.create(id=ada.id, email=email("other"))
    assert (caught.value.kind, caught.value.field) == ("user", "id")
    assert written.events == []
    assert await adapter.users.get(ada.id) == ada
    assert await adapter.users.get_by_email(email("other")) is None


async def test_id_that_others_wrote_conflicts(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:theirs", stored_user("theirs"))])
    with pytest.raises(Conflict):
        await adapter.users.create(id="theirs")


async def test_refused_username_leaves_the_email_free(adapter: AllsourceAuthAdapter, ada: User) -> None:
    with pytest.raises(Conflict):
        await adapter.users.create(email=email("Grace"), username="ada")
    grace = await adapter.users.create(email=email("Grace"))
    assert await adapter.users.get_by_email(email("Grace")) == grace


async def test_creating_over_a_tombstone_creates_a_new_user(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User
) -> None:
    await adapter.users.delete(ada.id)
    again = await adapter.users.create(id=ada.id, email=email("new"))
    assert again == User(id=ada.id, created_at=clock(), updated_at=clock(), email=email("new"))
    assert await adapter.users.get(ada.id) == again
    assert [change.event for change in await adapter.users.history(ada.id)] == [
        "UserCreated",
        "UserDeleted",
        "UserCreated",
    ]


async def test_another_adapter_sees_the_user_at_once(adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter) -> None:
    other = make_adapter()
    user = await adapter.users.create(email=email("Ada"))
    assert await other.users.get(user.id) == user
    assert await other.users.get_by_email(email("ada")) == user
    with pytest.raises(Conflict):
        await other.users.create(email=email("ada"))
