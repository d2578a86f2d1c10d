"""Duration of ``import allsource_auth``, compared with ``import httpx``, and of the first read.

``python benchmarks/startup.py [--rounds 15] [--json FILE]``

Each measurement is a new interpreter, and the three kinds alternate. ``first read``: the import and the read of a session from
a file. The start of the interpreter itself is not included.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter
from benchmarks.arguments import count
from benchmarks.results import facts, headline, save

CODE = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
FIRST_READ = """
import time; began = time.perf_counter()
import asyncio, sys, allsource_auth
async def read():
    async with allsource_auth.AllsourceAuthAdapter.embedded(sys.argv[1]) as adapter:
        assert await adapter.sessions.get(sys.argv[2]) is not None
        return time.perf_counter() - began
print(asyncio.run(read()))
"""


def milliseconds(code: str, *arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1000


async def seed(path: str) -> str:
    """Create a file with a session and return its token."""
    async with AllsourceAuthAdapter.embedded(path) as adapter:
        user = await adapter.users.create(email="ada@example.org")
        session = await adapter.sessions.create(user_id=user.id, expires_at=datetime.now(UTC) + timedelta(days=7))
        return session.token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=count, default=15, help="interpreters of each kind (default: 15)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    known = facts("startup", rounds=given.rounds)
    print(headline(known))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "auth.db")
        token = asyncio.run(seed(path))
        calls = {
            "import httpx": (CODE.format("import httpx"),),
            "import allsource_auth": (CODE.format("import allsource_auth"),),
            "first read": (FIRST_READ, path, token),
        }
        for call in calls.values():  # compiles the byte code, which an installation has done already
            milliseconds(*call)
        rounds = [{name: milliseconds(*call) for name, call in calls.items()} for _ in range(given.rounds)]
    found = {name: {"p50_us": 1000 * statistics.median(one[name] for one in rounds)} for name in calls}
    more = sorted(one["import allsource_auth"] - one["import httpx"] for one in rounds)
    for name, row in found.items():
        print(f"{name:22} {row['p50_us'] / 1000:7.1f} ms")
    print(f"{'beyond import httpx':22} {statistics.median(more):7.1f} ms ({more[0]:.1f} to {more[-1]:.1f})")
    found["beyond import httpx"] = {"p50_us": 1000 * statistics.median(more)}
    save(given.json, known, found)


if __name__ == "__main__":
    main()
