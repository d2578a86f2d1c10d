"""With equal timestamps and clocks that step back, the newest state is still found."""

from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, Session, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import START, ManualClock

STEPS = {"standing": timedelta(0), "back": -timedelta(hours=1), "forth": timedelta(hours=1)}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_newest_state_wins_whatever_the_clock_does(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, clock: ManualClock, ada: User, step: timedelta
) -> None:
    others = [adapter, make_adapter()]
    for number in range(6):
        clock.move(step)
        changed = await others[number % 2].users.update(ada.id, name=str(number), email=email(str(number)))
        for seen in others:
            assert await seen.users.get(ada.id) == changed
            assert await seen.users.get_by_email(email(str(number))) == changed
        assert changed.updated_at == clock()
    names = [change.state.name for change in await adapter.users.history(ada.id) if change.state]
    assert names == ["Ada", *map(str, range(6))]
    assert [change.seq for change in await adapter.users.history(ada.id)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_revoked_session_stays_revoked(
    adapter: AllsourceAuthAdapter, clock: ManualClock, session: Session, step: timedelta
) -> None:
    clock.move(step)
    await adapter.sessions.update_expiry(session.token, START + timedelta(days=30))
    clock.move(step)
    await adapter.sessions.delete(session.token)
    assert await adapter.load_session(session.token) is None
    assert await adapter.sessions.list_for_user(session.user_id) == []


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_user_can_be_deleted_and_restored_whatever_the_clock_does(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User, step: timedelta
) -> None:
    for _ in range(3):
        clock.move(step)
        await adapter.users.delete(ada.id)
        assert await adapter.users.get(ada.id) is None
        clock.move(step)
        back = await adapter.users.restore(ada.id)
        assert await adapter.users.get_by_email(email("Ada")) == back


async def test_list_follows_a_clock_that_steps_back(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User
) -> None:
    for _ in range(70):
        clock.move(-timedelta(seconds=1))
        session = await adapter.sessions.create(user_id=ada.id, expires_at=START)
        await adapter.sessions.delete(session.token)
    kept = await adapter.sessions.create(user_id=ada.id, expires_at=START)
    assert await adapter.sessions.list_for_user(ada.id) == [kept]


async def test_sweep_after_a_clock_that_stepped_back(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    first = await adapter.sessions.create(user_id="u", expires_at=clock() + timedelta(hours=1))
    clock.move(timedelta(days=2))
    assert await adapter.sessions.delete_expired() == 1
    clock.move(-timedelta(days=1))
    second = await adapter.sessions.create(user_id="u", expires_at=clock() + timedelta(hours=1))
    clock.move(timedelta(days=2))
    assert await adapter.sessions.delete_expired() == 1
    assert await adapter.sessions.get_many([first.token, second.token]) == {}
