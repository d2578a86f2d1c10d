"""Queries: windows, order, filters, and parameters that cannot be read (section 8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.wire import QUERY, TENANT, Wire


async def three(wire: Wire, stream: str = "user:1") -> list[dict[str, Any]]:
    """Three events with payloads 1, 2, 3."""
    return [await wire.appended(stream, n) for n in (1, 2, 3)]


async def test_the_envelope(wire: Wire) -> None:
    await three(wire)
    page = await wire.page(entity_id="user:1", limit=2)
    assert list(page) == ["events", "count", "total_count", "has_more", "entity_version"]
    assert (page["count"], page["total_count"], page["has_more"], page["entity_version"]) == (2, 3, True, 3)


async def test_unknown_things_are_empty_and_not_missing(wire: Wire) -> None:
    await three(wire)
    empty = {"events": [], "count": 0, "total_count": 0, "has_more": False}
    assert await wire.page(entity_id="nobody") == empty | {"entity_version": 0}
    assert await wire.page(event_type="nothing") == empty
    assert await wire.page(tenant_id="nowhere") == empty
    assert await wire.page(tenant_id="../x") == empty


async def test_a_read_without_tenant_is_empty(wire: Wire) -> None:
    await three(wire)
    empty = {"events": [], "count": 0, "total_count": 0, "has_more": False}
    for asked in ({}, {"tenant_id": ""}, {"entity_id": "user:1"}):
        answer = await wire.client.get(QUERY, params=asked, headers={"X-API-Key": wire.key})
        assert (answer.status_code, answer.json()) == (200, empty)


async def test_tenants_do_not_see_one_another(wire: Wire) -> None:
    await wire.appended("shared", {"of": "acme"})
    await wire.appended("shared", {"of": "other"}, tenant_id="other")
    assert await wire.payloads(entity_id="shared") == [{"of": "acme"}]
    assert await wire.payloads(tenant_id="other") == [{"of": "other"}]


async def test_entity_version_counts_what_filters_leave_out(wire: Wire) -> None:
    first, _, _ = await three(wire)
    await wire.appended("user:1", tenant_id="other")
    for asked in ({"event_type": "nothing"}, {"as_of": first["timestamp"]}, {"limit": 0}, {"tenant_id": "nowhere"}):
        assert (await wire.page(entity_id="user:1", **asked))["entity_version"] == 4


async def test_events_say_their_version_or_one(wire: Wire) -> None:
    await three(wire)
    versions = [event["version"] for event in (await wire.page())["events"]]
    assert versions == ([1, 2, 3] if wire.newer else [1, 1, 1])


@pytest.mark.parametrize(
    ("window", "shown", "more"),
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
@pytest.mark.parametrize("by", [{"entity_id": "user:1"}, {"event_type": "auth.user.updated"}, {}])
async def test_windows(wire: Wire, window: dict[str, Any], shown: list[int], more: bool, by: dict[str, Any]) -> None:
    await three(wire)
    page = await wire.page(**by, **window)
    assert [event["payload"] for event in page["events"]] == shown
    assert (page["count"], page["total_count"], page["has_more"]) == (len(shown), 3, more)


async def test_times_are_inclusive_to_the_nanosecond(wire: Wire) -> None:
    first, second, third = (event["timestamp"] for event in await three(wire))
    assert await wire.payloads(since=second) == [2, 3]
    assert await wire.payloads(until=second) == [1, 2]
    assert await wire.payloads(as_of=second) == [1, 2]
    assert await wire.payloads(since=second, until=second, entity_id="user:1") == [2]
    assert await wire.payloads(until=third, as_of=first) == [1]
    before = f"{second[:-2]}{int(second[-2]) - 1}Z" if second[-2] != "0" else f"{first[:-1]}Z"
    assert await wire.payloads(until=before) == [1]


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
async def test_times_that_are_read(wire: Wire, text: str) -> None:
    await three(wire)
    assert await wire.payloads(since=text) == [1, 2, 3]
    assert await wire.payloads(until=text) == []


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
        ("as_of", "now"),
    ],
)
async def test_parameters_that_cannot_be_read_are_refused_in_plain_text(wire: Wire, name: str, value: str) -> None:
    answer = await wire.query(**{name: value})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert answer.text.startswith(f"Failed to deserialize query string: {name}: ")


async def test_a_parameter_twice_is_refused_unless_it_is_unknown(wire: Wire) -> None:
    answer = await wire.client.get(f"{QUERY}?tenant_id={TENANT}&limit=1&limit=1")
    assert (answer.status_code, answer.text) == (400, "Failed to deserialize query string: duplicate field `limit`")
    assert (await wire.client.get(f"{QUERY}?tenant_id={TENANT}&cursor=1&cursor=2&sort=x")).status_code == 200


@pytest.mark.parametrize("order", ["up", ""])
async def test_an_order_that_is_none_is_refused(wire: Wire, order: str) -> None:
    answer = await wire.query(order=order)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Invalid input: invalid 'order' value '{order}': expected 'asc' or 'desc'"}


@pytest.fixture
async def kinds(wire: Wire) -> Wire:
    """One event each of some types, its type as the payload, all of one stream."""
    for kind in ("auth.user", "auth.user.created", "auth.username.set", "auth.session.created", "billing.paid"):
        await wire.appended("mixed", kind, kind=kind)
    return wire


@pytest.mark.parametrize("stream", [{}, {"entity_id": "mixed"}])
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"event_type": "auth.user"}, ["auth.user"]),
        ({"event_type_prefix": "auth.user."}, ["auth.user.created"]),
        ({"event_type_prefix": "auth.user"}, ["auth.user", "auth.user.created", "auth.username.set"]),
        ({"event_type_prefix": "zz"}, []),
        ({"event_type": ""}, []),
        ({"event_type_prefix": "", "limit": 1}, ["auth.user"]),
        ({"event_type_prefix": "auth.", "exclude_event_type_prefix": "auth.user"}, ["auth.session.created"]),
        ({"exclude_event_type_prefix": " auth.user , ,billing."}, ["auth.session.created"]),
        ({"exclude_event_type_prefix": "auth", "order": "desc"}, ["billing.paid"]),
    ],
)
async def test_types(kinds: Wire, asked: dict[str, Any], shown: list[str], stream: dict[str, str]) -> None:
    assert await kinds.payloads(**asked, **stream) == shown


async def test_a_prefix_beside_a_type_counts_only_with_an_entity(kinds: Wire) -> None:
    both = {"event_type": "auth.user", "event_type_prefix": "zz"}
    assert await kinds.payloads(**both) == ["auth.user"]
    assert await kinds.payloads(**both, entity_id="mixed") == []


PAYLOADS = [
    {"n": 1},
    {"n": 1.0},
    {"n": "1"},
    {"n": True},
    {"n": None},
    {"n": [1, {"a": 1}]},
    {"n": {"a": 1, "b": 2}, "m": 1},
    {"m": 1},
    "text",
    [1],
]


@pytest.mark.parametrize("by", [{}, {"entity_id": "user:1"}, {"event_type": "auth.user.updated"}])
@pytest.mark.parametrize(
    ("matching", "shown"),
    [
        ({"n": 1}, [0]),
        ({"n": 1.0}, [1]),
        ({"n": "1"}, [2]),
        ({"n": True}, [3]),
        ({"n": None}, [4]),
        ({"n": [1, {"a": 1}]}, [5]),
        ({"n": [1, {"a": 1.0}]}, []),
        ({"n": {"b": 2, "a": 1}}, [6]),
        ({"n": {"a": 1}}, []),
        ({"m": 1}, [6, 7]),
        ({"m": 1, "n": 1}, []),
        ({"field": "m", "op": "eq", "value": 1}, []),
        ({}, list(range(len(PAYLOADS)))),
    ],
)
async def test_payloads_are_compared_with_their_types(
    wire: Wire, matching: dict[str, Any], shown: list[int], by: dict[str, str]
) -> None:
    events = [{"event_type": "auth.user.updated", "entity_id": "user:1", "tenant_id": TENANT}] * len(PAYLOADS)
    body = {"events": [event | {"payload": payload} for event, payload in zip(events, PAYLOADS, strict=True)]}
    await wire.client.post("/api/v1/events/batch", json=body)
    expected = [PAYLOADS[index] for index in shown]
    assert await wire.payloads(payload_filter=json.dumps(matching), **by) == expected


async def test_windows_of_filtered_payloads(wire: Wire) -> None:
    for n in range(6):
        await wire.appended("user:1", {"even": n % 2 == 0, "n": n})
    page = await wire.page(payload_filter='{"even":true}', order="desc", limit=1, offset=1, entity_id="user:1")
    assert [event["payload"]["n"] for event in page["events"]] == [2]
    assert (page["count"], page["total_count"], page["has_more"], page["entity_version"]) == (1, 3, True, 6)


@pytest.mark.parametrize("text", ["x", "[1]", "1", '"a"', ""])
async def test_a_filter_that_is_no_object_is_refused(wire: Wire, text: str) -> None:
    answer = await wire.query(payload_filter=text)
    assert answer.status_code == 400
    said = f"Invalid input: invalid 'payload_filter': expected a JSON object of field/value pairs, got '{text}'"
    assert answer.json() == {"error": said}
