"""``adapter.http``: requests and responses of httpx on the library's own connections."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from allsource_auth import Tls
from allsource_auth.store.allsource.http.connection import READ_AHEAD
from tests.store.allsource.http.clients import get, reply
from tests.store.allsource.http.faces import body_parts, echo, endless, face_of, generated, until
from tests.store.allsource.raw_server import Peer, answering, ending, scripted

pytestmark = pytest.mark.usefixtures("parser")

SOCKET_READ = 256 * 1024
"""How much the event loop reads from a socket at a time."""

# Requests


async def test_every_method_is_sent_on_one_connection() -> None:
    methods = ("GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH", "PROPFIND")
    async with scripted(echo) as server, face_of(server.url) as face:
        for method in methods * 2:
            response = await face.http.request(method, "/path?a=b")
            line = f"{method} /path?a=b HTTP/1.1"
            assert (response.status_code, response.text) == (200, "" if method == "HEAD" else line)
        assert server.methods == list(methods * 2)
        assert server.connections == 1


@pytest.mark.parametrize("length", [None, 9])
async def test_generated_body_is_sent_in_chunks_or_with_its_length(length: int | None) -> None:
    headers = {} if length is None else {"Content-Length": str(length)}
    async with scripted(echo) as server, face_of(server.url) as face:
        for _ in range(2):
            body = generated(b"one", b"", b"two", b"six")
            assert (await face.http.post("/path", content=body, headers=headers)).content == b"onetwosix"
        framing = "transfer-encoding: chunked" if length is None else "content-length: 9"
        assert all(framing in request.lower() for request in server.requests)
        assert server.connections == 1


async def test_bodies_of_every_kind_arrive(tmp_path: Path) -> None:
    large = bytes(range(256)) * 8192
    async with scripted(echo) as server, face_of(server.url) as face:
        assert (await face.http.post("/", content=b"bytes")).content == b"bytes"
        assert (await face.http.post("/", content=large)).content == large
        assert (await face.http.post("/", content=generated(large, large))).content == large * 2
        assert (await face.http.post("/", json={"a": 1})).json() == {"a": 1}
        assert (await face.http.post("/", data={"a": "1"})).text == "a=1"
        (tmp_path / "file").write_bytes(large)
        with (tmp_path / "file").open("rb") as file:
            sent = await face.http.post("/", files={"file": file})
        assert large in sent.content
        assert server.connections == 1


async def test_chunked_body_has_no_length_as_well() -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        response = await face.http.post("/", content=b"body", headers={"Transfer-Encoding": "chunked"})
        assert response.content == b"body"
        assert "content-length" not in server.requests[0].lower()


async def test_first_part_is_sent_before_the_second_is_made() -> None:
    arrived = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await arrived.wait()
        yield b"second"

    async def script(peer: Peer) -> None:
        await peer.request()
        received = []
        async for part in body_parts(peer):
            received.append(part)
            arrived.set()
        await peer.send(reply(b"+".join(received)))

    async with scripted(script) as server, face_of(server.url) as face:
        assert (await face.http.put("/", content=body())).content == b"first+second"


async def test_upload_is_made_no_faster_than_the_server_reads() -> None:
    made = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 65536
            yield b"x" * 65536

    stalled = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await stalled.wait()
        received = sum([len(part) async for part in body_parts(peer)])
        await peer.send(reply(b"%d" % received))

    async with scripted(script) as server, face_of(server.url) as face:
        upload = asyncio.ensure_future(face.http.post("/", content=body()))
        await until(lambda: any(not connection._writable for connection in face.pool._open))
        await asyncio.sleep(0.05)
        assert made < 32 << 20  # what the buffers of the two sockets and of the server have room for
        stalled.set()
        assert (await upload).content == b"%d" % made == b"65536000"


async def test_relative_url_refers_to_core() -> None:
    async with scripted(echo) as server, face_of(f"{server.url}/base") as face:
        assert (await face.http.get("/path")).text == "GET /base/path HTTP/1.1"
        assert (await face.http.get(f"{server.url}/path")).text == "GET /path HTTP/1.1"
        assert server.connections == 1
        assert f"host: {server.url[7:]}\r\n" in server.requests[0].lower()


async def test_https_of_any_server_is_verified_with_the_tls_options(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    async with scripted(echo) as plain, scripted(echo, context=context) as server:
        async with face_of(plain.url, tls=Tls(ca_file=tmp_path / "ca.pem")) as face:
            large = bytes(range(256)) * 8192
            for body in (b"bytes", large):
                assert (await face.http.post(server.url, content=body)).content == body
            assert (await face.http.post(server.url, content=generated(large, large))).content == large * 2
            assert server.connections == 1
            assert plain.connections == 0
        async with face_of(plain.url) as face:
            with pytest.raises(httpx.ConnectError, match="certificate is of an unknown authority"):
                await face.http.get(server.url)


INVALID: dict[str, Callable[[], dict[str, Any]]] = {
    "line-break": lambda: {"headers": {"X-Name": b"a\r\nX-Other: b"}},
    "nul": lambda: {"headers": {"X-Name": b"a\x00"}},
    "name": lambda: {"headers": {b"X Name": b"a"}},
    "method": lambda: {"method": "GET /other HTTP/1.1\r\nX:"},
    "non-ascii-method": lambda: {"method": "GÉT"},
    "connect": lambda: {"method": "CONNECT"},
    "target": lambda: {"extensions": {"target": b"/ HTTP/1.1\r\nX-Other: b"}},
    "two-lengths": lambda: {"headers": [("Content-Length", "1"), ("Content-Length", "1")], "content": b"1"},
    "no-number": lambda: {"headers": {"Content-Length": "+1"}, "content": b"1"},
    "encoding": lambda: {"headers": {"Transfer-Encoding": "gzip"}, "content": b"1"},
    "short": lambda: {"headers": {"Content-Length": "5"}, "content": generated(b"1234")},
    "long": lambda: {"headers": {"Content-Length": "5"}, "content": generated(b"1234", b"56GET / HTTP/1.1\r\n\r\n")},
    "no-length": lambda: {"stream": httpx.ByteStream(b"GET / HTTP/1.1\r\n\r\n")},
}


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
async def test_invalid_request_is_refused(make: Callable[[], dict[str, Any]]) -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        options = {"method": "POST", "url": server.url, **make()}
        request = httpx.Request(**options)
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await face.http.send(request)
        assert caught.value.request is request
        assert (await face.http.get("/path")).status_code == 200
        assert [one for one in server.requests if not one.startswith(("POST / ", "GET /path "))] == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "//127.0.0.1/", "http:///path", "nothing"])
async def test_url_of_no_http_server_is_refused(url: str) -> None:
    async with scripted(echo) as server, face_of(server.url) as face:
        with pytest.raises(httpx.UnsupportedProtocol) as caught:
            await face.http.send(httpx.Request("GET", url))
        assert caught.value.request.method == "GET"
        assert server.connections == 0


# Responses


async def test_response_has_version_reason_and_headers() -> None:
    replies = (
        reply(),  # the connection is used by the store first
        b"HTTP/1.1 299 Quite Fine\r\nX-Name: a\r\nx-name: b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 102 Wait\r\nx: y\r\n\r\nHTTP/1.1 404 No Such\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 \r\n\r\n",
        b"HTTP/1.0 200 Old\r\n\r\nuntil the end",
    )

    async def script(peer: Peer) -> None:
        for raw in replies:
            await peer.request()
            await peer.send(raw)

    async with scripted(script) as server, face_of(server.url) as face:
        await get(face.client)
        first = await face.http.get("/")
        assert (first.status_code, first.reason_phrase, first.http_version) == (299, "Quite Fine", "HTTP/1.1")
        assert first.headers.get_list("X-NAME") == ["a", "b"]
        second = await face.http.get("/")
        assert (second.status_code, second.reason_phrase, "x" in second.headers) == (404, "No Such", False)
        assert (await face.http.get("/")).extensions["reason_phrase"] == b""
        last = await face.http.get("/")
        assert (last.reason_phrase, last.http_version, last.text) == ("Old", "HTTP/1.0", "until the end")
        assert server.connections == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_response_is_decoded(encoding: str) -> None:
    content = b"many words " * 10000
    packed = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)

    async with (
        answering(ending(reply(packed, b"content-encoding: " + encoding.encode()))) as server,
        face_of(server.url) as face,
    ):
        response = await face.http.get("/")
        assert response.content == content
        assert encoding in server.requests[0]


async def test_body_is_received_while_it_is_sent() -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in (b"first", b"second", b"third"):
            await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
            await read.wait()
            read.clear()
        await peer.send(b"0\r\nTrailer: x\r\n\r\n")
        await peer.request()
        await peer.send(reply())

    async with scripted(script) as server, face_of(server.url) as face:
        parts = []
        async with face.http.stream("GET", "/") as response:
            async for part in response.aiter_raw():
                parts.append(part)
                read.set()
        assert parts == [b"first", b"second", b"third"]
        assert "trailer" not in response.headers
        await face.http.get("/")
        assert server.connections == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_slow_reader_is_sent_no_more_than_it_takes(chunked: bool) -> None:
    part = bytes(range(256)) * 256
    count = 1000
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        while True:
            await peer.request()
            framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (len(part) * count)
            await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
            for _ in range(count):
                await peer.send(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                sent += len(part)
            await peer.send(b"0\r\n\r\n" if chunked else b"")

    async with scripted(script) as server, face_of(server.url) as face:
        async with face.http.stream("GET", "/") as response:
            (connection,) = face.pool._open
            await until(lambda: not connection._reading)
            await asyncio.sleep(0.05)
            assert READ_AHEAD < sum(map(len, connection.parser.parts)) <= READ_AHEAD + SOCKET_READ
            assert sent < 32 << 20  # what the buffers of the two sockets have room for
            received = 0
            async for chunk in response.aiter_raw():
                assert chunk == (part * (len(chunk) // len(part) + 2))[received % 256 :][: len(chunk)]
                received += len(chunk)
        assert received == len(part) * count
        await face.http.get("/")
        assert server.connections == 1


async def test_redirect_is_followed_only_if_httpx_is_told_to() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if b" /old" in request:
                await peer.send(reply(b"", b"location: /new", status=b"303 See Other"))
            else:
                await peer.send(reply(request.split(b"\r\n")[0]))

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        assert (await face.http.post("/old", content=b"body")).status_code == 303
        followed = await face.http.post("/old", content=b"body", follow_redirects=True)
        assert followed.text == "GET /new HTTP/1.1"
        assert [one.status_code for one in followed.history] == [303]
        assert server.connections == 1


async def test_cookies_auth_and_hooks_of_httpx_work() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = (await peer.request()).lower()
            if b"authorization: digest" in request:
                await peer.send(reply(b"welcome", b"set-cookie: session=abc"))
            else:
                challenge = b'www-authenticate: Digest realm="a", nonce="b", qop="auth"'
                await peer.send(reply(b"who?", challenge, status=b"401 Unauthorized"))

    seen: list[str] = []

    async def request_hook(request: httpx.Request) -> None:
        seen.append(request.method)

    async def response_hook(response: httpx.Response) -> None:
        seen.append((await response.aread()).decode())

    async with scripted(script) as server, face_of(server.url, max_in_flight=1) as face:
        face.http.event_hooks = {"request": [request_hook], "response": [response_hook]}
        response = await face.http.get("/", auth=httpx.DigestAuth("name", "password"))
        assert response.text == "welcome"
        assert seen == ["GET", "who?", "GET", "welcome"]
        await face.http.get("/")
        assert "cookie: session=abc" in server.requests[-1].lower()
        assert server.connections == 1


async def test_failing_hook_returns_slot_and_connection() -> None:
    async def hook(response: httpx.Response) -> None:
        raise LookupError

    async with scripted(echo) as server, face_of(server.url, max_in_flight=1) as face:
        face.http.event_hooks = {"response": [hook]}
        with pytest.raises(LookupError):
            await face.http.get("/")
        face.http.event_hooks = {}
        assert (await face.http.get("/")).status_code == 200


async def test_streams_reach_an_application_of_real_size() -> None:
    """Many exchanges at the same time, each with a body of its own."""
    async with scripted(echo) as server, face_of(server.url, max_in_flight=4) as face:

        async def exchange(number: int) -> None:
            parts = [b"%d-%d" % (number, part) for part in range(number % 7 + 1)]
            response = await face.http.post("/", content=generated(*parts))
            assert response.content == b"".join(parts)

        await asyncio.gather(*[exchange(number) for number in range(100)])
        assert server.connections == 4


# The server answers before it has received the whole request


@pytest.mark.parametrize("late_body", [False, True])
async def test_upload_stops_when_the_server_refuses_it(late_body: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number > 1:
            await peer.send(reply(b"next"))
            return
        await anext(body_parts(peer))
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 7\r\n\r\ntoo")
        if late_body:
            await has_head.wait()
        await peer.send(b"-big")
        await peer.ended()

    has_head = asyncio.Event()

    async def hook(response: httpx.Response) -> None:
        has_head.set()

    async with scripted(script) as server, face_of(server.url) as face:
        face.http.event_hooks = {"response": [hook]}
        response = await face.http.post("/", content=endless())
        assert (response.status_code, response.text) == (413, "too-big")
        assert (await face.http.get("/")).text == "next"
        assert server.connections == 2


async def test_upload_that_makes_its_next_part_stops_when_the_server_refuses_it() -> None:
    """The connection is not used again, because the request on it is incomplete."""

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await until(lambda: any(connection.parser.status for connection in face.pool._open))
        yield b"second"

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await anext(body_parts(peer))
            await peer.send(reply(b"no", status=b"403 Forbidden"))
            assert await peer.ended() == b"\r\n"  # the end of the first part
        await peer.send(reply(b"next"))

    async with scripted(script) as server, face_of(server.url) as face:
        assert (await face.http.post("/", content=body())).text == "no"
        assert (await face.http.get("/")).text == "next"
        assert server.connections == 2


async def test_upload_that_waits_for_room_stops_when_the_server_refuses_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(reply(b"no", status=b"401 Unauthorized"))
        await asyncio.Event().wait()

    async with scripted(script) as server, face_of(server.url) as face:
        assert (await face.http.put("/", content=b"x" * (32 << 20), timeout=None)).text == "no"


@pytest.mark.parametrize("answers", [False, True])
async def test_upload_that_waits_for_room_stops_when_the_server_ends_the_connection(answers: bool) -> None:
    """The server still reads, or not: no other response can come."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        if answers:
            await peer.send(reply(b"done"))
        peer.shut_down(socket.SHUT_WR)
        await asyncio.Event().wait()

    async with scripted(script) as server, face_of(server.url) as face:
        upload = face.http.put("/", content=b"x" * (32 << 20), timeout=None)
        if answers:
            assert (await upload).text == "done"
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await upload


async def test_early_success_does_not_cut_the_upload_short() -> None:
    answered = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await answered.wait()
        for _ in range(100):
            await asyncio.sleep(0)
            yield b"x" * 10000

    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.request()
        parts = body_parts(peer)
        await anext(parts)
        await peer.send(reply(b"early", status=b"202 Accepted"))
        answered.set()
        received = sum([len(part) async for part in parts])
        await peer.request()
        await peer.send(reply(b"next"))

    async with scripted(script) as server, face_of(server.url) as face:
        limits = httpx.Timeout(None, read=0.001)  # the reply is there when it is waited for
        response = await face.http.post("/", content=body(), timeout=limits)
        assert (response.status_code, response.text) == (202, "early")
        assert (await face.http.get("/")).text == "next"
        assert received == 1000000
        assert server.connections == 1


async def test_error_of_a_generated_body_is_raised() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError

    async with scripted(echo) as server, face_of(server.url, max_in_flight=1) as face:
        with pytest.raises(LookupError):
            await face.http.post("/", content=body())
        assert (await face.http.get("/")).status_code == 200
        assert server.connections == 2
