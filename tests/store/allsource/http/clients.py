"""Clients of a scripted server, and single requests without retries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from allsource_auth import config
from allsource_auth.store.allsource.client import Client
from allsource_auth.store.allsource.http import Origin, Reply
from allsource_auth.store.allsource.http.engine import AsyncioEngine
from allsource_auth.store.allsource.http.pool import Pool

__all__ = ["client_of", "get", "pool_of", "post", "reply"]


@asynccontextmanager
async def client_of(url: str, **options: Unpack[config.ConnectionOptions]) -> AsyncIterator[Client]:
    client = Client(config.connection(url, **options))
    try:
        yield client
    finally:
        await client.close()


async def get(client: Client, path: str = "/path") -> Reply:
    return await client.engine.request("GET", client.connection.core_url, path, None, None)


async def post(client: Client, body: bytes = b"{}", path: str = "/path") -> Reply:
    return await client.engine.request("POST", client.connection.core_url, path, body, None)


def pool_of(client: Client) -> Pool:
    assert isinstance(client.engine, AsyncioEngine)
    return client.engine.pool(Origin.of(client.connection.core_url))


def reply(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A reply with a length."""
    lines = b"".join(b"%b\r\n" % header for header in headers)
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, lines, len(body), body)
