"""HTTP engines: send one request with a pooled client and return status, headers and body.

* `PyreqwestEngine` uses a pyreqwest pool, and offers the same pool as an ``httpx.AsyncClient``.
* `HttpxEngine` uses any ``httpx.AsyncClient``: the caller's, or one on the aiohttp transport.

A failure raises `Http`, whose ``ambiguous`` is true if the server may have received the request. The error texts of the
engines are never repeated: they quote the URL, which may contain the token of a session.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import anyio

from allsource_auth.config import Connection
from allsource_auth.errors import Http, InvalidInput, StoreClosed
from allsource_auth.version import __version__

if TYPE_CHECKING:
    import httpx
    from pyreqwest.client import Client

__all__ = ["Engine", "HttpxEngine", "PyreqwestEngine", "Reply", "connect", "engine_name"]

POOL_IDLE = 30.0
"""Seconds after which an idle connection is closed. Gateways commonly close idle connections after a minute."""

HEADERS = {"accept": "application/json", "user-agent": f"allsource_auth/{__version__}"}


class Reply(NamedTuple):
    """A reply. ``header`` looks up a header by its lower-case name; ``sent`` is the `monotonic` time of the request."""

    status: int
    body: bytes
    header: Callable[[str], str | None]
    sent: float

    def __repr__(self) -> str:
        return f"Reply(status={self.status})"


class Engine(Protocol):
    """Sends a request and reads the whole reply."""

    name: str

    @property
    def http(self) -> httpx.AsyncClient:
        """The connection pool as an ``httpx.AsyncClient``."""
        ...

    async def request(self, method: str, url: str, body: bytes | None, consistency: str | None) -> Reply:
        """Send JSON ``body`` to ``url``, with the header ``X-Consistency`` if ``consistency`` is given.

        Raises `Http`, and `StoreClosed` after `close`.
        """
        ...

    async def close(self) -> None: ...


def engine_name(connection: Connection) -> str:
    """The name of the engine that these options select."""
    if connection.http_client is not None:
        return "httpx, the caller's client"
    if find_spec("pyreqwest") is not None and not connection.tls.ca_only:
        return PyreqwestEngine.name
    return "httpx on aiohttp"


def connect(connection: Connection) -> Engine:
    """Create the engine that these options select. Raises `InvalidInput` if a package that it needs is not installed."""
    name = engine_name(connection)
    if connection.http_client is not None:
        return HttpxEngine(connection.http_client, connection, name=name)
    if name == PyreqwestEngine.name:
        return PyreqwestEngine(connection)
    if find_spec("httpx_aiohttp") is None:
        option = "tls" if connection.tls.ca_only else "http_client"
        raise InvalidInput(option, "needs the aiohttp transport; install allsource-auth[aiohttp]")
    return _on_aiohttp(connection, name)


class PyreqwestEngine:
    """A pyreqwest pool, also available as an ``httpx.AsyncClient``."""

    name = "pyreqwest"

    def __init__(self, connection: Connection) -> None:
        from pyreqwest import exceptions
        from pyreqwest.client import ClientBuilder

        timeouts, tls = connection.timeouts, connection.tls
        builder = (
            ClientBuilder()
            .default_headers(HEADERS)
            .user_agent(HEADERS["user-agent"])
            .connect_timeout(timedelta(seconds=timeouts.connect))
            .read_timeout(timedelta(seconds=timeouts.read))
            .timeout(timedelta(seconds=timeouts.total))
            .pool_idle_timeout(timedelta(seconds=POOL_IDLE))
            .pool_max_idle_per_host(connection.max_in_flight)
            .no_proxy()  # a proxy from the environment would see passwords; `HttpxEngine` does not use one either
            .follow_redirects(False)
            .referer(False)
            .runtime_multithreaded(False)  # one thread for all pools; `close` waits for it
        )
        # Core 0.27 compresses the reply to a request that offers compression, which takes longer. See section "Compression"
        # of docs/reference/allsource-api.md.
        for set_compression in (builder.gzip, builder.brotli, builder.zstd, builder.deflate):
            set_compression(False)
        root = None if tls.ca_file is None else tls.read("ca_file")
        identity = None if tls.client_cert is None else tls.read("client_key") + b"\n" + tls.read("client_cert")
        try:
            if root is not None:
                builder.add_root_certificate_pem(root)
            if identity is not None:
                builder.identity_pem(identity)
            self._client: Client = builder.build()
        except Exception:
            refused = True
        else:
            refused = False
        if refused:
            raise InvalidInput("tls", "the certificates cannot be used; they must be PEM files")
        self._connection = connection
        self._errors = exceptions
        # Not a default header of the pool: requests through `http` may go to other servers.
        credentials = dict(connection.credentials)
        self._headers: dict[str | None, dict[str, str]] = {
            None: credentials,
            connection.consistency: credentials | {"x-consistency": connection.consistency},
        }
        self._http: httpx.AsyncClient | None = None

    @property
    def http(self) -> httpx.AsyncClient:
        if self._http is None:
            import httpx
            from pyreqwest.compatibility.httpx import HttpxTransport

            self._http = httpx.AsyncClient(
                transport=HttpxTransport(self._client, close_client=False),
                base_url=self._connection.core_url,
                timeout=httpx.Timeout(
                    0.0, read=self._connection.timeouts.total
                ),  # the transport adds up the four limits
            )
        return self._http

    async def request(self, method: str, url: str, body: bytes | None, consistency: str | None) -> Reply:
        exceptions = self._errors
        builder = self._client.request(method, url).headers(self._headers[consistency])
        if body is not None:
            builder = builder.header("content-type", "application/json").body_bytes(body)
        began = monotonic()
        try:
            response = await builder.build().send()
            content = await response.bytes()
            return Reply(response.status, content, response.get_header, began)  # type: ignore[arg-type]  # a buffer
        except exceptions.ClientClosedError:
            failure = None
        except exceptions.PyreqwestError as error:
            failure = error
        # Raise outside the handler, so that the engine's error is not chained.
        if failure is None:
            raise StoreClosed
        origin, timeouts = _origin(url), self._connection.timeouts
        # The class does not show whether anything was sent: a connection that breaks before the reply raises ConnectError,
        # a missing reply ConnectTimeoutError.
        details: dict[str, Any] = getattr(failure, "details", None) or {}
        chain: list[dict[str, Any]] = details.get("causes") or []
        causes = [str(cause["message"]) for cause in chain]
        unsent = "client error (Connect)" in causes
        if isinstance(failure, exceptions.RequestTimeoutError):
            if unsent:
                raise _connect_timeout(origin, timeouts.connect)
            over = monotonic() - began >= timeouts.total
            raise _timeout(origin, "total" if over else "read", timeouts.total if over else timeouts.read)
        raise _unreachable(origin, causes[-1]) if unsent else _broken(origin)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
        await self._client.close()
        _wait_for_pool_thread()


def _wait_for_pool_thread() -> None:
    """Wait until pyreqwest's thread, which all pools share, has finished waking an event loop.

    If the interpreter ended while the thread is inside that call, the process would be aborted. The thread works sequentially,
    so it has left the call when it has processed another request. The URL scheme of this request is invalid, so nothing is
    sent.
    """
    from pyreqwest.client import SyncClientBuilder
    from pyreqwest.exceptions import PyreqwestError

    # RuntimeError: a forked process, which does not have the thread.
    with suppress(PyreqwestError, RuntimeError):
        # Without certificates, because loading them takes time.
        builder = SyncClientBuilder().runtime_multithreaded(False).danger_accept_invalid_certs(True)
        with builder.build() as client:
            client.get("nowhere://pool").build().send()


class HttpxEngine:
    """Sends requests with an ``httpx.AsyncClient``.

    With ``transport``, the client was created by the library on that transport, and is closed by `close`. Requests are then
    sent to the transport directly: the client would log each URL, which may contain the token of a session. Without
    ``transport`` it is the caller's client, whose own time limits apply unless the options set them.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        connection: Connection,
        *,
        name: str,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx

        self.name = name
        self.http = client
        self._transport = transport
        self._headers = {**HEADERS, "accept-encoding": "identity", **connection.credentials}
        self._total: float | None = None
        self._limits: httpx.Timeout | None = None
        if transport is not None or connection.timeouts_given:
            timeouts = connection.timeouts
            self._total = timeouts.total
            self._limits = httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=timeouts.total)

    async def request(self, method: str, url: str, body: bytes | None, consistency: str | None) -> Reply:
        import httpx

        headers = dict(self._headers)
        if body is not None:
            headers["content-type"] = "application/json"
        if consistency is not None:
            headers["x-consistency"] = consistency
        began = monotonic()
        failure: Exception | None = None
        if body is not None:
            # Let the event loop process pending input: it may be the end of an idle connection, which aiohttp would use.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with anyio.move_on_after(self._total) as scope:
            try:
                response = await self._send(method, url, body, headers)
                return Reply(response.status_code, response.content, response.headers.get, began)
            except (httpx.HTTPError, RuntimeError, OSError) as error:
                # RuntimeError: a closed client. OSError: an error that the transport did not translate.
                failure = error
            except Exception as error:
                if not _is_aiohttp(error):
                    raise
                failure = error
        origin, limits = _origin(url), self._limits
        if scope.cancelled_caught or failure is None:
            raise _timeout(origin, "total", self._total or 0)
        if self.http.is_closed:
            raise StoreClosed
        match _failed_phase(failure):
            case "unsent":
                raise _unreachable(origin, _system_messages(failure))
            case "connect":
                raise _connect_timeout(origin, limits.connect if limits else None)
            case "read":
                raise _timeout(origin, "read", limits.read if limits else None)
            case _:
                raise _broken(origin)

    async def _send(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> httpx.Response:
        """Send one request and read the whole response."""
        import httpx

        if self._transport is None:
            timeout = httpx.USE_CLIENT_DEFAULT if self._limits is None else self._limits
            return await self.http.request(
                method, url, content=body, headers=headers, timeout=timeout, follow_redirects=False
            )
        assert self._limits is not None
        limits = {"timeout": self._limits.as_dict()}
        request = httpx.Request(method, url, content=body, headers=headers, extensions=limits)
        response = await self._transport.handle_async_request(request)
        try:
            await response.aread()
        finally:
            await response.aclose()
        return response

    async def close(self) -> None:
        if self._transport is not None:
            await self.http.aclose()


def _on_aiohttp(connection: Connection, name: str) -> HttpxEngine:
    import httpx
    from httpx_aiohttp import AiohttpTransport

    transport = AiohttpTransport(
        verify=connection.tls.context(),
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=connection.max_in_flight, keepalive_expiry=POOL_IDLE
        ),
    )
    client = httpx.AsyncClient(transport=transport, base_url=connection.core_url)
    return HttpxEngine(client, connection, name=name, transport=transport)


