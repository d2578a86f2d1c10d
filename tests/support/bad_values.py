"""Invalid values by their defect. An error must not repeat a value that contains a canary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.support.canaries import CANARY

__all__ = [
    "BAD_COUNTS",
    "BAD_FLAGS",
    "BAD_IDS",
    "BAD_LABELS",
    "BAD_TEXTS",
    "BAD_TIMES",
    "NAIVE",
    "NOT_TEXT",
    "Case",
    "cases",
    "named",
]

Case = tuple[str, str, Any]
"""A field, the defect, and the value."""

NAIVE = datetime(2027, 1, 1)  # noqa: DTZ001

NOT_TEXT: dict[str, Any] = {"number": 7, "bytes": b"x", "list": ["x"]}
BAD_TEXTS: dict[str, Any] = NOT_TEXT | {"lone-surrogate": f"{CANARY}\ud800"}
BAD_LABELS: dict[str, Any] = BAD_TEXTS | {
    "empty": "",
    "blank-before": f" {CANARY}@example.org",
    "blank-after": f"{CANARY}@example.org ",
    "newline-after": f"{CANARY}@example.org\n",
    "unicode-blank": f"\u3000{CANARY}@example.org",
    "only-blanks": "  ",
    "zero-byte": f"{CANARY}\x00@example.org",
    "tab-inside": f"{CANARY}\t@example.org",
    "delete-inside": f"{CANARY}\x7f@example.org",
    "c1-control": f"{CANARY}\x85x@example.org",
}
BAD_IDS: dict[str, Any] = BAD_LABELS | {"too-long": "x" * 500}
BAD_FLAGS: dict[str, Any] = {"none": None, "one": 1, "zero": 0, "text": "yes"}
BAD_COUNTS: dict[str, Any] = {"negative": -1, "too-big": 2**63, "flag": True, "fraction": 1.0, "text": "1"}
BAD_TIMES: dict[str, Any] = {
    "naive": NAIVE,
    "text": "2027-01-01T00:00:00Z",
    "number": 5,
    "before-year-one": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    "after-year-9999": datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2))),
}


def cases(fields: Iterable[str], bad: Mapping[str, Any]) -> list[Case]:
    """Every combination of ``fields`` and ``bad``."""
    return [(field, defect, value) for field in fields for defect, value in bad.items()]


def named(case: Case) -> str:
    return f"{case[0]}-{case[1]}"
