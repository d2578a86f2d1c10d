"""Failed requests as `Http`. The text of a client's own error is not repeated: it may quote the URL with a session's token."""

from __future__ import annotations

from allsource_auth.errors import AllsourceAuthError, Http, StoreClosed
from allsource_auth.store.allsource.http.failures import BadReply, Broken, ConnectFailed, Failure, TimedOut

__all__ = ["broken", "connect_timeout", "error_of", "timed_out", "unreachable"]


def error_of(failure: Failure, origin: str) -> AllsourceAuthError:
    """The error to raise for a failed request to ``origin``."""
    match failure:
        case ConnectFailed():
            return unreachable(origin, failure.reason)
        case TimedOut(phase="connect"):
            return connect_timeout(origin, failure.seconds)
        case TimedOut():
            return timed_out(
                origin, "total" if failure.phase == "total" else "read", failure.seconds, unsent=failure.unsent
            )
        case BadReply():
            return Http(f"the answer of {origin} cannot be used: {failure.reason}", ambiguous=True)
        case Broken():
            return broken(origin)
        case _:
            return StoreClosed()


def unreachable(origin: str, reason: str) -> Http:
    return Http(f"cannot connect to {origin}: {reason}")


def connect_timeout(origin: str, seconds: float | None) -> Http:
    return Http(f"no connection to {origin}{_within(seconds)} (connect timeout)", timeout="connect")


def timed_out(origin: str, which: str, seconds: float | None, *, unsent: bool = False) -> Http:
    message = f"no complete answer from {origin}{_within(seconds)} ({which} timeout)"
    return Http(message, ambiguous=not unsent, timeout=which)


def broken(origin: str) -> Http:
    return Http(f"the connection to {origin} broke before the answer was complete", ambiguous=True)


def _within(seconds: float | None) -> str:
    return "" if seconds is None else f" within {seconds:g} s"
