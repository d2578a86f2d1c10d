"""A local Allsource for development and tests: the HTTP APIs of Core and of the Query Service on an embedded log.

It needs the extra ``server``. ``allsource-auth serve`` runs it; in a program::

    log = SqliteLog("auth.db")
    async with serving(LocalAllsource(log)) as running:
        ...  # send requests to running.core_url and running.query_url
    await log.close()
"""

from __future__ import annotations

from allsource_auth.server.local import LocalAllsource, Middleware
from allsource_auth.server.sockets import Running, serving

__all__ = ["LocalAllsource", "Middleware", "Running", "serving"]
