"""A machine without certificates, such as a slim image: plain HTTP must not need them."""

from __future__ import annotations

import asyncio
import ssl

import certifi
import pytest

from allsource_auth import AllsourceAuthAdapter


def test_plain_http_works_without_certificates_on_the_machine(core_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> str:
        raise FileNotFoundError

    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(variable, "/nowhere")
    monkeypatch.setattr(certifi, "where", missing)
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", missing)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", missing)

    async def run() -> None:
        async with AllsourceAuthAdapter(core_url) as adapter:
            assert await adapter.users.get("nobody") is None
            assert (await adapter.http.get("/health")).status_code == 200

    asyncio.run(run())
