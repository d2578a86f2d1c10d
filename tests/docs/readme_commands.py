"""Run the README's commands as a newcomer does: in a fresh copy of the repository, with nothing prepared.

``python tests/docs/readme_commands.py``. The command that runs the tests is left out here, because whoever checks the
project runs it anyway: ``.ci/run`` begins with it, word for word. ``--core`` runs what needs a real Core as well. A block that
is marked ``background`` is started, waited for until it listens, and stopped before the next such block.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.support import cores  # noqa: E402 - found by the line above

TESTS = "nox -s tests"


PORT = 3900
PATIENCE = 60.0


class Command(NamedTuple):
    """A line of a shell block, and the words after ``sh`` at the block's head."""

    line: str
    marks: frozenset[str]


def commands() -> list[Command]:
    """The lines of the README's shell blocks, without their comments."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh([a-z ]*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    return [
        Command(line, frozenset(marks.split()))
        for marks, block in blocks
        for line in (found.partition("  #")[0].strip() for found in block.splitlines())
        if line
    ]


class Background:
    """At most one server at a time."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, line: str, folder: str, environment: dict[str, str]) -> None:
        """Start a server and wait until it listens."""
        self.stop()
        self._server = subprocess.Popen(["sh", "-c", f"exec env {line}"], cwd=folder, env=environment)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self._server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            try:
                socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """Stop it with Ctrl-C's signal; it must end cleanly."""
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=PATIENCE) in (0, 130, -signal.SIGINT), "the server did not end cleanly"


def fresh_copy(folder: Path) -> None:
    """The files that belong to the repository, as they are now."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def main() -> int:
    with_core = "--core" in sys.argv[1:]
    found = commands()
    assert sum(TESTS in command.line for command in found) == 1, "the README has exactly one command for the tests"
    run = [command for command in found if TESTS not in command.line and (with_core or "core" not in command.marks)]
    assert run, "the README has no commands"
    # Without the environment that this runs in: a newcomer has none.
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    own = str(Path(sys.prefix) / "bin")
    environment["PATH"] = os.pathsep.join(part for part in environment["PATH"].split(os.pathsep) if part != own)
    if with_core:
        environment["PATH"] = os.pathsep.join([str(cores.required(cores.NEWEST).parent), environment["PATH"]])
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else the server would ignore it, too
    background = Background()
    with tempfile.TemporaryDirectory() as folder:
        fresh_copy(Path(folder))
        try:
            for line, marks in run:
                print(f"$ {line}", flush=True)
                if "background" in marks:
                    background.start(line, folder, environment)
                    continue
                began = time.monotonic()
                done = subprocess.run(["sh", "-c", line], cwd=folder, env=environment, check=False)
                print(f"exit {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
                if done.returncode:
                    return 1
        finally:
            background.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
