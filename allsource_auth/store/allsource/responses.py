"""Unsuccessful replies: which error each one means, and when the same request may be sent again.

The replies are listed in docs/reference/allsource-api.md, section "Errors". A server's text may quote what was sent to it, so
only error codes and fixed phrases are repeated in messages.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

import msgspec

from allsource_auth.errors import AllsourceAuthError, Api, RateLimited, Unauthorized, Unavailable, VersionConflict
from allsource_auth.store.allsource.http import Reply

__all__ = ["ErrorReply", "classify"]

DEFAULT_PAUSE = 0.05
"""Seconds to wait if a queue of the server was full, or if the server asks for no pause."""

MAX_RETRY_AFTER = 30.0
"""Seconds; a longer ``Retry-After`` is not followed. It takes an operator to solve the cause of such a pause."""

_PHRASE = re.compile(r"[A-Z][a-z]+(?: [a-z]+){0,3}")
_CODE = re.compile(r"[a-z][a-z_]{2,40}")

_OPERATOR_ADVICE = {
    "archive_hydration_refused": "the server has too little free memory to load the tenant; give it more, or lower"
    " ALLSOURCE_MEMORY_RESERVE_BYTES",
    "archive_budget_exceeded": "the tenant's archive is larger than the server's limits for strict reads; raise"
    " ALLSOURCE_STRICT_ARCHIVE_MAX_DECODED_BYTES or its time limit",
}
"""By error code. Only an operator can change these conditions; a retry does not help."""

_NOT_READY_PAUSES = {"archive_index_incomplete": 1.0, "read_model_busy": 1.0}
"""By error code: seconds to wait without a ``Retry-After``. Nothing was done, and the server makes progress meanwhile."""


class ErrorReply(NamedTuple):
    """The meaning of an unsuccessful reply.

    ``retry_in``: seconds after which the same request may be sent again; ``None`` if it must not be.
    """

    error: AllsourceAuthError
    retry_in: float | None


def classify(reply: Reply, *, writes: bool) -> ErrorReply:
    """The meaning of a reply other than 200 or 201. ``writes``: the request was an append."""
    status = reply.status
    code, text, members = _parse(reply.body)
    if status == 409 and code == "version_conflict":
        expected, actual = members.get("expected_version"), members.get("current_version")
        if isinstance(expected, int) and isinstance(actual, int):
            return ErrorReply(VersionConflict(expected=expected, actual=actual), None)
    if status == 429:
        # An empty body: not looked at. A text: refused by the rate limit. In both cases nothing was stored.
        pause = _retry_after(reply)
        limited = RateLimited("the server is taking no more requests for now (429)", retry_after=pause)
        return ErrorReply(limited, _limited(1.0 if pause is None else pause))
    if status in (401, 403):
        return ErrorReply(Unauthorized(f"the server refused the credential ({status})", status=status), None)
    if code in _OPERATOR_ADVICE:
        # Core sends these with 503. A Query Service turns errors of Core into 400.
        return ErrorReply(Unavailable(_OPERATOR_ADVICE[code], status=status), None)
    if status == 503:
        return _classify_503(reply, code, text, writes=writes)
    if status in (502, 504):
        gateway = Unavailable(f"a gateway could not reach the server ({status})", status=status, ambiguous=writes)
        return ErrorReply(gateway, None if writes else DEFAULT_PAUSE)
    excerpt = _safe_excerpt(code, text)
    # A server that failed internally may have stored the event first.
    error = Api(f"the server answered {status}{excerpt}", status=status, ambiguous=writes and status >= 500)
    return ErrorReply(error, None)


def _classify_503(reply: Reply, code: str, text: str, *, writes: bool) -> ErrorReply:
    if code in _NOT_READY_PAUSES:
        pause = _retry_after(reply)
        error = Unavailable(f"the server is not ready yet ({code})")
        return ErrorReply(error, _limited(_NOT_READY_PAUSES[code] if pause is None else pause))
    if text.startswith("Queue full"):
        if "uncertain" in text:
            return ErrorReply(Unavailable("the server gave up waiting for its archive (503)", ambiguous=writes), None)
        return ErrorReply(Unavailable("the server's queue for guarded writes is full (503)"), DEFAULT_PAUSE)
    # Not a reply of Core: a gateway, which may have forwarded the request before it gave up.
    unknown = Unavailable(f"the server cannot serve this now (503){_safe_excerpt(code, text)}", ambiguous=writes)
    return ErrorReply(unknown, None if writes else DEFAULT_PAUSE)


def _limited(pause: float) -> float | None:
    return pause if pause <= MAX_RETRY_AFTER else None


def _retry_after(reply: Reply) -> float | None:
    """The header ``Retry-After`` in seconds; ``None`` if it is missing or not a number."""
    try:
        seconds = float(reply.header("retry-after") or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None


def _parse(body: bytes) -> tuple[str, str, dict[str, Any]]:
    """The error code, the sentence and the members of an error body of any shape; empty where there is none."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", bytes(body[:300]).decode(errors="replace"), {}
    members = cast("dict[str, object]", decoded) if isinstance(decoded, dict) else {}
    error = members.get("error")
    if isinstance(error, dict):
        detail = cast("dict[str, object]", error)
        return str(detail.get("code", "")), str(detail.get("message", "")), members
    if isinstance(error, str):
        return (error, "", members) if _CODE.fullmatch(error) else ("", error, members)
    return "", "", members


def _safe_excerpt(code: str, text: str) -> str:
    """The part of an error body that a message may repeat: the error code, or the fixed phrase before the colon."""
    if _CODE.fullmatch(code):
        return f" ({code})"
    phrase = _PHRASE.fullmatch(text.partition(":")[0])
    return f" ({phrase.group()})" if phrase else ""
