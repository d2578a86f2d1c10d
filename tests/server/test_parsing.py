"""Parsing and formatting of RFC 3339 times, to the nanosecond."""

from __future__ import annotations

import pytest

from allsource_auth.server.parsing import nanoseconds
from allsource_auth.server.replies import instant_text

AT = 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20.123456789Z", AT),
        ("2023-11-14t22:13:20.123456789z", AT),
        ("2023-11-14 22:13:20.123456789+00:00", AT),
        ("2023-11-15T00:13:20.123456789+02:00", AT),
        ("2023-11-14T10:43:20.123456789-11:30", AT),
        ("2023-11-14T22:13:20.1234567899999Z", AT),
        ("2023-11-14T22:13:20.1Z", 1_700_000_000_100_000_000),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800_000_000_000 - 86_340_000_000_000),
        ("2023-11-14T22:13:20", None),
        ("2023-11-14", None),
        ("2023-11-14T22:13:61Z", None),
        ("2023-13-14T22:13:20Z", None),
        ("2023-11-14T22:13:20+24:00", None),
        ("2023-11-14T22:13:20.Z", None),
        ("٢023-11-14T22:13:20Z", None),
        ("", None),
    ],
)
def test_time_is_parsed_to_nanoseconds(text: str, time: int | None) -> None:
    assert nanoseconds(text) == time


@pytest.mark.parametrize("time", [0, 1, AT, 1_700_000_000_000_000_000, 253_402_300_799_999_999_999])
def test_formatted_time_is_parsed_to_the_same_value(time: int) -> None:
    assert nanoseconds(instant_text(time)) == time
    assert len(instant_text(time)) == len("2023-11-14T22:13:20.123456789Z")
