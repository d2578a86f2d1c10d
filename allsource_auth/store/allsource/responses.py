"""Answers that are no success: what each means, and whether and when the same request may be sent again.

The kinds are those of section 12 of the contract and sections 2 and 4 of that of 0.27. A server's text is repeated only where
it is one of its fixed phrases: it may quote what it was sent.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from allsource_auth.errors import AllsourceAuthError, Api, RateLimited, Unauthorized, Unavailable, VersionConflict
from allsource_auth.store.allsource.http import Reply

__all__ = ["Refusal", "refusal"]

SHORT_PAUSE = 0.05
"""Seconds to wait where a queue was full, or where the server asks for no pause at all."""

LONGEST_WAIT = 30.0
"""Seconds that a server's ``Retry-After`` is followed at most; what asks for more is the operator's business."""

_PHRASE = re.compile(r"[A-Z][a-z]+(?: [a-z]+){0,3}")
_WORD = re.compile(r"[a-z][a-z_]{2,40}")

_OPERATOR = {
    "archive_hydration_refused": "the server has too little free memory to load the tenant; give it more, or lower"
    " ALLSOURCE_MEMORY_RESERVE_BYTES",
    "archive_budget_exceeded": "the tenant's archive is larger than the server's limits for strict reads; raise"
    " ALLSOURCE_STRICT_ARCHIVE_MAX_DECODED_BYTES or its time limit",
}
"""What only the operator can change; asking again does not help."""

_AGAIN = {"archive_index_incomplete": 1.0, "read_model_busy": 1.0}
"""Nothing was done, and each further attempt gets on; the seconds to wait where the server does not say."""


class Refusal(NamedTuple):
    """``error`` is what it means; ``again``: seconds after which the same request may be sent again, ``None`` for never."""

    error: AllsourceAuthError
    again: float | None


def refusal(reply: Reply, *, writes: bool) -> Refusal:
    """What an answer other than 200 or 201 means for a request that ``writes`` or not."""
    status = reply.status
    word, text, members = _read(reply.body)
    if status == 409 and word == "version_conflict":
        expected, actual = members.get("expected_version"), members.get("current_version")
        if isinstance(expected, int) and isinstance(actual, int):
            return Refusal(VersionConflict(expected=expected, actual=actual), None)
    if status == 429:
        # With an empty body the request was not looked at; with a text it was refused by the rate limit. Nothing was stored.
        wait = _retry_after(reply)
        limited = RateLimited("the server is taking no more requests for now (429)", retry_after=wait)
        return Refusal(limited, _followed(1.0 if wait is None else wait))
    if status in (401, 403):
        return Refusal(Unauthorized(f"the server refused the credential ({status})", status=status), None)
    if word in _OPERATOR:
        # 503 of Core; a Query Service makes 400 of what Core refuses to read (section 14.2 of the contract).
        return Refusal(Unavailable(_OPERATOR[word], status=status), None)
    if status == 503:
        return _unavailable(reply, word, text, writes=writes)
    if status in (502, 504):
        gone = Unavailable(f"a gateway could not reach the server ({status})", status=status, ambiguous=writes)
        return Refusal(gone, None if writes else SHORT_PAUSE)
    said = _shown(word, text)
    # A server that failed inside may have stored the event before it did.
    return Refusal(Api(f"the server answered {status}{said}", status=status, ambiguous=writes and status >= 500), None)


def _unavailable(reply: Reply, word: str, text: str, *, writes: bool) -> Refusal:
    if word in _AGAIN:
        wait = _retry_after(reply)
        return Refusal(
            Unavailable(f"the server is not ready yet ({word})"), _followed(_AGAIN[word] if wait is None else wait)
        )
    if text.startswith("Queue full"):
        if "uncertain" in text:
            return Refusal(Unavailable("the server gave up waiting for its archive (503)", ambiguous=writes), None)
        return Refusal(Unavailable("the server's queue for guarded writes is full (503)"), SHORT_PAUSE)
    # Not a phrase of Core's: a gateway, which may have passed the request on before it gave up.
    said = _shown(word, text)
    unknown = Unavailable(f"the server cannot serve this now (503){said}", ambiguous=writes)
    return Refusal(unknown, None if writes else SHORT_PAUSE)


def _followed(wait: float) -> float | None:
    return wait if wait <= LONGEST_WAIT else None


def _retry_after(reply: Reply) -> float | None:
    """Seconds, where the server says them as a number."""
    try:
        seconds = float(reply.header("retry-after") or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None


def _read(body: bytes) -> tuple[str, str, dict[str, Any]]:
    """The bare word, the sentence and the members of an error body, in whatever shape it came; empty where there is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", bytes(body[:300]).decode(errors="replace"), {}
    members = found if isinstance(found, dict) else {}
    error = members.get("error")
    if isinstance(error, dict):
        return str(error.get("code", "")), str(error.get("message", "")), members
    if isinstance(error, str):
        return (error, "", members) if _WORD.fullmatch(error) else ("", error, members)
    return "", "", members


def _shown(word: str, text: str) -> str:
    """What may be repeated of an error body: a bare word, or the phrase before the colon."""
    if _WORD.fullmatch(word):
        return f" ({word})"
    phrase = _PHRASE.fullmatch(text.partition(":")[0])
    return f" ({phrase.group()})" if phrase else ""
