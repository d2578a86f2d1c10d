"""The HTTP engine compared with the minimum that HTTP needs, and with other clients: on one server, in alternating rounds.

``python benchmarks/http_engine.py [--store core-0.27.0] [--callers 1,32] [--peers] [--quick] [--json FILE]``

* ``reads``: ``sessions.get`` and ``load_session``, compared with the request of ``sessions.get``, sent by the ``raw protocol``
  on asyncio. With ``--peers`` also ``httpx, default settings``, ``aiohttp`` and ``pyreqwest``, if they are installed.
* ``tls``, with ``--peers``: ``sessions.get`` over TLS, compared with ``aiohttp`` and the raw protocol over TLS, on a server
  that repeats the replies of the measured one (`benchmarks.tls_repeater`). Needs trustme.
* ``at once``: reads of all sessions at the same time, and the memory that they need.
* ``writes``: ``sessions.create``, compared with its two events, sent as one ``batch`` by the raw protocol.

There are ten sessions for each user in the reads. Every reply is checked. CPU is the time per call of all threads of this
process; servers run in their own processes. The loops are closed, and a round lasts about ``--seconds``. A ratio is the figure
of the library divided by the other one in a round; printed are the median, the smallest and the largest. If the throughput of
the raw protocol varies by more than 15 % over the rounds, the machine was busy, and that part should be measured again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter, Tls
from benchmarks import memory
from benchmarks.arguments import count, counts
from benchmarks.http_peers import by_aiohttp, by_pyreqwest, peer_versions
from benchmarks.latest_state import seed, warm
from benchmarks.ratios import ratios_to, show, show_ratios
from benchmarks.raw_http import RawHttp
from benchmarks.reads import Request, Stored, bare_http, by_raw, checked_reads, credentials, requests
from benchmarks.results import facts, headline, save
from benchmarks.servers import NAMES, Server, started
from benchmarks.timing import Prepare, Row, timed_loops
from benchmarks.writes import batches, sign_ins
from tests.support.cores import CoreMissing

TENANT = "http-engine"
USERS_OF_A_SESSION = 2
"""Users who sign in, for each session in the store. They need not exist. With many of them, no index of sessions gets long."""

BUSY = 0.15
"""The variation of the raw protocol's throughput above which the machine counts as busy."""

YARDSTICK = {"reads": "raw protocol", "tls": "raw protocol", "writes": "batch"}
"""By part: what is compared with."""


@dataclass(frozen=True)
class Target:
    """A ratio to reach: of ``subject`` to ``other``; ``figure`` is a title in `FIGURES`."""

    part: str
    callers: int
    subject: str
    other: str
    figure: str
    least: float = 0.0
    most: float = float("inf")

    def __str__(self) -> str:
        bound = f"at least {self.least:g}" if self.least else f"at most {self.most:g}"
        return f"{self.part}, callers {self.callers}: {self.subject}, {self.figure}, {bound} times {self.other}"


TARGETS = (
    Target("reads", 32, "sessions.get", "raw protocol", "per second", least=0.75),
    Target("reads", 32, "sessions.get", "raw protocol", "CPU", most=2.2),
    Target("reads", 1, "sessions.get", "raw protocol", "p50", most=1.35),
    Target("reads", 1, "load_session", "raw protocol", "p50", most=1.9),
    Target("writes", 1, "sessions.create", "batch", "p50", most=1.15),
    Target("writes", 32, "sessions.create", "batch", "p50", most=1.15),
    Target("reads", 32, "sessions.get", "aiohttp", "per second", least=2),
    Target("tls", 32, "sessions.get", "aiohttp", "per second", least=1.25),
)

Rows = dict[str, Row]
Parts = dict[str, dict[str, Rows]]


@dataclass(frozen=True)
class Options:
    """The command line options. ``seconds``: of each round."""

    store: str
    callers: list[int]
    sessions: int
    seconds: float
    rounds: int
    peers: bool
    json: Path | None


async def load_all(adapter: AllsourceAuthAdapter, stored: Stored) -> None:
    """Load every session once: the library then knows its user, and reads both at the same time."""
    for token in stored.tokens:
        assert await adapter.load_session(token) is not None


async def over_tls(stack: AsyncExitStack, server: Server, stored: Stored, folder: Path) -> dict[str, Prepare]:
    """The reads over TLS; nothing if trustme is not installed."""
    if find_spec("trustme") is None:
        log("no TLS: trustme is not installed")
        return {}
    from benchmarks.tls_repeater import repeated

    repeater = await stack.enter_async_context(repeated(server, folder))
    trusted = Tls(ca_file=repeater.ca_file, ca_only=True)
    adapter = AllsourceAuthAdapter(repeater.url, None, server.api_key, tenant_id=TENANT, tls=trusted)
    get, _ = checked_reads(await stack.enter_async_context(adapter), stored)
    context = ssl.create_default_context(cafile=repeater.ca_file)
    raw = RawHttp(repeater.url, credentials(server), context)
    stack.push_async_callback(raw.close)
    sessions = [
        Request(repeater.url + sent.target, sent.target, sent.token) for sent in requests(server, TENANT, stored)
    ]
    for sent in sessions:
        sent.session(await raw.get(sent.target))
    kinds = {"sessions.get": get, "raw protocol": by_raw(raw, sessions)}
    return kinds | await stack.enter_async_context(by_aiohttp(sessions, credentials(server), context))


