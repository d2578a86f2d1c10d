"""Pages of users: search, filter, order, totals."""

from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, InvalidInput, User
from allsource_auth.repositories.user_search import SortField
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored_user

PEOPLE: dict[str, dict[str, Any]] = {
    "ada": {"email": "Ada@Example.org", "name": "Ada Lovelace", "role": "admin"},
    "bob": {"email": "bob@example.com", "name": "bob", "role": "user"},
    "cy": {"email": "cy_100%@example.org", "name": None, "role": "Admin"},
    "dee": {"email": None, "name": "Dee\\x", "role": None},
    "eve": {"email": "eve@example.org", "name": "Ömer", "role": "user,admin"},
}


@pytest.fixture(autouse=True)
async def people(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    """Five users, created one second apart."""
    for name, given in PEOPLE.items():
        await adapter.users.create(id=name, **given)
        clock.move(timedelta(seconds=1))


def ids(users: list[User]) -> list[str]:
    return [user.id for user in users]


def case_id(value: object) -> str:
    """The id of a test case; the elements of a set are sorted, so that it is the same in every process."""
    return " ".join(sorted(value)) or "nobody" if isinstance(value, set) else str(value)


async def test_default_is_all_users_newest_first(adapter: AllsourceAuthAdapter) -> None:
    page = await adapter.users.list()
    assert ids(page.items) == ["eve", "dee", "cy", "bob", "ada"]
    assert (page.total, page.limit, page.offset) == (5, 100, 0)
    assert page.items == [await adapter.users.get(name) for name in ids(page.items)]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"search_value": "example.org"}, {"ada", "cy", "eve"}),
        ({"search_value": "EXAMPLE.ORG"}, {"ada", "cy", "eve"}),
        ({"search_value": "ada", "search_operator": "starts_with"}, {"ada"}),
        ({"search_value": "DA@", "search_operator": "starts_with"}, set()),
        ({"search_value": ".COM", "search_operator": "ends_with"}, {"bob"}),
        ({"search_value": "example", "search_operator": "ends_with"}, set()),
        ({"search_value": "LOVE", "search_field": "name"}, {"ada"}),
        ({"search_value": "bob", "search_field": "name", "search_operator": "starts_with"}, {"bob"}),
        ({"search_value": "öm", "search_field": "name"}, {"eve"}),
        ({"search_value": "ÖM", "search_field": "name"}, {"eve"}),
        ({"search_value": "cy", "search_field": "no such field"}, {"cy"}),
        ({"search_value": "%"}, {"cy"}),
        ({"search_value": "_"}, {"cy"}),
        ({"search_value": "\\", "search_field": "name"}, {"dee"}),
        ({"search_value": "nobody"}, set()),
    ],
    ids=case_id,
)
async def test_search_ignores_case_and_knows_no_patterns(
    adapter: AllsourceAuthAdapter, given: dict[str, Any], found: set[str]
) -> None:
    page = await adapter.users.list(**given)
    assert set(ids(page.items)) == found
    assert page.total == len(found)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"filter_value": "bob@example.com"}, {"bob"}),
        ({"filter_value": "BOB@example.com"}, set()),
        ({"filter_value": "bob@example.com", "filter_operator": "ne"}, {"ada", "cy", "eve"}),
        ({"filter_value": "admin", "filter_field": "role"}, {"ada"}),
        ({"filter_value": "admin", "filter_field": "role", "filter_operator": "ne"}, {"bob", "cy", "eve"}),
        ({"filter_value": "ADMIN", "filter_field": "role", "filter_operator": "contains"}, {"ada", "cy", "eve"}),
        ({"filter_value": "user", "filter_field": "role", "filter_operator": "starts_with"}, {"bob", "eve"}),
        ({"filter_value": "ADMIN", "filter_field": "role", "filter_operator": "ends_with"}, {"ada", "cy", "eve"}),
        ({"filter_value": "bob", "filter_field": "name"}, {"bob"}),
        ({"filter_value": "cy_100%@example.org", "filter_field": "no such field"}, {"cy"}),
        ({"filter_value": "_", "filter_operator": "contains"}, {"cy"}),
    ],
    ids=case_id,
)
async def test_filter_ignores_case_except_for_eq_and_ne(
    adapter: AllsourceAuthAdapter, given: dict[str, Any], found: set[str]
) -> None:
    page = await adapter.users.list(**given)
    assert set(ids(page.items)) == found
    assert page.total == len(found)


