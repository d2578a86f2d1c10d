"""A reply, read as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from allsource_auth.store.allsource.http.origin import Origin
from allsource_auth.store.allsource.request_queue import RequestQueue

__all__ = ["QueueOf", "Reply"]

QueueOf = Callable[[Origin], RequestQueue[Any]]
"""Returns the request queue of a server, in the running event loop."""


class Reply(NamedTuple):
    """A reply. ``header`` looks up a header by its lower-case name; ``sent`` is the `monotonic` time of the request."""

    status: int
    body: bytes
    header: Callable[[str], str | None]
    sent: float

    def __repr__(self) -> str:
        return f"Reply(status={self.status})"
