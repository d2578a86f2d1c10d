"""Options of the HTTP store: an invalid one is refused at construction, with its name and without secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
import trustme

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, InvalidInput, Timeouts, Tls
from tests.store.allsource.local import KEY, Local
from tests.support.canaries import CANARY, Watch, revealed

URL = "http://localhost:3900"


def refused(field: str, *args: Any, **options: Any) -> str:
    """The reason for refusing these options, which is the same for an adapter and a store."""
    reasons = set()
    for build in (AllsourceStore, AllsourceAuthAdapter):
        with pytest.raises(InvalidInput) as caught:
            build(*args, **options)
        assert caught.value.field == field
        assert not revealed(f"{caught.value!r} {caught.value}")
        assert caught.value.__cause__ is None
        reasons.add(caught.value.reason)
    (reason,) = reasons
    return reason


# URLs


@pytest.mark.parametrize("option", ["core_url", "query_url"])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"http://ada:{CANARY}@localhost:3900", "must not contain a user name or password"),
        (f"https://{CANARY}@localhost", "must not contain a user name or password"),
        (f"http://:{CANARY}@localhost", "must not contain a user name or password"),
        ("localhost:3900", "must begin with http:// or https://"),
        ("ftp://localhost", "must begin with http:// or https://"),
        ("HTTPX://localhost", "must begin with http:// or https://"),
        ("//localhost:3900", "must begin with http:// or https://"),
        ("", "must begin with http:// or https://"),
        ("http://", "is not a URL"),
        ("http:///path", "is not a URL"),
        ("http://:3900", "is not a URL"),
        ("http://localhost:0", "is not a URL"),
        ("http://localhost:65536", "is not a URL"),
        ("http://localhost:port", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://local host", "is not a URL"),
        ("http://localhost/a b", "is not a URL"),
        ("http://localhost\n", "is not a URL"),
        ("http://läden.example", "is not a URL"),
        (f"http://localhost?key={CANARY}", "a query or a fragment"),
        (f"http://localhost/#{CANARY}", "a query or a fragment"),
        (None, "must be text"),
        (b"http://localhost", "must be text"),
        (3900, "must be text"),
        (httpx.URL(URL), "must be text"),
        ("http://\ud800", "surrogate"),
    ],
)
def test_invalid_url_is_refused(option: str, url: object, reason: str) -> None:
    if option == "query_url" and url is None:
        return
    assert reason in refused(option, **{"core_url": URL, option: url})


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://localhost:3900", "http://localhost:3900"),
        ("http://localhost:3900/", "http://localhost:3900"),
        ("https://core.example/some/path/", "https://core.example/some/path"),
        ("http://[::1]:3900", "http://[::1]:3900"),
        ("http://127.0.0.1", "http://127.0.0.1"),
    ],
)
def test_trailing_slash_of_a_url_is_removed(url: str, kept: str) -> None:
    assert repr(AllsourceStore(url)) == (
        f"AllsourceStore(Connection(core_url={kept!r}, query_url={kept!r}), tenant='default', engine='asyncio')"
    )


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ([], "query_url", "is an empty list"),
        ([URL, f"http://ada:{CANARY}@localhost"], "query_url[1]", "must not contain a user name or password"),
        (["localhost:3902"], "query_url[0]", "must begin with http:// or https://"),
        ([URL, ""], "query_url[1]", "must begin with http:// or https://"),
        ([URL, None], "query_url[1]", "must be text"),
        ([URL, [URL]], "query_url[1]", "must be text"),
        (["http://a", "http://b", "http://a/"], "query_url[2]", "is the same URL as query_url[0]"),
    ],
)
def test_invalid_read_url_is_named_by_its_index(
    kind: Callable[[list[Any]], object], given: list[Any], field: str, reason: str
) -> None:
    assert reason in refused(field, URL, query_url=kind(given))


@pytest.mark.parametrize("given", [{"http://a"}, {"http://a": 1}, iter(["http://a"])])
def test_unordered_collection_of_read_urls_is_refused(given: object) -> None:
    assert "must be text" in refused("query_url", URL, query_url=given)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, f"'{URL}'"),
        (URL, f"'{URL}'"),
        ([f"{URL}/"], f"'{URL}'"),
        ("http://localhost:3902/", "'http://localhost:3902'"),
        (["http://localhost:3902"], "'http://localhost:3902'"),
        (("http://b", "http://a/x/"), "['http://b', 'http://a/x']"),
        ([URL, "http://a"], f"['{URL}', 'http://a']"),
    ],
)
def test_repr_shows_read_urls_in_order(given: Any, shown: str) -> None:
    store = AllsourceStore(f"{URL}/", given)
    assert f"Connection(core_url='{URL}', query_url={shown})" in repr(store)


# The credential and the tenant


@pytest.mark.parametrize(
    "key",
    ["", " ", f" {CANARY}", f"{CANARY} ", f"{CANARY}\n", f"{CANARY}\r\nX-Other: 1", f"{CANARY}ä", f"{CANARY}\x00"],
)
def test_api_key_that_is_not_a_valid_header_value_is_refused(key: str) -> None:
    assert "printable ASCII" in refused("api_key", URL, api_key=key)


@pytest.mark.parametrize("key", [7, CANARY.encode(), [CANARY]])
def test_api_key_that_is_not_a_string_is_refused(key: object) -> None:
    assert "must be text" in refused("api_key", URL, api_key=key)


@pytest.mark.parametrize("tenant", ["", " ", "a b", "a/b", "a.b", "a:b", "x" * 65, "..", None, 7])
def test_tenant_id_that_core_would_refuse_is_refused(tenant: object) -> None:
    refused("tenant_id", URL, tenant_id=tenant)


# Timeouts


@pytest.mark.parametrize(
    ("timeout", "field"),
    [
        (0, "timeout"),
        (-1.0, "timeout"),
        (float("nan"), "timeout"),
        (float("inf"), "timeout"),
        (True, "timeout"),
        ("5", "timeout"),
        ((1, 2), "timeout"),
        (httpx.Timeout(5), "timeout"),
        (Timeouts(connect=0), "timeout.connect"),
        (Timeouts(read=-1), "timeout.read"),
        (Timeouts(total=float("inf")), "timeout.total"),
        (Timeouts(read="5"), "timeout.read"),  # type: ignore[arg-type]
        (Timeouts(total=None), "timeout.total"),  # type: ignore[arg-type]
        (Timeouts(connect=True), "timeout.connect"),
    ],
)
def test_invalid_timeout_is_refused(timeout: object, field: str) -> None:
    refused(field, URL, timeout=timeout)


@pytest.mark.parametrize(
    ("timeout", "found"),
    [
        (None, Timeouts(connect=5, read=30, total=60)),
        (90, Timeouts(connect=5, read=30, total=90)),
        (10.0, Timeouts(connect=5, read=10, total=10)),
        (0.5, Timeouts(connect=0.5, read=0.5, total=0.5)),
        (Timeouts(read=1), Timeouts(connect=5, read=1, total=60)),
    ],
)
def test_timeout_as_number_is_the_total_timeout(timeout: Any, found: Timeouts) -> None:
    assert AllsourceStore(URL, timeout=timeout)._client.connection.timeouts == found


# TLS


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Paths of an authority, a client certificate and its key, another key, and a text file."""
    ca = trustme.CA()
    issued, other = ca.issue_cert("client@example.org"), ca.issue_cert("other@example.org")
    found = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "other", "text", "empty")}
    ca.cert_pem.write_to_path(found["ca"])
    issued.cert_chain_pems[0].write_to_path(found["cert"])
    issued.private_key_pem.write_to_path(found["key"])
    other.private_key_pem.write_to_path(found["other"])
    found["text"].write_text(f"no certificate {CANARY}")
    found["empty"].touch()
    return found


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ca_only": True}, "ca_only needs a ca_file"),
        ({"ca_file": "ca", "ca_only": True, "store": "system"}, "ca_only excludes store"),
        ({"client_cert": "cert"}, "must be given together"),
        ({"client_key": "key"}, "must be given together"),
        ({"ca_file": "missing"}, "the ca_file cannot be read: No such file or directory"),
        ({"client_cert": "missing", "client_key": "key"}, "the client_cert cannot be read"),
        ({"client_cert": "cert", "client_key": "missing"}, "the client_key cannot be read"),
        ({"ca_file": "text"}, "must be a PEM file"),
        ({"ca_file": "empty"}, "must be a PEM file"),
        ({"ca_file": "key"}, "must be a PEM file"),
        ({"ca_file": "text", "ca_only": True}, "must be a PEM file"),
        ({"client_cert": "key", "client_key": "cert"}, "must be PEM files"),
        ({"client_cert": "cert", "client_key": "other"}, "must be PEM files"),
        ({"client_cert": "cert", "client_key": "text"}, "must be PEM files"),
    ],
)
def test_unusable_tls_files_are_refused(
    files: dict[str, Path], tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    paths: dict[str, Any] = {
        name: value if name in ("ca_only", "store") else files.get(value, tmp_path / value)
        for name, value in given.items()
    }
    assert reason in refused("tls", "https://localhost", tls=Tls(**paths))


def test_encrypted_client_key_is_refused_without_password_prompt(files: dict[str, Path]) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files["key"].read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(CANARY.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    files["key"].write_bytes(pem)
    tls = Tls(client_cert=files["cert"], client_key=files["key"])
    refused("tls", "https://localhost", tls=tls)


def test_unknown_trust_store_is_refused() -> None:
    assert "must be one of certifi, system" in refused("tls.store", "https://localhost", tls=Tls(store="windows"))  # type: ignore[arg-type]


@pytest.mark.parametrize("tls", [True, False, "ca.pem", {}, httpx.create_ssl_context()])
def test_tls_of_another_type_is_refused(tls: object) -> None:
    assert "must be Tls" in refused("tls", "https://localhost", tls=tls)


def test_every_combination_of_tls_options_works(files: dict[str, Path]) -> None:
    for tls in (
        Tls(),
        Tls(ca_file=files["ca"]),
        Tls(ca_file=str(files["ca"]), ca_only=True),
        Tls(ca_file=certifi.where()),
        Tls(store="certifi"),
        Tls(ca_file=files["ca"], store="system"),
        Tls(client_cert=files["cert"], client_key=files["key"]),
    ):
        AllsourceStore("https://localhost", tls=tls)


# The caller's client


@pytest.mark.parametrize("client", [httpx.Client, httpx.AsyncClient, httpx, object(), "client", URL])
def test_client_of_another_type_is_refused(client: object) -> None:
    assert "must be an httpx.AsyncClient" in refused("http_client", URL, http_client=client)


async def test_client_and_tls_together_are_refused() -> None:
    async with httpx.AsyncClient() as client:
        assert "http_client" in refused("tls", URL, http_client=client, tls=Tls())


# Limits


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("max_in_flight", 0, 1),
        ("max_in_flight", -1, 1),
        ("max_in_flight", 1.0, 1),
        ("max_in_flight", True, 1),
        ("max_in_flight", None, 1),
        ("max_in_flight", "16", 1),
        ("max_queued", -1, 0),
        ("max_queued", None, 0),
        ("max_queued", False, 0),
    ],
)
def test_limit_that_is_too_low_is_refused(option: str, value: object, least: int) -> None:
    assert refused(option, URL, **{option: value}) == f"must be an integer of at least {least}"


