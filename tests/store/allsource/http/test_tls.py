"""TLS: trusted authorities, client certificates, and error messages."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
import trustme

from allsource_auth import AllsourceStore, Http, InvalidInput, Tls
from allsource_auth.store.allsource.http import pool
from tests.store.allsource.http.clients import client_of, get, pool_of, post, reply
from tests.store.allsource.local import KEY
from tests.store.allsource.raw_server import Peer, answering, ending, right, scripted
from tests.support.canaries import token
from tests.support.events import new_event
from tests.support.exploring import size

pytestmark = pytest.mark.usefixtures("watch", "pauses")

STREAM = f"auth-session:{token('a')}"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


@pytest.fixture(params=[False, True], ids=["added", "only"])
def trusting(request: pytest.FixtureRequest, ca_file: Path) -> Tls:
    """The given authority in addition to the usual ones, and alone."""
    return Tls(ca_file=ca_file, ca_only=request.param)


@pytest.fixture
def trusted(ca_file: Path) -> Tls:
    """The given authority alone."""
    return Tls(ca_file=ca_file, ca_only=True)


def shown_by(ca: trustme.CA, *names: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("127.0.0.1",)), **options).configure_cert(context)
    return context


UNTRUSTED = "its TLS certificate is of an unknown authority; Tls(ca_file=) adds one"
UNTRUSTED_BY_HTTPX = "its TLS certificate is not trusted or does not match"


async def test_given_authority_is_trusted(ca: trustme.CA, trusting: Tls) -> None:
    async with answering(right, context=shown_by(ca)) as server:
        store = AllsourceStore(server.url, tls=trusting)
        assert (await store.latest(STREAM)).event is None
        await store.close()


def test_tls_connections_of_a_closed_loop_are_discarded_silently(ca: trustme.CA, ca_file: Path) -> None:
    loop, stop = asyncio.new_event_loop(), asyncio.Event()  # of the server, which runs in another thread
    urls: list[str] = []
    started = threading.Event()

    async def serve() -> None:
        async with answering(right, context=shown_by(ca)) as server:
            urls.append(server.url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60)
    store = AllsourceStore(urls[0], tls=Tls(ca_file=ca_file))
    for _ in range(3):
        assert asyncio.run(store.latest(STREAM)).event is None
    asyncio.run(store.close())
    gc.collect()  # a transport that was not closed would warn, which is an error in tests
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


async def test_authorities_that_the_environment_names_are_trusted(
    ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also in addition to a given authority, but not with ``ca_only``."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with answering(right, context=shown_by(ca)) as server:
        before = AllsourceStore(server.url)
        await refused(before, server.url, UNTRUSTED)
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        for tls in (None, Tls(ca_file=tmp_path / "other.pem")):
            store = AllsourceStore(server.url, tls=tls)
            assert (await store.latest(STREAM)).event is None
            await store.close()
        server.requests.clear()
        only = AllsourceStore(server.url, tls=Tls(ca_file=tmp_path / "other.pem", ca_only=True))
        await refused(only, server.url, UNTRUSTED)
        assert server.requests == []


async def test_http_verifies_certificates_as_well(
    ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(right, context=shown_by(ca)) as server:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
            store = AllsourceStore(server.url)
            if trusted:
                assert (await store.http.get("/health")).status_code == 200
            else:
                with pytest.raises(httpx.TransportError):
                    await store.http.get("/health")
                assert server.requests == []
            await store.close()


async def test_untrusted_read_url_receives_no_request(ca: trustme.CA, trusting: Tls) -> None:
    async with (
        answering(right, context=shown_by(ca)) as core,
        answering(right, context=shown_by(trustme.CA())) as stranger,
        answering(right, context=shown_by(ca)) as known,
    ):
        store = AllsourceStore(core.url, [stranger.url, known.url], KEY, tls=trusting)
        for _ in range(6):
            assert (await store.latest(STREAM)).event is None
        assert (len(core.requests), len(stranger.requests), len(known.requests)) == (0, 0, 6)
        await store.close()


async def refused(store: AllsourceStore, url: str, reason: str) -> None:
    for call in (store.latest(STREAM), store.append([new_event(STREAM)])):
        with pytest.raises(Http) as caught:
            await call
        assert str(caught.value) == f"cannot connect to {url}: {reason}"
        assert (caught.value.ambiguous, caught.value.timeout) == (False, None)
    await store.close()


async def test_certificate_of_an_unknown_authority_is_not_trusted(options: dict[str, Any]) -> None:
    async with answering(right, context=shown_by(trustme.CA())) as server:
        reason = UNTRUSTED_BY_HTTPX if "http_client" in options else UNTRUSTED
        await refused(AllsourceStore(server.url, api_key=KEY, **options), server.url, reason)
        assert server.requests == []


YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("example.org", {}, "its TLS certificate is for another name"),
        ("127.0.0.1", {"not_after": YESTERDAY}, "its TLS certificate has expired"),
    ],
    ids=["other-name", "expired"],
)
async def test_certificate_that_is_expired_or_of_another_host_is_not_trusted(
    ca: trustme.CA, trusting: Tls, name: str, more: dict[str, Any], reason: str
) -> None:
    async with answering(right, context=shown_by(ca, name, **more)) as server:
        await refused(AllsourceStore(server.url, tls=trusting), server.url, reason)
        assert server.requests == []


async def test_ca_only_trusts_no_other_authority(tmp_path: Path, ca: trustme.CA) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with answering(right, context=shown_by(ca)) as server:
        only = Tls(ca_file=tmp_path / "other.pem", ca_only=True)
        await refused(AllsourceStore(server.url, tls=only), server.url, UNTRUSTED)


async def test_error_says_that_tls_failed_with_a_plain_http_server(options: dict[str, Any]) -> None:
    """A plain HTTP server with an https URL."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await refused(AllsourceStore(url, **options), url, "TLS could not be negotiated")
    server.close()
    await server.wait_closed()


