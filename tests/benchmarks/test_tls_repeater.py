"""The server over TLS repeats the replies of another server, which it asks once for each."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.raw_http import RawHttp
from benchmarks.servers import Server

pytest.importorskip("trustme")


async def test_reply_is_fetched_once_and_repeated_over_tls(tmp_path: Path) -> None:
    from benchmarks.tls_repeater import repeated

    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                body = heads[-1].split(b" ")[1]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as source:
        port = source.sockets[0].getsockname()[1]
        async with repeated(Server(f"http://127.0.0.1:{port}", api_key="a key"), tmp_path) as repeater:
            client = RawHttp(repeater.url, {}, ssl.create_default_context(cafile=repeater.ca_file))
            assert [await client.get(target) for target in ("/a", "/b", "/a", "/a")] == [b"/a", b"/b", b"/a", b"/a"]
            await client.close()
    assert [head.split(b" ")[1] for head in heads] == [b"/a", b"/b"]
    assert all(b"x-api-key: a key" in head for head in heads)
