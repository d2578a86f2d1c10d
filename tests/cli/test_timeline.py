"""Output of a history: personal data is masked, control characters are replaced."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, audit
from allsource_auth.cli.terminal import console
from allsource_auth.cli.timeline import change_record, masked, timeline_table

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("email", "ada@example.org", "a***@example.org"),
        ("email", "a@example.org", "***@example.org"),
        ("email", "no address", "n***"),
        ("name", "Ada", "A***"),
        ("name", "A", "***"),
        ("name", "Ada @home street 5", "A***"),
        ("username", "ada", "a***"),
        ("metadata", {"street": "home"}, "***"),
        ("token", "session_abc", "***"),
        ("token", 7, "***"),
        ("something_new", "secret", "s***"),
        ("id", "4f3c", "4f3c"),
        ("id", "ada@example.org", "a***@example.org"),
        ("role", "editor", "editor"),
        ("role", "\x1b[2Jeditor", "�[2Jeditor"),
        ("banned", True, True),
        ("expires_at", NOW, NOW),
        ("image", None, None),
    ],
)
def test_masked_values_reveal_no_personal_data(field: str, value: Any, shown: Any) -> None:
    assert masked(field, value) == shown


async def test_table_shows_actors_and_changes_without_personal_data() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        with audit(actor="ada@example.org", impersonator="\x1b[31mgrace"):
            user = await adapter.users.create(email="ada@example.org", name="Ada", metadata={"street": "home"})
            await adapter.users.update(user.id, email="countess@example.org", banned=True)
            session = await adapter.sessions.create(user_id=user.id, expires_at=NOW, ip_address="203.0.113.7")
        users = await adapter.users.history(user.id)
        sessions = await adapter.sessions.history(session.token)

    text = StringIO()
    wide = console(text)
    wide.width = 160
    wide.print(timeline_table(users))
    table = text.getvalue()
    assert "a***@example.org (by �[31mgrace)" in table
    assert "a***@example.org -> c***@example.org" in table
    assert "banned: no -> yes" in table
    records = str([change_record(change) for change in users + sessions])
    for personal in ("ada@", "countess", "Ada", "home", "203.0.113.7", session.token, "\x1b"):
        assert personal not in table
        assert personal not in records
