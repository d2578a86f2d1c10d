"""Memory of many concurrent callers of ``sessions.get``, of whose requests 16 are in flight at a time.

``python benchmarks/memory.py [--store core-0.27.0] [--callers 10000] [--json FILE]``

A separate process first reads some sessions, so that all modules are loaded, and then all sessions concurrently. The figures
are its resident memory before that, and the peak meanwhile. For comparison, as many tasks that only wait are measured, which is
the memory that asyncio needs for the callers. Linux only, because it reads ``/proc``.
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
from benchmarks.seeding import append_all, seed_of
from benchmarks.servers import NAMES, Server, started
from tests.support.cores import CoreMissing

WARM_UP = 200

Rows = dict[str, dict[str, float]]


class Memory:
    """The resident memory of this process when the object is created, and the peak since then."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.idle_mb = self._mb("VmRSS")

    @staticmethod
    def _mb(name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"/proc/self/status has no {name}")

    def row(self) -> dict[str, float]:
        return {"idle_mb": self.idle_mb, "peak_mb": self._mb("VmHWM")}


async def all_reads(job: dict[str, Any]) -> dict[str, float]:
    """Read all sessions concurrently. Runs in the measured process."""
    tokens = job["tokens"]
    server = Server(job["core_url"], job["query_url"], job["api_key"])
    urls = (server.core_url, server.query_url, server.api_key)
    async with AllsourceAuthAdapter(*urls, tenant_id=job["tenant"]) as adapter:
        for token in tokens[:WARM_UP]:
            assert await adapter.sessions.get(token) is not None
        await asyncio.gather(*(adapter.sessions.get(token) for token in tokens[:WARM_UP]))
        memory = Memory()
        began = time.perf_counter()
        found = await asyncio.gather(*(adapter.sessions.get(token) for token in tokens))
        took = time.perf_counter() - began
        assert [session.token for session in found if session is not None] == tokens
        return memory.row() | {"seconds": took}


async def waiting(callers: int) -> dict[str, float]:
    """Start tasks that only wait. Runs in the measured process."""
    memory = Memory()
    gate = asyncio.Event()
    tasks = asyncio.gather(*(gate.wait() for _ in range(callers)))
    await asyncio.sleep(0)
    gate.set()
    await tasks
    return memory.row()


async def reads_at_once(server: Server, tenant: str, tokens: list[str]) -> Rows:
    """The figures of all reads of the sessions at once, and of as many tasks that wait, each in a process of its own."""
    urls = {"core_url": server.core_url, "query_url": server.query_url, "api_key": server.api_key}
    reads = await _in_child(urls | {"tenant": tenant, "tokens": tokens})
    return {"sessions.get": reads, "tasks that wait": await _in_child({"callers": len(tokens)})}


async def _in_child(job: dict[str, Any]) -> dict[str, float]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--child", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate(json.dumps(job).encode())
    if child.returncode:
        raise SystemExit(f"the measured process exited with code {child.returncode}")
    found: dict[str, float] = json.loads(out)
    return found


async def measured(store: str, callers: int) -> Rows:
    seed = await seed_of(2 * callers)
    with tempfile.TemporaryDirectory() as folder:
        async with started(store, Path(folder)) as server:
            filling = opened(server)
            try:
                await append_all(filling, seed.events)
            finally:
                await filling.close()
            return await reads_at_once(server, "default", seed.tokens)


def show(found: Rows) -> None:
    print(f"{'':22} {'before':>10} {'peak':>10} {'growth':>10}")
    for name, row in found.items():
        growth = row["peak_mb"] - row["idle_mb"]
        took = f"   finished in {row['seconds']:.1f} s" if "seconds" in row else ""
        print(f"{name:22} {row['idle_mb']:7.1f} MB {row['peak_mb']:7.1f} MB {growth:7.1f} MB{took}")


def main() -> None:
    if sys.argv[1:] == ["--child"]:
        job = json.load(sys.stdin)
        print(json.dumps(asyncio.run(all_reads(job) if "tokens" in job else waiting(job["callers"]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--store", choices=NAMES, default="core-0.27.0", help="the server to start (default: core-0.27.0)"
    )
    parser.add_argument("--callers", type=count, default=10_000, help="concurrent callers (default: 10,000)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    known = facts("memory", store=given.store, callers=given.callers)
    print(headline(known), flush=True)
    try:
        found = asyncio.run(measured(given.store, given.callers))
    except CoreMissing as missing:
        sys.exit(str(missing))
    show(found)
    save(given.json, known, found)


if __name__ == "__main__":
    main()
