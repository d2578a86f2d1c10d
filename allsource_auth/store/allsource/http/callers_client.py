"""Requests with an ``httpx.AsyncClient`` of the caller."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Literal, cast

import anyio

from allsource_auth.config import Connection as Options
from allsource_auth.errors import StoreClosed
from allsource_auth.store.allsource.http.engine import HEADERS
from allsource_auth.store.allsource.http.errors import broken, connect_timeout, timed_out, unreachable
from allsource_auth.store.allsource.http.origin import Origin
from allsource_auth.store.allsource.http.reply import Reply

if TYPE_CHECKING:
    import httpx

__all__ = ["CallersClient"]


class CallersClient:
    """Sends requests with the caller's ``httpx.AsyncClient``, whose own time limits apply unless the options set them."""

    name = "httpx, the caller's client"

    def __init__(self, client: httpx.AsyncClient, options: Options) -> None:
        import httpx

        self.http = client
        self._headers = {**HEADERS, "accept-encoding": "identity", **options.credentials}
        self._total: float | None = None
        self._limits: httpx.Timeout | None = None
        if options.timeouts_given:
            timeouts = options.timeouts
            self._total = timeouts.total
            self._limits = httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=timeouts.total)

    async def request(
        self, method: str, base_url: str, path: str, body: bytes | None, consistency: str | None
    ) -> Reply:
        import httpx

        headers = dict(self._headers)
        if body is not None:
            headers["content-type"] = "application/json"
        if consistency is not None:
            headers["x-consistency"] = consistency
        began = monotonic()
        failure: Exception | None = None
        timeout = httpx.USE_CLIENT_DEFAULT if self._limits is None else self._limits
        with anyio.move_on_after(self._total) as scope:
            try:
                response = await self.http.request(
                    method, base_url + path, content=body, headers=headers, timeout=timeout, follow_redirects=False
                )
                return Reply(response.status_code, response.content, response.headers.get, began)
            except (httpx.HTTPError, RuntimeError, OSError) as error:
                # RuntimeError: a closed client. OSError: an error that the transport did not translate.
                failure = error
        origin, limits = str(Origin.of(base_url)), self._limits
        if scope.cancelled_caught or failure is None:
            raise timed_out(origin, "total", self._total or 0)
        if self.http.is_closed:
            raise StoreClosed
        match _failed_phase(failure):
            case "unsent":
                raise unreachable(origin, _reason(_system_messages(failure)))
            case "connect":
                raise connect_timeout(origin, limits.connect if limits else None)
            case "read":
                raise timed_out(origin, "read", limits.read if limits else None)
            case _:
                raise broken(origin)

    async def close_http(self) -> None:
        """The client belongs to the caller, who closes it."""

    async def close(self) -> None:
        """The client belongs to the caller, who closes it."""


def _failed_phase(failure: Exception) -> Literal["unsent", "connect", "read", "broken"]:
    """How a request failed: before anything was sent, at the connect timeout, at the read timeout, or otherwise."""
    import httpx

    if isinstance(failure, httpx.ConnectTimeout):
        return "connect"
    if isinstance(failure, httpx.ConnectError | httpx.PoolTimeout):
        return "unsent"
    return "read" if isinstance(failure, httpx.TimeoutException) else "broken"


def _system_messages(failure: BaseException) -> str:
    """The operating system's and the TLS library's messages for a failed connection."""
    found: list[str] = []
    step: BaseException | None = failure
    while step is not None:
        if isinstance(step, BaseExceptionGroup):  # one for each address of the host
            step = cast("BaseExceptionGroup[BaseException]", step).exceptions[0]
        if isinstance(step, OSError) and step.errno is not None and step.errno > 0:
            found.append(os.strerror(step.errno))
        found.append(str(step))
        step = step.__cause__ or step.__context__
    return "; ".join(found)


def _reason(message: str) -> str:
    message = message.lower()
    return next((reason for part, reason in _REASONS.items() if part in message), "the connection could not be made")


_REASONS = {
    "certificate": "its TLS certificate is not trusted or does not match",  # first: the message may contain "name" as well
    "refused": "the connection was refused; is the server running there?",
    "name or service": "the host name does not resolve",
    "getaddrinfo": "the host name does not resolve",
    "nodename": "the host name does not resolve",
    "no address": "the host name does not resolve",
    "temporary failure in name": "the host name does not resolve",
    "ssl": "TLS could not be negotiated",
    "tls": "TLS could not be negotiated",
    "unreachable": "the network is unreachable",
}
"""Part of a message of the operating system or TLS library, in lower case, and the reason to report. First match wins."""
