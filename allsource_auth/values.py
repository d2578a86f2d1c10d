"""What may be stored: checks and normal forms of ids, texts, times and JSON, each naming the field it refuses.

The limits are those of Core (section 7 of the contract), so that what one store accepts the others accept too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from allsource_auth.errors import InvalidInput

__all__ = ["MAX_ID_BYTES", "MAX_REQUEST_BYTES"]

MAX_ID_BYTES = 128
"""Of a stream id, prefix included (section 7.2 of the contract)."""

MAX_TENANT_BYTES = 64

MAX_REQUEST_BYTES = 2_000_000
"""Of what one mutation writes; Core refuses a body of more than 2 MiB (section 19 of the contract)."""

MAX_DEPTH = 64
"""Levels of nesting in metadata."""

PASSWORD_KEYS = frozenset({"password", "password_hash", "passwordHash", "passwd", "hashed_password", "hashedPassword"})
"""Keys that a user's metadata must not have (section 10 of the design)."""


def is_unicode(value: str) -> bool:
    """Whether a text has no lone surrogate, which no encoding of Unicode has."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def text(field: str, value: object) -> str:
    """Any Unicode text."""
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be text, not {type(value).__name__}")
    if not is_unicode(value):
        raise InvalidInput(field, "holds a lone surrogate, which is not Unicode text")
    return value


def nonempty(field: str, value: object) -> str:
    """Any Unicode text but the empty one."""
    found = text(field, value)
    if not found:
        raise InvalidInput(field, "must not be empty")
    return found


def is_plain(value: str) -> bool:
    """The quick answer for nearly all labels: printable ASCII, no blank at either end."""
    return value.isascii() and value.isprintable() and value != "" and value[0] != " " != value[-1]


def label(field: str, value: object) -> str:
    """A text by which something is found: not empty, no control characters, no blanks around it."""
    found = text(field, value)
    if is_plain(found):
        return found
    if not found:
        raise InvalidInput(field, "must not be empty")
    if found != found.strip():
        raise InvalidInput(field, "must not begin or end with a blank")
    if any(unicodedata.category(character) == "Cc" for character in found):
        raise InvalidInput(field, "must not hold control characters")
    return found


def identifier(field: str, value: object, *, prefix: str = "") -> str:
    """An id, valid as a part of a stream id: ``prefix`` and id together at most 128 bytes of UTF-8."""
    found = label(field, value)
    size = len(prefix.encode()) + len(found.encode())
    if size > MAX_ID_BYTES:
        raise InvalidInput(field, f"is too long: {size} bytes with its prefix {prefix!r}, at most {MAX_ID_BYTES}")
    return found


def tenant(field: str, value: object) -> str:
    """A tenant id: letters, digits, ``-`` and ``_``, at most 64 bytes (section 7.3 of the contract)."""
    found = text(field, value)
    if not found or len(found.encode()) > MAX_TENANT_BYTES:
        raise InvalidInput(field, f"must have 1 to {MAX_TENANT_BYTES} bytes")
    if not all(character.isalnum() or character in "-_" for character in found):
        raise InvalidInput(field, "may only hold letters, digits, '-' and '_'")
    return found


def boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(field, f"must be True or False, not {type(value).__name__}")
    return value


def count(field: str, value: object) -> int:
    """A whole number from 0 to the largest signed one of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, f"must be a whole number, not {type(value).__name__}")
    if not 0 <= value < 2**63:
        raise InvalidInput(field, "must be at least 0 and fit 63 bits")
    return value


def one_of(*allowed: str) -> Callable[[str, object], str]:
    """The check that a value is one of these."""

    def check(field: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise InvalidInput(field, f"must be one of {', '.join(allowed)}")
        return value

    return check


def instant(field: str, value: object) -> datetime:
    """A moment in UTC. A naive one is refused: nobody can know which moment it means."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidInput(field, "must have a time zone; a naive datetime does not say which moment it means")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(field, "is outside the years 1 to 9999 in UTC") from None


def json_value(field: str, value: object, *, depth: int = 0) -> Any:
    """A JSON value that reads back as it was given: finite numbers of at most 64 bits, text keys, no other types."""
    if depth > MAX_DEPTH:
        raise InvalidInput(field, f"is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(field, value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidInput(field, "holds an integer of more than 64 bits")
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise InvalidInput(field, "holds a number that JSON does not have (NaN or infinity)")
        return value
    if isinstance(value, list | tuple):
        return [json_value(field, item, depth=depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {_json_key(field, key): json_value(field, item, depth=depth + 1) for key, item in value.items()}
    raise InvalidInput(field, f"holds a {type(value).__name__}, which JSON does not have")


def _json_key(field: str, key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInput(field, f"has a key that is not text but {type(key).__name__}")
    return text(field, key)


def json_object(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be a mapping, not {type(value).__name__}")
    found: dict[str, Any] = json_value(field, value)
    return found


def user_metadata(field: str, value: object) -> dict[str, Any]:
    """A JSON object without a password in it (section 10 of the design); looked for at every level."""
    found = json_object(field, value)
    if key := _password_key(found):
        raise InvalidInput(field, f"must not hold a password (key {key!r}); passwords belong to an account")
    return found


def _password_key(value: Any) -> str | None:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in PASSWORD_KEYS:
                return str(key)
            if found := _password_key(item):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := _password_key(item):
                return found
    return None


def normalize_email(value: str) -> str:
    """The form in which emails are compared: NFC, Unicode lower case (section 3 of the design)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).lower())
