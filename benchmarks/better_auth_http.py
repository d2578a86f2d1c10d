"""``better_auth`` on this library and on its own adapter: latency of requests, and the share of the database.

``python benchmarks/better_auth_http.py [--store core-0.27.0] [--callers 1,32] [--postgres] [--quick] [--json FILE]``

* ``get-session``: over HTTP, from one uvicorn process for each database; the client is aiohttp with a bearer token.
* ``sign-up``: over HTTP, each with a new email. Passwords are hashed at a fraction of the usual strength, because the full hash
  takes much longer than the rest.
* ``database``: only the two calls of the adapter that ``get-session`` makes: the session by token, the user by id.

Databases: a file of this library and a durable Core; SQLite (aiosqlite) and, with ``--postgres``, PostgreSQL (asyncpg) through
the SQLAlchemy adapter of ``better_auth``, with a connection for each caller. Closed loops in alternating rounds; every reply is
checked. A ratio is the library's figure divided by the other one in a round: median, smallest, largest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count as numbers
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allsource_auth import AllsourceAuthAdapter
from benchmarks.arguments import count, counts
from benchmarks.peers import log
from benchmarks.postgres import PostgresMissing, PostgreSQL, running
from benchmarks.ratios import ratios_to, show, show_ratios
from benchmarks.reads import random_calls
from benchmarks.results import facts, headline, save
from benchmarks.servers import NAMES, started
from benchmarks.timing import Prepare, closed_loops
from tests.support.cores import CoreMissing

if TYPE_CHECKING:
    import aiohttp

PACKAGES = ("aiohttp", "better-auth-server", "fastapi", "uvicorn", "SQLAlchemy", "aiosqlite", "asyncpg")
MODULES = ("aiohttp", "better_auth", "fastapi", "uvicorn", "sqlalchemy", "aiosqlite")
ROUNDS = 10
UP_SECONDS = 30.0
TENANT = "bench"
ORIGIN = {"origin": "http://bench.test"}


class Database:
    """A database: its adapter in this process, and the environment variables that name it to the application."""

    def __init__(self, adapter: Any, environment: Mapping[str, str]) -> None:
        from benchmarks.better_auth_app import authentication

        self.adapter, self.environment = adapter, dict(environment)
        self.auth = authentication(adapter)
        self.tokens: dict[str, str] = {}
        """The user id by session token."""

    async def seed(self, sessions: int) -> None:
        """Create ``sessions`` users with a session each, in transactions of fifty."""
        create = getattr(self.adapter, "create_tables", None)
        if create is not None:
            await create()

        async def batch(inside: Any) -> None:
            for number in range(len(self.tokens), min(sessions, len(self.tokens) + 50)):
                user = await inside.create_user({"email": f"user-{number}@example.org", "name": "A user"})
                session = await inside.create_session(user["id"], ip_address="203.0.113.7", user_agent="bench")
                self.tokens[session["token"]] = user["id"]

        while len(self.tokens) < sessions:
            await self.auth.internal.transaction(batch)

    def look_up(self) -> Prepare:
        """The two calls of the adapter that ``get-session`` makes."""
        from better_auth.adapters.base import Where

        async def load(token: str) -> object:
            session = await self.adapter.find_one("session", [Where("token", token)])
            user = await self.adapter.find_one("user", [Where("id", session["userId"])])
            assert user["id"] == self.tokens[token], "another user was found"
            return user

        return random_calls(list(self.tokens), load)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Run the application on this database in its own process while the block runs; yields its URL."""
        import aiohttp

        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
        command = ["-m", "uvicorn", "--factory", "benchmarks.better_auth_app:app", "--port", str(port)]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *("--log-level", "warning", "--no-access-log", "--timeout-keep-alive", "600"),
            cwd=Path(__file__).resolve().parents[1],
            env=os.environ | self.environment,
        )
        try:
            async with asyncio.timeout(UP_SECONDS), aiohttp.ClientSession() as client:
                while not await _responds(client, port):
                    assert child.returncode is None, "the application has exited"
                    await asyncio.sleep(0.05)
            yield f"http://127.0.0.1:{port}/api/auth"
        finally:
            if child.returncode is None:
                child.terminate()
            await child.wait()


async def _responds(client: aiohttp.ClientSession, port: int) -> bool:
    import aiohttp

    try:
        async with client.get(f"http://127.0.0.1:{port}/api/auth/ok") as reply:
            responded: bool = reply.status == 200
            return responded
    except aiohttp.ClientConnectionError:
        return False


def get_session(client: aiohttp.ClientSession, url: str, database: Database) -> Prepare:
    async def send(token: str) -> object:
        async with client.get(f"{url}/get-session", headers={"authorization": f"Bearer {token}"}) as reply:
            found = await reply.json()
        assert found["user"]["id"] == database.tokens[token], "another session was found"
        return found

    return random_calls(list(database.tokens), send)


def sign_up(client: aiohttp.ClientSession, url: str) -> Prepare:
    serial = numbers()

    def prepare() -> Any:
        form = {"name": "A user", "email": f"new-{next(serial)}@example.org", "password": "a long password"}

        async def send() -> object:
            async with client.post(f"{url}/sign-up/email", json=form, headers=ORIGIN) as reply:
                found = await reply.json()
            assert found["user"]["email"] == form["email"], "another user was signed up"
            return found

        return send

    return prepare


