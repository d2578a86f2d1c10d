"""Queries: pages, order, filters, invalid parameters."""

from __future__ import annotations

from typing import Any

import pytest

from allsource_auth import SqliteLog
from tests.support.api_client import QUERY, TENANT, ApiClient, local_api


async def append_three(api: ApiClient, stream: str = "user:1") -> list[dict[str, Any]]:
    """Append three events with payloads 1, 2, 3."""
    return [await api.appended(stream, n) for n in (1, 2, 3)]


async def test_query_reply_has_events_and_totals(api: ApiClient) -> None:
    await append_three(api)
    page = await api.page(entity_id="user:1", limit=2)
    assert list(page) == ["events", "count", "total_count", "has_more", "entity_version"]
    assert (page["count"], page["total_count"], page["has_more"], page["entity_version"]) == (2, 3, True, 3)


async def test_unknown_entity_type_or_tenant_gives_an_empty_page(api: ApiClient) -> None:
    await append_three(api)
    empty = {"events": [], "count": 0, "total_count": 0, "has_more": False}
    assert await api.page(entity_id="nobody") == empty | {"entity_version": 0}
    assert await api.page(event_type_prefix="nothing") == empty
    assert await api.page(tenant_id="nowhere") == empty
    assert await api.page(tenant_id="../x") == empty


async def test_query_without_tenant_is_empty(api: ApiClient) -> None:
    await append_three(api)
    empty = {"events": [], "count": 0, "total_count": 0, "has_more": False}
    for parameters in ({}, {"tenant_id": ""}, {"entity_id": "user:1"}):
        answer = await api.client.get(QUERY, params=parameters, headers={"X-API-Key": api.key})
        assert (answer.status_code, answer.json()) == (200, empty)


async def test_query_returns_events_of_its_tenant_only(api: ApiClient) -> None:
    await api.appended("shared", {"of": "acme"})
    await api.appended("shared", {"of": "other"}, tenant_id="other")
    assert await api.payloads(entity_id="shared") == [{"of": "acme"}]
    assert await api.payloads(tenant_id="other") == [{"of": "other"}]


async def test_entity_version_counts_events_outside_the_filters(api: ApiClient) -> None:
    first, _, _ = await append_three(api)
    await api.appended("user:1", tenant_id="other")
    by_type, by_time = {"event_type_prefix": "nothing"}, {"until": first["timestamp"]}
    for filters in (by_type, by_time, {"limit": 0}, {"tenant_id": "nowhere"}):
        assert (await api.page(entity_id="user:1", **filters))["entity_version"] == 4


async def test_events_have_true_version_on_newer_and_one_on_older(api: ApiClient) -> None:
    await append_three(api)
    versions = [event["version"] for event in (await api.page())["events"]]
    assert versions == ([1, 2, 3] if api.newer else [1, 1, 1])


@pytest.mark.parametrize(
    ("window", "payloads", "has_more"),
    [
        ({}, [1, 2, 3], False),
        ({"limit": 2}, [1, 2], True),
        ({"limit": 2, "offset": 1}, [2, 3], False),
        ({"limit": 2, "offset": 2}, [3], False),
        ({"offset": 1}, [2, 3], False),
        ({"offset": 9}, [], False),
        ({"limit": 0}, [], True),
        ({"limit": 18446744073709551615, "offset": 0}, [1, 2, 3], False),
        ({"limit": 1, "offset": 18446744073709551615}, [], False),
        ({"order": "desc"}, [3, 2, 1], False),
        ({"order": "DESC", "limit": 1}, [3], True),
        ({"order": "desc", "limit": 1, "offset": 1}, [2], True),
        ({"order": "Asc", "limit": "+1"}, [1], True),
    ],
)
@pytest.mark.parametrize("by", [{"entity_id": "user:1"}, {"event_type_prefix": "auth.user."}, {}])
async def test_limit_offset_and_order_select_the_page(
    api: ApiClient, window: dict[str, Any], payloads: list[int], has_more: bool, by: dict[str, Any]
) -> None:
    await append_three(api)
    page = await api.page(**by, **window)
    assert [event["payload"] for event in page["events"]] == payloads
    assert (page["count"], page["total_count"], page["has_more"]) == (len(payloads), 3, has_more)


