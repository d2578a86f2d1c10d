"""``allsource-auth demo`` and what the command line does with errors, as people and machines meet it."""

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
from allsource_auth import Storage, __version__
from allsource_auth.cli import main
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.users import Users

FEW = ["demo", "--users", "10"]
CALL = "import sys; from allsource_auth.cli import main; sys.exit(main())"


def allsource(*arguments: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, after the statements ``before``; warnings are errors."""
    package = Path(allsource_auth.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONIOENCODING": "utf-8"} | variables
    command = [sys.executable, "-W", "error", "-c", f"{before}\n{CALL}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120)


def revealed(text: str) -> list[str]:
    """What must not be in any output: whole emails and names, tokens, escape sequences."""
    emails = [found for found in re.findall(r"\S+@example\.org", text) if "***@" not in found]
    return emails + re.findall(r"(?i)session_[\w-]{6,}|lovelace|byron|\x1b", text)


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_people_get_tables_and_checks_that_all_held() -> None:
    done = allsource(*FEW, FORCE_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "✓ one of 200 racing sign-ups won" in done.stdout
    assert "✗" not in done.stdout
    assert "UserDeleted" in done.stdout
    assert "a***@example.org" in done.stdout
    assert "sessions.get" in done.stdout
    assert revealed(done.stdout) == []


def test_machines_get_one_json_document() -> None:
    done = allsource(*FEW, "--json")
    assert (done.returncode, done.stderr) == (0, "")
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


def test_a_file_is_kept_and_can_be_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_closing_line_says_where_the_data_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo.db"
    assert main([*FEW, "--data", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"The data is kept in {path}."


def test_the_temporary_file_is_removed(tmp_path: Path) -> None:
    assert allsource(*FEW, TMPDIR=str(tmp_path), TEMP=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    done = allsource(*FEW, "--data", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr
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
def test_wrong_usage_is_said_in_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert named in said.err


def test_a_failed_check_is_named_and_gives_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def forget(self: Sessions, token: str) -> None:
        """Revoke nothing."""

    monkeypatch.setattr(Sessions, "delete", forget)
    assert main(FEW) == 1
    said = capsys.readouterr()
    assert "✗ a revoked session signs nobody in" in said.out
    assert "✓ one of 200 racing sign-ups won" in said.out
    assert "a revoked session signs nobody in" in said.err

    assert main([*FEW, "--json"]) == 1
    found = document(capsys.readouterr().out)
    assert found["ok"] is False
    assert {"name": "a revoked session signs nobody in", "ok": False} in found["checks"]


def test_a_race_with_two_winners_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = Users.create

    async def without_email(self: Users, *, email: str | None = None, **given: Any) -> Any:
        return await create(self, email=None if "everybody" in (email or "").lower() else email, **given)

    monkeypatch.setattr(Users, "create", without_email)
    assert main(FEW) == 1
    assert "✗ one of 200 racing sign-ups won" in capsys.readouterr().out


def test_an_error_in_one_of_many_tasks_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def full(self: Users, **given: Any) -> None:
        raise Storage("there is no space left", reason="full")

    monkeypatch.setattr(Users, "create", full)
    assert main(FEW) == 1
    assert capsys.readouterr() == ("", "allsource-auth: there is no space left\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
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


@pytest.mark.parametrize("package", ["cyclopts", "rich", "hdrh"])
def test_a_missing_package_is_said_in_one_sentence(package: str) -> None:
    done = allsource(*FEW, before=f"import sys; sys.modules[{package!r}] = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert "install allsource-auth[cli]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_importing_the_command_line_imports_none_of_its_packages() -> None:
    before = "import sys, allsource_auth.cli; assert not {'cyclopts', 'rich', 'hdrh'} & set(sys.modules)"
    assert allsource("--version", before=before).returncode == 0


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out
    assert main(["demo", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--data", "--users", "--json"))