async def measured(options: Options, folder: Path) -> tuple[str, Parts, memory.Rows]:
    """The server, the rows by part and callers, and the memory of all reads at once."""
    found: Parts = {}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(started(options.store, folder))
        urls = (server.core_url, server.query_url, server.api_key)
        adapter = await enter(AllsourceAuthAdapter(*urls, tenant_id=TENANT))
        stored = await seed(adapter, options.sessions)
        await warm(adapter, stored)
        await load_all(adapter, stored)
        get, load = checked_reads(adapter, stored)
        bare = await enter(bare_http(server, TENANT, stored))
        parts = {"reads": {"sessions.get": get, "load_session": load, "raw protocol": bare["raw protocol"]}}
        if options.peers:
            sent, headers = requests(server, TENANT, stored), credentials(server)
            parts["reads"] |= bare | await enter(by_aiohttp(sent, headers)) | await enter(by_pyreqwest(sent, headers))
            parts["tls"] = await over_tls(stack, server, stored, folder)
        for part, kinds in parts.items():
            if kinds:
                found[part] = {}
                for callers in options.callers:
                    found[part][str(callers)] = await in_rounds(part, kinds, callers, options)
        log(f"reads of {options.sessions:,} sessions at once ...")
        at_once = await memory.reads_at_once(server, TENANT, stored.tokens)
        found["writes"] = {}
        users = Stored([], [f"user-{number}" for number in range(USERS_OF_A_SESSION * options.sessions)], [])
        for callers in options.callers:
            tenant = f"{TENANT}-{callers}"
            writer = await enter(AllsourceAuthAdapter(*urls, tenant_id=tenant))
            kinds = {"sessions.create": sign_ins(writer, users), "batch": await enter(batches(server, tenant, users))}
            found["writes"][str(callers)] = await in_rounds("writes", kinds, callers, options)
        info = await adapter.info()
    return f"{info.server} {info.server_version}, engine {info.engine}", found, at_once


async def in_rounds(part: str, kinds: Mapping[str, Prepare], callers: int, options: Options) -> Rows:
    log(f"{part}: {options.rounds} rounds of {options.seconds:g} s of each kind, callers: {callers} ...")
    return await timed_loops(kinds, seconds=options.seconds, callers=callers, rounds=options.rounds)


def variation(row: Row) -> float:
    """The difference between the largest and the smallest throughput of a round, divided by the median."""
    rates = row["rounds"]["per_second"]
    return float((max(rates) - min(rates)) / statistics.median(rates))


def reached(found: Parts) -> Iterator[tuple[Target, float, bool]]:
    """Each target whose calls were measured, the median ratio, and whether it is reached."""
    for target in TARGETS:
        rows = found.get(target.part, {}).get(str(target.callers), {})
        if target.other in rows:
            ratio = ratios_to(rows, target.subject, [target.other])[target.other][target.figure][0]
            yield target, ratio, target.least <= ratio <= target.most


def show_all(found: Parts) -> dict[str, Any]:
    """Print every part and the targets; return the ratios, the variation of the raw protocol, and the targets."""
    against: dict[str, Any] = {}
    variations: dict[str, Any] = {}
    for part, by_callers in found.items():
        against[part], variations[part] = {}, {}
        for callers, rows in by_callers.items():
            show(part, callers, rows)
            ours = [name for name in ("sessions.get", "load_session", "sessions.create") if name in rows]
            others = [name for name in rows if name not in ours]
            against[part][callers] = {subject: ratios_to(rows, subject, others) for subject in ours}
            for subject, figures in against[part][callers].items():
                show_ratios(subject, figures)
            varies = variations[part][callers] = variation(rows[YARDSTICK[part]])
            verdict = ": the machine was busy, measure again" if varies > BUSY else ""
            print(f"the throughput of {YARDSTICK[part]} varies by {varies:.0%}{verdict}")
    print(f"\n{'target':84} ratio")
    targets = {}
    for target, ratio, good in reached(found):
        print(f"{target!s:84} {ratio:5.2f} {'' if good else ' missed'}")
        targets[str(target)] = {"ratio": ratio, "reached": good}
    return {"against": against, "variation": variations, "targets": targets}


def log(line: str) -> None:
    print(line, file=sys.stderr)


def parsed() -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--store", choices=NAMES, default="core-0.27.0", help="the server to start (default: core-0.27.0)"
    )
    parser.add_argument(
        "--callers", type=counts, default=[1, 32], help="concurrent callers, separated by commas (default: 1,32)"
    )
    parser.add_argument("--sessions", type=count, help="sessions in the store, ten for each user (default: 10,000)")
    parser.add_argument("--seconds", type=float, help="duration of a round (default: 5)")
    parser.add_argument("--rounds", type=count, help="rounds of each kind (default: 9)")
    parser.add_argument("--peers", action="store_true", help="measure other HTTP clients, and TLS, as well")
    parser.add_argument("--quick", action="store_true", help="200 sessions, 3 rounds of 0.1 s")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    return Options(
        store=given.store,
        callers=given.callers,
        sessions=given.sessions or (200 if given.quick else 10_000),
        seconds=given.seconds or (0.1 if given.quick else 5.0),
        rounds=given.rounds or (3 if given.quick else 9),
        peers=given.peers,
        json=given.json,
    )


def main() -> None:
    options = parsed()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the servers like Ctrl-C
    named = ("store", "sessions", "seconds", "rounds")
    known = facts("http_engine", **{name: getattr(options, name) for name in named})
    if options.peers:
        known["versions"] |= peer_versions()
    print(headline(known), flush=True)
    try:
        with tempfile.TemporaryDirectory() as name:
            server, found, at_once = asyncio.run(measured(options, Path(name)))
    except CoreMissing as missing:
        sys.exit(str(missing))
    known["versions"]["server"] = server
    print(", ".join(f"{name} {number}" for name, number in known["versions"].items()))
    compared = show_all(found)
    print(f"\n{options.sessions:,} reads at once")
    memory.show(at_once)
    save(options.json, known, found | {"at once": at_once} | compared)


if __name__ == "__main__":
    main()
