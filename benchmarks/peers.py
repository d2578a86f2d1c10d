"""The library against what people would use instead: on the same machine, with as much data, in rounds that take turns.

``nox -s bench_peers -- [--store core-0.27.0] [--callers 1,32] [--uvloop] [--quick] [--json FILE]``

* ``reads``: the latest state of a session over HTTP from one durable Core: ``sessions.get``, and the same request with the
  same decode by ``httpx, default settings``, ``aiohttp`` and bare ``pyreqwest`` (neither of which asks for compressed answers,
  which are slower), and by a ``raw protocol`` on asyncio, the least that HTTP needs.
* ``load_session``: what makes session and user of a session's token, by the library in a file and on that Core, by
  ``better_auth`` on SQLite and on PostgreSQL, and by ``fastapi-users`` on PostgreSQL (it gives the user only). PostgreSQL is
  that of Debian's packages, installed where it is missing, with the settings that it comes with, on a private socket.
* ``floor``: ``sessions.get`` in a file, one caller, against a ``sqlite3`` select and a ``msgspec`` decode.
* ``writes``: ``sessions.create`` on that Core against the very events that it appends, sent as a ``batch`` by bare pyreqwest.

There are ten sessions for each user. Every answer is checked, and that is timed with it. CPU is what a read costs this
process, all of its threads; servers are processes of their own. Closed loops; a read in a file takes place at once, so many
callers wait for each other outside of what is timed, and only its reads per second compare with those of the others. A ratio
is ours divided by theirs in one round: its median over the rounds, its least and its most.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp

from allsource_auth import AllsourceAuthAdapter, Session, SessionWithUser
from benchmarks.arguments import count, counts
from benchmarks.latest_state import SESSIONS_OF_A_USER, seed, warm
from benchmarks.postgres import PostgresMissing, PostgreSQL, running
from benchmarks.raw_http import RawHttp
from benchmarks.reads import Asked, Stored, asked, bare_http, bare_sqlite, credentials, drawn
from benchmarks.results import facts, headline, save
from benchmarks.servers import NAMES, Server, started
from benchmarks.timing import ROUNDS, Prepare, Row, in_turns
from benchmarks.writes import batches, sign_ins
from tests.support.cores import CoreMissing

PACKAGES = {
    "better_auth": "better-auth-server",
    "fastapi_users": "fastapi-users",
    "fastapi_users_db_sqlalchemy": "fastapi-users-db-sqlalchemy",
    "sqlalchemy": "SQLAlchemy",
    "asyncpg": "asyncpg",
    "aiosqlite": "aiosqlite",
}
"""What is compared beside the library's own dependencies: modules, and what they are called where they are installed from."""

SPARE = 10
"""Connections of PostgreSQL beside those of the callers: for the seeding, and what it keeps for itself."""

FEWER = 5
"""Writes are synced, so there is one for so many reads."""

FIGURES = {"per second": "per_second", "p50": "p50_us", "p99": "p99_us", "CPU": "cpu_us"}

Rows = dict[str, Row]


