"""The library's log events, through structlog into the standard library's logger ``allsource_auth``.

Silent until an application sets that logger to debug, so that an unconfigured structlog prints nothing; then one event per
call of the store with operation, kind, milliseconds and outcome. No value of a field is ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

__all__ = ["observed"]

T = TypeVar("T")

_standard = logging.getLogger("allsource_auth")
enabled = _standard.isEnabledFor


def _emit(level: int, event: str, **facts: object) -> None:
    # structlog takes longer to import than all of the rest; it is needed once somebody listens.
    import structlog

    log = structlog.wrap_logger(
        _standard,
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.log(level, event, **facts)


async def observed(operation: str, stream_or_type: str, call: Awaitable[T]) -> T:
    """Await a call of the store and log how it went. Of the stream only its kind is logged, the part before the colon."""
    if not enabled(logging.DEBUG):
        return await call
    kind = stream_or_type.split(":")[1 if stream_or_type.startswith("auth-idx:") else 0]
    began = perf_counter()
    outcome = "ok"
    try:
        return await call
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        milliseconds = round((perf_counter() - began) * 1000, 3)
        _emit(logging.DEBUG, "store call", operation=operation, kind=kind, milliseconds=milliseconds, outcome=outcome)


def noticed(event: str, error: BaseException) -> None:
    """Log that something which does not concern the caller's result failed: the class of the error, not its text."""
    if enabled(logging.DEBUG):
        _emit(logging.DEBUG, event, error=type(error).__name__)
