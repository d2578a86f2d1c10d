"""``better_auth`` on this library and on its own adapter: what a request costs, and what of it is the database's.

``python benchmarks/better_auth_http.py [--store core-0.27.0] [--callers 1,32] [--postgres] [--quick] [--json FILE]``

* ``get-session``: over HTTP, uvicorn with one process for each database, the client on aiohttp with a bearer's token.
* ``sign-up``: over HTTP, each with an email of its own; passwords are hashed at a fraction of their strength, which would
  else be all that is seen.
* ``database``: what ``get-session`` asks its adapter for, without the rest: the session of a token, the user of an id.

Databases: a file of this library and a durable Core; SQLite (aiosqlite) and, with ``--postgres``, PostgreSQL (asyncpg) by its
SQLAlchemy adapter, with a connection for each caller. Closed loops, in rounds that take turns; every answer is checked. A ratio
is ours divided by theirs in one round: its median, its least and its most.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp

from allsource_auth import AllsourceAuthAdapter
from benchmarks.arguments import count, counts
from benchmarks.peers import against, show, show_ratios
from benchmarks.postgres import PostgresMissing, PostgreSQL, running
from benchmarks.reads import drawn
from benchmarks.results import facts, headline, save
from benchmarks.servers import NAMES, started
from benchmarks.timing import Prepare, in_turns
from tests.support.cores import CoreMissing

PACKAGES = ("better-auth-server", "fastapi", "uvicorn", "SQLAlchemy", "aiosqlite", "asyncpg")
MODULES = ("better_auth", "fastapi", "uvicorn", "sqlalchemy", "aiosqlite")
ROUNDS = 10
UP_SECONDS = 30.0
TENANT = "bench"
ORIGIN = {"origin": "http://bench.test"}


class Database:
    """One database: how a process is told where it is, and its adapter in this process."""

    def __init__(self, adapter: Any, environment: Mapping[str, str]) -> None:
        from benchmarks.better_auth_app import authentication

        self.adapter, self.environment = adapter, dict(environment)
        self.auth = authentication(adapter)
        self.tokens: dict[str, str] = {}
        """Of the sessions: their users."""

    async def seed(self, sessions: int) -> None:
        """So many users with a session each, in transactions of fifty."""
        create = getattr(self.adapter, "create_tables", None)
        if create is not None:
            await create()

        async def some(inside: Any) -> None:
            for number in range(len(self.tokens), min(sessions, len(self.tokens) + 50)):
                user = await inside.create_user({"email": f"user-{number}@example.org", "name": "A user"})
                session = await inside.create_session(user["id"], ip_address="203.0.113.7", user_agent="bench")
                self.tokens[session["token"]] = user["id"]

        while len(self.tokens) < sessions:
            await self.auth.internal.transaction(some)

    def look_up(self) -> Prepare:
        """The two calls of the adapter that ``get-session`` makes."""
        from better_auth.adapters.base import Where

        async def load(token: str) -> object:
            session = await self.adapter.find_one("session", [Where("token", token)])
            user = await self.adapter.find_one("user", [Where("id", session["userId"])])
            assert user["id"] == self.tokens[token], "another user was found"
            return user

        return drawn(list(self.tokens), load)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """The application on this database, in a process of its own; where it answers."""
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
                while not await _answers(client, port):
                    assert child.returncode is None, "the application has ended"
                    await asyncio.sleep(0.05)
            yield f"http://127.0.0.1:{port}/api/auth"
        finally:
            if child.returncode is None:
                child.terminate()
            await child.wait()


async def _answers(client: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with client.get(f"http://127.0.0.1:{port}/api/auth/ok") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


def get_session(client: aiohttp.ClientSession, url: str, database: Database) -> Prepare:
    async def ask(token: str) -> object:
        async with client.get(f"{url}/get-session", headers={"authorization": f"Bearer {token}"}) as answer:
            found = await answer.json()
        assert found["user"]["id"] == database.tokens[token], "another session was found"
        return found

    return drawn(list(database.tokens), ask)


def sign_up(client: aiohttp.ClientSession, url: str) -> Prepare:
    people = numbers()

    def prepare() -> Any:
        given = {"name": "A user", "email": f"new-{next(people)}@example.org", "password": "a long password"}

        async def ask() -> object:
            async with client.post(f"{url}/sign-up/email", json=given, headers=ORIGIN) as answer:
                found = await answer.json()
            assert found["user"]["email"] == given["email"], "somebody else was signed up"
            return found

        return ask

    return prepare


async def compared(options: argparse.Namespace, folder: Path, postgres: PostgreSQL | None) -> dict[str, Any]:
    """The rows of each part."""
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
        there = {"BENCH_CORE": server.core_url, "BENCH_KEY": server.api_key or "", "BENCH_TENANT": TENANT}
        databases = {
            "embedded": Database(AllsourceDatabaseAdapter(file), {"BENCH_FILE": str(folder / "auth.db")}),
            options.store: Database(AllsourceDatabaseAdapter(await enter(core)), there),
        }
        # By default it fails a sign-up of 32 at a time with "database is locked" after five seconds.
        urls = {"SQLite": in_file(folder / "theirs.db").update_query_dict({"timeout": "60"})}
        if postgres is not None:
            postgres.create("theirs")
            urls["PostgreSQL"] = on_server(postgres, "theirs")
        for name, url in urls.items():
            engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0, hide_parameters=True)
            stack.push_async_callback(engine.dispose)
            databases[name] = Database(SQLAlchemyAdapter(engine), {"BENCH_SQL": url.render_as_string(False)})
        for name, database in databases.items():
            say(f"seeding {name} ...")
            await database.seed(options.sessions)
        if postgres is not None:
            postgres.settle()
        connector = aiohttp.TCPConnector(limit=0)
        client = await enter(aiohttp.ClientSession(connector=connector))
        where = {name: await enter(database.served()) for name, database in databases.items()}
        parts: dict[str, tuple[int, dict[str, Prepare]]] = {
            "get-session": (
                options.requests,
                {name: get_session(client, where[name], one) for name, one in databases.items()},
            ),
            "sign-up": (options.requests // 4, {name: sign_up(client, url) for name, url in where.items()}),
            "database": (options.requests, {name: one.look_up() for name, one in databases.items()}),
        }
        found: dict[str, Any] = {part: {} for part in parts}
        for callers in options.callers:
            for part, (requests, kinds) in parts.items():
                say(f"{part}: {requests:,} of each, {callers} at a time ...")
                found[part][str(callers)] = await in_turns(
                    kinds, count=requests, callers=callers, rounds=options.rounds
                )
        return found


def say(line: str) -> None:
    print(line, file=sys.stderr)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=NAMES, default="core-0.27.0", help="started here (default: core-0.27.0)")
    parser.add_argument("--callers", type=counts, default=[1, 32], help="how many at a time (default: 1,32)")
    parser.add_argument("--sessions", type=count, help="in each database (default: 2,000)")
    parser.add_argument("--requests", type=count, help=f"of each kind, in {ROUNDS} rounds (default: 2,000)")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL as well, installed where it is missing")
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
        sys.exit(f"not installed: {', '.join(missing)}; nox -s bench_peers installs what is compared")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    named = ("store", "sessions", "requests", "rounds", "postgres")
    known = facts("better_auth_http", **{name: getattr(options, name) for name in named})
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o711)  # PostgreSQL's account has to pass through
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
            ratios[part][callers] = {subject: against(rows, subject, others) for subject in ("embedded", options.store)}
            for subject, figures in ratios[part][callers].items():
                show_ratios(subject, figures)
    save(options.json, known, found | {"against": ratios})


def _installed(package: str) -> bool:
    return (
        find_spec({"better-auth-server": "better_auth", "SQLAlchemy": "sqlalchemy"}.get(package, package)) is not None
    )


if __name__ == "__main__":
    main()
