"""``allsource-auth demo``: its output as tables and JSON, its checks, errors and interruption."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import allsource_auth
from allsource_auth import Storage
from allsource_auth.cli import demo, main
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.users import Users

FEW = ["demo", "--users", "10"]
CALL = "import sys; from allsource_auth.cli import main; sys.exit(main())"


def allsource(*arguments: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a new process, after the statements ``before``. Warnings are errors."""
    package = Path(allsource_auth.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONIOENCODING": "utf-8"} | variables
    command = [sys.executable, "-W", "error", "-c", f"{before}\n{CALL}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120)


def revealed(text: str) -> list[str]:
    """What the output must not have: full emails and names, tokens, escape sequences."""
    emails = [found for found in re.findall(r"\S+@example\.org", text) if "***@" not in found]
    return emails + re.findall(r"(?i)session_[\w-]{6,}|lovelace|byron|\x1b", text)


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer reads and concurrent sign-ups; not in tests that start a process."""
    monkeypatch.setattr(demo, "READS", 100)
    monkeypatch.setattr(demo, "SAME_EMAIL_SIGN_UPS", 20)


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_default_output_is_tables_and_passed_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(FEW) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "✓ exactly one of 20 concurrent sign-ups succeeded" in captured.out
    assert "✗" not in captured.out
    assert "UserDeleted" in captured.out
    assert "a***@example.org" in captured.out
    assert "sessions.get" in captured.out
    assert "The data was in a temporary file, which is now deleted" in captured.out
    assert revealed(captured.out) == []


def test_json_output_is_one_document_and_the_temporary_file_is_deleted(tmp_path: Path) -> None:
    done = allsource(*FEW, "--json", TMPDIR=str(tmp_path), TEMP=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert revealed(done.stdout) == []
    found = document(done.stdout)
    assert found["ok"] is True
    assert len(found["checks"]) > 25
    assert all(check["ok"] for check in found["checks"])
    assert found["counts"]["users_signed_up"] == 12
    assert found["counts"]["conflicts"] == 200
    assert found["counts"]["events_written"] > 100
    for reads in found["latencies_us"].values():
        assert 0 < reads["p50"] <= reads["p99"]
        assert reads["reads"] == 4000
    assert [change["event"] for change in found["timeline"]][:3] == ["UserCreated", "UserUpdated", "UserDeleted"]
    assert found["timeline"][1]["changes"]["email"] == ["a***@example.org", "l***@example.org"]
    assert found["before_first_change"]["email"] == "a***@example.org"
    assert found["data"] is None


def test_named_file_is_kept_and_can_be_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo.db"
    counts = []
    for _ in range(2):
        assert main([*FEW, "--data", str(path), "--json"]) == 0
        found = document(capsys.readouterr().out)
        assert found["data"] == str(path)
        counts.append(found["counts"])
    first, second = counts
    assert second["users_in_store"] == 2 * first["users_in_store"]
    assert abs(second["events_written"] - first["events_written"]) < 10


def test_last_line_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo.db"
    assert main([*FEW, "--data", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"The data is in {path}."


def test_file_that_is_no_database_is_refused_and_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    assert main([*FEW, "--data", str(path)]) == 1
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert str(path) in captured.err
    assert path.read_text() == "not a database"
    assert [found.name for found in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo", "--users", "3"], "--users"),
        (["demo", "--users", "many"], "--users"),
        (["demo", "--colour"], "--colour"),
        (["demo", "--data", "a.db", "--core", "http://127.0.0.1:1"], "--core"),
        (["demo", "--query", "http://127.0.0.1:1"], "--query"),
        (["demolish"], "demolish"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert named in captured.err


def test_failed_check_is_named_and_gives_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def do_nothing(self: Sessions, token: str) -> None:
        """Delete no session."""

    monkeypatch.setattr(Sessions, "delete", do_nothing)
    assert main(FEW) == 1
    captured = capsys.readouterr()
    assert "✗ a revoked session is not loaded" in captured.out
    assert "✓ exactly one of 20 concurrent sign-ups succeeded" in captured.out
    assert "a revoked session is not loaded" in captured.err

    assert main([*FEW, "--json"]) == 1
    found = document(capsys.readouterr().out)
    assert found["ok"] is False
    assert {"name": "a revoked session is not loaded", "ok": False} in found["checks"]


def test_second_sign_up_with_the_same_email_fails_a_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = Users.create

    async def without_email(self: Users, *, email: str | None = None, **given: Any) -> Any:
        return await create(self, email=None if (email or "").lower().startswith("same.") else email, **given)

    monkeypatch.setattr(Users, "create", without_email)
    assert main(FEW) == 1
    assert "✗ exactly one of 20 concurrent sign-ups succeeded" in capsys.readouterr().out


def test_error_in_one_of_many_tasks_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def full(self: Users, **given: Any) -> None:
        raise Storage("there is no space left", reason="full")

    monkeypatch.setattr(Users, "create", full)
    assert main(FEW) == 1
    assert capsys.readouterr() == ("", "allsource-auth: there is no space left\n")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_ends_without_a_traceback(presses: int, tmp_path: Path) -> None:
    interrupted = f"""
import os, signal
presses = [signal.SIGINT] * {presses}
from allsource_auth.repositories.users import Users
create = Users.create
async def interrupt(self, **given):
    if presses:
        os.kill(os.getpid(), presses.pop())
    return await create(self, **given)
Users.create = interrupt
"""
    done = allsource(*FEW, before=interrupted, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "allsource-auth: interrupted\n")
    assert list(tmp_path.iterdir()) == []