@pytest.mark.parametrize("consistency", ["", "STRONG", "weak", None, True, 1, ["strong"]])
def test_unknown_read_consistency_is_refused(consistency: object) -> None:
    assert refused("read_consistency", URL, read_consistency=consistency) == "must be one of strong, eventual"


def test_clock_without_a_time_zone_is_refused() -> None:
    from datetime import datetime

    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter(URL, clock=datetime.now)
    assert caught.value.field == "clock"


# Plain HTTP


@pytest.mark.parametrize(
    "urls",
    [
        ["http://core.example:3900"],
        ["http://10.0.0.7"],
        ["http://core.example", "http://query.example"],
        ["http://core.example", "http://core.example"],
        ["http://localhost", "http://query.example"],
        ["https://core.example", "http://query.example"],
        ["https://core.example", "https://query.example", "http://second.example", "http://third.example"],
        ["http://localhost.example.org"],
        ["http://127.0.0.1.example.org"],
        ["http://0.0.0.0:3900"],
    ],
)
def test_plain_http_to_another_host_warns_once(urls: list[str], caplog: pytest.LogCaptureFixture) -> None:
    AllsourceAuthAdapter(urls[0], urls[1:] or None, KEY)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("allsource_auth", logging.WARNING)
    exposed = next(url for url in urls if url.startswith("http://") and url != "http://localhost")
    assert record.getMessage() == (f"plain http to {exposed}: passwords and tokens are sent unencrypted; use https")


