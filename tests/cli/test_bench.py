"""``allsource-auth bench``: what it reads and writes, when it ends, and what it says to people and to machines."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import pytest

import allsource_auth
from allsource_auth import AllsourceAuthAdapter, Event, Http, NewEvent, Session, SqliteLog, SqliteStore, Storage, User
from allsource_auth.cli import bench, main
from allsource_auth.cli.report import Latency
from allsource_auth.cli.screen import bars
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.users import Users
from tests.support import canaries
from tests.support.events import new_event, stored_user, whole_log
from tests.support.local import local_allsource

PEOPLE = 10
READS = ["sessions.get", "users.get", "users.get_by_email", "load_session"]
MEASURED = 30
"""Calls of ``sessions.get`` that find something to read and open connections, and a few more."""

COUNTED = ("--seconds", "3600")
"""Ends by the count: no machine is so slow."""

CALL = "import sys; from allsource_auth.cli import main; sys.exit(main())"

WIDE = "160"
"""Columns of the terminal, so that no cell of a table is wrapped."""

T = TypeVar("T")
Job = Callable[[AllsourceAuthAdapter], Awaitable[T]]


async def signed_up(adapter: AllsourceAuthAdapter) -> list[Session]:
    """Users, each with a session."""
    in_a_week = datetime.now(UTC) + timedelta(days=7)
    sessions = []
    for place in range(PEOPLE):
        user = await adapter.users.create(email=canaries.email(f"person{place}"), name=canaries.CANARY)
        token = canaries.token(str(place))
        sessions.append(await adapter.sessions.create(user_id=user.id, expires_at=in_a_week, token=token))
    return sessions


async def come_and_gone(adapter: AllsourceAuthAdapter) -> None:
    for session in await signed_up(adapter):
        await adapter.users.delete(session.user_id)


async def living(adapter: AllsourceAuthAdapter) -> tuple[int, int]:
    """How many users and sessions there are."""
    return (await adapter.users.list(limit=0)).total, len([one async for one in adapter.sessions.scan()])


def on(path: Path | str, job: Job[T], *, at: datetime | None = None) -> T:
    """What a job on a file returns; ``at``: the time by which it is done."""

    async def do() -> T:
        async with AllsourceAuthAdapter.embedded(path, clock=None if at is None else lambda: at) as adapter:
            return await job(adapter)

    return asyncio.run(do())


def log_of(path: str, written: Sequence[NewEvent] = ()) -> list[Event]:
    """All events of a file, after these were written to it."""

    async def look() -> list[Event]:
        store = SqliteStore(SqliteLog(path))
        try:
            await store.append(written)
            return await whole_log(store)
        finally:
            await store.close()

    return asyncio.run(look())


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", WIDE)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A file with users and sessions."""
    path = str(tmp_path / "auth.db")
    on(path, signed_up)
    return path


@pytest.fixture
def empty(tmp_path: Path) -> str:
    """A file in which nothing is alive any more."""
    path = str(tmp_path / "empty.db")
    on(path, come_and_gone)
    return path


