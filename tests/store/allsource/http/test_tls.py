"""TLS: trusted authorities, client certificates, and error messages."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from allsource_auth import AllsourceStore, Http, Tls
from tests.store.allsource.local import KEY
from tests.store.allsource.raw_server import answering, right
from tests.support.canaries import token
from tests.support.events import new_event

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
