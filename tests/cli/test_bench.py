"""``allsource-auth bench``: its reads and writes, when it ends, and its output as tables and JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import pytest

import allsource_auth
from allsource_auth import AllsourceAuthAdapter, Event, Http, NewEvent, Session, SqliteLog, SqliteStore, Storage, User
from allsource_auth.cli import bench, main
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.users import Users
from tests.support import canaries
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored_user, whole_log
from tests.support.local import local_allsource

USERS = 10
"""Users in a file, each with a session."""

SESSIONS = 20
"""Temporary sessions."""

READS = ["sessions.get", "users.get", "users.get_by_email", "load_session"]
MEASURED = 30
"""A call of a read after those that find the sample and open connections."""

COUNTED = ("--seconds", "3600")
"""Lets the measurement end by ``--count``."""

CALL = "import sys; from allsource_auth.cli import main; sys.exit(main())"

WIDE = "160"
"""Columns of the terminal; no cell of a table is wrapped."""

ENDLESS = "1000000000"
"""A count that no run reaches."""

T = TypeVar("T")
Job = Callable[[AllsourceAuthAdapter], Awaitable[T]]


async def signed_up(adapter: AllsourceAuthAdapter) -> list[Session]:
    """Create users, each with a session."""
    in_a_week = datetime.now(UTC) + timedelta(days=7)
    sessions = []
    for number in range(USERS):
        user = await adapter.users.create(email=canaries.email(f"person{number}"), name=canaries.CANARY)
        token = canaries.token(str(number))
        sessions.append(await adapter.sessions.create(user_id=user.id, expires_at=in_a_week, token=token))
    return sessions


async def signed_up_and_deleted(adapter: AllsourceAuthAdapter) -> None:
    """Create the same and delete all of it."""
    for session in await signed_up(adapter):
        await adapter.users.delete(session.user_id)


async def existing(adapter: AllsourceAuthAdapter) -> tuple[int, int]:
    """The numbers of users and sessions."""
    return (await adapter.users.list(limit=0)).total, len([one async for one in adapter.sessions.scan()])


def on(path: Path | str, job: Job[T], *, at: datetime | None = None) -> T:
    """The result of a job on a file; ``at``: the time of its events."""

    clock = None if at is None else ManualClock(at)

    async def do() -> T:
        async with AllsourceAuthAdapter.embedded(path, clock=clock) as adapter:
            return await job(adapter)

    return asyncio.run(do())


def log_of(path: str, written: Sequence[NewEvent] = ()) -> list[Event]:
    """All events of a file, after appending some."""

    async def look() -> list[Event]:
        store = SqliteStore(SqliteLog(path))
        try:
            await store.append(written)
            return await whole_log(store)
        finally:
            await store.close()

    return asyncio.run(look())


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal, short rounds, so that every operation is called soon, and few temporary users."""
    monkeypatch.setenv("COLUMNS", WIDE)
    monkeypatch.setattr(bench, "USERS", 10)
    monkeypatch.setattr(bench, "SESSIONS", SESSIONS)
    monkeypatch.setattr(bench, "ROUND", bench.SECOND // 50)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file with users and sessions, and one in which all of them are deleted."""
    folder = tmp_path_factory.mktemp("bench")
    on(folder / "auth.db", signed_up)
    on(folder / "empty.db", signed_up_and_deleted)
    return folder


@pytest.fixture
def data(files: Path, tmp_path: Path) -> str:
    """A file with users and sessions."""
    return str(shutil.copy(files / "auth.db", tmp_path))


@pytest.fixture
def empty(files: Path, tmp_path: Path) -> str:
    """A file in which everything is deleted."""
    return str(shutil.copy(files / "empty.db", tmp_path))


def measured(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0, calls: int = 400) -> dict[str, Any]:
    """The JSON document of a measurement of a number of calls that ends with an exit code."""
    assert main(["bench", *COUNTED, "--count", str(calls), "--json", *arguments]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def replace(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, new: Callable[..., Awaitable[Any]]) -> None:
    """Replace a method by ``new(number, original, *arguments)``; the number counts its calls."""
    original, numbers = getattr(owner, name), count(1)

    async def call(self: Any, *args: Any, **named: Any) -> Any:
        async def do() -> Any:
            return await original(self, *args, **named)

        return await new(next(numbers), do, self, *args)

    monkeypatch.setattr(owner, name, call)


Original = Callable[[], Awaitable[Any]]


# Measurement


def test_json_output_is_one_document(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "--data", data)
    assert found["ok"] is found["complete"] is True
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["machine"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["version"] == allsource_auth.__version__
    assert (found["store"]["server"], found["store"]["where"]) == ("SQLite", data)
    assert found["options"] == {"seconds": 3600, "count": 400, "callers": [1], "write": False}
    assert found["loop"] == "closed"
    assert found["sample"] == {
        "sessions": USERS,
        "sessions_that_sign_in": USERS,
        "users": USERS,
        "users_found_by_email": USERS,
    }
    assert [row["operation"] for row in found["rows"]] == READS
    for row in found["rows"]:
        assert (row["callers"], row["calls"], row["gone"], row["wrong"]) == (1, 100, 0, 0)
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["p999_us"]
        assert row["per_second"] > 0


def test_default_output_is_a_table_and_a_histogram(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *COUNTED, "--count", "400", "--data", data]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "Closed loop" in captured.out
    assert "sample: 10 sessions, 10 sessions that sign in, 10 users, 10 users found by email" in captured.out
    for title in ("p50", "p90", "p99", "p99.9", *READS):
        assert title in captured.out
    table, _, histogram = captured.out.partition("sessions.get, callers: 1\n")
    assert "█" not in table
    lines = histogram.splitlines()
    assert any("█" * 40 in line for line in lines)
    assert lines[-1].endswith("100.00 %")


def test_nothing_is_written_without_write(
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
async def test_one_and_sixteen_callers_are_measured_over_http(
    generation: Literal["0.23", "0.27"], capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        local_allsource(generation=generation) as running,
        AllsourceAuthAdapter(running.core_url, running.query_url, tenant_id="shop") as adapter,
    ):
        await signed_up(adapter)
        before = await existing(adapter)
        store = ("--core", running.core_url, "--query", running.query_url, "--tenant", "shop")
        key = ("--api-key", f"ask_{canaries.CANARY}")
        found = await asyncio.to_thread(measured, capsys, *store, *key)
        rows = [(row["operation"], row["callers"], row["calls"]) for row in found["rows"]]
        assert rows == [(name, callers, 50) for callers in (1, 16) for name in READS]
        assert found["store"]["reads_from"] == running.query_url

        assert await asyncio.to_thread(main, ["bench", *COUNTED, "--count", "100", "--write", *store, *key]) == 0
        captured = capsys.readouterr().out
        assert f"tenant shop of {running.core_url}" in captured
        assert "sessions.create" in captured
        assert not secret(str(found) + captured)
        assert await existing(adapter) == before


@pytest.mark.parametrize("calls", [1, 7, 403])
def test_count_limits_the_calls_of_all_operations_together(
    calls: int, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(capsys, "--data", data, "--callers", "3,1", calls=calls)
    shares = [row["calls"] for row in found["rows"]]
    assert sum(shares) == calls
    assert max(shares) - min(shares) <= 1
    assert found["options"]["callers"] == [1, 3]
    assert [row["p50_us"] is None for row in found["rows"]] == [not share for share in shares]


def test_seconds_limit_the_duration(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = count(step=1_000_000)
    monkeypatch.setattr(bench, "perf_counter_ns", lambda: next(ticks))  # each call advances the clock by a millisecond
    assert main(["bench", "--data", data, "--seconds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] is True
    assert 0 < sum(row["calls"] for row in found["rows"]) < 2000
    assert all(row["calls"] for row in found["rows"])


# The sample


def test_empty_store_gives_exit_code_one_and_advice(empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--data", empty]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "allsource-auth: tenant default has no user and no session in the 40 events scanned; "
        "name another --tenant, or use --write to create and delete temporary ones\n"
    )


def test_sample_omits_entities_that_cannot_be_decoded_or_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_sample_prefers_entities_that_changed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "auth.db")
    read: set[str] = set()

    async def create(adapter: AllsourceAuthAdapter) -> set[str]:
        return {(await adapter.users.create()).id for _ in range(5)}

    async def record(number: int, original: Original, users: Users, key: str) -> Any:
        read.add(key)
        return await original()

    replace(monkeypatch, Users, "get", record)
    now = datetime.now(UTC)
    ages = (timedelta(days=3000), timedelta(days=20), timedelta(hours=5), timedelta())
    users = [on(path, create, at=now - age) for age in ages]
    for size, newest in ((5, users[3]), (6, users[2] | users[3]), (11, users[1] | users[2] | users[3])):
        monkeypatch.setattr(bench, "SAMPLE_SIZE", size)
        read.clear()
        measured(capsys, "--data", path)
        assert len(read) == size
        assert read <= newest

    async def delete(adapter: AllsourceAuthAdapter) -> None:
        for key in users[0]:
            await adapter.users.delete(key)

    on(path, delete)
    monkeypatch.setattr(bench, "SAMPLE_SIZE", 100)
    read.clear()
    measured(capsys, "--data", path)
    assert read == set().union(*users[1:])


def test_number_of_scanned_events_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "many.db")
    log_of(path, [new_event(f"auth-user:{number}", type="auth.user.deleted") for number in range(3500)])
    monkeypatch.setattr(bench, "MAX_SCANNED", 1500)
    assert main(["bench", "--data", path]) == 1
    assert "the 2,000 events scanned" in capsys.readouterr().err


# Checks of the replies


def test_wrong_reply_is_counted_and_gives_exit_code_one(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def another_user(number: int, original: Original, users: Users, email: str) -> Any:
        user = await original()
        return msgspec.structs.replace(user, id="another user") if number in (50, 60) else user

    replace(monkeypatch, Users, "get_by_email", another_user)
    assert main(["bench", *COUNTED, "--count", "400", "--json", "--data", data]) == 1
    captured = capsys.readouterr()
    assert captured.err == "allsource-auth: 2 replies were wrong\n"
    found = json.loads(captured.out)
    assert (found["ok"], found["complete"]) == (False, True)
    assert {row["operation"]: row["wrong"] for row in found["rows"]}["users.get_by_email"] == 2


def test_look_up_that_is_always_wrong_is_noticed(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def mallory(number: int, original: Original, users: Users, email: str) -> Any:
        return msgspec.structs.replace(await original(), id="mallory", email="mallory@example.org")

    replace(monkeypatch, Users, "get_by_email", mallory)
    found = measured(capsys, "--data", data, code=1)
    assert [row["wrong"] for row in found["rows"]] == [0, 0, 100, 0]


def test_either_of_two_users_with_one_email_is_a_correct_reply(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    second = stored_user("second", email=canaries.email("person0").upper())
    log_of(data, [new_event("auth-user:second", second)])
    found = measured(capsys, "--data", data)
    assert found["sample"]["users_found_by_email"] == USERS + 1


def test_missing_entity_that_a_second_read_finds_is_a_wrong_reply(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def find_nothing(number: int, original: Original, sessions: Sessions, token: str) -> Any:
        return None if number == MEASURED else await original()

    replace(monkeypatch, Sessions, "get", find_nothing)
    found = measured(capsys, "--data", data, code=1)
    assert (sum(row["wrong"] for row in found["rows"]), sum(row["gone"] for row in found["rows"])) == (1, 0)


@pytest.mark.parametrize("options", [(), ("--callers", "4")])
def test_entity_deleted_during_the_measurement_is_no_wrong_reply(
    options: Sequence[str], data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    revoked = asyncio.Event()

    async def revoke_all(number: int, original: Original, sessions: Sessions, token: str) -> Any:
        if number == MEASURED:
            for person in range(USERS):
                await sessions.delete(canaries.token(str(person)))
            revoked.set()
        elif number > MEASURED:
            await revoked.wait()  # else the other callers may use up all calls before that
        return await original()

    replace(monkeypatch, Sessions, "get", revoke_all)
    found = measured(capsys, "--data", data, *options, calls=4000)
    assert (found["ok"], sum(row["wrong"] for row in found["rows"])) == (True, 0)
    for row in found["rows"]:
        if row["operation"] in ("sessions.get", "load_session"):
            assert row["gone"] <= USERS * found["options"]["callers"][0]
        else:
            assert (row["gone"], row["calls"]) == (0, 1000)
    assert sum(row["gone"] for row in found["rows"]) >= USERS


def test_output_names_the_number_of_entities_deleted_meanwhile(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def delete(number: int, original: Original, users: Users, key: str) -> Any:
        if number == MEASURED:
            await users.delete(key)
        return await original()

    replace(monkeypatch, Users, "get", delete)
    assert main(["bench", *COUNTED, "--count", "4000", "--data", data]) == 0
    assert "reads found nothing: deleted or expired during the measurement." in capsys.readouterr().out


# Writes


@pytest.mark.parametrize("file", ["data", "empty"])
def test_temporary_users_and_their_sessions_are_deleted(
    file: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = request.getfixturevalue(file)
    before = on(path, existing)
    found = measured(capsys, "--data", path, "--write", calls=500)
    assert found["sample"]["users"] == before[0] + bench.USERS
    assert found["sample"]["sessions_that_sign_in"] == before[1] + bench.SESSIONS
    assert [(row["operation"], row["calls"]) for row in found["rows"]] == [
        (name, 100) for name in (*READS, "sessions.create")
    ]
    assert on(path, existing) == before
    assert sum(event.type == "auth.session.created" for event in log_of(path)) == USERS + bench.SESSIONS + 100
    assert main(["check", "--data", path]) == 0


def test_sign_ins_have_their_own_limit(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "MAX_SIGN_INS", 5)
    found = measured(capsys, "--data", data, "--write", "--callers", "1,2", calls=1000)
    assert [row["calls"] for row in found["rows"]] == [100, 100, 100, 100, 5] * 2


def test_error_deletes_temporary_users_and_shows_the_results_so_far(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(number: int, original: Original, users: Users, key: str) -> Any:
        if number == 100:
            raise Storage("the disk is gone", reason="input/output")
        return await original()

    replace(monkeypatch, Users, "get_by_email", fail)
    arguments = ["bench", *COUNTED, "--count", "5000", "--json", "--data", empty, "--write"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err == "allsource-auth: the disk is gone\n"
    found = json.loads(captured.out)
    assert (found["ok"], found["complete"]) == (False, False)
    assert sum(row["calls"] for row in found["rows"]) > 0
    assert on(empty, existing) == (0, 0)


def test_temporary_user_whose_reply_was_lost_is_deleted(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def lose(number: int, original: Original, users: Users) -> User:
        user: User = await original()
        if number == 7:
            raise Http("the connection broke", ambiguous=True)
        return user

    replace(monkeypatch, Users, "create", lose)
    assert main(["bench", "--data", empty, "--write"]) == 1
    assert capsys.readouterr() == ("", "allsource-auth: the connection broke\n")
    assert on(empty, existing) == (0, 0)


def test_emails_of_undeleted_temporary_users_are_named(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(number: int, original: Original, users: Users, key: str) -> None:
        raise Storage("the disk is full", reason="full")

    replace(monkeypatch, Users, "delete", fail)
    assert main(["bench", *COUNTED, "--count", "50", "--data", empty, "--write"]) == 1
    captured = capsys.readouterr()
    undeleted, failure = captured.err.splitlines()
    assert failure == "allsource-auth: the disk is full"
    prefix = undeleted.removeprefix("allsource-auth: temporary users were not deleted; their emails begin with ")

    async def emails(adapter: AllsourceAuthAdapter) -> list[str]:
        return [user.email or "" async for user in adapter.users.scan()]

    found = on(empty, emails)
    assert len(found) == bench.USERS
    assert all(email.startswith(prefix) and email.endswith("@bench.invalid") for email in found)


# The end of a measurement


def in_a_process(path: str, owner: str, method: str, calls: Sequence[int], *options: str) -> tuple[int, str, str]:
    """Exit code and output of a process that receives SIGINT during these calls of a method."""
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


@pytest.fixture
def _sigint() -> Iterator[None]:
    """The handler of a new process for SIGINT, which ``asyncio.run`` replaces, and the level of asyncio's logger."""
    handler, logger = signal.signal(signal.SIGINT, signal.default_int_handler), logging.getLogger("asyncio")
    level = logger.level
    yield
    logger.setLevel(level)
    signal.signal(signal.SIGINT, handler)


posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@posix
def test_ctrl_c_shows_the_results_so_far(data: str) -> None:
    code, out, err = in_a_process(data, "Sessions", "get", [5000], "--json", "--count", ENDLESS)
    assert (code, err) == (130, "allsource-auth: interrupted\n")
    found = json.loads(out)
    assert (found["ok"], found["complete"]) == (False, False)
    assert found["rows"][0]["calls"] > 0


@posix
@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (Users, "create", 5),
        (Sessions, "create", SESSIONS // 2),
        (Sessions, "create", SESSIONS + 5),
        (Sessions, "get", SESSIONS // 2),
        (Sessions, "get", 1000),
    ],
)
def test_ctrl_c_deletes_temporary_users_and_their_sessions(
    owner: type,
    method: str,
    call: int,
    empty: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def interrupt(number: int, original: Original, *arguments: object) -> Any:
        if number == call:
            os.kill(os.getpid(), signal.SIGINT)
        return await original()

    replace(monkeypatch, owner, method, interrupt)
    assert main(["bench", "--data", empty, *COUNTED, "--write", "--count", ENDLESS]) == 130
    assert capsys.readouterr().err == "allsource-auth: interrupted\n"
    assert on(empty, existing) == (0, 0)
    assert main(["check", "--data", empty]) == 0


@posix
def test_second_ctrl_c_names_the_emails_of_undeleted_users(empty: str) -> None:
    code, out, err = in_a_process(empty, "Users", "delete", [1, 2], "--write", "--count", "50")
    assert code == 130
    undeleted, last = err.splitlines()
    assert last == "allsource-auth: interrupted"
    assert "temporary users were not deleted; their emails begin with bench-" in undeleted
    assert "sessions.create" in out
    assert on(empty, existing)[0] > 0


def test_missing_reply_ends_the_measurement_with_the_results_so_far(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def wait_for_ever(number: int, original: Original, repository: object, key: str) -> Any:
        if number > MEASURED:
            await asyncio.Event().wait()
        return await original()

    for owner, method in ((Sessions, "get"), (Users, "get"), (Users, "get_by_email")):
        replace(monkeypatch, owner, method, wait_for_ever)
    monkeypatch.setattr(bench, "REPLY_TIMEOUT", 0)
    assert main(["bench", "--data", data]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"allsource-auth: (users\.|sessions\.|load_)\w+ had no reply for 0 seconds; is the .*\n", captured.err
    )
    assert "sessions.get" in captured.out


# Output


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_terminal_shows_progress_and_results_so_far(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    found = measured(capsys, "--data", data, "--write")
    assert found["complete"] is True
    shown = screen.getvalue()
    for text in ("finding sessions and users", "measuring", "users.get_by_email", "p99", "deleting temporary users"):
        assert text in shown
    assert not secret(shown)


@pytest.mark.parametrize("options", [(), ("--json",), ("--write",), ("--write", "--json")])
def test_output_has_no_token_and_no_email(
    options: Sequence[str], data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(number: int, original: Original, users: Users, key: str) -> Any:
        if number == 1000:
            raise Storage("the disk is gone", reason="input/output")
        return await original()

    for calls, code in (("400", 0), (ENDLESS, 1)):
        assert main(["bench", *COUNTED, "--count", calls, "--data", data, *options]) == code
        captured = capsys.readouterr()
        assert "users.get" in captured.out
        assert not secret(captured.out + captured.err)
        replace(monkeypatch, Users, "get", fail)


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
def test_wrong_usage_is_reported_in_one_line(
    options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert named in captured.err
    assert not Path("there-is-none.db").exists()


@pytest.mark.parametrize("options", [["--core", "http://127.0.0.1:1"], ["--data", __file__]])
def test_unusable_store_is_reported_in_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for further in ([], ["--write"]):
        assert main(["bench", *options, *further]) == 1
        captured = capsys.readouterr()
        assert (captured.out, len(captured.err.splitlines())) == ("", 1)


def test_help_names_the_limits_and_the_tombstones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    captured = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in ("closed loop", "tombstones", "Duration of the whole measurement", "Maximum number of measured calls"):
        assert text in captured