def measured(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0, calls: int = 400) -> dict[str, Any]:
    """The JSON document of a measurement that ends with this exit code after so many calls."""
    assert main(["bench", *COUNTED, "--count", str(calls), "--json", *arguments]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def replaced(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, instead: Callable[..., Awaitable[Any]]) -> None:
    """Put ``instead(number, original, *arguments)`` in the place of a method; the number counts its calls."""
    original, numbers = getattr(owner, name), count(1)

    async def call(self: Any, *args: Any, **named: Any) -> Any:
        async def do() -> Any:
            return await original(self, *args, **named)

        return await instead(next(numbers), do, self, *args)

    monkeypatch.setattr(owner, name, call)


Do = Callable[[], Awaitable[Any]]


# What is measured


def test_machines_get_one_json_document(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "--data", data)
    assert found["ok"] is found["complete"] is True
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["machine"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["version"] == allsource_auth.__version__
    assert (found["store"]["server"], found["store"]["where"]) == ("SQLite", data)
    assert found["options"] == {"seconds": 3600, "count": 400, "callers": [1], "write": False}
    assert found["loop"] == "closed"
    assert found["sample"] == {
        "sessions": PEOPLE,
        "sessions_that_sign_in": PEOPLE,
        "users": PEOPLE,
        "users_found_by_email": PEOPLE,
    }
    assert [row["operation"] for row in found["rows"]] == READS
    for row in found["rows"]:
        assert (row["callers"], row["calls"], row["gone"], row["wrong"]) == (1, 100, 0, 0)
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["p999_us"]
        assert row["per_second"] > 0


def test_people_get_a_table_and_a_histogram(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *COUNTED, "--count", "400", "--data", data]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "A closed loop" in said.out
    assert "drawn from 10 sessions, 10 sessions that sign in, 10 users, 10 users found by email" in said.out
    for title in ("p50", "p90", "p99", "p99.9", *READS):
        assert title in said.out
    table, _, histogram = said.out.partition("sessions.get, callers: 1\n")
    assert "█" not in table
    lines = histogram.splitlines()
    assert any("█" * 40 in line for line in lines)
    assert lines[-1].endswith("100.00 %")


def test_nothing_is_written_unless_asked_for(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(self: SqliteStore, events: Sequence[NewEvent]) -> None:
        raise AssertionError("written")

    before = log_of(data)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "append", refuse)
        measured(capsys, "--data", data)
    assert log_of(data) == before


@pytest.mark.heavy
@pytest.mark.parametrize("generation", ["0.23", "0.27"])
async def test_over_http_one_caller_and_sixteen_are_measured(
    generation: Literal["0.23", "0.27"], capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        local_allsource(generation=generation) as running,
        AllsourceAuthAdapter(running.core_url, running.query_url, tenant_id="shop") as adapter,
    ):
        await signed_up(adapter)
        before = await living(adapter)
        place = ("--core", running.core_url, "--query", running.query_url, "--tenant", "shop")
        key = ("--api-key", f"ask_{canaries.CANARY}")
        found = await asyncio.to_thread(measured, capsys, *place, *key)
        rows = [(row["operation"], row["callers"], row["calls"]) for row in found["rows"]]
        assert rows == [(name, callers, 50) for callers in (1, 16) for name in READS]
        assert found["store"]["reads_from"] == running.query_url

        assert await asyncio.to_thread(main, ["bench", *COUNTED, "--count", "100", "--write", *place, *key]) == 0
        said = capsys.readouterr().out
        assert f"tenant shop of {running.core_url}" in said
        assert "sessions.create" in said
        assert not secret(str(found) + said)
        assert await living(adapter) == before


@pytest.mark.parametrize("calls", [1, 7, 403])
def test_the_count_is_a_bound_of_all_calls(calls: int, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "--data", data, "--callers", "3,1", calls=calls)
    shares = [row["calls"] for row in found["rows"]]
    assert sum(shares) == calls
    assert max(shares) - min(shares) <= 1
    assert found["options"]["callers"] == [1, 3]
    assert [row["p50_us"] is None for row in found["rows"]] == [not share for share in shares]


def test_the_seconds_are_a_bound(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = count(step=1_000_000)
    monkeypatch.setattr(bench, "perf_counter_ns", lambda: next(ticks))  # a millisecond passes with every look
    assert main(["bench", "--data", data, "--seconds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] is True
    assert 0 < sum(row["calls"] for row in found["rows"]) < 2000
    assert all(row["calls"] for row in found["rows"])


# What is there to be read


def test_an_empty_store_is_said_with_what_to_do(empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--data", empty]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "allsource-auth: tenant default has no living user or session among the 40 events looked at; "
        "name another --tenant, or let --write make some and delete them\n"
    )


def test_what_cannot_be_read_or_found_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "theirs.db")
    ended = {"id": "s", "token": "t", "userId": "u", "createdAt": "2020-01-01T00:00:00Z"}
    ended |= {"updatedAt": "2020-01-01T00:00:00Z", "expiresAt": "2020-01-02T00:00:00Z"}
    log_of(
        path,
        [
            new_event("auth-user:u", stored_user("u", email=canaries.email("without a claim"))),
            new_event("auth-user:broken", {"id": "broken"}),
            new_event("auth-session:t", ended, type="auth.session.created"),
        ],
    )
    found = measured(capsys, "--data", path)
    assert found["sample"] == {"sessions": 1, "sessions_that_sign_in": 0, "users": 1, "users_found_by_email": 0}
    assert [row["operation"] for row in found["rows"]] == ["sessions.get", "users.get"]


def test_what_changed_last_is_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "auth.db")
    read: set[str] = set()

    async def create(adapter: AllsourceAuthAdapter) -> set[str]:
        return {(await adapter.users.create()).id for _ in range(5)}

    async def remember(number: int, do: Do, users: Users, key: str) -> Any:
        read.add(key)
        return await do()

    replaced(monkeypatch, Users, "get", remember)
    now = datetime.now(UTC)
    ages = (timedelta(days=3000), timedelta(days=20), timedelta(hours=5), timedelta())
    users = [on(path, create, at=now - age) for age in ages]
    for fewest, newest in ((5, users[3]), (6, users[2] | users[3]), (11, users[1] | users[2] | users[3])):
        monkeypatch.setattr(bench, "DRAWN_FROM", fewest)
        read.clear()
        measured(capsys, "--data", path)
        assert len(read) == fewest
        assert read <= newest

    async def delete(adapter: AllsourceAuthAdapter) -> None:
        for key in users[0]:
            await adapter.users.delete(key)

    on(path, delete)
    monkeypatch.setattr(bench, "DRAWN_FROM", 100)
    read.clear()
    measured(capsys, "--data", path)
    assert read == set().union(*users[1:])


def test_only_so_many_events_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "many.db")
    log_of(path, [new_event(f"auth-user:{number}", type="auth.user.deleted") for number in range(3500)])
    monkeypatch.setattr(bench, "LOOKED_AT", 1500)
    assert main(["bench", "--data", path]) == 1
    assert "the 2,000 events looked at" in capsys.readouterr().err


# Whether the answers are right


def test_a_wrong_answer_is_counted_and_gives_exit_code_one(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def somebody_else(number: int, do: Do, users: Users, email: str) -> Any:
        user = await do()
        return msgspec.structs.replace(user, id="somebody else") if number in (50, 60) else user

    replaced(monkeypatch, Users, "get_by_email", somebody_else)
    assert main(["bench", *COUNTED, "--count", "400", "--json", "--data", data]) == 1
    said = capsys.readouterr()
    assert said.err == "allsource-auth: 2 answers were wrong\n"
    found = json.loads(said.out)
    assert (found["ok"], found["complete"]) == (False, True)
    assert {row["operation"]: row["wrong"] for row in found["rows"]}["users.get_by_email"] == 2


def test_a_look_up_that_is_always_wrong_is_noticed(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def mallory(number: int, do: Do, users: Users, email: str) -> Any:
        return msgspec.structs.replace(await do(), id="mallory", email="mallory@example.org")

    replaced(monkeypatch, Users, "get_by_email", mallory)
    found = measured(capsys, "--data", data, code=1)
    assert [row["wrong"] for row in found["rows"]] == [0, 0, 100, 0]


def test_of_two_owners_of_an_email_the_one_that_is_found_is_right(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    second = stored_user("second", email=canaries.email("person0").upper())
    log_of(data, [new_event("auth-user:second", second)])
    found = measured(capsys, "--data", data)
    assert found["sample"]["users_found_by_email"] == PEOPLE + 1


def test_nothing_where_there_is_something_is_a_wrong_answer(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def overlook(number: int, do: Do, sessions: Sessions, token: str) -> Any:
        return None if number == MEASURED else await do()

    replaced(monkeypatch, Sessions, "get", overlook)
    found = measured(capsys, "--data", data, code=1)
    assert (sum(row["wrong"] for row in found["rows"]), sum(row["gone"] for row in found["rows"])) == (1, 0)


@pytest.mark.parametrize("options", [(), ("--callers", "4")])
def test_what_is_deleted_meanwhile_is_no_wrong_answer(
    options: Sequence[str], data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    revoked = asyncio.Event()

    async def revoke_all(number: int, do: Do, sessions: Sessions, token: str) -> Any:
        if number == MEASURED:
            for place in range(PEOPLE):
                await sessions.delete(canaries.token(str(place)))
            revoked.set()
        elif number > MEASURED:
            await revoked.wait()  # else the others may have made all their calls by then
        return await do()

    replaced(monkeypatch, Sessions, "get", revoke_all)
    found = measured(capsys, "--data", data, *options, calls=4000)
    assert (found["ok"], sum(row["wrong"] for row in found["rows"])) == (True, 0)
    for row in found["rows"]:
        if row["operation"] in ("sessions.get", "load_session"):
            assert row["gone"] <= PEOPLE * found["options"]["callers"][0]
        else:
            assert (row["gone"], row["calls"]) == (0, 1000)
    assert sum(row["gone"] for row in found["rows"]) >= PEOPLE


def test_people_are_told_what_was_deleted_meanwhile(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def delete(number: int, do: Do, users: Users, key: str) -> Any:
        if number == MEASURED:
            await users.delete(key)
        return await do()

    replaced(monkeypatch, Users, "get", delete)
    assert main(["bench", *COUNTED, "--count", "4000", "--data", data]) == 0
    assert "answers said that there is nothing any more" in capsys.readouterr().out


# What is written


@pytest.mark.parametrize("place", ["data", "empty"])
def test_what_is_made_for_it_is_deleted(
    place: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = request.getfixturevalue(place)
    before = on(path, living)
    found = measured(capsys, "--data", path, "--write", calls=500)
    assert found["sample"]["users"] == before[0] + bench.USERS
    assert found["sample"]["sessions_that_sign_in"] == before[1] + bench.SESSIONS
    assert [(row["operation"], row["calls"]) for row in found["rows"]] == [
        (name, 100) for name in (*READS, "sessions.create")
    ]
    assert on(path, living) == before
    assert sum(event.type == "auth.session.created" for event in log_of(path)) == PEOPLE + bench.SESSIONS + 100
    assert main(["check", "--data", path]) == 0


def test_sign_ins_have_a_bound_of_their_own(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "SIGN_INS", 5)
    found = measured(capsys, "--data", data, "--write", "--callers", "1,2", calls=1000)
    assert [row["calls"] for row in found["rows"]] == [100, 100, 100, 100, 5] * 2


def test_what_was_made_is_deleted_after_a_failure_and_the_figures_are_shown(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(number: int, do: Do, users: Users, key: str) -> Any:
        if number == 100:
            raise Storage("the disk is gone", reason="input/output")
        return await do()

    replaced(monkeypatch, Users, "get_by_email", fail)
    arguments = ["bench", *COUNTED, "--count", "5000", "--json", "--data", empty, "--write"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.err == "allsource-auth: the disk is gone\n"
    found = json.loads(said.out)
    assert (found["ok"], found["complete"]) == (False, False)
    assert sum(row["calls"] for row in found["rows"]) > 0
    assert on(empty, living) == (0, 0)


def test_a_sign_up_whose_answer_was_lost_is_deleted_as_well(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def lose(number: int, do: Do, users: Users) -> User:
        user: User = await do()
        if number == 7:
            raise Http("the connection broke", ambiguous=True)
        return user

    replaced(monkeypatch, Users, "create", lose)
    assert main(["bench", "--data", empty, "--write"]) == 1
    assert capsys.readouterr() == ("", "allsource-auth: the connection broke\n")
    assert on(empty, living) == (0, 0)


def test_what_could_not_be_deleted_is_said(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(number: int, do: Do, users: Users, key: str) -> None:
        raise Storage("the disk is full", reason="full")

    replaced(monkeypatch, Users, "delete", fail)
    assert main(["bench", *COUNTED, "--count", "50", "--data", empty, "--write"]) == 1
    said = capsys.readouterr()
    left, failure = said.err.splitlines()
    assert failure == "allsource-auth: the disk is full"
    beginning = left.removeprefix(
        "allsource-auth: users that were made for this are still there; their emails begin with "
    )

    async def emails(adapter: AllsourceAuthAdapter) -> list[str]:
        return [user.email or "" async for user in adapter.users.scan()]

    found = on(empty, emails)
    assert len(found) == bench.USERS
    assert all(email.startswith(beginning) and email.endswith("@bench.invalid") for email in found)


# How it ends


def interrupted(path: str, owner: str, method: str, calls: Sequence[int], *options: str) -> tuple[int, str, str]:
    """Exit code and output of a process that gets Ctrl-C as it makes these calls of a method."""
    before = f"""
import os, signal
from itertools import count
from allsource_auth.repositories.{owner.lower()} import {owner}
original, numbers = {owner}.{method}, count(1)
async def interrupt(self, *args, **named):
    if next(numbers) in {tuple(calls)}:
        os.kill(os.getpid(), signal.SIGINT)
    return await original(self, *args, **named)
{owner}.{method} = interrupt
"""
    package = Path(allsource_auth.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", "-c", f"{before}\n{CALL}", "bench", "--data", path, *COUNTED, *options]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120)
    return done.returncode, done.stdout, done.stderr


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@posix
def test_ctrl_c_ends_it_with_what_was_measured(data: str) -> None:
    code, out, err = interrupted(data, "Sessions", "get", [5000], "--json", "--count", "1000000000")
    assert (code, err) == (130, "allsource-auth: interrupted\n")
    found = json.loads(out)
    assert (found["ok"], found["complete"]) == (False, False)
    assert found["rows"][0]["calls"] > 0


@posix
@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        ("Users", "create", 5),
        ("Sessions", "create", 50),
        ("Sessions", "create", bench.SESSIONS + 5),
        ("Sessions", "get", 50),
        ("Sessions", "get", 1000),
    ],
)
def test_ctrl_c_leaves_nothing_of_what_was_made(owner: str, method: str, call: int, empty: str) -> None:
    code, _, err = interrupted(empty, owner, method, [call], "--write", "--count", "1000000000")
    assert (code, err) == (130, "allsource-auth: interrupted\n")
    assert on(empty, living) == (0, 0)
    assert main(["check", "--data", empty]) == 0


@posix
def test_a_second_ctrl_c_says_what_it_left(empty: str) -> None:
    code, out, err = interrupted(empty, "Users", "delete", [1, 2], "--write", "--count", "50")
    assert code == 130
    left, last = err.splitlines()
    assert last == "allsource-auth: interrupted"
    assert "are still there; their emails begin with bench-" in left
    assert "sessions.create" in out
    assert on(empty, living)[0] > 0


def test_an_answer_that_does_not_come_is_said(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def wait_for_ever(number: int, do: Do, repository: object, key: str) -> Any:
        if number > MEASURED:
            await asyncio.Event().wait()
        return await do()

    for owner, method in ((Sessions, "get"), (Users, "get"), (Users, "get_by_email")):
        replaced(monkeypatch, owner, method, wait_for_ever)
    monkeypatch.setattr(bench, "PATIENCE", 0)
    assert main(["bench", "--data", data]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(
        r"allsource-auth: (users\.|sessions\.|load_)\w+ had no answer for 0 seconds; is the .*\n", said.err
    )
    assert "sessions.get" in said.out


# What is said, and what is not


class Terminal(io.StringIO):
    """Where people would be looking."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_figures_as_they_come(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    found = measured(capsys, "--data", data, "--write")
    assert found["complete"] is True
    shown = screen.getvalue()
    for text in ("looking for something to read", "measuring", "users.get_by_email", "p99", "deleting what was made"):
        assert text in shown
    assert not secret(shown)


@pytest.mark.parametrize("options", [(), ("--json",), ("--write",), ("--write", "--json")])
def test_no_token_and_no_email_is_shown(
    options: Sequence[str], data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(number: int, do: Do, users: Users, key: str) -> Any:
        if number == 5000:
            raise Storage("the disk is gone", reason="input/output")
        return await do()

    for calls, code in (("400", 0), ("1000000000", 1)):
        assert main(["bench", *COUNTED, "--count", calls, "--data", data, *options]) == code
        said = capsys.readouterr()
        assert "users.get" in said.out
        assert not secret(said.out + said.err)
        replaced(monkeypatch, Users, "get", fail)


def secret(text: str) -> bool:
    return canaries.revealed(text) or "bench.invalid" in text or "Example.org" in text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "--data"),
        (["--data", "a.db", "--core", "http://127.0.0.1:1"], "--core"),
        (["--data", "a.db", "--query", "http://127.0.0.1:1"], "--query"),
        (["--data", "there-is-none.db"], "there-is-none.db"),
        (["--data", __file__, "--callers", "0"], "--callers"),
        (["--data", __file__, "--callers", "1,"], "--callers"),
        (["--data", __file__, "--callers", "-1"], "--callers"),
        (["--data", __file__, "--callers", "many"], "--callers"),
        (["--data", __file__, "--callers", "1001"], "--callers"),
        (["--data", __file__, "--seconds", "0"], "--seconds"),
        (["--data", __file__, "--seconds", "nan"], "--seconds"),
        (["--data", __file__, "--count", "0"], "--count"),
    ],
)
def test_wrong_usage_is_said_in_one_line(options: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *options]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert named in said.err
    assert not Path("there-is-none.db").exists()


@pytest.mark.parametrize("options", [["--core", "http://127.0.0.1:1"], ["--data", __file__]])
def test_a_store_that_cannot_be_used_is_said_in_one_line(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for further in ([], ["--write"]):
        assert main(["bench", *options, *further]) == 1
        said = capsys.readouterr()
        assert (said.out, len(said.err.splitlines())) == ("", 1)


def test_a_missing_package_is_said_in_one_sentence(data: str) -> None:
    command = f"import sys; sys.modules['hdrh'] = None; {CALL}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", command, "bench", "--data", data],
        capture_output=True,
        text=True,
        cwd=Path(allsource_auth.__file__).parents[1],
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "allsource-auth: the command line needs more packages; install allsource-auth[cli]\n"


def test_the_help_tells_the_bounds_and_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for told in ("closed loop", "tombstones", "For how long to measure, in all", "At most so many calls, in all"):
        assert told in said


# The histogram


def test_calls_are_counted_between_edges() -> None:
    latency = Latency()
    for nanoseconds in (0, 5, 10, 14, 20, 500_000):
        latency.add(nanoseconds)
    assert latency.counts([2, 10, 15, 100]) == [2, 2, 1, 1]


def test_bars_are_as_long_as_their_part_and_never_hide_something() -> None:
    class Unicode(io.StringIO):
        encoding = "utf-8"

    assert [bars(Unicode(), part, 4) for part in (0, 1e-9, 0.5, 17 / 32, 1)] == ["", "▏", "██", "██▏", "████"]

    class Ascii(io.StringIO):
        encoding = "ascii"

    assert [bars(Ascii(), part, 4) for part in (0, 1e-9, 0.5, 1)] == ["", "#", "##", "####"]
