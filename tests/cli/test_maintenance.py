"""``allsource-auth check`` and ``reindex``: their output as tables and JSON, and their exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, NewEvent, SqliteLog, SqliteStore
from allsource_auth.cli import main
from allsource_auth.cli.store_options import StoreOptions
from tests.support.events import new_event, stored_user

TOKEN = "session_that-must-not-show"
SECRETS = ("ada", "example.org", "that-must-not-show", "\x1b")


def foreign_events() -> list[NewEvent]:
    """Events of another program, without claims and index entries: three users, two of them with one email, and a session."""
    moment = "2026-01-01T00:00:00Z"
    session = {"id": "s", "token": TOKEN, "userId": "u1", "createdAt": moment, "updatedAt": moment, "expiresAt": moment}
    return [
        new_event("auth-user:u1", stored_user("u1", email="ada@example.org", createdAt="2025-01-01T00:00:00Z")),
        new_event("auth-user:u2", stored_user("u2", email="ADA@example.org")),
        new_event("auth-user:\x1b[31mu3", stored_user("\x1b[31mu3", username="ada")),
        new_event(f"auth-session:{TOKEN}", session, type="auth.session.created"),
    ]


def written(path: Path, events: Sequence[NewEvent], tenant: str = "default") -> str:
    async def write() -> None:
        store = SqliteStore(SqliteLog(path), tenant)
        await store.append(events)
        await store.close()

    asyncio.run(write())
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return written(tmp_path / "auth.db", foreign_events())


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_reindex_indexes_a_file_and_names_what_needs_a_decision(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reindex", "--data", data, "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "allsource-auth: 1 findings need a decision\n"
    found = json.loads(captured.out)
    assert found["ok"] is False
    assert found["counts"] == {"entities": 4, "claims_written": 2, "list_entries_written": 1}
    (finding,) = found["findings"]
    assert (finding["problem"], finding["kind"], finding["field"]) == ("duplicate", "user", "email")
    assert finding["keys"] == ["u1", "u2"]

    async def look() -> None:
        async with AllsourceAuthAdapter.embedded(data) as adapter:
            user = await adapter.users.get_by_email("Ada@example.org")
            assert user is not None
            assert user.id == "u1"
            assert len(await adapter.sessions.list_for_user("u1")) == 1
            await adapter.users.update("u2", email="other@example.org")

    asyncio.run(look())
    assert main(["reindex", "--data", data, "--json"]) == 0
    assert document(capsys)["counts"] == {"entities": 4, "claims_written": 0, "list_entries_written": 0}
    assert main(["check", "--data", data]) == 0
    assert "No findings." in capsys.readouterr().out


def test_check_reports_and_repair_repairs(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", data, "--json"]) == 1
    first = document(capsys)
    assert first["ok"] is False
    problems = [(finding["problem"], finding["repaired"]) for finding in first["findings"]]
    assert sorted(problems) == [("duplicate", False), ("missing_claim", False), ("missing_entry", False)]
    assert main(["check", "--data", data, "--json"]) == 1
    assert document(capsys) == first

    assert main(["check", "--data", data, "--repair", "--json"]) == 1
    problems = [(finding["problem"], finding["repaired"]) for finding in document(capsys)["findings"]]
    assert sorted(problems) == [("duplicate", False), ("missing_claim", True), ("missing_entry", True)]
    assert main(["check", "--data", data, "--json"]) == 1
    assert [finding["problem"] for finding in document(capsys)["findings"]] == ["duplicate"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_output_has_no_stored_value_and_no_token(
    tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = new_event(f"auth-session:{TOKEN}2", {"token": TOKEN}, type="auth.session.created")
    data = written(tmp_path / "auth.db", [*foreign_events(), broken])
    for command in (["check"], ["reindex"], ["check", "--repair"]):
        assert main([*command, "--data", data, *options]) == 1
        captured = capsys.readouterr()
        assert not [secret for secret in SECRETS if secret in (captured.out + captured.err).lower()]
        assert "u1" in captured.out
        assert "***" in captured.out


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", ["check", "reindex"])
def test_progress_is_shown_on_terminals_only(
    data: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"check": "entities: 4", "reindex": "session: 1"}
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert main([command, "--data", data, "--json"]) == 1
    assert counts[command] in screen.getvalue()
    assert document(capsys)["counts"]["entities"] == 4
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    main([command, "--data", data, "--json"])
    assert counts[command] not in file.getvalue()


def test_several_query_services_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    assert f"query_url={urls}" in repr(StoreOptions(core="http://127.0.0.1:3", query=tuple(urls)).store())
    assert main(["check", "--core", urls[0], "--query", urls[0], "--query", "ftp://127.0.0.1"]) == 1
    assert capsys.readouterr().err == "allsource-auth: query_url[1]: must begin with http:// or https://\n"


def test_api_key_is_not_in_the_repr_of_the_options() -> None:
    assert "secret-key" not in repr(StoreOptions(core="http://127.0.0.1:3900", api_key="secret-key"))


def test_default_output_is_a_table(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", data, "--repair"]) == 1
    captured = capsys.readouterr()
    assert "4 entities" in captured.out
    rows = [line for line in captured.out.splitlines() if "missing entry" in line]
    assert len(rows) == 1
    assert "yes" in rows[0]
    assert captured.err == "allsource-auth: 1 findings are left\n"


def test_only_the_named_tenant_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path / "auth.db", foreign_events(), tenant="shop")
    assert main(["check", "--data", data, "--json"]) == 0
    assert document(capsys)["counts"] == {"entities": 0, "events": 0, "index_streams": 0}
    assert main(["check", "--data", data, "--tenant", "shop", "--json"]) == 1
    assert document(capsys)["counts"]["entities"] == 4


@pytest.mark.parametrize("command", ["check", "reindex"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "--data"),
        (["--data", "a.db", "--core", "http://127.0.0.1:1"], "--core"),
        (["--data", "a.db", "--query", "http://127.0.0.1:1"], "--query"),
        (["--data", "there-is-none.db"], "there-is-none.db"),
    ],
)
def test_missing_store_is_reported_in_one_line(
    command: str, options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *options]) == 2
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert named in captured.err
    assert not Path("there-is-none.db").exists()


@pytest.mark.parametrize("command", ["check", "reindex"])
def test_core_that_does_not_respond_is_reported_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--core", "http://127.0.0.1:1"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)


def test_upgrade_shows_the_format_and_raises_it_only_when_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(tmp_path / "auth.db")

    async def create() -> None:
        async with AllsourceAuthAdapter.embedded(data) as adapter:
            await adapter.users.create()

    asyncio.run(create())
    assert main(["upgrade", "--data", data]) == 0
    assert capsys.readouterr().out == "The store has the newest event format, 1.\n"
    monkeypatch.setattr("allsource_auth.engine.store_settings.EVENT_FORMAT", 2)
    assert main(["upgrade", "--data", data]) == 1
    captured = capsys.readouterr()
    assert captured.out == "The store has event format 1; the newest one is 2.\n"
    assert "--no-older-process-runs" in captured.err
    assert main(["upgrade", "--data", data, "--no-older-process-runs"]) == 0
    assert capsys.readouterr().out == "The event format was raised from 1 to 2.\n"
    assert main(["upgrade", "--data", data, "--json"]) == 0
    shown = document(capsys)
    assert (shown["ok"], shown["before"], shown["after"]) == (True, 2, 2)


def test_upgrade_needs_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade"]) == 2
    assert "--data" in capsys.readouterr().err
