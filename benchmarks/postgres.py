"""A temporary PostgreSQL server from Debian's packages, on a private socket and with default settings."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PostgreSQL", "PostgresMissing", "running"]

INSTALLED = Path("/usr/lib/postgresql")
PACKAGE = "postgresql-15"
ACCOUNT = "postgres"
"""The account that Debian's packages create; PostgreSQL does not run as root."""

START_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
TAIL = 2000
"""Characters of output in an error message."""


class PostgresMissing(Exception):
    """PostgreSQL is not installed and cannot be installed, or cannot be started; the message has the reason."""


@dataclass(frozen=True)
class PostgreSQL:
    """A server that listens on a socket in the folder ``socket`` only; the user ``postgres`` needs no password."""

    version: str
    socket: Path
    _programs: Path
    _account: dict[str, Any]

    def create(self, database: str) -> None:
        """Create an empty database."""
        self._run("createdb", database)

    def vacuum(self) -> None:
        """Finish the work that seeding leaves: mark all pages as visible, and analyze the tables for the planner."""
        self._run("vacuumdb", "--all", "--analyze", "--quiet")

    def _run(self, program: str, *arguments: str) -> None:
        connection = ("--host", str(self.socket), "--username", ACCOUNT)
        _run(self._programs / program, *connection, *arguments, cwd=self.socket, account=self._account)


@contextmanager
def running(folder: Path, *, connections: int) -> Iterator[PostgreSQL]:
    """Run a server for a number of connections while the block runs, with its data in the new folder ``folder``.

    Installs Debian's package if there is no PostgreSQL. Raises `PostgresMissing`.
    """
    programs = _programs()
    folder.mkdir(mode=0o700)
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = _account()
        os.chown(folder, account["user"], account["group"])
    data = folder / "data"
    options = ("--username", ACCOUNT, "--auth-local", "trust", "--auth-host", "reject", "--encoding", "UTF8")
    _run(programs / "initdb", "--pgdata", str(data), *options, cwd=folder, account=account)
    settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": str(connections)}
    command = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    log = folder / "log"
    with log.open("wb") as output:
        # In a new session, so that Ctrl-C does not reach it. It is stopped below, after its clients.
        child = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=_environment(), start_new_session=True, **account
        )
    try:
        _wait(child, programs, folder, log)
        version = _run(programs / "postgres", "--version", cwd=folder, account=account).split()[2]
        yield PostgreSQL(version, folder, programs, account)
    finally:
        child.send_signal(signal.SIGINT)  # fast shutdown: open connections are closed
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGQUIT)
            child.wait()


def _programs() -> Path:
    """The folder with the programs of the newest PostgreSQL."""
    found = _newest()
    if found is not None:
        return found
    missing = f"no PostgreSQL in {INSTALLED}"
    if os.geteuid() != 0:
        raise PostgresMissing(f"{missing}, and only root can install it: apt-get install {PACKAGE}")
    apt = shutil.which("apt-get")
    if apt is None:
        raise PostgresMissing(f"{missing}, and no apt-get to install Debian's {PACKAGE}")
    for arguments in (("update",), ("install", "-y", PACKAGE)):
        print(f"apt-get {' '.join(arguments)} ...", file=sys.stderr)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run((apt, *arguments), capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PostgresMissing(f"{missing}, and `apt-get {' '.join(arguments)}` failed: {last}")
    found = _newest()
    if found is None:
        raise PostgresMissing(f"{missing} after `apt-get install {PACKAGE}`")
    return found


def _newest() -> Path | None:
    found = [path.parent for path in INSTALLED.glob("*/bin/initdb") if path.parent.parent.name.isdecimal()]
    return max(found, key=lambda programs: int(programs.parent.name), default=None)


def _account() -> dict[str, Any]:
    """The account of the server, as arguments of ``subprocess``."""
    try:
        found = pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise PostgresMissing(f"PostgreSQL does not run as root, and the account {ACCOUNT!r} does not exist") from None
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """The environment without variables that select another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _run(program: Path, *arguments: str, cwd: Path, account: dict[str, Any]) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        (str(program), *arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        env=_environment(),
        check=False,
        **account,
    )
    if done.returncode != 0:
        raise PostgresMissing(f"{program.name} failed with exit code {done.returncode}: {done.stderr.strip()[-TAIL:]}")
    return done.stdout


def _wait(child: subprocess.Popen[bytes], programs: Path, folder: Path, log: Path) -> None:
    """Wait until the server accepts connections."""
    ready = (str(programs / "pg_isready"), "--quiet", "--host", str(folder))
    until = time.monotonic() + START_SECONDS
    while subprocess.run(ready, env=_environment(), check=False).returncode != 0:
        if child.poll() is not None or time.monotonic() > until:
            reason = "does not accept connections" if child.returncode is None else f"exited with {child.returncode}"
            output = log.read_bytes()[-TAIL:].decode(errors="replace")
            raise PostgresMissing(f"PostgreSQL {reason}; its last output: {output.strip()}")
        time.sleep(POLL_SECONDS)
