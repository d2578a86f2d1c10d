"""Complete, incomplete, malformed and unusual replies, byte for byte, on both parsers."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from allsource_auth import Http
from tests.store.allsource.http.clients import client_of, get, pool_of, post, reply
from tests.store.allsource.raw_server import Peer, answering, ending, scripted
from tests.support.exploring import size

pytestmark = pytest.mark.usefixtures("parser")

PLAIN = reply()
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def broken(url: str) -> str:
    return f"the connection to {url} broke before the answer was complete"


def unusable(url: str, reason: str) -> str:
    return f"the answer of {url} cannot be used: {reason}"


NOT_HTTP = "it is not valid HTTP/1.1"

# Right answers: the reply, its status and body, and whether the connection is used again.
RIGHT: dict[str, tuple[bytes, int, bytes, bool]] = {
    "length": (PLAIN, 200, b"{}", True),
    "empty-body": (reply(b""), 200, b"", True),
    "no-reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}", 200, b"{}", True),
    "large-body": (reply(b"x" * 1_000_000), 200, b"x" * 1_000_000, True),
    "chunks": (CHUNKED + b"1\r\n{\r\n01\r\n}\r\n0\r\n\r\n", 200, b"{}", True),
    "chunks-with-extension": (CHUNKED + b'2;a="b"\r\n{}\r\n0;c\r\n\r\n', 200, b"{}", True),
    "chunks-with-trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", 200, b"{}", True),
    "chunks-of-one-byte": (CHUNKED + b"1\r\nx\r\n" * 15_000 + b"0\r\n\r\n", 200, b"x" * 15_000, True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304-with-a-length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b"", True),
    "interim-replies": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n" + PLAIN,
        200,
        b"{}",
        True,
    ),
    "offered-upgrade": (reply(b"{}", b"upgrade: h2c", b"connection: upgrade"), 200, b"{}", True),
    "connection-close": (reply(b"{}", b"connection: close"), 200, b"{}", False),
    "http-1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", 200, b"{}", False),
    "trailing-bytes": (PLAIN + b"x", 200, b"{}", False),
    "two-replies": (PLAIN + reply(b"[]"), 200, b"{}", False),
    "two-replies-in-chunks": (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + reply(b"[]"), 200, b"{}", False),
    "204-with-a-body": (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n{}", 204, b"", False),
    "redirect": (reply(b"", b"location: http://127.0.0.1:1/", status=b"302 Found"), 302, b"", True),
    "non-ascii-header": (reply(b"{}", b"x-name: Jos\xe9 \xff"), 200, b"{}", True),
    "strange-date": (reply(b"{}", b"date: Mon, 99 Jan 99999999999999 00:00:00 +9999"), 200, b"{}", True),
    "identity": (reply(b"{}", b"content-encoding: identity"), 200, b"{}", True),
}


@pytest.mark.parametrize("case", RIGHT)
async def test_valid_reply_is_received_whole(case: str) -> None:
    raw, status, body, kept = RIGHT[case]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(raw)

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(3):
            received = await get(client)
            assert (received.status, received.body) == (status, body)
            await asyncio.sleep(0.001)
        assert len(server.requests) == 3
        assert server.connections == (1 if kept else 3)


@pytest.mark.parametrize("case", [case for case, (raw, *_) in RIGHT.items() if len(raw) < 200])
async def test_valid_reply_may_arrive_in_single_bytes(case: str) -> None:
    raw, status, body, _ = RIGHT[case]

    async def script(peer: Peer) -> None:
        await peer.request()
        for position in range(len(raw)):
            await peer.send(raw[position : position + 1])
            await asyncio.sleep(0)

    async with scripted(script) as server, client_of(server.url) as client:
        received = await get(client)
        assert (received.status, received.body) == (status, body)


async def test_body_without_a_length_ends_with_the_connection() -> None:
    async with answering(ending(HEAD + b"\r\n{", b"}")) as server, client_of(server.url) as client:
        for _ in range(2):
            assert (await get(client)).body == b"{}"
        assert server.connections == 2


async def test_reply_to_head_has_no_body() -> None:
    """The connection is used again, although the reply names a length."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(HEAD + b"content-length: 2\r\n\r\n" + (b"" if request.startswith(b"HEAD") else b"{}"))

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(2):
            response = await client.engine.http.head("/path")
            assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "2")
            assert (await get(client)).body == b"{}"
        assert server.connections == 1


