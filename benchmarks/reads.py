"""What is timed: reads of the library, and the same reads with the least that SQLite or HTTP needs for them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport
from pyreqwest.bytes import Bytes
from pyreqwest.client import ClientBuilder

from allsource_auth import AllsourceAuthAdapter, Session
from allsource_auth.store.allsource.wire import WireFormat
from benchmarks.servers import Server
from benchmarks.timing import Prepare, Read

__all__ = ["Asked", "Stored", "asked", "bare_http", "bare_sqlite", "credentials", "drawn", "of_library"]

Key = TypeVar("Key")


@dataclass(frozen=True)
class Stored:
    """What there is to read: tokens of sessions, and ids and emails of their users; ``owners``: the user of each token."""

    tokens: list[str]
    users: list[str]
    emails: list[str]
    owners: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Stored({len(self.tokens)} sessions, {len(self.users)} users)"


def of_library(adapter: AllsourceAuthAdapter, stored: Stored) -> dict[str, Prepare]:
    """The reads that applications do."""
    return {
        "sessions.get": drawn(stored.tokens, adapter.sessions.get),
        "users.get": drawn(stored.users, adapter.users.get),
        "users.get_by_email": drawn(stored.emails, adapter.users.get_by_email),
        "load_session": drawn(stored.tokens, adapter.load_session),
    }


def drawn(keys: Sequence[Key], read: Callable[[Key], Awaitable[object]]) -> Prepare:
    """Reads of keys that are drawn at random, the same ones in each run."""
    choice = random.Random(7).choice

    def prepare() -> Read:
        key = choice(keys)
        return lambda: read(key)

    return prepare


@contextmanager
def bare_sqlite(path: Path, copy: Path, stored: Stored) -> Iterator[Prepare]:
    """The payload of a session by primary key, from a table of its own with the newest payloads of the file ``path``."""
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
        yield drawn(stored.tokens, read)
    finally:
        connection.close()


class _Event(msgspec.Struct):
    payload: Session


class _Answer(msgspec.Struct):
    """Core's envelope; ``data`` is that of older Query Services."""

    events: list[_Event] = []
    data: list[_Event] = []


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True)
class Asked:
    """The store's own request for a session."""

    url: str = field(repr=False)
    token: str = field(repr=False)

    def session(self, body: bytes | Bytes) -> Session:
        """The answer to it, decoded into the library's struct and nothing else."""
        answer = _decode(body)
        session = (answer.events or answer.data)[0].payload
        assert session.token == self.token, "another session was found"
        return session


def asked(server: Server, tenant: str, stored: Stored) -> list[Asked]:
    """The request for each of the sessions."""
    latest = WireFormat(tenant).latest
    return [Asked(server.reads + latest(f"auth-session:{token}"), token) for token in stored.tokens]


def credentials(server: Server) -> dict[str, str]:
    """The headers that a server wants."""
    return {} if server.api_key is None else {"x-api-key": server.api_key}


@asynccontextmanager
async def bare_http(server: Server, tenant: str, stored: Stored) -> AsyncIterator[dict[str, Prepare]]:
    """The store's own request for a session by HTTP clients alone, with nothing around it but a ``msgspec`` decode.

    ``httpx, default settings`` has httpx's own transport, limits and headers. The other two are the engines of the library.
    Like the library, they do not ask for compressed answers.
    """
    requests, headers = asked(server, tenant, stored), credentials(server)

    def by_httpx(client: httpx.AsyncClient) -> Prepare:
        async def read(request: Asked) -> Session:
            return request.session((await client.get(request.url)).content)

        return drawn(requests, read)

    builder = ClientBuilder().default_headers(headers)
    for offer in (builder.gzip, builder.brotli, builder.zstd, builder.deflate):
        offer(False)

    async with AsyncExitStack() as opened:
        plain = await opened.enter_async_context(httpx.AsyncClient(headers=headers))
        uncompressed = {"accept-encoding": "identity"} | headers
        aiohttp = await opened.enter_async_context(
            httpx.AsyncClient(transport=AiohttpTransport(), headers=uncompressed)
        )
        pool = await opened.enter_async_context(builder.build())

        async def by_pyreqwest(request: Asked) -> Session:
            response = await pool.get(request.url).build().send()
            return request.session(await response.bytes())

        yield {
            "httpx, default settings": by_httpx(plain),
            "httpx on aiohttp": by_httpx(aiohttp),
            "pyreqwest": drawn(requests, by_pyreqwest),
        }