def _is_aiohttp(error: BaseException | None) -> bool:
    return type(error).__module__.startswith("aiohttp")


def _failed_phase(failure: Exception) -> Literal["unsent", "connect", "read", "broken"]:
    """How a request failed: before anything was sent, at the connect timeout, at the read timeout, or otherwise.

    The aiohttp transport reports nearly every failure as a connect timeout; the cause of its exception is reliable.
    """
    import httpx

    cause = failure if _is_aiohttp(failure) else failure.__cause__
    if _is_aiohttp(cause):
        import aiohttp

        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            return "connect"
        if isinstance(cause, aiohttp.ClientConnectorError):
            return "unsent"
        return "read" if isinstance(cause, aiohttp.ServerTimeoutError) else "broken"
    if isinstance(failure, httpx.ConnectTimeout):
        return "connect"
    if isinstance(failure, httpx.ConnectError | httpx.PoolTimeout):
        return "unsent"
    return "read" if isinstance(failure, httpx.TimeoutException) else "broken"


def _system_messages(failure: BaseException) -> str:
    """The operating system's and the TLS library's messages for a failed connection, without those of the HTTP clients."""
    found: list[str] = []
    step: BaseException | None = failure
    while step is not None:
        if isinstance(step, BaseExceptionGroup):  # one for each address of the host
            step = cast("BaseExceptionGroup[BaseException]", step).exceptions[0]
        if isinstance(step, OSError) and step.errno is not None and step.errno > 0:
            found.append(os.strerror(step.errno))
        if not _is_aiohttp(step) and not _is_aiohttp(step.__cause__):
            found.append(str(step))
        step = step.__cause__ or step.__context__
    return "; ".join(found)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _unreachable(origin: str, message: str) -> Http:
    message = message.lower()
    reason = next((reason for part, reason in _REASONS.items() if part in message), "the connection could not be made")
    return Http(f"cannot connect to {origin}: {reason}")


