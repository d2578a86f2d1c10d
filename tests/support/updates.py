"""Updates of all fields of one user by many writers, and a check that none was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from allsource_auth import Change, User
from tests.support.clocks import START

__all__ = ["FIELDS", "Write", "assert_nothing_lost", "writes"]

FIELDS = (
    "email",
    "name",
    "image",
    "email_verified",
    "username",
    "display_username",
    "role",
    "banned",
    "ban_reason",
    "ban_expires",
    "two_factor_enabled",
    "metadata",
)
FEW_VALUES = ("email_verified", "two_factor_enabled", "banned")

Write = tuple[str, Any]


def writes(count: int) -> list[Write]:
    """``count`` updates of one field each, over all fields in a round-robin."""
    return [(FIELDS[number % len(FIELDS)], _value(FIELDS[number % len(FIELDS)], number)) for number in range(count)]


def _value(field: str, number: int) -> Any:
    """A value that no other writer writes, where the type of the field allows it."""
    if field in ("email_verified", "two_factor_enabled"):
        return number // len(FIELDS) % 2 == 0
    if field == "banned":
        return True  # False would clear two other fields
    if field == "ban_expires":
        return START + timedelta(seconds=number)
    if field == "metadata":
        return {"writer": number}
    return f"{field} of {number}"


def assert_nothing_lost(user: User | None, changes: Sequence[Change[User]], written: Sequence[Write]) -> None:
    """Check that every write is one of ``changes`` and changed its field only, and that ``user`` has the last values."""
    assert len(changes) == len(written)
    missing = Counter((field, str(value)) for field, value in written if field not in FEW_VALUES)
    last: dict[str, Any] = {}
    for change in changes:
        touched = set(change.diff) - {"updated_at"}
        assert len(touched) <= 1, "an update changed another field"
        for field in touched:
            last[field] = change.diff[field][1]
            if field not in FEW_VALUES:
                missing[field, str(last[field])] -= 1
    assert set(missing.values()) == {0}
    assert set(last) == set(FIELDS)
    assert {field: getattr(user, field) for field in last} == last
