"""Parsing of requests: JSON bodies, query strings, RFC 3339 times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from allsource_auth.server.replies import Rejected, plain_text_error

__all__ = ["Parameters", "nanoseconds", "read_body"]

_T = TypeVar("_T")

MAX_BODY: Final = 2 * 1024 * 1024
"""The limit of Core's web framework, in bytes."""

_MAX_NUMBER: Final = 2**64 - 1
_NUMBER: Final = re.compile(r"\+?([0-9]+)")
_INSTANT: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_JSON_TYPE: Final = re.compile(r"application/(?:[^;\s]+\+)?json\s*(?:;|$)", re.IGNORECASE)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def read_body(request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode the body of a POST.

    Raises `Rejected`: 415 without a JSON content type, 413 above 2 MiB, 400 for invalid JSON, 422 for another shape.
    """
    if not _JSON_TYPE.match(request.headers.get("content-type", "")):
        raise plain_text_error("Expected request with `Content-Type: application/json`", 415)
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        # Read to the end in any case: a client that is still sending would get a reset instead of the reply.
        if size <= MAX_BODY:
            body += chunk
    if size > MAX_BODY:
        raise plain_text_error("Failed to buffer the request body: length limit exceeded", 413)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise plain_text_error(f"Failed to deserialize the JSON body into the target type: {error}", 422) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
        raise plain_text_error(f"Failed to parse the request body as JSON: {reason}") from None


class Parameters:
    """The ``known`` parameters of a query string. Others are ignored, also if they occur several times.

    Raises `Rejected` (400, plain text) for a known parameter that occurs twice or has an invalid value.
    """

    def __init__(self, query_string: bytes, known: frozenset[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
            if name in self._values:
                raise _unreadable(f"duplicate field `{name}`")
            if name in known:
                self._values[name] = value

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def flag(self, name: str) -> bool:
        value = self._values.get(name, "false")
        if value not in ("true", "false"):
            raise _unreadable(f"{name}: provided string was not `true` or `false`")
        return value == "true"

    def number(self, name: str) -> int | None:
        """The value as an unsigned integer of 64 bits."""
        value = self._values.get(name)
        if value is None:
            return None
        if not value:
            raise _unreadable(f"{name}: cannot parse integer from empty string")
        digits = _NUMBER.fullmatch(value)
        if digits is None:
            raise _unreadable(f"{name}: invalid digit found in string")
        if len(digits[1]) > 40 or int(digits[1]) > _MAX_NUMBER:
            raise _unreadable(f"{name}: number too large to fit in target type")
        return int(digits[1])

    def instant(self, name: str) -> int | None:
        """The value, an RFC 3339 time, in nanoseconds since the epoch."""
        value = self._values.get(name)
        if value is None:
            return None
        time = nanoseconds(value)
        if time is None:
            raise _unreadable(f"{name}: {'input contains invalid characters' if value else 'premature end of input'}")
        return time


def nanoseconds(text: str) -> int | None:
    """Parse an RFC 3339 time into nanoseconds since the epoch; ``None`` if it is not one."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    if int(hours or 0) > 23 or int(minutes or 0) > 59 or second > 60:
        return None
    try:
        # A leap second counts as the first second of the next minute.
        moment = datetime(year, month, day, hour, minute, tzinfo=UTC) - _EPOCH + timedelta(seconds=second)
    except ValueError:
        return None
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    moment = moment + offset if sign == "-" else moment - offset
    return (moment.days * 86_400 + moment.seconds) * 1_000_000_000 + int((fraction or "")[:9].ljust(9, "0"))


def _unreadable(reason: str) -> Rejected:
    return plain_text_error(f"Failed to deserialize query string: {reason}")