async def test_search_and_filter_both_apply(adapter: AllsourceAuthAdapter) -> None:
    page = await adapter.users.list(
        search_value="example.org", filter_field="role", filter_operator="contains", filter_value="user"
    )
    assert (ids(page.items), page.total) == (["eve"], 1)


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({"sort_by": "name"}, ["ada", "dee", "bob", "eve", "cy"]),
        ({"sort_by": "name", "sort_direction": "desc"}, ["cy", "eve", "bob", "dee", "ada"]),
        ({"sort_by": "email"}, ["ada", "bob", "cy", "eve", "dee"]),
        ({"sort_by": "email", "sort_direction": "desc"}, ["dee", "eve", "cy", "bob", "ada"]),
        ({"sort_by": "no such field"}, ["ada", "bob", "cy", "eve", "dee"]),
        ({"sort_by": "createdAt"}, ["ada", "bob", "cy", "dee", "eve"]),
        ({"sort_by": "created_at"}, ["ada", "bob", "cy", "dee", "eve"]),
        ({"sort_by": "createdAt", "sort_direction": "desc"}, ["eve", "dee", "cy", "bob", "ada"]),
        ({"sort_by": "createdAt", "sort_direction": "sideways"}, ["ada", "bob", "cy", "dee", "eve"]),
    ],
    ids=str,
)
async def test_order_is_by_code_point_with_missing_values_last(
    adapter: AllsourceAuthAdapter, given: dict[str, Any], order: list[str]
) -> None:
    assert ids((await adapter.users.list(**given)).items) == order


@pytest.mark.parametrize("sort_by", [None, "name", "email", "createdAt"])
async def test_pages_cover_all_users_even_with_equal_keys(
    adapter: AllsourceAuthAdapter, sort_by: SortField | None
) -> None:
    for number in range(7):
        await adapter.users.create(id=f"twin-{number}", name="twin")
    whole = (await adapter.users.list(sort_by=sort_by)).items
    assert len(whole) == 12
    parts = []
    for offset in range(0, 12, 5):
        page = await adapter.users.list(sort_by=sort_by, limit=5, offset=offset)
        assert (page.total, page.limit, page.offset) == (12, 5, offset)
        parts += page.items
    assert parts == whole


async def test_same_second_newest_first_then_by_id(adapter: AllsourceAuthAdapter) -> None:
    for name in ("x1", "x3", "x2"):
        await adapter.users.create(id=name)
    assert ids((await adapter.users.list(limit=3)).items) == ["x3", "x2", "x1"]


async def test_page_beyond_the_end_is_empty_with_the_true_total(adapter: AllsourceAuthAdapter) -> None:
    page = await adapter.users.list(offset=5)
    assert (page.items, page.total) == ([], 5)


async def test_limit_zero_only_counts(adapter: AllsourceAuthAdapter) -> None:
    page = await adapter.users.list(limit=0, search_value="example.org")
    assert (page.items, page.total) == ([], 3)


async def test_total_is_counted_before_paging(adapter: AllsourceAuthAdapter) -> None:
    page = await adapter.users.list(limit=1, search_value="example.org")
    assert (len(page.items), page.total) == (1, 3)


async def test_list_shows_the_newest_state_and_no_deleted_users(adapter: AllsourceAuthAdapter) -> None:
    await adapter.users.delete("bob")
    await adapter.users.update("ada", email="new@example.net")
    await adapter.users.delete("cy")
    await adapter.users.restore("cy")
    page = await adapter.users.list(sort_by="email")
    assert ids(page.items) == ["cy", "eve", "ada", "dee"]
    assert page.total == 4
    assert (await adapter.users.list(search_value="Ada@")).total == 0


async def test_users_that_others_wrote_are_listed(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:zed", stored_user("zed", email="zed@example.org"))])
    assert ids((await adapter.users.list(search_value="zed")).items) == ["zed"]


async def test_long_list_is_complete(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    for first in range(0, 2500, 500):
        await store.append(
            [new_event(f"auth-user:n{n:05}", stored_user(f"n{n:05}", name="n")) for n in range(first, first + 500)]
        )
    page = await adapter.users.list(limit=10_000, filter_field="name", filter_value="n", sort_by="name")
    assert ids(page.items) == [f"n{n:05}" for n in range(2500)]
    assert page.total == 2500


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": None}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 1.5}, "offset"),
        ({"search_value": 7}, "search_value"),
        ({"search_value": "x", "search_operator": "like"}, "search_operator"),
        ({"filter_value": b"x"}, "filter_value"),
        ({"filter_value": "x", "filter_operator": "gt"}, "filter_operator"),
    ],
    ids=str,
)
async def test_invalid_arguments_are_refused(adapter: AllsourceAuthAdapter, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await adapter.users.list(**given)
    assert caught.value.field == field


async def test_undecodable_user_does_not_hide_the_others(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    broken = {"id": "broken", "email": 7}
    await store.append(
        [new_event("auth-user:broken", broken, type="auth.user.created", metadata={"op": "o", "seq": 1})]
    )
    page = await adapter.users.list()
    assert ({user.id for user in page.items}, page.total) == (set(PEOPLE), len(PEOPLE))