async def test_body_after_a_reply_to_head_reaches_no_caller() -> None:
    async with answering(ending(PLAIN)) as server, client_of(server.url) as client:
        response = await client.engine.http.head("/path")
        assert (response.status_code, response.content) == (200, b"")
        assert pool_of(client).idle == 0


async def test_header_values_are_latin_1() -> None:
    async with answering(ending(reply(b"{}", b"X-Name: Jos\xe9"))) as server, client_of(server.url) as client:
        assert (await get(client)).header("x-name") == "José"


REPLY_300 = reply(b'{"id":"%b"}' % (b"x" * 100), b"content-type: application/json", b"x-padding: %b" % (b"p" * 90))
REPLY_IN_CHUNKS = CHUNKED + b"80\r\n%b\r\n40\r\n%b\r\n0\r\n\r\n" % (b"x" * 128, b"y" * 64)


@pytest.mark.parametrize(
    ("raw", "by_reset", "step"),
    [
        pytest.param(REPLY_300, False, 1, id="closed"),
        pytest.param(REPLY_300, True, size(9, 1), id="reset"),
        pytest.param(REPLY_IN_CHUNKS, False, size(7, 1), id="chunks-closed"),
        pytest.param(REPLY_IN_CHUNKS, True, size(9, 1), id="chunks-reset"),
    ],
)
async def test_reply_cut_at_any_byte_is_an_error(raw: bytes, by_reset: bool, step: int) -> None:
    cut = 0

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw[:cut])
        if by_reset:
            await asyncio.sleep(0)
            await peer.reset()

    assert 250 < len(raw) < 350
    async with scripted(script) as server, client_of(server.url) as client:
        for cut in [*range(0, len(raw), step), len(raw) - 1]:  # noqa: B007 - the script uses it
            with pytest.raises(Http) as caught:
                await get(client)
            assert str(caught.value) == broken(server.url)
            assert caught.value.ambiguous
        cut, by_reset = len(raw), False
        assert (await get(client)).status == 200
        assert pool_of(client).open <= 1


