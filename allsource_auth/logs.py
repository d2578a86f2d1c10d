"""The library's log events, through structlog into the standard library's logger ``allsource_auth``.

Silent until an application sets that logger to debug, so that an unconfigured structlog prints nothing; then one event per
call of the store with operation, kind, milliseconds and outcome. No value of a field is ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from time import perf_counter
from typing import Any, TypeVar

__all__ = ["log_suppressed", "timed"]

T = TypeVar("T")

_standard = logging.getLogger("allsource_auth")


def _emit(event: str, **facts: object) -> None:
    # structlog takes longer to import than all of the rest; it is needed once somebody listens.
    import structlog

    log = structlog.wrap_logger(
        _standard,
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.debug(event, **facts)


def timed(operation: str, stream: str, call: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """``call``, a call of the store, which logs how it went while debug events are wanted, and costs nothing otherwise."""
    return _logged(operation, stream, call) if _standard.isEnabledFor(logging.DEBUG) else call


async def _logged(operation: str, stream: str, call: Coroutine[Any, Any, T]) -> T:
    kind = stream.split(":")[1 if stream.startswith("auth-idx:") else 0]  # never the key
    began = perf_counter()
    outcome = "ok"
    try:
        return await call
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        milliseconds = round((perf_counter() - began) * 1000, 3)
        _emit("store call", operation=operation, kind=kind, milliseconds=milliseconds, outcome=outcome)


def log_suppressed(event: str, error: BaseException) -> None:
    """Log that something which does not concern the caller's result failed: the class of the error, not its text."""
    if _standard.isEnabledFor(logging.DEBUG):
        _emit(event, error=type(error).__name__)
