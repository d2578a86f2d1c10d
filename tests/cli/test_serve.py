"""``allsource-auth serve``: its output, its replies, and how it stops."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import allsource_auth
from allsource_auth.cli import demo, main

CALL = "import sys; from allsource_auth.cli import main; sys.exit(main())"
EVENT = {"event_type": "auth.user.created", "entity_id": "user:1", "tenant_id": "acme", "payload": {"n": 1}}
QUERY = {"tenant_id": "acme", "entity_id": "user:1"}
FREE = ("--port", "0", "--query-port", "0")
STARTED = "Ctrl-C stops it."

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


class Server:
    """A server in a new process, and its output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.output = ""
        while STARTED not in self.output:
            line = process.stdout.readline()
            assert line, process.communicate()
            self.output += line
        self.core_url, self.query_url = urls(self.output)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and return the exit code and the output on standard error."""
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=60)
        return self._process.returncode, errors


def urls(output: str) -> list[str]:
    return re.findall(r"(?:Core|Query Service) +(http://\S+)", output)


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


class Output(io.StringIO):
    """Standard output that sets an event when the server has started."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()

    def flush(self) -> None:
        if STARTED in self.getvalue():
            self.started.set()


Serve = Callable[..., str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve in this process while a function uses the server in a thread; returns the output.

    The server needs the main thread, because it handles signals.
    """

    def run(*arguments: str, use: Callable[[str, str], None] = lambda core_url, query_url: None) -> str:
        output = Output()
        monkeypatch.setattr(sys, "stdout", output)

        def use_and_stop() -> None:
            assert output.started.wait(60), "the server has not started"
            try:
                use(*urls(output.getvalue()))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        with ThreadPoolExecutor(1) as executor:
            used = executor.submit(use_and_stop)
            assert main(["serve", *FREE, *arguments]) == 0
            used.result()
        return output.getvalue()

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def test_it_serves_a_file_and_releases_it_after_each_signal(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    for count, number in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        with server("--data", str(path)) as running:
            assert str(path) in running.output
            httpx.post(f"{running.core_url}/api/v1/events", json=EVENT).raise_for_status()
            page = httpx.get(f"{running.query_url}/api/v1/events/query", params=QUERY).json()
            assert page["count"] == count
            assert running.stop(number) == (0, "")
        assert [found.name for found in tmp_path.iterdir()] == ["events.db"]


def test_output_without_a_file_names_the_memory(serve: Serve) -> None:
    def write(core_url: str, query_url: str) -> None:
        httpx.post(f"{core_url}/api/v1/events", json=EVENT).raise_for_status()

    output = serve(use=write)
    assert "in memory" in output
    assert "for development" in output


def test_output_names_the_arguments_of_an_adapter(serve: Serve) -> None:
    output = serve("--tenant", "acme")
    core_url, query_url = urls(output)
    assert f'AllsourceAuthAdapter("{core_url}", "{query_url}", api_key=..., tenant_id="acme")' in output
    for line in (f"ALLSOURCE_CORE_URL={core_url}", f"ALLSOURCE_QUERY_URL={query_url}", "ALLSOURCE_TENANT=acme"):
        assert line in output.replace("  ", "").splitlines()
    assert "Anyone who can connect" not in output


def test_key_from_the_environment_is_required_and_not_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(core_url: str, query_url: str) -> None:
        query, key = f"{query_url}/api/v1/events/query", {"X-API-Key": "ask_canary"}
        assert httpx.get(query, params=QUERY).status_code == 401
        assert httpx.get(query, params=QUERY, headers=key).status_code == 200
        assert httpx.get(f"{core_url}/api/v1/event-feed", headers=key).json()["tenant_id"] == "acme"

    monkeypatch.setenv("ALLSOURCE_API_KEY", "ask_canary")
    output = serve("--tenant", "acme", use=use)
    assert "for tenant acme" in output
    assert "canary" not in output


def test_it_can_reply_like_the_oldest_core(serve: Serve) -> None:
    def use(core_url: str, query_url: str) -> None:
        assert httpx.get(f"{core_url}/health").json()["version"] == "0.23.0"
        assert httpx.get(f"{core_url}/api/v1/event-feed").status_code == 404

    assert "canary" not in serve("--generation", "0.23", "--api-key", "ask_canary", use=use)


def test_output_warns_if_other_hosts_can_connect(serve: Serve) -> None:
    assert "Anyone who can connect to http://0.0.0.0:" in serve("--host", "0.0.0.0")


def test_port_in_use_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--query-port", "0"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"allsource-auth: cannot listen on 127.0.0.1, port {port}: .*in use\n", captured.err)


def test_file_that_is_no_log_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    assert main(["serve", "--data", str(path), *FREE]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert str(path) in captured.err
    assert path.read_text() == "not a database"


@pytest.mark.parametrize(
    "arguments", [["--port", "65536"], ["--query-port", "-1"], ["--generation", "0.24"], ["--port", "x"]]
)
def test_wrong_usage_is_reported_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_empty_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--api-key", "", *FREE]) == 1
    assert "api_keys" in capsys.readouterr().err


def test_help_warns_of_keys_in_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    captured = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "are visible in the list of processes" in captured
    assert "ALLSOURCE_API_KEY" in captured


def test_demo_passes_all_checks_on_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "READS", 100)
    monkeypatch.setattr(demo, "SAME_EMAIL_SIGN_UPS", 20)
    key = "ask_for_this_test"
    with server("--tenant", "shop", ALLSOURCE_API_KEY=key) as running:
        other = running.query_url.replace("127.0.0.1", "localhost")
        options = ["--core", running.core_url, "--query", running.query_url, "--query", other, "--api-key", key]
        options += ["--tenant", "shop"]
        code = main(["demo", *options, "--users", "10", "--json"])
        captured = capsys.readouterr()
        assert running.stop() == (0, "")
    assert (code, captured.err) == (0, "")
    found = json.loads(captured.out)
    assert found["ok"] is True
    assert len(found["checks"]) > 25
    assert found["data"] == f"tenant shop of {running.core_url}"
    assert found["counts"]["events_written"] > 100
    assert key not in captured.out


def test_demo_reports_in_one_line_that_no_server_responds(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert main(["demo", "--core", url, "--users", "10"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err
        == f"allsource-auth: cannot connect to {url}: the connection was refused; is the server running there?\n"
    )