_REASONS = {
    "certificate": "its TLS certificate is not trusted or does not match",  # first: the message may contain "name" as well
    "refused": "the connection was refused; is the server running there?",
    "lookup": "the host name does not resolve",
    "dns": "the host name does not resolve",
    "name or service": "the host name does not resolve",
    "getaddrinfo": "the host name does not resolve",
    "nodename": "the host name does not resolve",
    "no address": "the host name does not resolve",
    "temporary failure in name": "the host name does not resolve",
    "ssl": "TLS could not be negotiated",
    "tls": "TLS could not be negotiated",
    "invalidmessage": "TLS could not be negotiated",
    "corrupt message": "TLS could not be negotiated",
    "unreachable": "the network is unreachable",
}
"""Part of a message of the operating system or TLS library, in lower case, and the reason to report. First match wins."""


def _connect_timeout(origin: str, seconds: float | None) -> Http:
    return Http(f"no connection to {origin}{_within(seconds)} (connect timeout)", timeout="connect")


def _timeout(origin: str, which: str, seconds: float | None) -> Http:
    message = f"no complete answer from {origin}{_within(seconds)} ({which} timeout)"
    return Http(message, ambiguous=True, timeout=which)


def _within(seconds: float | None) -> str:
    return "" if seconds is None else f" within {seconds:g} s"


def _broken(origin: str) -> Http:
    return Http(f"the connection to {origin} broke before the answer was complete", ambiguous=True)
