"""Two tenants on one store, with the same ids, emails and tokens."""

from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, Session, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email, token
from tests.support.clocks import ManualClock


@pytest.fixture
def theirs(make_adapter: MakeAdapter) -> AllsourceAuthAdapter:
    return make_adapter(tenant_id="other-tenant")


async def sign_up(adapter: AllsourceAuthAdapter, clock: ManualClock, name: str) -> tuple[User, Session]:
    """Create the same id, email, username and token in every tenant; the name differs."""
    user = await adapter.users.create(id="same", email=email("same"), username="same", name=name)
    session = await adapter.sessions.create(
        user_id="same", expires_at=clock() + timedelta(days=1), token=token("same"), user_agent=name
    )
    return user, session


async def test_tenants_can_have_the_same_values(
    adapter: AllsourceAuthAdapter, theirs: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    ours = await sign_up(adapter, clock, "ours")
    other = await sign_up(theirs, clock, "theirs")
    for seen, (user, session) in ((adapter, ours), (theirs, other)):
        assert await seen.users.get("same") == user
        assert await seen.users.get_by_email(email("SAME")) == user
        assert await seen.users.get_by_username("same") == user
        assert await seen.sessions.get(token("same")) == session
        assert await seen.sessions.list_for_user("same") == [session]
        assert (await seen.users.list()).items == [user]
        assert [found async for found in seen.sessions.scan()] == [session]
        found = await seen.load_session(token("same"))
        assert found is not None
        assert (found.user, found.session) == (user, session)
        assert len(await seen.users.history("same")) == 1


async def test_data_of_another_tenant_is_invisible(
    adapter: AllsourceAuthAdapter, theirs: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    await sign_up(theirs, clock, "theirs")
    assert await adapter.users.get("same") is None
    assert await adapter.users.get_by_email(email("same")) is None
    assert await adapter.users.get_by_username("same") is None
    assert await adapter.load_session(token("same")) is None
    assert await adapter.sessions.list_for_user("same") == []
    assert await adapter.users.history("same") == []
    assert (await adapter.users.list()).total == 0
    assert await adapter.sessions.delete_for_user("same") == 0
    clock.move(timedelta(days=2))
    assert await adapter.sessions.delete_expired() == 0
    await adapter.users.delete("same")
    assert await theirs.users.get("same") is not None
    assert await theirs.sessions.get(token("same")) is not None


async def test_tenants_write_to_streams_with_the_same_id(
    adapter: AllsourceAuthAdapter, theirs: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    """The version of a stream counts the events of both tenants, which must not disturb the writers."""
    tenants = {"ours": adapter, "theirs": theirs}
    for name, seen in tenants.items():
        await sign_up(seen, clock, name)
    for round_ in range(3):
        for name, seen in tenants.items():
            user = await seen.users.update("same", name=f"{name} {round_}", email=email(f"{name}{round_}"))
            assert await seen.users.get_by_email(email(f"{name}{round_}")) == user
            await seen.sessions.update_expiry(token("same"), clock() + timedelta(days=round_ + 2))
    for name, seen in tenants.items():
        await seen.users.delete("same")
        assert await seen.sessions.get(token("same")) is None
        back = await seen.users.restore("same")
        assert back.name == f"{name} 2"
        assert [change.seq for change in await seen.users.history("same")] == [1, 2, 3, 4, 5, 6]


async def test_fences_and_sweeps_affect_one_tenant_only(
    adapter: AllsourceAuthAdapter, theirs: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    await sign_up(adapter, clock, "ours")
    await sign_up(theirs, clock, "theirs")
    clock.move(timedelta(days=2))
    assert await theirs.sessions.delete_expired() == 1
    assert await adapter.sessions.get(token("same")) is not None
    assert await adapter.sessions.delete_expired() == 1


async def test_values_of_one_tenant_never_collide_with_another(make_adapter: MakeAdapter) -> None:
    """Tenant, kind, field and value are separated in the hash."""
    first, second = make_adapter(tenant_id="a"), make_adapter(tenant_id="ab")
    await first.users.create(username="buser", id="one")
    await second.users.create(username="user", id="two")
    assert await second.users.get_by_username("buser") is None
    assert await first.users.get_by_username("user") is None
