"""Canaries: marked secrets in the stored data that must not appear in logs, reprs and errors.

While `watched` is active, every log record, every result of a public call and every exception of the package is searched
for canaries, at the end of the test that caused it.
"""

from __future__ import annotations

import inspect
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from functools import wraps
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, AllsourceStore, SqliteStore
from allsource_auth.engine.queries import Queries
from allsource_auth.engine.repository import Repository

__all__ = ["CANARY", "email", "repository_classes", "revealed", "token", "watched"]

CANARY = "c4n4ry"

LOGGER = "allsource_auth"
LOGGED = {"operation", "kind", "milliseconds", "outcome"}

_GENERATED_TOKEN = re.compile(r"session_[A-Za-z0-9_-]{43}")
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def email(name: str) -> str:
    return f"{name}.{CANARY}@Example.org"


def token(name: str) -> str:
    return f"session_{CANARY}_{name}"


def revealed(text: str) -> bool:
    """Whether a text contains a canary (in any case) or a token that the package generated."""
    return CANARY in text.lower() or _GENERATED_TOKEN.search(text) is not None


class Watch(logging.Handler):
    """Collects log records, results and errors."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self.errors: list[AllsourceAuthError] = []
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def inspect(self, source: str, value: object) -> None:
        """Search the repr of a result for canaries; strings and numbers are returned to the caller and may be secret."""
        if isinstance(value, dict | list | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                self.inspect(source, item)
        elif not isinstance(value, str | bool | int | float) and revealed(repr(value)):
            self.leaks.append(f"the repr of a {type(value).__name__} from {source}")

    def facts(self, record: logging.LogRecord) -> dict[str, object]:
        """The attributes of a record that the standard library does not set."""
        return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}

    def assert_no_leaks(self) -> None:
        for record in self.records:
            if revealed(f"{record.getMessage()} {self.facts(record)}"):
                self.leaks.append(f"a log record {record.msg!r}")
        for error in self.errors:
            if revealed(repr(error)):
                self.leaks.append(f"the repr of a {type(error).__name__}")
            shown = traceback.TracebackException.from_exception(error, lookup_lines=False)
            if revealed("".join(shown.format_exception_only())) or _chain_reveals(shown):
                self.leaks.append(f"the text of a {type(error).__name__}")
        assert self.leaks == []


def _chain_reveals(shown: traceback.TracebackException) -> bool:
    cause = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return cause is not None and (revealed("".join(cause.format_exception_only())) or _chain_reveals(cause))


def repository_classes() -> list[type]:
    """The base classes of the repositories and the ten repositories."""
    found: list[type] = [Repository]
    for owner in found:
        found += owner.__subclasses__()
    return found


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Fail at the end of the block if the package logged, returned or raised a canary in it."""
    watch = Watch()
    for owner in (AllsourceAuthAdapter, Queries, *repository_classes(), AllsourceStore, SqliteStore):
        for name, call in list(vars(owner).items()):
            if not name.startswith("_") and _is_asynchronous(call):
                monkeypatch.setattr(owner, name, _inspected(watch, f"{owner.__name__}.{name}", call))
    monkeypatch.setattr(AllsourceAuthError, "__new__", _recorded(watch))
    logger = logging.getLogger(LOGGER)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(watch)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield watch
    finally:
        logger.propagate = propagate
        logger.setLevel(level)
        logger.removeHandler(watch)
    watch.assert_no_leaks()


def _is_asynchronous(call: Any) -> bool:
    """Whether a function returns an awaitable or an asynchronous iterator."""
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        return True
    return inspect.isfunction(call) and "AsyncIterator" in str(call.__annotations__.get("return"))


def _inspected(watch: Watch, source: str, call: Any) -> Any:
    if inspect.iscoroutinefunction(call):

        @wraps(call)
        async def awaited(*args: Any, **named: Any) -> Any:
            result = await call(*args, **named)
            watch.inspect(source, args[0])
            watch.inspect(source, result)
            return result

        return awaited

    @wraps(call)
    async def iterated(*args: Any, **named: Any) -> Any:
        async with aclosing(call(*args, **named)) as items:
            async for item in items:
                watch.inspect(source, item)
                yield item

    return iterated


def _recorded(watch: Watch) -> Any:
    def new(cls: type[AllsourceAuthError], *args: Any, **named: Any) -> AllsourceAuthError:
        error = Exception.__new__(cls, *args)
        watch.errors.append(error)
        return error

    return new
