"""A server over TLS, in its own process, that repeats the replies of another server. Each one is fetched once.

A gateway that forwarded every request would be slower than the clients, and would be measured in their place.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trustme

from benchmarks.raw_http import RawHttp
from benchmarks.reads import credentials
from benchmarks.servers import Server

__all__ = ["Repeater", "repeated"]


@dataclass(frozen=True)
class Repeater:
    """A running server. ``ca_file``: the authority of its certificate."""

    url: str
    ca_file: Path


@asynccontextmanager
async def repeated(server: Server, folder: Path) -> AsyncIterator[Repeater]:
    """Repeat what ``server`` answers to plain reads, while the block runs."""
    authority, certificate, ca_file = trustme.CA(), folder / "certificate.pem", folder / "authority.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(ca_file))
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        job = {"url": server.reads, "headers": credentials(server), "certificate": str(certificate)}
        child.stdin.write(json.dumps(job).encode() + b"\n")
        port = int(await child.stdout.readline())
        yield Repeater(f"https://127.0.0.1:{port}", ca_file)
    finally:
        if child.returncode is None:
            child.terminate()
        await child.communicate()


class _Connection(asyncio.Protocol):
    """Answers GET requests, one at a time."""

    def __init__(self, source: RawHttp, replies: dict[bytes, bytes]) -> None:
        self._source = source
        self._replies = replies
        self._received = b""
        self._transport: asyncio.Transport
        self._fetching: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        target, self._received = self._received.split(b" ", 2)[1], b""
        reply = self._replies.get(target)
        if reply is not None:
            self._transport.write(reply)
        else:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(target))

    async def _fetch(self, target: bytes) -> None:
        body = await self._source.get(target.decode())
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._replies[target] = head + body
        self._transport.write(head + body)


async def serve() -> None:
    """Read the job from standard input, print the port, and serve until the process is terminated."""
    job = json.loads(sys.stdin.readline())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(job["certificate"])
    source, replies = RawHttp(job["url"], job["headers"]), dict[bytes, bytes]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(source, replies), "127.0.0.1", 0, ssl=context, backlog=1024)
    serving = asyncio.ensure_future(server.serve_forever())
    loop.add_signal_handler(signal.SIGTERM, serving.cancel)
    print(server.sockets[0].getsockname()[1], flush=True)
    with suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    asyncio.run(serve())
