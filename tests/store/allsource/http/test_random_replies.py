"""Random replies: each is a right answer or an error of the library, in bounded time, and harms no later request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from allsource_auth import AllsourceAuthError, AllsourceStore, Api, Http, Json, Latest
from allsource_auth.store.allsource import client as allsource_client
from allsource_auth.store.allsource.http import Reply
from allsource_auth.store.allsource.http.parsing import H11Parser, HttptoolsParser, Malformed, ReplyParser
from tests.store.allsource.http.clients import client_of, get, pool_of, post, reply
from tests.store.allsource.local import Pauses
from tests.store.allsource.raw_server import PAGE, RIGHT, Peer, Server, scripted
from tests.support.exploring import size

EXAMPLES = settings(
    max_examples=size(100, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LINES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 429",
    b"content-length: 49",
    b"content-length: 0",
    b"content-length: 5",
    b"content-length: 18446744073709551617",
    b"transfer-encoding: chunked",
    b"transfer-encoding: gzip, chunked",
    b"content-encoding: gzip",
    b"connection: close",
    b"connection: upgrade",
    b"upgrade: h2c",
    b"date: Thu, 01 Jan 99999 00:00:00 GMT",
    b"retry-after: 1e400",
    b"x-name: \xff\xfe",
    b"x-name: \0",
    b" folded",
    b"31",
    b"0",
    b"fffffffffffffffff",
    b"",
    PAGE,
]

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n31\r\n%b\r\n0\r\n\r\n" % PAGE
VALID = [RIGHT, CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n" + PAGE, b"HTTP/1.1 100 Continue\r\n\r\n" + RIGHT, reply(b"")]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A valid reply with a few bytes replaced, removed, inserted or repeated."""
    raw = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(start + draw(st.integers(0, 8)), len(raw))
        new = draw(st.one_of(st.binary(max_size=8), st.just(bytes(raw[start:end]) * 2), st.sampled_from(LINES)))
        raw[start:end] = new
    return bytes(raw)


LINES_IN_ANY_ORDER = st.lists(st.sampled_from(LINES), max_size=10).map(b"\r\n".join)
REPLIES = st.one_of(changed(), LINES_IN_ANY_ORDER, st.binary(max_size=200))

CUTS = st.lists(st.integers(0, 200), max_size=4).map(sorted)


def parts_of(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    start = 0
    for cut in [*cuts, len(raw)]:
        yield raw[start:cut]
        start = min(cut, len(raw))


class Replies:
    """What a scripted server sends: ``raw`` in parts to each request, then it closes the connection."""

    raw: bytes = b""
    cuts: list[int]

    async def script(self, peer: Peer) -> None:
        await peer.request()
        for part in parts_of(self.raw, self.cuts):
            await peer.send(part)
            await asyncio.sleep(0)


@contextmanager
def served(replies: Replies) -> Iterator[tuple[asyncio.Runner, Server]]:
    """A server that runs as long as the examples of a test, and the runner of its event loop."""
    running = scripted(replies.script)
    with asyncio.Runner() as runner:
        yield runner, runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


def test_random_reply_is_an_answer_or_an_error(parser: type[ReplyParser]) -> None:
    replies = Replies()

    async def exchange(url: str, raw: bytes, cuts: list[int]) -> None:
        async with client_of(url) as client:
            for call in (get, post):
                replies.raw, replies.cuts = raw, cuts
                found: Reply | Http
                try:
                    found = await call(client)
                except Http as error:
                    found = error
                if isinstance(found, Http):
                    assert found.ambiguous
                    assert found.__context__ is None
                else:
                    assert 200 <= found.status <= 999
                    assert len(found.body) <= len(raw)
                while pool_of(client).open:  # the server closes the connection
                    await asyncio.sleep(0)
                replies.raw, replies.cuts = reply(b"right", b"connection: close"), []
                assert (await call(client)).body == b"right"

    with ExitStack() as stack:
        runner, server = stack.enter_context(served(replies))

        @EXAMPLES
        @given(REPLIES, CUTS)
        @example(RIGHT, [])
        def check(raw: bytes, cuts: list[int]) -> None:
            runner.run(exchange(server.url, raw, cuts))

        check()


def test_store_raises_errors_of_the_library_alone(parser: type[ReplyParser], monkeypatch: pytest.MonkeyPatch) -> None:
    replies = Replies()
    pauses = Pauses()
    monkeypatch.setattr(allsource_client, "asyncio", pauses)
    monkeypatch.setattr(allsource_client, "monotonic", pauses.monotonic)

    async def read(url: str, raw: bytes, cuts: list[int]) -> Latest | AllsourceAuthError:
        replies.raw, replies.cuts = raw, cuts
        store = AllsourceStore(url)
        try:
            return await store.latest("auth-user:ada")
        except AllsourceAuthError as error:
            return error
        finally:
            await store.close()

    with ExitStack() as stack:
        runner, server = stack.enter_context(served(replies))

        @EXAMPLES
        @given(REPLIES, CUTS)
        def check(raw: bytes, cuts: list[int]) -> None:
            found = runner.run(read(server.url, raw, cuts))
            if isinstance(found, Latest):
                assert (found.event, found.version) == (None, 0)
            else:
                assert isinstance(found, Http | Json | Api)

        check()


@EXAMPLES
@given(REPLIES, CUTS)
@example(b"HTTP/1.1 099 X\r\ncontent-length: 2\r\n\r\nxx" + RIGHT, [])
@example(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", [])
def test_parsers_agree_on_what_both_accept(raw: bytes, cuts: list[int]) -> None:
    found: list[tuple[int, bytes]] = []
    for parser in (HttptoolsParser(), H11Parser()):
        parser.begin(b"GET")
        try:
            for part in parts_of(raw, cuts):
                if part and not parser.complete:
                    parser.feed(part)
        except Malformed:
            continue
        if parser.complete or parser.end():
            found.append((parser.status, b"".join(parser.parts)))
    assert len(set(found)) <= 1


@given(REPLIES, st.lists(CUTS, min_size=2, max_size=2))
@EXAMPLES
def test_result_does_not_depend_on_the_segments(raw: bytes, segmentations: list[list[int]]) -> None:
    for parser_type in (HttptoolsParser, H11Parser):
        found: list[object] = []
        for cuts in segmentations:
            parser: ReplyParser = parser_type()
            parser.begin(b"GET")
            try:
                for part in parts_of(raw, cuts):
                    if part and not parser.complete:
                        parser.feed(part)
                complete = parser.complete or parser.end()
            except Malformed:
                found.append("malformed")
            else:
                found.append((parser.status, b"".join(parser.parts)) if complete else "incomplete")
        assert len(set(found)) == 1, parser_type
