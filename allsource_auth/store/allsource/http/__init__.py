"""HTTP engines: send one request and return status, headers and body of the reply.

* `AsyncioEngine` has connection pools of its own (`pool`, `connection`, `connecting`, `parsing`), and offers them as an
  ``httpx.AsyncClient`` (`transport`).
* `CallersClient` uses an ``httpx.AsyncClient`` of the caller.

A failure raises `Http`, whose ``ambiguous`` is true if the server may have received the request.
"""

from __future__ import annotations

from allsource_auth.config import Connection
from allsource_auth.store.allsource.http.callers_client import CallersClient
from allsource_auth.store.allsource.http.engine import AsyncioEngine, Engine
from allsource_auth.store.allsource.http.origin import Origin
from allsource_auth.store.allsource.http.reply import QueueOf, Reply

__all__ = ["Engine", "Origin", "Reply", "connect", "engine_name"]


def engine_name(options: Connection) -> str:
    """The name of the engine that these options select."""
    return AsyncioEngine.name if options.http_client is None else CallersClient.name


def connect(options: Connection, queue_of: QueueOf) -> Engine:
    """Create the engine that these options select."""
    if options.http_client is not None:
        return CallersClient(options.http_client, options)
    return AsyncioEngine(options, queue_of)
