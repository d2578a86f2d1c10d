"""The measured reads: those of the library, and the same reads with the minimum that SQLite or HTTP needs."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from allsource_auth import AllsourceAuthAdapter, Session, SessionWithUser
from allsource_auth.store.allsource.wire import WireFormat
from benchmarks.raw_http import RawHttp
from benchmarks.servers import Server
from benchmarks.timing import Call, Prepare

__all__ = [
    "Request",
    "Stored",
    "bare_http",
    "bare_sqlite",
    "by_httpx",
    "by_raw",
    "checked_reads",
    "credentials",
    "library_reads",
    "random_calls",
    "requests",
]

Key = TypeVar("Key")


@dataclass(frozen=True)
class Stored:
    """Keys of the stored entities: tokens of sessions, ids and emails of their users. ``owners``: the user of each token."""

    tokens: list[str]
    users: list[str]
    emails: list[str]
    owners: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Stored({len(self.tokens)} sessions, {len(self.users)} users)"


def library_reads(adapter: AllsourceAuthAdapter, stored: Stored) -> dict[str, Prepare]:
    """The reads that applications make."""
    return {
        "sessions.get": random_calls(stored.tokens, adapter.sessions.get),
        "users.get": random_calls(stored.users, adapter.users.get),
        "users.get_by_email": random_calls(stored.emails, adapter.users.get_by_email),
        "load_session": random_calls(stored.tokens, adapter.load_session),
    }


def checked_reads(adapter: AllsourceAuthAdapter, stored: Stored) -> tuple[Prepare, Prepare]:
    """``sessions.get`` and ``load_session`` with checks of their results."""
    owners = stored.owners

    async def get(token: str) -> Session:
        session = await adapter.sessions.get(token)
        assert session is not None, "the session was not found"
        assert session.token == token, "another session was found"
        return session

    async def load(token: str) -> SessionWithUser:
        found = await adapter.load_session(token)
        assert found is not None, "the session was not found"
        assert found.session.token == token, "another session was found"
        assert found.user.id == owners[token], "another user was found"
        return found

    return random_calls(stored.tokens, get), random_calls(stored.tokens, load)


def random_calls(keys: Sequence[Key], call: Callable[[Key], Awaitable[object]]) -> Prepare:
    """Calls with keys in random order, which is the same in each run."""
    choice = random.Random(7).choice

    def prepare() -> Call:
        key = choice(keys)
        return lambda: call(key)

    return prepare


@contextmanager
def bare_sqlite(path: Path, copy: Path, stored: Stored) -> Iterator[Prepare]:
    """Reads of a session by primary key from a table in the file ``copy``, filled with the payloads of the file ``path``."""
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        target.execute("PRAGMA journal_mode=WAL")
        target.execute("CREATE TABLE session (token TEXT PRIMARY KEY, payload TEXT) WITHOUT ROWID")
        rows = source.execute("SELECT substr(stream, 14), payload FROM event WHERE stream LIKE 'auth-session:%'")
        target.executemany("INSERT INTO session VALUES (?, ?)", rows)
    source.close()
    target.commit()
    target.close()
    connection = sqlite3.connect(copy, isolation_level=None)
    decode = msgspec.json.Decoder(Session).decode

    async def read(token: str) -> Session:
        (payload,) = connection.execute("SELECT payload FROM session WHERE token = ?", (token,)).fetchone()
        session = decode(payload)
        assert session.token == token, "another session was found"
        return session

    for token in stored.tokens:  # warm: every page was read once
        connection.execute("SELECT payload FROM session WHERE token = ?", (token,)).fetchone()
    try:
        yield random_calls(stored.tokens, read)
    finally:
        connection.close()


class _Event(msgspec.Struct):
    payload: Session


class _Reply(msgspec.Struct):
    """The body of a reply of Core; older Query Services use ``data``."""

    events: list[_Event] = []
    data: list[_Event] = []


_decode = msgspec.json.Decoder(_Reply).decode


@dataclass(frozen=True)
class Request:
    """The request that the store sends to read a session. ``target``: path and query of ``url``."""

    url: str = field(repr=False)
    target: str = field(repr=False)
    token: str = field(repr=False)

    def session(self, body: bytes) -> Session:
        """Decode the body of the reply, and check that it is the requested session."""
        reply = _decode(body)
        session = (reply.events or reply.data)[0].payload
        assert session.token == self.token, "another session was found"
        return session


def requests(server: Server, tenant: str, stored: Stored) -> list[Request]:
    """The request for each session."""
    latest = WireFormat(tenant).latest
    targets = [(latest(f"auth-session:{token}"), token) for token in stored.tokens]
    return [Request(server.reads + target, target, token) for target, token in targets]


def credentials(server: Server) -> dict[str, str]:
    """The headers that authenticate at a server."""
    return {} if server.api_key is None else {"x-api-key": server.api_key}


def by_raw(raw: RawHttp, sessions: Sequence[Request]) -> Prepare:
    """The requests, sent by the raw protocol."""

    async def read(request: Request) -> Session:
        return request.session(await raw.get(request.target))

    return random_calls(sessions, read)


def by_httpx(client: httpx.AsyncClient, sessions: Sequence[Request]) -> Prepare:
    """The requests, sent by httpx."""

    async def read(request: Request) -> Session:
        return request.session((await client.get(request.url)).content)

    return random_calls(sessions, read)


@asynccontextmanager
async def bare_http(server: Server, tenant: str, stored: Stored) -> AsyncIterator[dict[str, Prepare]]:
    """The store's request for a session, sent without the library, and a ``msgspec`` decode of the reply.

    ``raw protocol`` is the minimum that asyncio needs; ``httpx, default settings`` uses the default transport, limits and
    headers of httpx.
    """
    sessions, headers = requests(server, tenant, stored), credentials(server)
    raw = RawHttp(server.reads, headers)
    try:
        async with httpx.AsyncClient(headers=headers) as client:
            yield {"raw protocol": by_raw(raw, sessions), "httpx, default settings": by_httpx(client, sessions)}
    finally:
        await raw.close()
