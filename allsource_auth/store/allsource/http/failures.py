"""How a request on the pool fails. The engine turns these into `Http`, the httpx transport into httpx's exceptions."""

from __future__ import annotations

import ssl

__all__ = ["BadReply", "Broken", "ConnectFailed", "Failure", "PoolClosed", "TimedOut", "client_certificate_problem"]


class Failure(Exception):
    """A request failed."""


class ConnectFailed(Failure):
    """No connection could be made. ``reason`` says why, without quoting a URL."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOut(Failure):
    """A time limit has expired.

    ``phase``: ``connect``, ``write``, ``read`` or ``total``; ``seconds``: the limit; ``unsent``: whether it expired before
    anything was sent.
    """

    def __init__(self, phase: str, seconds: float, *, unsent: bool = False) -> None:
        super().__init__(phase)
        self.phase = phase
        self.seconds = seconds
        self.unsent = unsent


class Broken(Failure):
    """The connection was closed before the reply was complete.

    ``unanswered``: before its first byte. ``by_error``: by a reset or another error, not by an orderly end.
    """

    def __init__(self, *, unanswered: bool, by_error: bool = False) -> None:
        super().__init__("the connection was closed")
        self.unanswered = unanswered
        self.by_error = by_error


class BadReply(Failure):
    """The reply is malformed or too large. ``reason`` never quotes it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PoolClosed(Failure):
    """The pool was closed before the request was sent."""


def client_certificate_problem(error: BaseException | None) -> str | None:
    """What is wrong with the client certificate, if the server has ended the TLS handshake for that reason.

    With TLS 1.3 the client has completed the handshake and sent a request by then, which the server has not processed.
    """
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else ""
    if "ALERT" not in reason:
        return None
    if "CERTIFICATE_REQUIRED" in reason:
        return "the server requires a client certificate; see Tls(client_cert=, client_key=)"
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return "the server does not accept the client certificate"
    return None
