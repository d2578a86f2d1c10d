"""Run the commands on the pages of the documentation, with a fresh copy of the repository and nothing prepared.

``python tests/docs/commands.py [PAGE ...]``. README.md comes first, as its first command makes the environment that all the
others run in. The command that runs the tests is left out here, because ``.ci/run`` begins with it, word for word. With
``--core`` only those pages are run that need a real Core. A block that is marked ``background`` is started, waited for until it
listens, and stopped before the next such block and at the end of its page.
"""

from __future__ import annotations

import argparse
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

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.docs.pages import PAGES, README, ROOT, blocks, comparable, write_files
from tests.support import cores

TESTS = "nox -s tests"
PORT = 3900
PATIENCE = 60.0


class Command(NamedTuple):
    """A line of a shell block, with the words after ``sh`` at the block's head."""

    line: str
    marks: frozenset[str]
    output: str | None
    """What the page says that the block prints, at the last command of the block."""


def commands(page: Path) -> list[Command]:
    """The commands of a page, without comments; a line that ends in a backslash goes on in the next one."""
    found = []
    for block in blocks(page):
        if block.language != "sh":
            continue
        lines = [line.partition("  #")[0].strip() for line in block.text.replace("\\\n", " ").splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        assert lines, f"{block.place} has no command"
        marks = frozenset(block.words)
        found += [Command(line, marks, None) for line in lines[:-1]] + [Command(lines[-1], marks, block.output)]
    return found


class Background:
    """At most one server at a time."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, line: str, folder: str, environment: dict[str, str]) -> None:
        """Start a server and wait until it listens."""
        self.stop()
        port = re.search(r"--port[ =](\d+)", line)
        self._server = subprocess.Popen(["sh", "-c", f"exec env {line}"], cwd=folder, env=environment)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self._server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            try:
                socket.create_connection(("127.0.0.1", int(port[1]) if port else PORT), timeout=1).close()
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


def run(command: Command, folder: str, environment: dict[str, str]) -> bool:
    """Run one command to its end; false if it failed or printed something else than the page says."""
    began = time.monotonic()
    captured = subprocess.PIPE if command.output is not None else None
    done = subprocess.run(
        ["sh", "-c", command.line], cwd=folder, env=environment, check=False, stdout=captured, text=True
    )
    print(f"exit {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
    printed = done.stdout or ""
    if command.output is not None and comparable(printed) != comparable(command.output):
        print(f"the page says that it prints\n{command.output}\nand it printed\n{printed}", flush=True)
        return False
    return done.returncode == 0


def run_page(page: Path, found: list[Command], checkout: str, environment: dict[str, str]) -> bool:
    """Run the commands of a page in order; false if one failed."""
    background = Background()
    with tempfile.TemporaryDirectory() as empty:
        write_files(page, Path(checkout))
        write_files(page, Path(empty))
        try:
            for command in found:
                print(f"$ {command.line}", flush=True)
                folder = checkout if page == README or "checkout" in command.marks else empty
                if "background" in command.marks:
                    background.start(command.line, folder, environment)
                elif not run(command, folder, environment):
                    return False
        finally:
            background.stop()
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the commands on the pages of the documentation.")
    parser.add_argument("pages", nargs="*", type=Path, help="only these pages")
    parser.add_argument("--core", action="store_true", help="only pages that need a real Core")
    given = parser.parse_args()
    found = {page: [command for command in commands(page) if "manual" not in command.marks] for page in PAGES}
    assert sum(TESTS in command.line for command in found[README]) == 1, "the README has one command for the tests"
    found[README] = [command for command in found[README] if TESTS not in command.line]
    assert found[README], "the README has no commands"
    chosen = [page.resolve() for page in given.pages]
    with_core = {page for page, all_of_it in found.items() if any("core" in command.marks for command in all_of_it)}
    for page in found:
        left_out = page not in with_core if given.core else bool(chosen) and page not in chosen
        if page != README and left_out:
            found[page] = []
        if not given.core:
            found[page] = [command for command in found[page] if "core" not in command.marks]
    # Without the environment that this runs in: a newcomer has none.
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    own = str(Path(sys.prefix) / "bin")
    environment["PATH"] = os.pathsep.join(part for part in environment["PATH"].split(os.pathsep) if part != own)
    if given.core:
        environment["PATH"] = os.pathsep.join([str(cores.required(cores.NEWEST).parent), environment["PATH"]])
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else the server would ignore it, too
    with tempfile.TemporaryDirectory() as folder:
        fresh_copy(Path(folder))
        for page, all_of_it in found.items():
            if not all_of_it:
                continue
            print(f"# {page.relative_to(ROOT)}", flush=True)
            if not run_page(page, all_of_it, folder, environment):
                return 1
            if page == README:
                installed = str(Path(folder) / ".venv" / "bin")
                environment["PATH"] = os.pathsep.join([installed, environment["PATH"]])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
