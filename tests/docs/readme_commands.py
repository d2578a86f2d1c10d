"""Run the README's commands as a newcomer does: in a fresh copy of the repository, with nothing prepared.

``python tests/docs/readme_commands.py``. The command that runs the tests is left out here, because whoever checks the
project runs it anyway: ``.ci/run`` begins with it, word for word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = "nox -s tests"


def commands() -> list[str]:
    """The lines of the README's shell blocks, without their comments."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def fresh_copy(folder: Path) -> None:
    """The files that belong to the repository, as they are now."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def main() -> int:
    found = commands()
    run = [command for command in found if TESTS not in command]
    assert run, "the README has no commands"
    assert len(found) - len(run) == 1, "the README has exactly one command for the tests"
    # Without the environment that this runs in: a newcomer has none.
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    own = str(Path(sys.prefix) / "bin")
    environment["PATH"] = os.pathsep.join(part for part in environment["PATH"].split(os.pathsep) if part != own)
    with tempfile.TemporaryDirectory() as folder:
        fresh_copy(Path(folder))
        for command in run:
            print(f"$ {command}", flush=True)
            began = time.monotonic()
            done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, check=False)
            print(f"exit {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
            if done.returncode:
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
