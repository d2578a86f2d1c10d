"""Validation and normal forms of values: ids, texts, times, JSON.

Each function takes the name of a field and a value. It returns the value to store, or raises `InvalidInput` with that name.
The limits are those of Core ("Names and sizes" in docs/reference/allsource-api.md), so that every store accepts the same
values.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, cast

from allsource_auth.errors import InvalidInput

__all__ = ["MAX_ID_BYTES", "MAX_REQUEST_BYTES"]

MAX_ID_BYTES = 128
"""Maximum size of a stream id in bytes of UTF-8, with its prefix."""

MAX_TENANT_BYTES = 64
"""Maximum size of a tenant id in bytes of UTF-8."""

MAX_REQUEST_BYTES = 2_000_000
"""Maximum size of the events of one mutation. Core rejects request bodies of more than 2 MiB."""

MAX_DEPTH = 64
"""Maximum nesting of JSON values in metadata."""

PASSWORD_KEYS = frozenset({"password", "password_hash", "passwordHash", "passwd", "hashed_password", "hashedPassword"})
"""Keys that are invalid in the metadata of a user, because metadata is not hidden as a secret."""


def is_unicode(value: str) -> bool:
    """Return whether a text can be encoded, that is, contains no lone surrogate."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def string(field: str, value: object) -> str:
    """Any ``str``, even with lone surrogates. For look-ups, which find nothing then."""
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be text, not {type(value).__name__}")
    return value


def text(field: str, value: object) -> str:
    """Any Unicode text."""
    found = string(field, value)
    if not is_unicode(found):
        raise InvalidInput(field, "contains a lone surrogate, which is not valid Unicode")
    return found


def nonempty(field: str, value: object) -> str:
    """Any Unicode text except the empty one."""
    found = text(field, value)
    if not found:
        raise InvalidInput(field, "must not be empty")
    return found


def is_plain(value: str) -> bool:
    """Return whether a text is a label of printable ASCII: a fast check that nearly all labels pass."""
    return value.isascii() and value.isprintable() and value != "" and value[0] != " " != value[-1]


def label(field: str, value: object) -> str:
    """A text used for look-ups: not empty, no control characters, no white space at either end."""
    found = text(field, value)
    if is_plain(found):
        return found
    if not found:
        raise InvalidInput(field, "must not be empty")
    if found != found.strip():
        raise InvalidInput(field, "must not begin or end with white space")
    if any(unicodedata.category(character) == "Cc" for character in found):
        raise InvalidInput(field, "must not contain control characters")
    return found


def identifier(field: str, value: object, *, prefix: str = "") -> str:
    """A label that is valid in a stream id: at most 128 bytes of UTF-8 together with ``prefix``."""
    found = label(field, value)
    size = len(prefix.encode()) + len(found.encode())
    if size > MAX_ID_BYTES:
        raise InvalidInput(field, f"is too long: {size} bytes with its prefix {prefix!r}, at most {MAX_ID_BYTES}")
    return found


def tenant(field: str, value: object) -> str:
    """A tenant id: letters, digits, ``-`` and ``_``, 1 to 64 bytes of UTF-8."""
    found = text(field, value)
    if not found or len(found.encode()) > MAX_TENANT_BYTES:
        raise InvalidInput(field, f"must have 1 to {MAX_TENANT_BYTES} bytes")
    if not all(character.isalnum() or character in "-_" for character in found):
        raise InvalidInput(field, "may contain only letters, digits, '-' and '_'")
    return found


def boolean(field: str, value: object) -> bool:
    """``True`` or ``False``."""
    if not isinstance(value, bool):
        raise InvalidInput(field, f"must be True or False, not {type(value).__name__}")
    return value


def count(field: str, value: object) -> int:
    """An integer from 0 to 2^63 - 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, f"must be a whole number, not {type(value).__name__}")
    if not 0 <= value < 2**63:
        raise InvalidInput(field, "must be from 0 to 2^63 - 1")
    return value


def one_of(*allowed: str) -> Callable[[str, object], str]:
    """Return a function that accepts only these texts."""

    def check(field: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise InvalidInput(field, f"must be one of {', '.join(allowed)}")
        return value

    return check


def instant(field: str, value: object) -> datetime:
    """A timezone-aware datetime, converted to UTC. A naive datetime is invalid because its time zone is unknown."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidInput(field, "must be timezone-aware; this datetime is naive")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(field, "is outside the years 1 to 9999 in UTC") from None


def json_value(field: str, value: object, *, depth: int = 0) -> Any:
    """A value that JSON can represent without loss: finite numbers, integers of at most 64 bits, keys that are text."""
    if depth > MAX_DEPTH:
        raise InvalidInput(field, f"is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(field, value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidInput(field, "contains an integer of more than 64 bits")
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise InvalidInput(field, "contains NaN or infinity, which JSON cannot represent")
        return value
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        return [json_value(field, item, depth=depth + 1) for item in items]
    if isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return {_json_key(field, key): json_value(field, item, depth=depth + 1) for key, item in members.items()}
    raise InvalidInput(field, f"contains a {type(value).__name__}, which JSON cannot represent")


def _json_key(field: str, key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInput(field, f"contains a key of type {type(key).__name__}; keys must be text")
    return text(field, key)


def json_object(field: str, value: object) -> dict[str, Any]:
    """A mapping whose contents pass `json_value`."""
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be a mapping, not {type(value).__name__}")
    found: dict[str, Any] = json_value(field, cast("object", value))
    return found


def user_metadata(field: str, value: object) -> dict[str, Any]:
    """A `json_object` without any of `PASSWORD_KEYS`, at any level."""
    found = json_object(field, value)
    if key := _password_key(found):
        raise InvalidInput(field, f"must not contain a password (key {key!r}); store its hash in an account")
    return found


def _password_key(value: Any) -> str | None:
    """Return the first of `PASSWORD_KEYS` in a JSON value."""
    if isinstance(value, dict):
        for key, item in cast("dict[str, object]", value).items():
            if key in PASSWORD_KEYS:
                return key
            if found := _password_key(item):
                return found
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            if found := _password_key(item):
                return found
    return None


def normalize_email(value: str) -> str:
    """Return the form in which emails are compared: Unicode NFC, in lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).lower())