async def compared(options: argparse.Namespace, folder: Path, postgres: PostgreSQL | None) -> dict[str, Any]:
    """The rows of each part."""
    import aiohttp
    from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
    from sqlalchemy.ext.asyncio import create_async_engine

    from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter
    from benchmarks.better_auth_app import CONNECTIONS
    from benchmarks.peer_libraries import in_file, on_server

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(started(options.store, folder))
        file = await enter(AllsourceAuthAdapter.embedded(folder / "auth.db"))
        core = AllsourceAuthAdapter(server.core_url, server.query_url, server.api_key, tenant_id=TENANT)
        variables = {"BENCH_CORE": server.core_url, "BENCH_KEY": server.api_key or "", "BENCH_TENANT": TENANT}
        databases = {
            "embedded": Database(AllsourceDatabaseAdapter(file), {"BENCH_FILE": str(folder / "auth.db")}),
            options.store: Database(AllsourceDatabaseAdapter(await enter(core)), variables),
        }
        # With its default timeout of five seconds SQLite fails 32 concurrent sign-ups with "database is locked".
        urls = {"SQLite": in_file(folder / "better_auth.db").update_query_dict({"timeout": "60"})}
        if postgres is not None:
            postgres.create("better_auth")
            urls["PostgreSQL"] = on_server(postgres, "better_auth")
        for name, url in urls.items():
            engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0, hide_parameters=True)
            stack.push_async_callback(engine.dispose)
            databases[name] = Database(SQLAlchemyAdapter(engine), {"BENCH_SQL": url.render_as_string(False)})
        for name, database in databases.items():
            log(f"seeding {name} ...")
            await database.seed(options.sessions)
        if postgres is not None:
            postgres.vacuum()
        connector = aiohttp.TCPConnector(limit=0)
        client = await enter(aiohttp.ClientSession(connector=connector))
        roots = {name: await enter(database.served()) for name, database in databases.items()}
        parts: dict[str, tuple[int, dict[str, Prepare]]] = {
            "get-session": (
                options.requests,
                {name: get_session(client, roots[name], one) for name, one in databases.items()},
            ),
            "sign-up": (options.requests // 4, {name: sign_up(client, url) for name, url in roots.items()}),
            "database": (options.requests, {name: one.look_up() for name, one in databases.items()}),
        }
        found: dict[str, Any] = {part: {} for part in parts}
        for callers in options.callers:
            for part, (requests, kinds) in parts.items():
                log(f"{part}: {requests:,} of each kind, callers: {callers} ...")
                found[part][str(callers)] = await closed_loops(
                    kinds, count=requests, callers=callers, rounds=options.rounds
                )
        return found


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--store", choices=NAMES, default="core-0.27.0", help="the server to start (default: core-0.27.0)"
    )
    parser.add_argument(
        "--callers", type=counts, default=[1, 32], help="concurrent callers, separated by commas (default: 1,32)"
    )
    parser.add_argument("--sessions", type=count, help="sessions in each database (default: 2,000)")
    parser.add_argument("--requests", type=count, help=f"requests of each kind, in {ROUNDS} rounds (default: 2,000)")
    parser.add_argument(
        "--postgres", action="store_true", help="also measure PostgreSQL, which is installed if it is missing"
    )
    parser.add_argument("--quick", action="store_true", help="100 sessions, 200 requests, 3 rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    given.sessions = given.sessions or (100 if given.quick else 2_000)
    given.requests = given.requests or (200 if given.quick else 2_000)
    given.rounds = 3 if given.quick else ROUNDS
    return given


def main() -> None:
    options = parsed()
    missing = [module for module in (*MODULES, *(["asyncpg"] if options.postgres else [])) if find_spec(module) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; nox -s bench_peers installs the compared packages")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    named = ("store", "sessions", "requests", "rounds", "postgres")
    known = facts("better_auth_http", **{name: getattr(options, name) for name in named})
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o711)  # the account of PostgreSQL must be able to enter it
            connections = 4 * max(options.callers) + 64
            with (
                running(folder / "postgres", connections=connections) if options.postgres else nullcontext() as database
            ):
                known["versions"] |= {package: version(package) for package in PACKAGES if _installed(package)}
                if database is not None:
                    known["versions"]["PostgreSQL"] = database.version
                print(headline(known), flush=True)
                found = asyncio.run(compared(options, folder, database))
    except (CoreMissing, PostgresMissing) as missing_one:
        sys.exit(str(missing_one))
    print(", ".join(f"{name} {number}" for name, number in known["versions"].items()))
    ratios: dict[str, Any] = {}
    for part, by_callers in found.items():
        ratios[part] = {}
        for callers, rows in by_callers.items():
            show(part, callers, rows)
            others = [name for name in rows if name not in ("embedded", options.store)]
            ratios[part][callers] = {
                subject: ratios_to(rows, subject, others) for subject in ("embedded", options.store)
            }
            for subject, figures in ratios[part][callers].items():
                show_ratios(subject, figures)
    save(options.json, known, found | {"against": ratios})


def _installed(package: str) -> bool:
    return (
        find_spec({"better-auth-server": "better_auth", "SQLAlchemy": "sqlalchemy"}.get(package, package)) is not None
    )


if __name__ == "__main__":
    main()
