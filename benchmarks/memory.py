"""How much memory a crowd of callers takes: so many ``sessions.get`` at once, 16 requests out at a time.

``python benchmarks/memory.py [--store core-0.27.0] [--callers 10000] [--json FILE]``

The reads are made by a process of their own, which first reads some sessions, so that everything is loaded, and then all of
them at once. The figures are the resident memory of that process before, and the most that it was meanwhile; and the same for
as many tasks that only wait, which is what asyncio itself takes for so many callers. Linux only, which tells both.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter
from benchmarks.archive import opened
from benchmarks.arguments import count
from benchmarks.results import facts, headline, save
from benchmarks.seeding import pour, seed_of
from benchmarks.servers import NAMES, Server, started
from tests.support.cores import CoreMissing

FIRST = 200


class Memory:
    """The resident memory of this process: as it was when this was made, and the most since then."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # from now on the kernel notes a new peak
        self.idle_mb = self._mb("VmRSS")

    @staticmethod
    def _mb(name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"this system does not tell {name}")

    def row(self) -> dict[str, float]:
        return {"idle_mb": self.idle_mb, "peak_mb": self._mb("VmHWM")}


async def crowd(order: dict[str, Any]) -> dict[str, float]:
    """All reads at once; in the process that is measured."""
    tokens = order["tokens"]
    server = Server(order["core_url"], order["query_url"], order["api_key"])
    async with AllsourceAuthAdapter(server.core_url, server.query_url, server.api_key) as adapter:
        for token in tokens[:FIRST]:
            assert await adapter.sessions.get(token) is not None
        await asyncio.gather(*(adapter.sessions.get(token) for token in tokens[:FIRST]))
        memory = Memory()
        began = time.perf_counter()
        found = await asyncio.gather(*(adapter.sessions.get(token) for token in tokens))
        took = time.perf_counter() - began
        assert [session.token for session in found if session is not None] == tokens
        return memory.row() | {"seconds": took}


async def waiting(callers: int) -> dict[str, float]:
    """Tasks that only wait; in the process that is measured."""
    memory = Memory()
    gate = asyncio.Event()
    all_of_them = asyncio.gather(*(gate.wait() for _ in range(callers)))
    await asyncio.sleep(0)
    gate.set()
    await all_of_them
    return memory.row()


async def _in_child(order: dict[str, Any]) -> dict[str, float]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--child", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate(json.dumps(order).encode())
    if child.returncode:
        raise SystemExit(f"the process that was to be measured ended with {child.returncode}")
    found: dict[str, float] = json.loads(out)
    return found


async def measured(store: str, callers: int) -> dict[str, dict[str, float]]:
    seed = await seed_of(2 * callers)
    with tempfile.TemporaryDirectory() as folder:
        async with started(store, Path(folder)) as server:
            filling = opened(server)
            try:
                await pour(filling, seed.events)
            finally:
                await filling.close()
            urls = {"core_url": server.core_url, "query_url": server.query_url, "api_key": server.api_key}
            reads = await _in_child(urls | {"tokens": seed.tokens})
    return {"sessions.get": reads, "tasks that wait": await _in_child({"callers": callers})}


def main() -> None:
    if sys.argv[1:] == ["--child"]:
        order = json.load(sys.stdin)
        print(json.dumps(asyncio.run(crowd(order) if "tokens" in order else waiting(order["callers"]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=NAMES, default="core-0.27.0", help="(default: core-0.27.0)")
    parser.add_argument("--callers", type=count, default=10_000, help="at the same time (default: 10,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    known = facts("memory", store=given.store, callers=given.callers)
    print(headline(known), flush=True)
    try:
        found = asyncio.run(measured(given.store, given.callers))
    except CoreMissing as missing:
        sys.exit(str(missing))
    print(f"{'':22} {'idle':>10} {'peak':>10} {'more':>10}")
    for name, row in found.items():
        more = row["peak_mb"] - row["idle_mb"]
        took = f"   all answered in {row['seconds']:.1f} s" if "seconds" in row else ""
        print(f"{name:22} {row['idle_mb']:7.1f} MB {row['peak_mb']:7.1f} MB {more:7.1f} MB{took}")
    save(given.json, known, found)


if __name__ == "__main__":
    main()