@pytest.mark.parametrize(
    "urls",
    [
        ["http://localhost:3900"],
        ["http://127.0.0.1:3900", "http://127.8.8.8"],
        ["http://[::1]:3900"],
        ["http://core.localhost"],
        ["http://LOCALHOST"],
        ["https://core.example", "https://10.0.0.7"],
    ],
)
def test_loopback_and_https_do_not_warn(urls: list[str], caplog: pytest.LogCaptureFixture) -> None:
    AllsourceAuthAdapter(urls[0], urls[1:] or None, KEY)
    assert caplog.records == []


def test_refused_options_do_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    refused("max_in_flight", "http://core.example", max_in_flight=0)
    assert caplog.records == []


# Environment variables


async def test_environment_sets_urls_key_and_tenant(newer: Local, watch: Watch) -> None:
    environment = {
        "ALLSOURCE_CORE_URL": newer.core_url,
        "ALLSOURCE_QUERY_URL": newer.query_url,
        "ALLSOURCE_API_KEY": KEY,
        "ALLSOURCE_TENANT": "acme",
        "ALLSOURCE_EMBEDDED_PATH": "/nowhere/else.db",
    }
    async with AllsourceAuthAdapter.from_env(environment) as adapter:
        user = await adapter.users.create()
        assert await adapter.users.get(user.id) == user
        info = await adapter.info()
        assert (info.where, info.reads_from, info.tenant) == (newer.core_url, newer.query_url, "acme")
        assert CANARY not in repr(adapter)
    assert {request.headers["x-api-key"] for request in newer.arrived} == {KEY}
    assert {request.port for request in newer.arrived} == {"core", "query"}


