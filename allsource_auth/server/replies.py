"""Replies of the server: complete responses, errors in Core's shapes, ETags, times as text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from allsource_auth.errors import VersionConflict

__all__ = [
    "Rejected",
    "Reply",
    "conflict",
    "encode",
    "error_reply",
    "instant_text",
    "invalid_input",
    "json_reply",
    "plain_text_error",
    "storage_failure",
    "tagged_reply",
]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class Reply:
    """A complete HTTP response as an ASGI application, lighter than Starlette's.

    ``content_type`` of ``None`` leaves the header out.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status: int = status
        self.body: bytes = body
        self.content_type: str | None = content_type
        self.headers: Mapping[str, str] | None = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(self.body))]
        if self.content_type is not None:
            headers.append((b"content-type", self.content_type.encode("latin-1")))
        for name, value in (self.headers or {}).items():
            headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Rejected(Exception):
    """The request is answered with an error. ``reason`` is its text, which the Query Service repeats in its own shape."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(f"answered with {reply.status}")
        self.reply = reply
        self.reason = reason


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, encode(document), JSON, headers)


def error_reply(status: int, reason: str, headers: Mapping[str, str] | None = None, **members: object) -> Rejected:
    """Core's usual error: ``{"error": reason}``, with further members. Keys are sorted."""
    body = dict(sorted({"error": reason, **members}.items()))
    return Rejected(json_reply(body, status, headers), reason)


def invalid_input(reason: str) -> Rejected:
    return error_reply(400, f"Invalid input: {reason}")


def storage_failure(reason: str) -> Rejected:
    return error_reply(500, f"Storage error: {reason}")


def conflict(error: VersionConflict) -> Rejected:
    """409 with the expected and the current version."""
    return error_reply(409, "version_conflict", current_version=error.actual, expected_version=error.expected)


def plain_text_error(reason: str, status: int = 400) -> Rejected:
    """An error in plain text, as from the web framework of Core for requests that it cannot decode."""
    return Rejected(Reply(status, reason.encode(), TEXT), reason)


def tagged_reply(body: bytes) -> Reply:
    """A JSON reply with an ETag, as of 0.27."""
    return Reply(200, body, JSON, {"etag": f'"sha256:{hashlib.sha256(body).hexdigest()[:32]}"'})


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def instant_text(time: int, *, digits: int = 9) -> str:
    """Format nanoseconds since the epoch as RFC 3339 in UTC, with ``digits`` digits of the fraction and ``Z``."""
    seconds, fraction = divmod(time, 1_000_000_000)
    return f"{_second(seconds)}.{f'{fraction:09d}'[:digits]}Z"
