"""Debug events of the library, sent through structlog to the logger ``allsource_auth`` of the standard library.

Nothing is logged unless the application sets that logger to ``DEBUG``. Then each call of the store logs one event with
operation, kind, duration in milliseconds and outcome. Values of fields are never logged.
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
    # Imported on first use, because importing structlog takes longer than the rest of the package.
    import structlog

    log = structlog.wrap_logger(
        _standard,
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.debug(event, **facts)


def timed(operation: str, stream: str, call: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Return ``call``, a call of the store, wrapped to log its duration and outcome if debug logging is enabled."""
    return _logged(operation, stream, call) if _standard.isEnabledFor(logging.DEBUG) else call


async def _logged(operation: str, stream: str, call: Coroutine[Any, Any, T]) -> T:
    kind = stream.split(":")[1 if stream.startswith("auth-idx:") else 0]  # without the key, which may be a secret
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
    """Log the class of an error that does not affect the result of the call. Its text is not logged."""
    if _standard.isEnabledFor(logging.DEBUG):
        _emit(event, error=type(error).__name__)
