"""What is sent back: answers, refusals with the bodies of Core's errors, entity tags, the text of times.

Bodies are bytes from the start; `Answer` is the smallest thing that ASGI accepts as a response.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from allsource_auth.errors import VersionConflict

__all__ = [
    "Answer",
    "Refused",
    "conflict",
    "failed",
    "instant_text",
    "invalid",
    "json_answer",
    "malformed",
    "missing",
    "refusal",
    "tagged",
]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
"""The content type of what the web framework of Core refuses by itself (section 12 of the contract)."""

encode = msgspec.json.Encoder().encode


class Answer:
    """A complete response: status, body, content type (``None``: no such header), further headers."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(self.body))]
        if self.content_type is not None:
            headers.append((b"content-type", self.content_type.encode("latin-1")))
        for name, value in (self.headers or {}).items():
            headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Refused(Exception):
    """A request is answered with an error; ``reason`` is its text, for whoever wraps it in another shape."""

    def __init__(self, answer: Answer, reason: str) -> None:
        super().__init__(f"answered with {answer.status}")
        self.answer = answer
        self.reason = reason


def json_answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, encode(document), JSON, headers)


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None, **more: object) -> Refused:
    """Core's usual error: ``{"error": reason}``, with further members where it has some; keys are sorted."""
    body = dict(sorted({"error": reason, **more}.items()))
    return Refused(json_answer(body, status, headers), reason)


def invalid(reason: str) -> Refused:
    return refusal(400, f"Invalid input: {reason}")


def malformed(reason: str, status: int = 400) -> Refused:
    """What the framework refuses before the server looks at it: plain text."""
    return Refused(Answer(status, reason.encode(), TEXT), reason)


def missing(what: str) -> Refused:
    return refusal(404, f"Entity not found: {what}")


def failed(reason: str) -> Refused:
    return refusal(500, f"Storage error: {reason}")


def conflict(error: VersionConflict) -> Refused:
    """409 with both numbers (section 6 of the contract)."""
    return refusal(409, "version_conflict", current_version=error.actual, expected_version=error.expected)


def tagged(body: bytes, if_none_match: str | None) -> Answer:
    """A JSON answer with its entity tag, or 304 if the client has it already (the contract of 0.27, section 4)."""
    tag = f'"sha256:{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag}
    if if_none_match is not None:
        known = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
        if tag in known or "*" in known:
            return Answer(304, headers=headers)
    return Answer(200, body, JSON, headers)


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def instant_text(time: int, *, digits: int = 9) -> str:
    """RFC 3339 in UTC with ``digits`` fraction digits and ``Z``, of nanoseconds since the epoch."""
    seconds, fraction = divmod(time, 1_000_000_000)
    return f"{_second(seconds)}.{f'{fraction:09d}'[:digits]}Z"
