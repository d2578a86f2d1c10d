"""Updating users: given fields, omitted fields, cleared fields, and ownership of unique values."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from allsource_auth import UNSET, AllsourceAuthAdapter, Conflict, EventStore, User, UserNotFound
from tests.support.canaries import CANARY, email
from tests.support.clocks import ManualClock
from tests.support.events import written_by

BAN_ENDS = datetime(2027, 1, 1, 12, tzinfo=UTC)

FIELDS: dict[str, Any] = {
    "email": email("new"),
    "name": "New",
    "image": "new.png",
    "email_verified": True,
    "username": "new",
    "display_username": "NEW",
    "role": "admin",
    "banned": True,
    "ban_reason": "spam",
    "ban_expires": BAN_ENDS,
    "two_factor_enabled": True,
    "metadata": {"note": CANARY},
}
CLEARABLE = ("email", "name", "image", "username", "display_username", "role", "ban_reason", "ban_expires", "metadata")


@pytest.mark.parametrize("field", FIELDS)
async def test_one_field_changes_and_the_others_stay(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User, field: str
) -> None:
    later = clock.move(timedelta(seconds=5))
    changed = await adapter.users.update(ada.id, **{field: FIELDS[field]})
    assert changed == msgspec.structs.replace(ada, updated_at=later, **{field: FIELDS[field]})
    assert await adapter.users.get(ada.id) == changed


async def test_all_fields_change_at_once(adapter: AllsourceAuthAdapter, ada: User) -> None:
    changed = await adapter.users.update(ada.id, **FIELDS)
    assert changed == msgspec.structs.replace(ada, updated_at=changed.updated_at, **FIELDS)
    assert await adapter.users.get_by_email(email("new")) == changed
    assert await adapter.users.get_by_username("new") == changed


@pytest.mark.parametrize("field", CLEARABLE)
async def test_none_clears_a_field(adapter: AllsourceAuthAdapter, ada: User, field: str) -> None:
    full = await adapter.users.update(ada.id, **FIELDS)
    nothing: dict[str, Any] = {field: None}
    cleared = await adapter.users.update(ada.id, **nothing)
    assert cleared == msgspec.structs.replace(full, **{field: None})
    assert await adapter.users.get(ada.id) == cleared


async def test_unset_leaves_a_field_unchanged(adapter: AllsourceAuthAdapter, ada: User) -> None:
    full = await adapter.users.update(ada.id, **FIELDS)
    given: dict[str, Any] = {**dict.fromkeys(FIELDS, UNSET), "name": "Newer"}
    changed = await adapter.users.update(ada.id, **given)
    assert changed == msgspec.structs.replace(full, name="Newer")


async def test_update_without_any_field_writes_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, ada: User
) -> None:
    clock.move(timedelta(hours=1))
    async with written_by(store) as written:
        assert await adapter.users.update(ada.id) == ada
        assert await adapter.users.update(ada.id, **dict.fromkeys(FIELDS, UNSET)) == ada
    assert written.events == []


@pytest.mark.parametrize("given", [{}, {"name": "x"}, {"email": email("x")}])
@pytest.mark.parametrize("missing", ["nobody", "", "x" * 500])
async def test_missing_user_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, missing: str, given: dict[str, Any]
) -> None:
    async with written_by(store) as written:
        with pytest.raises(UserNotFound) as caught:
            await adapter.users.update(missing, **given)
    assert caught.value.kind == "user"
    assert written.events == []


async def test_deleted_user_is_not_found(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.delete(ada.id)
    with pytest.raises(UserNotFound):
        await adapter.users.update(ada.id, name="x")
    with pytest.raises(UserNotFound):
        await adapter.users.update(ada.id)


@pytest.mark.parametrize(
    "given", [{}, {"ban_reason": "other", "ban_expires": BAN_ENDS}], ids=["alone", "with-ban-fields"]
)
async def test_lifting_a_ban_clears_reason_and_end(
    adapter: AllsourceAuthAdapter, ada: User, given: dict[str, Any]
) -> None:
    await adapter.users.update(ada.id, banned=True, ban_reason="spam", ban_expires=BAN_ENDS)
    lifted = await adapter.users.update(ada.id, banned=False, **given)
    assert (lifted.banned, lifted.ban_reason, lifted.ban_expires) == (False, None, None)
    assert await adapter.users.get(ada.id) == lifted


async def test_other_updates_keep_a_ban(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.update(ada.id, banned=True, ban_reason="spam", ban_expires=BAN_ENDS)
    changed = await adapter.users.update(ada.id, name="x")
    assert (changed.banned, changed.ban_reason, changed.ban_expires) == (True, "spam", BAN_ENDS)


@pytest.mark.parametrize(("field", "value"), [("email", email("GRACE")), ("username", "grace")])
async def test_taken_value_conflicts_and_nothing_changes(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, field: str, value: str
) -> None:
    grace = await adapter.users.create(email=email("Grace"), username="grace")
    given: dict[str, Any] = {"name": "x", field: value}
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.users.update(ada.id, **given)
    assert (caught.value.kind, caught.value.field) == ("user", field)
    assert written.events == []
    assert await adapter.users.get(ada.id) == ada
    assert await adapter.users.get_by_email(email("Grace")) == grace
    assert await adapter.users.get_by_username("grace") == grace


async def test_old_email_and_username_are_free_at_once(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.update(ada.id, email=email("new"), username="new")
    taker = await adapter.users.create(email=email("ADA"), username="ada")
    assert await adapter.users.get_by_email(email("ada")) == taker


async def test_cleared_email_is_free_at_once(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.update(ada.id, email=None)
    assert await adapter.users.get_by_email(email("Ada")) is None
    await adapter.users.create(email=email("Ada"))


async def test_email_may_change_its_case(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    async with written_by(store) as written:
        changed = await adapter.users.update(ada.id, email=email("ADA"))
    assert written.types == ["auth.user.updated"]
    assert changed.email == email("ADA")
    assert await adapter.users.get_by_email(email("ada")) == changed


async def test_email_can_be_changed_and_changed_back(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.users.update(ada.id, email=email("new"))
    back = await adapter.users.update(ada.id, email=email("Ada"))
    assert await adapter.users.get_by_email(email("Ada")) == back
    assert await adapter.users.get_by_email(email("new")) is None
    with pytest.raises(Conflict):
        await adapter.users.create(email=email("ada"))


async def test_two_users_swap_usernames_in_three_steps(adapter: AllsourceAuthAdapter, ada: User) -> None:
    grace = await adapter.users.create(username="grace")
    await adapter.users.update(ada.id, username=None)
    await adapter.users.update(grace.id, username="ada")
    await adapter.users.update(ada.id, username="grace")
    assert (await adapter.users.get_by_username("ada")) == await adapter.users.get(grace.id)
    assert (await adapter.users.get_by_username("grace")) == await adapter.users.get(ada.id)


async def test_offset_is_read_as_utc(adapter: AllsourceAuthAdapter, ada: User) -> None:
    paris = timezone(timedelta(hours=1))
    changed = await adapter.users.update(ada.id, ban_expires=BAN_ENDS.astimezone(paris))
    assert changed.ban_expires == BAN_ENDS
    assert changed.ban_expires is not None
    assert changed.ban_expires.tzinfo is UTC