async def test_environment_sets_several_read_urls(newer: Local) -> None:
    other = newer.query_url.replace("127.0.0.1", "localhost")
    environment = {"ALLSOURCE_CORE_URL": newer.core_url, "ALLSOURCE_QUERY_URL": f"{newer.query_url}, {other}"}
    async with AllsourceAuthAdapter.from_env(environment) as adapter:
        user = await adapter.users.create()
        for _ in range(4):
            assert await adapter.users.get(user.id) == user
        assert (await adapter.info()).reads_from == f"{newer.query_url}, {other}"
    hosts = [request.headers["host"] for request in newer.arrived if request.port == "query"]
    assert sorted(hosts) == sorted([newer.query_url.removeprefix("http://"), other.removeprefix("http://")] * 2)


async def test_environment_of_the_process_is_the_default(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUERY_URL", "API_KEY", "TENANT", "EMBEDDED_PATH"):
        monkeypatch.setenv(f"ALLSOURCE_{name}", "")
    monkeypatch.setenv("ALLSOURCE_CORE_URL", newer.core_url)
    async with AllsourceAuthAdapter.from_env() as adapter:
        assert await adapter.users.get("ada") is None
        assert (await adapter.info()).tenant == "default"
    assert {request.port for request in newer.arrived} == {"core"}
    assert not any("x-api-key" in request.headers for request in newer.arrived)


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"CORE_URL": f"http://ada:{CANARY}@localhost"}, "CORE_URL"),
        ({"CORE_URL": URL, "QUERY_URL": f"http://localhost?key={CANARY}"}, "QUERY_URL"),
        ({"CORE_URL": URL, "QUERY_URL": f"{URL},http://{CANARY}@localhost"}, "QUERY_URL[1]"),
        ({"CORE_URL": URL, "QUERY_URL": f"{URL}, {URL}"}, "QUERY_URL[1]"),
        ({"CORE_URL": URL, "QUERY_URL": f"{URL},"}, "QUERY_URL[1]"),
        ({"CORE_URL": URL, "QUERY_URL": ","}, "QUERY_URL[0]"),
        ({"CORE_URL": URL, "API_KEY": f"{CANARY}\n"}, "API_KEY"),
        ({"CORE_URL": URL, "TENANT": "a b"}, "TENANT"),
        ({"QUERY_URL": URL, "API_KEY": CANARY}, "EMBEDDED_PATH"),
        ({}, "EMBEDDED_PATH"),
    ],
)
def test_error_names_the_invalid_variable(environment: dict[str, str], variable: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter.from_env({f"ALLSOURCE_{name}": value for name, value in environment.items()})
    assert caught.value.field == f"ALLSOURCE_{variable}"
    assert not revealed(f"{caught.value!r} {caught.value}")


# Secrets


def test_no_repr_shows_the_api_key(files: dict[str, Path]) -> None:
    tls = Tls(client_cert=files["cert"], client_key=files["key"])
    store = AllsourceStore("https://localhost", api_key=KEY, tls=tls)
    adapter = AllsourceAuthAdapter.with_store(store)
    for shown in (store, adapter, store._client, store._client.connection, store._client.engine):
        assert not revealed(f"{shown!r} {shown}")
