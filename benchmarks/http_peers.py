"""Other HTTP clients, for comparison with the library's own: those of them that are installed."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from allsource_auth import Session
from benchmarks.reads import Request, random_calls
from benchmarks.timing import Prepare

__all__ = ["HTTP_PEERS", "by_aiohttp", "by_pyreqwest", "peer_versions"]

HTTP_PEERS = ("aiohttp", "pyreqwest")
"""Clients that are no dependencies of the library."""


def peer_versions() -> dict[str, str]:
    """The versions of the clients that are installed."""
    return {name: version(name) for name in HTTP_PEERS if find_spec(name) is not None}


@asynccontextmanager
async def by_aiohttp(
    sessions: Sequence[Request], headers: Mapping[str, str], tls: ssl.SSLContext | None = None
) -> AsyncIterator[dict[str, Prepare]]:
    """The requests, sent by aiohttp; nothing if it is not installed. Like the library, it accepts no compressed replies."""
    if find_spec("aiohttp") is None:
        yield {}
        return
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=True if tls is None else tls)
    async with aiohttp.ClientSession(
        connector=connector, headers={"accept-encoding": "identity"} | dict(headers)
    ) as client:

        async def read(request: Request) -> Session:
            async with client.get(request.url) as response:
                return request.session(await response.read())

        yield {"aiohttp": random_calls(sessions, read)}


@asynccontextmanager
async def by_pyreqwest(sessions: Sequence[Request], headers: Mapping[str, str]) -> AsyncIterator[dict[str, Prepare]]:
    """The requests, sent by pyreqwest; nothing if it is not installed. Like the library, it accepts no compressed replies."""
    if find_spec("pyreqwest") is None:
        yield {}
        return
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().default_headers(dict(headers))
    for offer in (builder.gzip, builder.brotli, builder.zstd, builder.deflate):
        offer(False)
    async with builder.build() as client:

        async def read(request: Request) -> Session:
            response = await client.get(request.url).build().send()
            body: Any = await response.bytes()  # of a class of its own that offers its memory, as bytes do
            return request.session(body)

        yield {"pyreqwest": random_calls(sessions, read)}
