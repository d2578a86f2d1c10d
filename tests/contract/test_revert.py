"""Reverting users to an earlier state."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, User, UserNotFound
from tests.support.canaries import email
from tests.support.clocks import START, ManualClock
from tests.support.events import metadata, refused, stored, written_by

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def changed(adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User) -> User:
    """Ada with another name, email and role, a minute later."""
    clock.move(MINUTE)
    return await adapter.users.update(ada.id, name="x", email=email("new"), username=None, role="admin")


async def test_revert_to_a_time_brings_the_state_back(
    adapter: AllsourceAuthAdapter, dated: ManualClock, ada: User, changed: User
) -> None:
    dated.move(MINUTE)
    reverted = await adapter.users.revert(ada.id, START)
    assert reverted == msgspec.structs.replace(ada, updated_at=dated())
    assert await adapter.users.get(ada.id) == reverted
    assert await adapter.users.get_by_email(email("Ada")) == reverted
    assert await adapter.users.get_by_username("ada") == reverted
    assert await adapter.users.get_by_email(email("new")) is None
    assert (await adapter.users.create(email=email("new"))).email == email("new")


async def test_revert_to_an_event_brings_the_state_back(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, changed: User
) -> None:
    first = (await adapter.users.history(ada.id))[0]
    reverted = await adapter.users.revert(ada.id, to=first.event_id)
    assert msgspec.structs.replace(reverted, updated_at=ada.updated_at) == ada
    newest = (await stored(store, f"auth-user:{ada.id}"))[-1]
    assert newest.type == "auth.user.updated"
    assert metadata(newest)["revertedTo"] == first.event_id
    (change,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    assert change.reverted_to == first.event_id


async def test_revert_can_be_reverted(adapter: AllsourceAuthAdapter, ada: User, changed: User) -> None:
    first, second = await adapter.users.history(ada.id)
    await adapter.users.revert(ada.id, to=first.event_id)
    again = await adapter.users.revert(ada.id, to=second.event_id)
    assert msgspec.structs.replace(again, updated_at=changed.updated_at) == changed


@pytest.mark.parametrize(("field", "value"), [("email", email("ADA")), ("username", "ada")])
async def test_value_taken_meanwhile_conflicts_and_nothing_changes(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, changed: User, field: str, value: str
) -> None:
    given: dict[str, Any] = {field: value}
    taker = await adapter.users.create(**given)
    first = (await adapter.users.history(ada.id))[0]
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.users.revert(ada.id, to=first.event_id)
    assert caught.value.field == field
    assert written.events == []
    assert await adapter.users.get(ada.id) == changed
    assert await adapter.users.get(taker.id) == taker


async def test_missing_and_deleted_users_are_not_found(adapter: AllsourceAuthAdapter, ada: User, changed: User) -> None:
    first = (await adapter.users.history(ada.id))[0]
    for missing in ("nobody", "", "x" * 500):
        with pytest.raises(UserNotFound):
            await adapter.users.revert(missing, to=first.event_id)
    await adapter.users.delete(ada.id)
    with pytest.raises(UserNotFound):
        await adapter.users.revert(ada.id, to=first.event_id)


async def test_time_before_the_first_event_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with refused(store, "to"):
        await adapter.users.revert(ada.id, to=datetime(1990, 1, 1, tzinfo=UTC))


async def test_time_of_the_deletion_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    await adapter.users.delete(ada.id)
    await adapter.users.restore(ada.id)
    deleted = (await adapter.users.history(ada.id))[1]
    async with refused(store, "to"):
        await adapter.users.revert(ada.id, to=deleted.event_id)


@pytest.mark.parametrize("to", ["no such event", "", datetime(2026, 1, 1), None, 5], ids=repr)  # noqa: DTZ001
async def test_event_or_time_that_is_not_of_the_user_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, to: Any
) -> None:
    async with refused(store, "to"):
        await adapter.users.revert(ada.id, to=to)
