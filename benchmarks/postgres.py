"""A PostgreSQL of Debian's packages: on a private socket, in a folder of its own, with the settings that it comes with."""

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
"""The account that Debian's packages make; PostgreSQL does not run as root."""

UP_SECONDS = 30.0
DOWN_SECONDS = 30.0
LOOK_SECONDS = 0.05
TAIL = 2000


class PostgresMissing(Exception):
    """There is no PostgreSQL, and it cannot be installed or started here; the text says why."""


@dataclass(frozen=True)
class PostgreSQL:
    """A server that answers on the socket in the folder ``socket``, and there only; the user ``postgres`` needs no password."""

    version: str
    socket: Path
    _programs: Path
    _account: dict[str, Any]

    def create(self, database: str) -> None:
        """Make an empty database."""
        self._run("createdb", database)

    def settle(self) -> None:
        """Leave nothing of the seeding for later: every page is visible and cached, and the planner knows the tables."""
        self._run("vacuumdb", "--all", "--analyze", "--quiet")

    def _run(self, program: str, *arguments: str) -> None:
        place = ("--host", str(self.socket), "--username", ACCOUNT)
        _run(self._programs / program, *place, *arguments, cwd=self.socket, account=self._account)


@contextmanager
def running(folder: Path, *, connections: int) -> Iterator[PostgreSQL]:
    """A server for so many connections with its data in ``folder``, which becomes its own; ended at the end in any case.

    Installs Debian's package if there is no PostgreSQL. Raises `PostgresMissing`.
    """
    programs = _programs()
    folder.mkdir(mode=0o700)
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = _account()
        os.chown(folder, account["user"], account["group"])
    data = folder / "data"
    how = ("--username", ACCOUNT, "--auth-local", "trust", "--auth-host", "reject", "--encoding", "UTF8")
    _run(programs / "initdb", "--pgdata", str(data), *how, cwd=folder, account=account)
    settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": str(connections)}
    command = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    said = folder / "said"
    with said.open("wb") as output:
        # In a session of its own: Ctrl-C ends it here, after those who use it.
        child = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=_environment(), start_new_session=True, **account
        )
    try:
        _wait(child, programs, folder, said)
        version = _run(programs / "postgres", "--version", cwd=folder, account=account).split()[2]
        yield PostgreSQL(version, folder, programs, account)
    finally:
        child.send_signal(signal.SIGINT)  # "fast": whoever is still connected is cut off
        try:
            child.wait(DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGQUIT)
            child.wait()


def _programs() -> Path:
    """Where the programs of the newest PostgreSQL are."""
    found = _newest()
    if found is not None:
        return found
    needed = f"no PostgreSQL in {INSTALLED}"
    if os.geteuid() != 0:
        raise PostgresMissing(f"{needed}, and only root can install it: apt-get install {PACKAGE}")
    apt = shutil.which("apt-get")
    if apt is None:
        raise PostgresMissing(f"{needed}, and no apt-get to install Debian's {PACKAGE}")
    for arguments in (("update",), ("install", "-y", PACKAGE)):
        print(f"apt-get {' '.join(arguments)} ...", file=sys.stderr)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run((apt, *arguments), capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise PostgresMissing(f"{needed}, and `apt-get {' '.join(arguments)}` failed: {last}")
    found = _newest()
    if found is None:
        raise PostgresMissing(f"{needed} after `apt-get install {PACKAGE}`")
    return found


def _newest() -> Path | None:
    found = [path.parent for path in INSTALLED.glob("*/bin/initdb") if path.parent.parent.name.isdecimal()]
    return max(found, key=lambda programs: int(programs.parent.name), default=None)


def _account() -> dict[str, Any]:
    """Who the server runs as, in the words of ``subprocess``."""
    try:
        found = pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise PostgresMissing(f"PostgreSQL does not run as root, and there is no account {ACCOUNT!r}") from None
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Without what would lead the programs to another server."""
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
        raise PostgresMissing(f"{program.name} ended with {done.returncode}; it said: {done.stderr.strip()[-TAIL:]}")
    return done.stdout


def _wait(child: subprocess.Popen[bytes], programs: Path, folder: Path, said: Path) -> None:
    """Until the server answers."""
    ready = (str(programs / "pg_isready"), "--quiet", "--host", str(folder))
    until = time.monotonic() + UP_SECONDS
    while subprocess.run(ready, env=_environment(), check=False).returncode != 0:
        if child.poll() is not None or time.monotonic() > until:
            what = "did not answer" if child.returncode is None else f"ended with {child.returncode}"
            words = said.read_bytes()[-TAIL:].decode(errors="replace")
            raise PostgresMissing(f"PostgreSQL {what}; it said last: {words.strip()}")
        time.sleep(LOOK_SECONDS)