async def test_time_filters_are_inclusive_to_the_nanosecond(api: ApiClient) -> None:
    first, second, _ = (event["timestamp"] for event in await append_three(api))
    assert await api.payloads(since=second) == [2, 3]
    assert await api.payloads(until=second) == [1, 2]
    assert await api.payloads(since=second, until=second, entity_id="user:1") == [2]
    assert await api.payloads(until=first) == [1]
    before = f"{second[:-2]}{int(second[-2]) - 1}Z" if second[-2] != "0" else f"{first[:-1]}Z"
    assert await api.payloads(until=before) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "2001-01-01T00:00:00Z",
        "2001-01-01 00:00:00Z",
        "2001-01-01t00:00:00.5z",
        "2001-01-01T00:00:00+02:00",
        "2001-01-01T00:00:00.12345678912345-11:30",
        "2016-12-31T23:59:60Z",
    ],
)
async def test_rfc_3339_times_are_accepted(api: ApiClient, text: str) -> None:
    await append_three(api)
    assert await api.payloads(since=text) == [1, 2, 3]
    assert await api.payloads(until=text) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "x"),
        ("limit", "-1"),
        ("limit", ""),
        ("limit", "1.0"),
        ("limit", "18446744073709551616"),
        ("offset", "x"),
        ("since", "x"),
        ("since", ""),
        ("since", "2026-01-01"),
        ("since", "2026-01-01T00:00:00"),
        ("since", "2026-02-30T00:00:00Z"),
        ("since", "2026-01-01T24:00:00Z"),
        ("since", "2026-01-01T00:00:00 00:00"),
        ("until", "yesterday"),
    ],
)
async def test_invalid_parameter_is_rejected_in_plain_text(api: ApiClient, name: str, value: str) -> None:
    answer = await api.query(**{name: value})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert answer.text.startswith(f"Failed to deserialize query string: {name}: ")


async def test_repeated_parameter_is_rejected_unless_unknown(api: ApiClient) -> None:
    answer = await api.client.get(f"{QUERY}?tenant_id={TENANT}&limit=1&limit=1")
    assert (answer.status_code, answer.text) == (400, "Failed to deserialize query string: duplicate field `limit`")
    assert (await api.client.get(f"{QUERY}?tenant_id={TENANT}&cursor=1&cursor=2&sort=x")).status_code == 200


@pytest.mark.parametrize("order", ["up", ""])
async def test_unknown_order_is_rejected(api: ApiClient, order: str) -> None:
    answer = await api.query(order=order)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Invalid input: invalid 'order' value '{order}': expected 'asc' or 'desc'"}


@pytest.fixture
async def kinds(api: ApiClient) -> ApiClient:
    """Events of several types in one stream, each with its type as the payload."""
    for kind in ("auth.user", "auth.user.created", "auth.username.set", "auth.session.created", "billing.paid"):
        await api.appended("mixed", kind, kind=kind)
    return api


@pytest.mark.parametrize("stream", [{}, {"entity_id": "mixed"}])
@pytest.mark.parametrize(
    ("filters", "payloads"),
    [
        ({"event_type_prefix": "auth.user."}, ["auth.user.created"]),
        ({"event_type_prefix": "auth.user"}, ["auth.user", "auth.user.created", "auth.username.set"]),
        ({"event_type_prefix": "zz"}, []),
        ({"event_type_prefix": "", "limit": 1}, ["auth.user"]),
    ],
)
async def test_type_prefix_filters_events(
    kinds: ApiClient, filters: dict[str, Any], payloads: list[str], stream: dict[str, str]
) -> None:
    assert await kinds.payloads(**filters, **stream) == payloads


@pytest.mark.parametrize("name", ["event_type", "exclude_event_type_prefix", "payload_filter", "as_of"])
async def test_unsupported_filter_is_rejected_and_not_ignored(log: SqliteLog, name: str) -> None:
    async with local_api("0.27", log) as local:
        response = await local.query(**{name: "x"})
    assert response.status_code == 501
    assert response.json() == {"error": f"the local server does not support the parameter '{name}'"}
