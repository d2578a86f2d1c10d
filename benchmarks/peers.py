"""The library compared with its alternatives: on the same machine, with the same amount of data, in alternating rounds.

``nox -s bench_peers -- [--store core-0.27.0] [--callers 1,32] [--uvloop] [--quick] [--json FILE]``

* ``reads``: the latest state of a session over HTTP from a durable Core: ``sessions.get``, and the same request and decode with
  a ``raw protocol`` on asyncio, the minimum that HTTP needs, ``httpx, default settings``, ``aiohttp`` and ``pyreqwest`` (the
  last two without compression, which is slower).
* ``load_session``: session and user by the session's token: the library on a file and on that Core, ``better_auth`` on SQLite
  and on PostgreSQL, and ``fastapi-users`` on PostgreSQL (which returns the user only). PostgreSQL is that of Debian's packages,
  installed if it is missing, with default settings, on a private socket.
* ``floor``: ``sessions.get`` on a file with one caller, compared with a ``sqlite3`` select and a ``msgspec`` decode.
* ``writes``: ``sessions.create`` on that Core, compared with its events sent as a ``batch`` by the raw protocol.

There are ten sessions for each user. Every reply is checked within the measured time. CPU is the time per call of all threads
of this process; servers run in their own processes. The loops are closed. A read of a file does not suspend its task, so its
latency does not include the wait for other callers; of its figures with several callers, compare only the reads per second. A
ratio is the library's figure divided by the other one in a round; printed are the median, the smallest and the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter
from benchmarks.arguments import count, counts
from benchmarks.http_peers import by_aiohttp, by_pyreqwest
from benchmarks.latest_state import SESSIONS_OF_A_USER, seed, warm
from benchmarks.postgres import PostgresMissing, PostgreSQL, running
from benchmarks.ratios import ratios_to, show, show_ratios
from benchmarks.reads import bare_http, bare_sqlite, checked_reads, credentials, requests
from benchmarks.results import facts, headline, save
from benchmarks.servers import NAMES, started
from benchmarks.timing import ROUNDS, closed_loops
from benchmarks.writes import batches, sign_ins
from tests.support.cores import CoreMissing

PACKAGES = {
    "aiohttp": "aiohttp",
    "pyreqwest": "pyreqwest",
    "better_auth": "better-auth-server",
    "fastapi_users": "fastapi-users",
    "fastapi_users_db_sqlalchemy": "fastapi-users-db-sqlalchemy",
    "sqlalchemy": "SQLAlchemy",
    "asyncpg": "asyncpg",
    "aiosqlite": "aiosqlite",
}
"""The compared packages that are no dependencies of the library: module name and distribution name."""

SPARE = 10
"""Connections of PostgreSQL for seeding and for its own use, in addition to those of the callers."""

READS_PER_WRITE = 5
"""Reads for each write; writes are slower because they are synced."""


@dataclass(frozen=True)
class Options:
    """The command line options; ``reads``: of each kind, in ``rounds`` rounds."""

    store: str
    callers: list[int]
    sessions: int
    reads: int
    rounds: int
    uvloop: bool
    json: Path | None

    @property
    def loop(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """The function that creates the event loop; ``None`` for the default of asyncio."""
        if not self.uvloop:
            return None
        new_event_loop: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return new_event_loop


async def compared(options: Options, folder: Path, database: PostgreSQL) -> tuple[str, dict[str, Any]]:
    """The server, and the rows of each part."""
    from benchmarks.peer_libraries import in_file, on_server, with_better_auth, with_fastapi_users

    tenant, path, connections = "peers", folder / "auth.db", max(options.callers)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(started(options.store, folder))
        over_http = AllsourceAuthAdapter(server.core_url, server.query_url, server.api_key, tenant_id=tenant)
        served = await enter(over_http)
        on_core = await seed(served, options.sessions)
        await warm(served, on_core)
        async with AllsourceAuthAdapter.embedded(path, durability="normal") as adapter:
            on_file = await seed(adapter, options.sessions)
        bare = stack.enter_context(bare_sqlite(path, folder / "bare.db", on_file))
        embedded = await enter(AllsourceAuthAdapter.embedded(path))
        await warm(embedded, on_file)
        get_served, load_served = checked_reads(served, on_core)
        get_embedded, load_embedded = checked_reads(embedded, on_file)
        sent, headers = requests(server, tenant, on_core), credentials(server)
        reads = {"sessions.get": get_served} | await enter(bare_http(server, tenant, on_core))
        reads |= await enter(by_aiohttp(sent, headers)) | await enter(by_pyreqwest(sent, headers))

        log("seeding the other libraries ...")
        seeding = (on_file.emails, SESSIONS_OF_A_USER, connections)
        for name in ("better_auth", "fastapi_users"):
            database.create(name)
        loads = {
            "embedded": load_embedded,
            options.store: load_served,
            "better_auth, SQLite": await enter(with_better_auth(in_file(folder / "better_auth.db"), *seeding)),
            "better_auth, PostgreSQL": await enter(with_better_auth(on_server(database, "better_auth"), *seeding)),
            "fastapi-users, PostgreSQL": await enter(
                with_fastapi_users(on_server(database, "fastapi_users"), *seeding)
            ),
        }
        database.vacuum()

        count, rounds = options.reads, options.rounds
        info = await served.info()
        found: dict[str, Any] = {"reads": {}, "load_session": {}, "writes": {}}
        for callers in options.callers:
            for part, kinds in (("reads", reads), ("load_session", loads)):
                log(f"{part}: {count:,} of each kind, callers: {callers} ...")
                found[part][str(callers)] = await closed_loops(kinds, count=count, callers=callers, rounds=rounds)
            log(f"writes: {count // READS_PER_WRITE:,} of each kind, callers: {callers} ...")
            writes = {
                "sessions.create": sign_ins(served, on_core),
                "batch": await enter(batches(server, tenant, on_core)),
            }
            found["writes"][str(callers)] = await closed_loops(
                writes, count=count // READS_PER_WRITE, callers=callers, rounds=rounds
            )
        log("floor ...")
        found["floor"] = {
            "1": await closed_loops({"sessions.get": get_embedded, "bare": bare}, count=2 * count, rounds=rounds)
        }
    return f"{info.server} {info.server_version}, engine {info.engine}", found


def show_all(found: Mapping[str, Any], store: str) -> dict[str, Any]:
    """Print every part and return the ratios by part, callers and subject."""
    ours = {
        "reads": ["sessions.get"],
        "load_session": ["embedded", store],
        "writes": ["sessions.create"],
        "floor": ["sessions.get"],
    }
    ratios: dict[str, Any] = {}
    for part, by_callers in found.items():
        ratios[part] = {}
        for callers, rows in by_callers.items():
            show(part, callers, rows)
            others = [name for name in rows if name not in ours[part]]
            ratios[part][callers] = {subject: ratios_to(rows, subject, others) for subject in ours[part]}
            for subject, figures in ratios[part][callers].items():
                show_ratios(subject, figures)
    return ratios


def log(line: str) -> None:
    print(line, file=sys.stderr)


def parsed() -> Options:
    """Parse the command line. Exits if an option is invalid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--store", choices=NAMES, default="core-0.27.0", help="the server to start (default: core-0.27.0)"
    )
    parser.add_argument(
        "--callers", type=counts, default=[1, 32], help="concurrent callers, separated by commas (default: 1,32)"
    )
    parser.add_argument("--sessions", type=count, help="sessions in each store, ten for each user (default: 10,000)")
    parser.add_argument("--reads", type=count, help=f"reads of each kind, in {ROUNDS} rounds (default: 10,000)")
    parser.add_argument("--uvloop", action="store_true", help="use the event loop of uvloop, which must be installed")
    parser.add_argument("--quick", action="store_true", help="200 sessions, 300 reads, 3 rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    if given.uvloop and find_spec("uvloop") is None:
        parser.error("--uvloop: uvloop is not installed")
    return Options(
        store=given.store,
        callers=given.callers,
        sessions=given.sessions or (200 if given.quick else 10_000),
        reads=given.reads or (300 if given.quick else 10_000),
        rounds=3 if given.quick else ROUNDS,
        uvloop=given.uvloop,
        json=given.json,
    )


def main() -> None:
    options = parsed()
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; nox -s bench_peers installs the compared packages")
    # SIGTERM then stops the servers like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = facts(
        "peers",
        store=options.store,
        sessions=options.sessions,
        reads=options.reads,
        rounds=options.rounds,
        loop="uvloop" if options.uvloop else "asyncio",
    )
    try:
        with tempfile.TemporaryDirectory() as name:
            # The account of PostgreSQL must be able to enter the folder.
            folder = Path(name)
            folder.chmod(0o711)
            with running(folder / "postgres", connections=2 * max(options.callers) + SPARE) as database:
                known["versions"] |= {package: version(package) for package in PACKAGES.values()}
                known["versions"]["PostgreSQL"] = database.version
                print(headline(known), flush=True)
                with asyncio.Runner(loop_factory=options.loop) as runner:
                    server, found = runner.run(compared(options, folder, database))
    except (CoreMissing, PostgresMissing) as missing_one:
        sys.exit(str(missing_one))
    known["versions"]["server"] = server
    print(", ".join(f"{name} {number}" for name, number in known["versions"].items()))
    save(options.json, known, found | {"against": show_all(found, options.store)})


if __name__ == "__main__":
    main()