@dataclass(frozen=True)
class Options:
    """What was asked for; ``reads``: of each kind, in ``rounds`` rounds."""

    store: str
    callers: list[int]
    sessions: int
    reads: int
    rounds: int
    uvloop: bool
    json: Path | None

    @property
    def loop(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """What makes the event loop; ``None`` for asyncio's own."""
        if not self.uvloop:
            return None
        made: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return made


def of_adapter(adapter: AllsourceAuthAdapter, stored: Stored) -> tuple[Prepare, Prepare]:
    """``sessions.get`` and ``load_session``, with their answers checked."""
    owners = stored.owners

    async def get(token: str) -> Session:
        session = await adapter.sessions.get(token)
        assert session is not None, "a session was not found"
        assert session.token == token, "another session was found"
        return session

    async def load(token: str) -> SessionWithUser:
        found = await adapter.load_session(token)
        assert found is not None, "a session was not found"
        assert found.session.token == token, "another session was found"
        assert found.user.id == owners[token], "another user was found"
        return found

    return drawn(stored.tokens, get), drawn(stored.tokens, load)


@asynccontextmanager
async def clients(server: Server, tenant: str, stored: Stored) -> AsyncIterator[dict[str, Prepare]]:
    """The request of ``sessions.get`` by others."""
    requests, headers = asked(server, tenant, stored), credentials(server)
    session = aiohttp.ClientSession(headers={"accept-encoding": "identity"} | headers)
    raw = RawHttp(server.reads, headers)

    async def by_aiohttp(request: Asked) -> Session:
        async with session.get(request.url) as response:
            return request.session(await response.read())

    async def by_raw(request: Asked) -> Session:
        return request.session(await raw.get(request.url.removeprefix(server.reads)))

    async with bare_http(server, tenant, stored) as bare:
        try:
            yield {
                "httpx, default settings": bare["httpx, default settings"],
                "aiohttp": drawn(requests, by_aiohttp),
                "pyreqwest": bare["pyreqwest"],
                "raw protocol": drawn(requests, by_raw),
            }
        finally:
            await raw.close()
            await session.close()


async def compared(options: Options, folder: Path, database: PostgreSQL) -> tuple[str, dict[str, Any]]:
    """Which server answered, and the rows of each part."""
    from benchmarks.peer_libraries import in_file, on_server, with_better_auth, with_fastapi_users

    tenant, path, connections = "peers", folder / "auth.db", max(options.callers)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(started(options.store, folder))
        over_http = AllsourceAuthAdapter(server.core_url, server.query_url, server.api_key, tenant_id=tenant)
        served = await enter(over_http)
        there = await seed(served, options.sessions)
        await warm(served, there)
        async with AllsourceAuthAdapter.embedded(path, durability="normal") as adapter:
            here = await seed(adapter, options.sessions)
        bare = stack.enter_context(bare_sqlite(path, folder / "bare.db", here))
        embedded = await enter(AllsourceAuthAdapter.embedded(path))
        await warm(embedded, here)
        get_there, load_there = of_adapter(served, there)
        get_here, load_here = of_adapter(embedded, here)
        reads = {"sessions.get": get_there} | await enter(clients(server, tenant, there))

        say("seeding the others ...")
        emails = here.emails
        how = (emails, SESSIONS_OF_A_USER, connections)
        for name in ("better_auth", "fastapi_users"):
            database.create(name)
        loads = {
            "embedded": load_here,
            options.store: load_there,
            "better_auth, SQLite": await enter(with_better_auth(in_file(folder / "better_auth.db"), *how)),
            "better_auth, PostgreSQL": await enter(with_better_auth(on_server(database, "better_auth"), *how)),
            "fastapi-users, PostgreSQL": await enter(with_fastapi_users(on_server(database, "fastapi_users"), *how)),
        }
        database.settle()

        count, rounds = options.reads, options.rounds
        info = await served.info()
        found: dict[str, Any] = {"reads": {}, "load_session": {}, "writes": {}}
        for callers in options.callers:
            for part, kinds in (("reads", reads), ("load_session", loads)):
                say(f"{part}: {count:,} of each kind, {callers} at a time ...")
                found[part][str(callers)] = await in_turns(kinds, count=count, callers=callers, rounds=rounds)
            say(f"writes: {count // FEWER:,} of each kind, {callers} at a time ...")
            writes = {"sessions.create": sign_ins(served, there), "batch": await enter(batches(server, tenant, there))}
            found["writes"][str(callers)] = await in_turns(writes, count=count // FEWER, callers=callers, rounds=rounds)
        say("floor ...")
        found["floor"] = {"1": await in_turns({"sessions.get": get_here, "bare": bare}, count=2 * count, rounds=rounds)}
    return f"{info.server} {info.server_version}, engine {info.engine}", found


def against(rows: Mapping[str, Row], subject: str, others: list[str]) -> dict[str, dict[str, list[float]]]:
    """The subject's figures divided by those of each other one: median, least and most of the rounds."""

    def spread(other: str, figure: str) -> list[float]:
        pairs = zip(rows[subject]["rounds"][figure], rows[other]["rounds"][figure], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        return [statistics.median(ratios), min(ratios), max(ratios)]

    return {other: {title: spread(other, figure) for title, figure in FIGURES.items()} for other in others}


def show(part: str, callers: str, rows: Mapping[str, Row]) -> None:
    title = f"{part}, {'one caller' if callers == '1' else f'{callers} callers'}"
    head = " ".join(f"{name:>11}" for name in ("p50", "p90", "p99", "p99.9"))
    print(f"\n{title:30} {head} {'per second':>11} {'CPU':>9}")
    for name, row in rows.items():
        times = " ".join(f"{row[which]:9,.1f}us" for which in ("p50_us", "p90_us", "p99_us", "p999_us"))
        print(f"{name:30} {times} {row['per_second']:11,.0f} {row['cpu_us']:7,.1f}us")


def show_ratios(subject: str, ratios: Mapping[str, Mapping[str, list[float]]]) -> None:
    print(f"{f'{subject} against':30} " + " ".join(f"{title:>26}" for title in FIGURES))
    for other, figures in ratios.items():
        cells = (f"{_ratio(median)} ({_ratio(least)}-{_ratio(most)})" for median, least, most in figures.values())
        print(f"{other:30} " + " ".join(f"{cell:>26}" for cell in cells))


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def show_all(found: Mapping[str, Any], store: str) -> dict[str, Any]:
    """Print every part; gives its ratios, by part, callers and subject."""
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
            ratios[part][callers] = {subject: against(rows, subject, others) for subject in ours[part]}
            for subject, figures in ratios[part][callers].items():
                show_ratios(subject, figures)
    return ratios


def say(line: str) -> None:
    print(line, file=sys.stderr)


def parsed() -> Options:
    """The options. Ends the process where they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=NAMES, default="core-0.27.0", help="started here (default: core-0.27.0)")
    parser.add_argument("--callers", type=counts, default=[1, 32], help="how many at a time (default: 1,32)")
    parser.add_argument("--sessions", type=count, help="in each store, ten for each user (default: 10,000)")
    parser.add_argument("--reads", type=count, help=f"of each kind, in {ROUNDS} rounds (default: 10,000)")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop's event loop, which must be installed")
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
        sys.exit(f"not installed: {', '.join(missing)}; nox -s bench_peers installs what is compared")
    # So that the servers are stopped then as well.
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
            # Readable for the account that PostgreSQL runs as, which has to pass through.
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
