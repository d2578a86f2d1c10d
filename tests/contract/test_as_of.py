"""`as_of`: the state at a time, or right after an event."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from allsource_auth import AllsourceAuthAdapter, InvalidInput, Session, User
from tests.support.clocks import ManualClock

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)


async def test_as_of_returns_the_state_after_each_change(
    adapter: AllsourceAuthAdapter, dated: ManualClock, ada: User
) -> None:
    dated.move(MINUTE)
    await adapter.users.update(ada.id, name="second")
    dated.move(MINUTE)
    await adapter.users.delete(ada.id)
    dated.move(MINUTE)
    await adapter.users.restore(ada.id)
    changes = await adapter.users.history(ada.id)
    assert len({change.at for change in changes}) == 4
    for change in changes:
        assert await adapter.users.as_of(ada.id, change.at) == change.state
        assert await adapter.users.as_of(ada.id, change.at + MINUTE - MICROSECOND) == change.state
        assert await adapter.users.as_of(ada.id, change.at - MICROSECOND) == change.before
        assert await adapter.users.as_of(ada.id, change.event_id) == change.state


async def test_changes_in_one_microsecond_are_distinguished_by_event_id(
    adapter: AllsourceAuthAdapter, dated: ManualClock, ada: User
) -> None:
    await adapter.users.update(ada.id, name="second")
    third = await adapter.users.update(ada.id, name="third")
    changes = await adapter.users.history(ada.id)
    assert len({change.at for change in changes}) == 1
    assert await adapter.users.as_of(ada.id, changes[0].at) == third
    assert [await adapter.users.as_of(ada.id, change.event_id) for change in changes] == [
        change.state for change in changes
    ]


async def test_time_zone_of_the_argument_does_not_matter(adapter: AllsourceAuthAdapter, ada: User) -> None:
    (change,) = await adapter.users.history(ada.id)
    for hours in (-11, 0, 5.5, 14):
        assert await adapter.users.as_of(ada.id, change.at.astimezone(timezone(timedelta(hours=hours)))) == ada


async def test_state_before_the_first_event_is_none(adapter: AllsourceAuthAdapter, ada: User) -> None:
    assert await adapter.users.as_of(ada.id, datetime(1970, 1, 1, tzinfo=UTC)) is None
    assert await adapter.users.as_of(ada.id, datetime(1, 1, 1, tzinfo=UTC)) is None
    assert await adapter.users.as_of(ada.id, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == ada


@pytest.mark.parametrize("key", ["nobody", "", "x" * 500])
async def test_unknown_user_is_none_at_any_time(adapter: AllsourceAuthAdapter, key: str) -> None:
    assert await adapter.users.as_of(key, datetime(2100, 1, 1, tzinfo=UTC)) is None


async def test_as_of_works_for_sessions(adapter: AllsourceAuthAdapter, dated: ManualClock, session: Session) -> None:
    (created,) = await adapter.sessions.history(session.token)
    dated.move(MINUTE)
    await adapter.sessions.delete(session.token)
    assert await adapter.sessions.as_of(session.token, created.at) == session
    assert await adapter.sessions.as_of(session.token, dated()) is None


async def test_event_of_another_entity_is_refused(adapter: AllsourceAuthAdapter, ada: User) -> None:
    other = await adapter.users.create()
    (change,) = await adapter.users.history(other.id)
    for unknown in (change.event_id, "no such event", ""):
        with pytest.raises(InvalidInput) as caught:
            await adapter.users.as_of(ada.id, unknown)
        assert caught.value.field == "when"


@pytest.mark.parametrize("when", [datetime(2026, 1, 1), None, 5, 5.0])  # noqa: DTZ001
async def test_invalid_argument_is_refused(adapter: AllsourceAuthAdapter, ada: User, when: datetime) -> None:
    with pytest.raises(InvalidInput) as caught:
        await adapter.users.as_of(ada.id, when)
    assert caught.value.field == "when"
