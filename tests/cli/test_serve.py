"""``allsource-auth serve`` as a process: what it says, how it ends, what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import allsource_auth
from allsource_auth.cli import main

CALL = "import sys; from allsource_auth.cli import main; sys.exit(main())"
EVENT = {"event_type": "auth.user.created", "entity_id": "user:1", "tenant_id": "acme", "payload": {"n": 1}}
ASKED = {"tenant_id": "acme", "entity_id": "user:1"}
FREE = ("--port", "0", "--query-port", "0")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


class Server:
    """A server in a process of its own, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.said = ""
        while "Ctrl-C stops it." not in self.said:
            line = process.stdout.readline()
            assert line, process.communicate()
            self.said += line
        self.core_url, self.query_url = re.findall(r"(?:Core|Query Service) +(http://\S+)", self.said)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit code and what it said on standard error."""
        self._process.send_signal(number)
        _, complaints = self._process.communicate(timeout=60)
        return self._process.returncode, complaints


@contextmanager
def server(*arguments: str, **variables: str) -> Iterator[Server]:
    package = Path(allsource_auth.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONIOENCODING": "utf-8", **variables}
    command = [sys.executable, "-W", "error", "-c", CALL, "serve", *FREE, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_a_file_and_releases_it(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "events.db"
    for count in (1, 2):
        with server("--data", str(path)) as running:
            assert str(path) in running.said
            httpx.post(f"{running.core_url}/api/v1/events", json=EVENT).raise_for_status()
            page = httpx.get(f"{running.query_url}/api/v1/events/query", params=ASKED).json()
            assert page["count"] == count
            assert running.end(number) == (0, "")
        assert [found.name for found in tmp_path.iterdir()] == ["events.db"]


def test_without_a_file_it_says_that_nothing_is_kept() -> None:
    with server() as running:
        assert "in memory" in running.said
        assert "for development" in running.said
        httpx.post(f"{running.core_url}/api/v1/events", json=EVENT).raise_for_status()
        assert running.end() == (0, "")


def test_it_says_how_to_point_an_adapter_at_it() -> None:
    with server("--tenant", "acme") as running:
        adapter = f'AllsourceAuthAdapter("{running.core_url}", "{running.query_url}", api_key=..., tenant_id="acme")'
        assert adapter in running.said
        for line in (
            f"ALLSOURCE_CORE_URL={running.core_url}",
            f"ALLSOURCE_QUERY_URL={running.query_url}",
            "ALLSOURCE_TENANT=acme",
        ):
            assert line in running.said.replace("  ", "").splitlines()
        assert "Anybody who reaches" not in running.said


def test_a_key_from_the_environment_is_asked_for_and_not_shown() -> None:
    with server("--tenant", "acme", ALLSOURCE_API_KEY="ask_canary") as running:
        assert "canary" not in running.said
        query = f"{running.query_url}/api/v1/events/query"
        assert httpx.get(query, params=ASKED).status_code == 401
        assert httpx.get(query, params=ASKED, headers={"X-API-Key": "ask_canary"}).status_code == 200
        feed = httpx.get(f"{running.core_url}/api/v1/event-feed", headers={"X-API-Key": "ask_canary"})
        assert feed.json()["tenant_id"] == "acme"


def test_it_can_answer_like_the_oldest(tmp_path: Path) -> None:
    with server("--generation", "0.23", "--api-key", "ask_canary") as running:
        assert "canary" not in running.said
        assert httpx.get(f"{running.core_url}/health").json()["version"] == "0.23.0"
        assert httpx.get(f"{running.core_url}/api/v1/event-feed").status_code == 404


def test_it_warns_where_others_can_reach_it() -> None:
    with server("--host", "0.0.0.0") as running:
        assert "Anybody who reaches http://0.0.0.0:" in running.said


def test_a_port_in_use_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--query-port", "0"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(rf"allsource-auth: cannot listen on 127.0.0.1, port {port}: .*in use\n", said.err)


def test_a_file_that_is_no_log_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    assert main(["serve", "--data", str(path), *FREE]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert str(path) in said.err
    assert path.read_text() == "not a database"


@pytest.mark.parametrize(
    "arguments", [["--port", "65536"], ["--query-port", "-1"], ["--generation", "0.24"], ["--port", "x"]]
)
def test_wrong_usage_is_said_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_an_empty_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--api-key", "", *FREE]) == 1
    assert "api_keys" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "websockets"])
def test_a_missing_package_is_named_by_its_extra(package: str) -> None:
    block = f"import sys; sys.modules['{package}'] = None"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{block}\n{CALL}", "serve", *FREE],
        capture_output=True,
        text=True,
        cwd=Path(allsource_auth.__file__).parents[1],
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "allsource-auth: the local Allsource needs more packages; install allsource-auth[server]\n"


def test_the_help_warns_of_keys_in_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "can be seen in the list of processes" in said
    assert "ALLSOURCE_API_KEY" in said


def test_the_demonstration_does_its_job_on_it(capsys: pytest.CaptureFixture[str]) -> None:
    key = "ask_for_this_test"
    with server("--tenant", "shop", ALLSOURCE_API_KEY=key) as running:
        other = running.query_url.replace("127.0.0.1", "localhost")
        urls = ["--core", running.core_url, "--query", running.query_url, "--query", other, "--api-key", key]
        urls += ["--tenant", "shop"]
        code = main(["demo", *urls, "--users", "10", "--json"])
        said = capsys.readouterr()
        assert running.end() == (0, "")
    assert (code, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["ok"] is True
    assert len(found["checks"]) > 25
    assert found["data"] == f"tenant shop of {running.core_url}"
    assert found["counts"]["events_written"] > 100
    assert key not in said.out


def test_the_demonstration_says_in_one_sentence_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert main(["demo", "--core", url, "--users", "10"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err
        == f"allsource-auth: cannot connect to {url}: the connection was refused; is the server running there?\n"
    )