@pytest.fixture
def client_files(ca: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    issued = ca.issue_cert("client@example.org")
    files = {"client_cert": tmp_path / "client.pem", "client_key": tmp_path / "client.key"}
    files["client_cert"].write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files["client_key"])
    return files


async def test_client_certificate_works_with_the_usual_authorities(
    ca: trustme.CA,
    ca_file: Path,
    client_files: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = shown_by(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    async with answering(right, context=context) as server:
        store = AllsourceStore(
            server.url, tls=Tls(client_cert=client_files["client_cert"], client_key=client_files["client_key"])
        )
        assert (await store.latest(STREAM)).event is None
        await store.close()


async def test_client_certificate_is_sent(ca: trustme.CA, trusting: Tls, client_files: dict[str, Any]) -> None:
    context = shown_by(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    async with answering(right, context=context) as server:
        known = AllsourceStore(server.url, tls=Tls(ca_file=trusting.ca_file, ca_only=trusting.ca_only, **client_files))
        assert (await known.latest(STREAM)).event is None
        await known.close()
        server.requests.clear()
        unknown = AllsourceStore(server.url, tls=trusting)
        with pytest.raises(Http):
            await unknown.latest(STREAM)
        await unknown.close()
        assert server.requests == []


BOTH_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
VERSIONS = pytest.mark.parametrize("version", BOTH_VERSIONS, ids=["1.2", "1.3"])


def requiring(ca: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Of a server that requires a client certificate of ``ca``."""
    context = shown_by(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    return context


@contextmanager
def refusing_clients(context: ssl.SSLContext) -> Iterator[str]:
    """A server in a thread that says why it refuses a handshake, as web servers do. The transports of asyncio do not."""

    def serve() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as tls:
                with contextlib.suppress(ssl.SSLError):
                    tls.do_handshake()
                    accepted.append(sock)
                with contextlib.suppress(OSError):
                    tls.shutdown(socket.SHUT_WR)
                    while tls.recv(1000):
                        pass

    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert accepted == []


@VERSIONS
async def test_error_says_that_a_client_certificate_is_missing(
    ca: trustme.CA, trusted: Tls, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the server says so after the first request was sent, which it does not read."""
    with refusing_clients(requiring(ca, version)) as url:
        async with client_of(url, tls=trusted) as client:
            for call in (get, post):
                for _ in range(5):
                    with pytest.raises(Http) as caught:
                        await call(client)
                    assert "client certificate" in str(caught.value)
                    assert str(caught.value).startswith(f"cannot connect to {url}: ")
                    assert not caught.value.ambiguous
            assert pool_of(client).open == 0


@VERSIONS
async def test_error_says_that_the_client_certificate_is_refused(
    ca: trustme.CA, ca_file: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    issued = trustme.CA().issue_cert("client@example.org")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    presenting = Tls(ca_file=ca_file, client_cert=certificate, client_key=key)
    with refusing_clients(requiring(ca, version)) as url:
        async with client_of(url, tls=presenting) as client:
            for call in (get, post):
                with pytest.raises(Http) as caught:
                    await call(client)
                assert (
                    str(caught.value) == f"cannot connect to {url}: the server does not accept the client certificate"
                )
                assert not caught.value.ambiguous


@VERSIONS
async def test_requests_over_tls_share_a_connection(ca: trustme.CA, trusted: Tls, version: ssl.TLSVersion) -> None:
    context = shown_by(ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.minimum_version = context.maximum_version = version
    protocols: list[str | None] = []

    async def script(peer: Peer) -> None:
        protocols.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        while True:
            await peer.request()
            await peer.send(reply(b"x" * 300_000))

    async with scripted(script, context=context) as server, client_of(server.url, tls=trusted) as client:
        for call in (get, post) * 5:
            assert (await call(client)).body == b"x" * 300_000
        assert protocols == ["http/1.1"]


async def test_close_without_close_notify_fails_no_later_request(ca: trustme.CA, trusted: Tls) -> None:
    """Whether the event loop has noticed it or not."""

    async def script(peer: Peer) -> None:
        peers.append(peer)
        while True:
            await peer.request()
            await peer.send(reply())

    peers: list[Peer] = []
    async with scripted(script, context=shown_by(ca)) as server, client_of(server.url, tls=trusted) as client:
        await get(client)
        for number in range(12):
            peers[-1].shut_down()
            if number % 3 == 0:
                await asyncio.sleep(0.005)
            assert (await (get if number % 2 else post)(client)).body == b"{}"
        assert server.connections == 13
        assert server.methods.count("POST") == 6


@pytest.mark.parametrize("raw", [reply(b"x" * 100), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nx"])
async def test_reply_cut_without_close_notify_is_an_error(ca: trustme.CA, trusted: Tls, raw: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw[:-3])
        peer.shut_down()

    async with scripted(script, context=shown_by(ca)) as server, client_of(server.url, tls=trusted) as client:
        with pytest.raises(Http) as caught:
            await get(client)
        assert str(caught.value) == f"the connection to {server.url} broke before the answer was complete"


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x03\x00\x05"], ids=["nothing", "half-of-a-record"])
async def test_connection_closed_in_the_handshake_is_an_error(trusted: Tls, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.send(sent)

    async with scripted(script) as server:
        url = server.url.replace("http:", "https:")
        async with client_of(url, tls=trusted) as client:
            for call in (get, post):
                with pytest.raises(Http) as caught:
                    await call(client)
                assert str(caught.value).startswith(f"cannot connect to {url}: ")
                assert not caught.value.ambiguous


async def test_many_handshakes_at_once(ca: trustme.CA, trusted: Tls) -> None:
    number = size(50, 500)
    together = asyncio.Barrier(number)

    async def script(peer: Peer) -> None:
        path = (await peer.request()).split(b" ")[1]
        await together.wait()
        await peer.send(reply(path))
        await peer.ended()

    async with scripted(script, context=shown_by(ca)) as server, client_of(server.url, tls=trusted) as client:
        received = await asyncio.gather(*[get(client, f"/{each}") for each in range(number)])
        assert [each.body for each in received] == [b"/%d" % each for each in range(number)]
        assert pool_of(client).open == server.connections == number


async def test_close_waits_only_briefly_for_the_shutdown_of_tls(
    ca: trustme.CA, trusted: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that does not answer it."""
    monkeypatch.setattr(pool, "CLOSING_SECONDS", 0.05)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        try:
            await asyncio.Event().wait()
        finally:
            peer.writer.transport.abort()

    async with scripted(script, context=shown_by(ca)) as server:
        async with client_of(server.url, tls=trusted) as client:
            await get(client)
            connections = pool_of(client)
        assert connections.open == 0


# Where the trusted authorities come from


async def test_authorities_of_the_system_are_trusted(
    ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OpenSSL takes those that the environment names for those of the system."""
    pytest.importorskip("truststore")
    async with answering(right, context=shown_by(ca)) as server:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
            async with client_of(server.url, tls=Tls(store="system")) as client:
                if trusted:
                    assert (await get(client)).status == 200
                else:
                    with pytest.raises(Http) as caught:
                        await get(client)
                    assert str(caught.value) == f"cannot connect to {server.url}: {UNTRUSTED}"


async def test_given_authority_is_trusted_beside_those_of_the_system(ca: trustme.CA, ca_file: Path) -> None:
    pytest.importorskip("truststore")
    async with (
        answering(right, context=shown_by(ca)) as server,
        client_of(server.url, tls=Tls(store="system", ca_file=ca_file)) as client,
    ):
        assert (await get(client)).status == 200


async def test_plain_http_needs_no_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "missing.pem"))
    async with answering(right) as server, client_of(server.url) as client:
        assert (await get(client)).status == 200
        assert (await client.engine.http.get("/path")).status_code == 200
    async with client_of("https://127.0.0.1:1") as client:
        for call in (get, post):
            with pytest.raises(InvalidInput) as caught:
                await call(client)
            assert caught.value.field == "tls"
            assert caught.value.reason == "the trusted authorities of certifi cannot be loaded"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    async with client_of("https://127.0.0.1:1") as client:
        with pytest.raises(InvalidInput, match="SSL_CERT_FILE"):
            await get(client)


async def test_tls_settings_are_loaded_once_in_another_thread(
    ca: trustme.CA, trusted: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    original: Callable[[Tls], ssl.SSLContext] = Tls.context

    def context(tls: Tls) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        return original(tls)

    monkeypatch.setattr(Tls, "context", context)
    async with (
        answering(ending(reply()), context=shown_by(ca)) as server,
        client_of(server.url, tls=trusted) as client,
    ):
        calls: list[Awaitable[object]] = [get(client) for _ in range(5)]
        await asyncio.gather(*calls)
        await client.engine.http.get("/path")
        assert server.connections == 6
    assert len(threads) == 1
    assert threads != [threading.get_ident()]
    async with answering(right) as server, client_of(server.url) as client:
        await get(client)
    assert len(threads) == 1


def test_renegotiation_is_refused(ca_file: Path) -> None:
    for tls in (Tls(), Tls(store="system"), Tls(ca_file=ca_file, ca_only=True)):
        context = tls.context()
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
