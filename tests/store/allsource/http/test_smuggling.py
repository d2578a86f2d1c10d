"""Request smuggling: no text of a caller ends a line of a request or begins another request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import httpx
import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, AllsourceStore, InvalidInput
from tests.store.allsource.raw_server import Peer, Server, answering, right, scripted
from tests.support.events import new_event

INJECTION = "x-injected: 1"

HOSTILE = {
    "cr-lf": f"ada\r\n{INJECTION}",
    "request": f"ada HTTP/1.1\r\nhost: a\r\n\r\nGET /admin HTTP/1.1\r\n{INJECTION}\r\n\r\n",
    "lf": f"ada\n{INJECTION}",
    "cr": f"ada\r{INJECTION}",
    "nul": "ada\0",
    "space": "ada HTTP/1.0",
    "tab": "ada\tHTTP/1.0",
    "non-ascii": "ädä\u2028\u010d\u010a",  # whose lower bytes are CR and LF
    "parameters": "ada&tenant_id=other&limit=1#part",
    "path": "../../../admin?x=%0d%0aX-Injected:1",
    "delete": "ada\x7f\x85",
}
EACH = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)

NAMES = {"host", "accept", "user-agent", "x-api-key", "x-consistency", "content-type", "content-length"}


def assert_clean(server: Server) -> None:
    """Each request has the usual head: one line, then the usual headers, all in printable ASCII."""
    for raw in server.received:
        head, _, body = raw.partition(b"\r\n\r\n")
        assert re.fullmatch(rb"[\x20-\x7e]*", head.replace(b"\r\n", b"")), head
        request, *headers = head.split(b"\r\n")
        assert re.fullmatch(rb"(GET|POST) /api/v1/[a-z/-]+(\?[^ #]*)? HTTP/1\.1", request), request
        assert request.count(b"tenant_id=") == (1 if request.startswith(b"GET") else 0)
        fields = {name.decode(): value for name, _, value in (line.partition(b": ") for line in headers)}
        assert len(fields) == len(headers)
        assert set(fields) <= NAMES
        assert int(fields.get("content-length", 0)) == len(body)


async def outcome(call: Awaitable[object]) -> None:
    """The replies of the server suit none of these calls."""
    with contextlib.suppress(AllsourceAuthError):
        await call


@EACH
async def test_stream_id_is_escaped(text: str) -> None:
    async with answering(right) as server:
        store = AllsourceStore(server.url, api_key="key")
        await store.latest(text)
        await store.latest(text, require_leader=True)
        await outcome(store.read(text))
        await outcome(store.append([new_event(text)]))
        await outcome(store.append([new_event(text, type=text, guard=1), new_event(text)]))
        await outcome(anext(store.scan(text), None))
        await store.close()
        assert_clean(server)
        asked = [line.split(" ")[1] for line in server.requests if "entity_id=" in line]
        assert asked
        named = {re.search("entity_id=([^&]*)", path) for path in asked}
        assert text in {unquote(found[1]) for found in named if found}


@EACH
async def test_ids_and_emails_of_the_adapter_are_escaped(text: str) -> None:
    async with answering(right) as server:
        adapter = AllsourceAuthAdapter(server.url, api_key="key")
        for call in (
            lambda: adapter.users.get(text),
            lambda: adapter.users.get_by_email(text),
            lambda: adapter.users.get_by_email(f"{text}@example.org"),
            lambda: adapter.sessions.get(text),
            lambda: adapter.sessions.list_for_user(text),
        ):
            await outcome(call())
        await adapter.aclose()
        assert_clean(server)


@EACH
async def test_tenant_is_refused_or_escaped(text: str) -> None:
    async with answering(right) as server:
        try:
            store = AllsourceStore(server.url, tenant_id=text)
        except InvalidInput as error:
            store = None
            named = error.field
        if store is None:
            assert named == "tenant_id"
            assert not server.connections
            return
        await store.latest("stream")
        await outcome(store.append([new_event("stream", guard=0)]))
        await store.close()
        assert_clean(server)


@pytest.mark.parametrize(
    "text", [HOSTILE[name] for name in ("cr-lf", "request", "lf", "cr", "nul", "non-ascii", "tab")]
)
def test_api_key_that_does_not_fit_into_a_header_is_refused(text: str) -> None:
    for key in (text, f"{text}x"):
        with pytest.raises(InvalidInput) as caught:
            AllsourceStore("http://127.0.0.1:3900", api_key=key)
        assert caught.value.field == "api_key"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_url_with_such_text_is_refused_or_harmless(text: str) -> None:
    async with answering(right) as server:
        for base_url in (f"{server.url}/{text}", f"http://{text}", f"http://127.0.0.1:1{text}"):
            try:
                store = AllsourceStore(base_url)
            except InvalidInput as error:
                assert INJECTION not in str(error)  # noqa: PT017 - the other branch is as right
            else:
                await outcome(store.latest("stream"))
                await store.close()
        for raw in server.received:
            assert re.fullmatch(rb"GET /[\x21-\x7e]* HTTP/1\.1", raw.split(b"\r\n")[0])
            assert b"\nx-injected" not in raw.lower()


@pytest.mark.parametrize("byte", ["\r\n", "\n", "\r", "\0"], ids=["cr-lf", "lf", "cr", "nul"])
async def test_http_sends_no_line_ends_in_headers_or_targets(byte: str) -> None:
    text = f"a{byte}{INJECTION}"
    async with answering(right) as server:
        store = AllsourceStore(server.url)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.http.get("/path", headers={"x-name": text}),
            lambda: store.http.get("/path", headers={text: "value"}),
            lambda: store.http.request(text, "/path"),
            lambda: store.http.get("/path", params={"q": text}),
            lambda: store.http.get("/path", extensions={"target": f"/{text}".encode()}),
            lambda: store.http.post("/path", files={text: (text, b"content", text)}),
        ]
        for call in calls:
            with contextlib.suppress(httpx.LocalProtocolError, httpx.InvalidURL, ValueError):
                await call()
        await store.close()
        for request in server.requests:
            head = request.encode("latin-1").split(b"\r\n\r\n")[0]
            lines = head.split(b"\r\n")
            assert not re.search(rb"[\r\n\0]", b"".join(lines))
            assert not [line for line in lines if line.lower().startswith(b"x-injected")]
        assert set(server.methods) <= {"GET", "POST"}


async def test_body_is_no_request() -> None:
    """The server reads as many bytes as the request says, and finds nothing after them."""
    left: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.002)
        peer.shut_down()
        left.append(await peer.ended())

    async with scripted(script) as server:
        for text, kind in itertools.product(HOSTILE.values(), ("stream", "type")):
            store = AllsourceStore(server.url)
            event = new_event(text) if kind == "stream" else new_event("stream", {"text": text}, type=text)
            await outcome(store.append([event]))
            await store.close()
    assert len(left) == 2 * len(HOSTILE)
    assert set(left) == {b""}
