"""The options of the adapter, validated once, when it is built; each error names the option."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from . import values
from .errors import InvalidInput

__all__ = ["Clock", "Durability"]

Clock = Callable[[], datetime]
"""Returns the present as a timezone-aware datetime."""

Durability = Literal["full", "normal"]
"""``full``: an acknowledged write survives a power cut. ``normal``: it survives a crash of the process."""

CORE_URL = "ALLSOURCE_CORE_URL"
EMBEDDED_PATH = "ALLSOURCE_EMBEDDED_PATH"
TENANT = "ALLSOURCE_TENANT"


def utc_now() -> datetime:
    return datetime.now(UTC)


def tenant_id(value: object) -> str:
    return values.tenant("tenant_id", value)


def clock(value: object) -> Clock:
    if not callable(value):
        raise InvalidInput("clock", "must be a function that returns a timezone-aware datetime")
    values.instant("clock", value())
    return value


def durability(value: object) -> Durability:
    for known in get_args(Durability):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise InvalidInput("durability", f"must be one of {', '.join(get_args(Durability))}")


def path(value: object, *, name: str = "path") -> str | None:
    """The file of an embedded store; ``None`` for one in memory."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise InvalidInput(name, f"must be a path, not {type(value).__name__}")
    found = os.fspath(value)
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidInput(name, "must be the path of a file, as text")
    return str(Path(found))


class Environment:
    """The options that ``from_env`` finds."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        if environment.get(CORE_URL):
            raise InvalidInput(CORE_URL, f"this version has the embedded store only; set {EMBEDDED_PATH}")
        found = environment.get(EMBEDDED_PATH)
        if not found:
            raise InvalidInput(EMBEDDED_PATH, "is not set; it is the path of the file of the embedded store")
        self.path = path(found, name=EMBEDDED_PATH)
        self.tenant_id = values.tenant(TENANT, environment.get(TENANT) or "default")