MALFORMED: dict[str, bytes] = {
    "no-http": b"220 mail.example.org ESMTP\r\n\r\n",
    "other-protocol": b"ICY 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "letter-in-status": b"HTTP/1.1 2x0 OK\r\ncontent-length: 2\r\n\r\n{}",
    "status-1000": b"HTTP/1.1 1000 OK\r\ncontent-length: 2\r\n\r\n{}",
    "status-099": b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\n{}" + PLAIN,
    "status-000": b"HTTP/1.1 000 OK\r\ncontent-length: 2\r\n\r\n{}" + PLAIN,
    "switched-protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
    "different-lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "length-and-chunks": HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks-and-length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "signed-length": HEAD + b"content-length: +2\r\n\r\n{}",
    "negative-length": HEAD + b"content-length: -2\r\n\r\n{}",
    "hexadecimal-length": HEAD + b"content-length: 0x2\r\n\r\n{}",
    "empty-length": HEAD + b"content-length: \r\n\r\n{}",
    "huge-length": HEAD + b"content-length: 99999999999999999999999999\r\n\r\n{}",
    "chunk-size-of-letters": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "negative-chunk-size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk-of-another-size": CHUNKED + b"2\r\n{}xx0\r\n\r\n",
    "nul-in-header": HEAD + b"x-a: \0\r\ncontent-length: 2\r\n\r\n{}",
    "cr-in-header": HEAD + b"x-a: a\rb\r\ncontent-length: 2\r\n\r\n{}",
    "header-without-colon": HEAD + b"x-a\r\ncontent-length: 2\r\n\r\n{}",
    "space-before-colon": HEAD + b"content-length : 2\r\n\r\n{}",
    "header-without-name": HEAD + b": 1\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_reply_is_an_error_and_ends_the_connection(raw: bytes) -> None:
    replies = iter([raw])

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(next(replies, PLAIN))
        await peer.ended()

    async with scripted(script) as server, client_of(server.url) as client:
        with pytest.raises(Http) as caught:
            await post(client)
        assert str(caught.value) == unusable(server.url, NOT_HTTP)
        assert caught.value.ambiguous
        assert caught.value.__context__ is None
        assert (await post(client)).body == b"{}"
        assert server.connections == 2


async def test_transfer_encoding_that_was_not_offered_is_an_error() -> None:
    raw = HEAD + b"transfer-encoding: gzip\r\n\r\n{}"
    async with answering(ending(raw)) as server, client_of(server.url) as client:
        with pytest.raises(Http) as caught:
            await get(client)
        assert str(caught.value) in (broken(server.url), unusable(server.url, NOT_HTTP))


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip"])
async def test_content_encoding_that_was_not_offered_is_an_error(encoding: bytes) -> None:
    raw = reply(b"\x1f\x8b...", b"Content-Encoding: " + encoding)
    async with answering(ending(raw)) as server, client_of(server.url) as client:
        with pytest.raises(Http) as caught:
            await get(client)
        assert str(caught.value) == unusable(server.url, "its body is compressed, which was not requested")
        assert "accept-encoding" not in server.requests[0].lower()


# Unusual servers


async def test_server_may_answer_before_it_has_read_the_request() -> None:
    """The rest of the request is not sent before the next one: that one uses a new connection."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(reply(b"early"))
        await peer.ended()

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(2):
            assert (await post(client, b"x" * 20_000_000)).body == b"early"
        assert server.connections == 2


async def test_refusal_of_a_large_request_is_received() -> None:
    """413, and the connection is closed while the request is being sent."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(reply(b"too large", b"connection: close", status=b"413 Content Too Large"))

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(5):
            received = await post(client, b"x" * 2_000_000)
            assert (received.status, received.body) == (413, b"too large")


async def test_reset_in_the_middle_of_a_reply_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"x" * 1000)[:500])
        await asyncio.sleep(0.005)
        await peer.reset()

    async with scripted(script) as server, client_of(server.url) as client:
        for call in (get, post):
            with pytest.raises(Http) as caught:
                await call(client)
            assert str(caught.value) == broken(server.url)
            assert caught.value.ambiguous


async def test_reset_before_the_first_request_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.reset()

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(20):
            with pytest.raises(Http) as caught:
                await get(client)
            assert str(caught.value) == broken(server.url)


async def test_no_redirect_is_followed() -> None:
    async with answering(ending()) as elsewhere:
        raw = reply(b"", b"location: %b/" % elsewhere.url.encode(), status=b"307 Temporary Redirect")
        async with answering(ending(raw)) as server, client_of(server.url) as client:
            for call in (get, post):
                assert (await call(client)).status == 307
            assert (await client.engine.http.get("/path")).status_code == 307
        assert elsewhere.connections == 0


# Debug mode


async def test_debug_mode_reports_nothing(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60

    async def script(peer: Peer) -> None:
        for raw in (PLAIN, PLAIN, PLAIN[:20]):
            await peer.request()
            await peer.send(raw)

    async with scripted(script) as server, client_of(server.url) as client:
        for _ in range(3):
            assert (await get(client)).body == b"{}"
            assert (await post(client)).body == b"{}"
            with pytest.raises(Http):
                await post(client)
            cancelled = asyncio.ensure_future(get(client))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
        for _ in range(2):
            async with client.engine.http.stream("GET", "/path") as response:
                assert response.status_code == 200
        with pytest.raises(httpx.TransportError):
            await client.engine.http.post("/path", content=b"1")
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []
