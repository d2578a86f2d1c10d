"""What is timed: reads of the library, and the same reads with the least that SQLite or HTTP needs for them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport
from pyreqwest.bytes import Bytes
from pyreqwest.client import ClientBuilder

from allsource_auth import AllsourceAuthAdapter, Session
from allsource_auth.store.allsource_wire import Wire

from .servers import Server
from .timing import Prepare, Read

__all__ = ["Stored", "bare_http", "bare_sqlite", "of_library"]


@dataclass(frozen=True)
class Stored:
    """What there is to read: tokens of sessions, and ids and emails of their users."""

    tokens: list[str]
    users: list[str]
    emails: list[str]

    def __repr__(self) -> str:
        return f"Stored({len(self.tokens)} sessions, {len(self.users)} users)"


def of_library(adapter: AllsourceAuthAdapter, stored: Stored) -> dict[str, Prepare]:
    """The reads that applications do."""
    return {
        "sessions.get": _drawn(stored.tokens, adapter.sessions.get),
        "users.get": _drawn(stored.users, adapter.users.get),
        "users.get_by_email": _drawn(stored.emails, adapter.users.get_by_email),
        "load_session": _drawn(stored.tokens, adapter.load_session),
    }


def _drawn(keys: Sequence[str], read: Callable[[str], Awaitable[object]]) -> Prepare:
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
        return decode(payload)

    for token in stored.tokens:  # warm: every page was read once
        connection.execute("SELECT payload FROM session WHERE token = ?", (token,)).fetchone()
    try:
        yield _drawn(stored.tokens, read)
    finally:
        connection.close()


class _Event(msgspec.Struct):
    payload: Session


class _Answer(msgspec.Struct):
    """Core's envelope; ``data`` is that of older Query Services."""

    events: list[_Event] = []
    data: list[_Event] = []


@asynccontextmanager
async def bare_http(server: Server, tenant: str, stored: Stored) -> AsyncIterator[dict[str, Prepare]]:
    """The store's own request for a session by HTTP clients alone, with nothing around it but a ``msgspec`` decode.

    ``httpx as it comes`` has httpx's own transport, limits and headers. The other two are the engines of the library; like
    it they do not ask for compressed answers.
    """
    decode = msgspec.json.Decoder(_Answer).decode
    latest = Wire(tenant).latest
    urls = [server.reads + latest(f"auth-session:{token}") for token in stored.tokens]
    credentials = {} if server.api_key is None else {"x-api-key": server.api_key}

    def session(body: bytes | Bytes) -> Session:
        answer = decode(body)
        return (answer.events or answer.data)[0].payload

    def by_httpx(client: httpx.AsyncClient) -> Prepare:
        async def read(url: str) -> Session:
            return session((await client.get(url)).content)

        return _drawn(urls, read)

    uncompressed = {"accept-encoding": "identity"} | credentials
    builder = ClientBuilder().default_headers(credentials)
    for offer in (builder.gzip, builder.brotli, builder.zstd, builder.deflate):
        offer(False)

    async with AsyncExitStack() as opened:
        plain = await opened.enter_async_context(httpx.AsyncClient(headers=credentials))
        aiohttp = await opened.enter_async_context(
            httpx.AsyncClient(transport=AiohttpTransport(), headers=uncompressed)
        )
        pool = await opened.enter_async_context(builder.build())

        async def by_pyreqwest(url: str) -> Session:
            response = await pool.get(url).build().send()
            return session(await response.bytes())

        yield {
            "httpx as it comes": by_httpx(plain),
            "httpx on aiohttp": by_httpx(aiohttp),
            "pyreqwest": _drawn(urls, by_pyreqwest),
        }
