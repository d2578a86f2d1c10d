"""The number of reads and appends of each call, for stores of any size."""

import asyncio
from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import Watch, email
from tests.support.clocks import ManualClock
from tests.support.crowds import crowd_email, crowd_id, crowd_username, sign_up_crowd
from tests.support.names import index_stream
from tests.support.targets import Target
from tests.support.wrappers import CountingStore

WEEK = timedelta(days=7)

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def watch() -> Watch:
    """Replaces the watch for secrets, which would take longer than the calls."""
    return Watch()


@pytest.fixture
def counted(store: EventStore) -> CountingStore:
    return CountingStore(store)


@pytest.fixture
async def counting(make_adapter: MakeAdapter, counted: CountingStore) -> AllsourceAuthAdapter:
    """An adapter after its first write, which also stores the settings."""
    adapter = make_adapter(store=counted)
    await adapter.users.create(id="warm")
    counted.forget()
    return adapter


@pytest.mark.parametrize("users", [100, 100_000])
async def test_look_up_takes_two_reads_among_any_number(
    counting: AllsourceAuthAdapter, counted: CountingStore, store: EventStore, target: Target, users: int
) -> None:
    users = min(users, target.crowd)
    await sign_up_crowd(store, users)
    for number in (0, users // 2, users - 50):
        counted.forget()
        found = await counting.users.get_by_email(crowd_email(number).upper())
        assert found is not None
        assert (found.id, found.username) == (crowd_id(number), crowd_username(number))
        assert len(counted.reads) <= 2
        counted.forget()
        assert found.username is not None
        assert await counting.users.get_by_username(found.username) == found
        assert len(counted.reads) <= 2
    counted.forget()
    assert await counting.users.get_by_email(crowd_email(users)) is None
    assert len(counted.reads) == 1
    assert counted.scanned == 0
    with pytest.raises(Conflict):
        await counting.users.create(email=crowd_email(users - 1))


async def test_more_than_ten_thousand_users_are_listed_with_the_true_total(
    counting: AllsourceAuthAdapter, store: EventStore
) -> None:
    await sign_up_crowd(store, 12_345, claims=False)
    page = await counting.users.list(limit=20_000, sort_by="email", search_value="person")
    assert page.total == len(page.items) == 12_345
    assert {user.id for user in page.items} == {crowd_id(number) for number in range(12_345)}
    assert (await counting.users.list(limit=1, offset=12_345)).total == 12_346
    assert len([user async for user in counting.users.scan()]) == 12_346


async def test_list_of_a_busy_user_takes_few_reads(
    counting: AllsourceAuthAdapter, counted: CountingStore, dated: ManualClock
) -> None:
    clock = dated
    kept = [await counting.sessions.create(user_id="u", expires_at=clock() + WEEK) for _ in range(3)]

    async def sign_in_and_out(times: int) -> None:
        for _ in range(times):
            session = await counting.sessions.create(user_id="u", expires_at=clock() + WEEK)
            await counting.sessions.delete(session.token)

    await asyncio.gather(*[sign_in_and_out(250) for _ in range(40)])
    counted.forget()
    listed = await counting.sessions.list_for_user("u")
    assert {session.token for session in listed} == {session.token for session in kept}
    lists = [stream for stream in counted.reads if stream == index_stream("u")]
    assert len(lists) <= 3
    assert len(counted.reads) - len(lists) <= 3
    assert counted.scanned == 0


async def test_sign_in_is_one_append_without_a_read(
    counting: AllsourceAuthAdapter, counted: CountingStore, clock: ManualClock
) -> None:
    await counting.sessions.create(user_id="u", expires_at=clock() + WEEK)
    assert (len(counted.appends), counted.reads) == (1, [])
    assert len(counted.appends[0]) == 2


@pytest.mark.parametrize(
    ("given", "reads", "events"),
    [
        ({}, 0, 1),
        ({"email": email("a")}, 1, 2),
        ({"email": email("a"), "username": "a"}, 2, 3),
    ],
    ids=["nothing", "email", "email-and-username"],
)
async def test_sign_up_is_one_append_and_a_read_per_value(
    counting: AllsourceAuthAdapter, counted: CountingStore, given: dict[str, str], reads: int, events: int
) -> None:
    await counting.users.create(**given)  # type: ignore[arg-type]
    assert len(counted.appends) == 1
    assert len(counted.appends[0]) == events
    # On a store that loses versions on restart, a new claim is read back.
    assert len(counted.reads) <= (2 * reads if counted.loses_versions_on_restart else reads)


async def test_first_sign_up_of_an_adapter_also_settles_the_settings(
    make_adapter: MakeAdapter, counted: CountingStore
) -> None:
    await make_adapter(store=counted).users.create()
    assert len(counted.appends) == 2
    assert len(counted.reads) <= 3


async def test_get_is_one_read(counting: AllsourceAuthAdapter, counted: CountingStore) -> None:
    assert await counting.users.get("warm") is not None
    assert await counting.sessions.get("nothing") is None
    assert await counting.users.exists("warm")
    assert counted.reads == ["auth-user:warm", "auth-session:nothing", "auth-user:warm"]


async def test_get_with_an_invalid_key_takes_no_read(counting: AllsourceAuthAdapter, counted: CountingStore) -> None:
    assert await counting.users.get("x" * 500) is None
    assert await counting.users.get_by_email(" ") is None
    assert await counting.load_session("") is None
    assert counted.reads == []


async def test_loading_a_session_takes_two_reads(
    counting: AllsourceAuthAdapter, counted: CountingStore, clock: ManualClock
) -> None:
    session = await counting.sessions.create(user_id="warm", expires_at=clock() + WEEK)
    counted.forget()
    assert await counting.load_session(session.token) is not None
    assert len(counted.reads) == 2
    counted.forget()
    assert await counting.load_session("nothing") is None
    assert len(counted.reads) == 1


async def test_update_of_plain_fields_is_one_read_and_one_append_of_one_event(
    counting: AllsourceAuthAdapter, counted: CountingStore
) -> None:
    await counting.users.update("warm", name="x", role="admin")
    assert len(counted.reads) == 1
    assert [len(batch) for batch in counted.appends] == [1]


async def test_deletion_of_a_session_is_one_read_and_one_append(
    counting: AllsourceAuthAdapter, counted: CountingStore, clock: ManualClock
) -> None:
    session = await counting.sessions.create(user_id="u", expires_at=clock() + WEEK)
    counted.forget()
    await counting.sessions.delete(session.token)
    assert len(counted.reads) == 1
    assert [len(batch) for batch in counted.appends] == [2]


async def test_end_of_a_long_history_is_read_alone(counting: AllsourceAuthAdapter, counted: CountingStore) -> None:
    for number in range(30):
        await counting.users.update("warm", name=str(number))
    counted.forget()
    assert len(await counting.users.history("warm", newest_first=True, limit=2)) == 2
    assert len(counted.reads) == 1
