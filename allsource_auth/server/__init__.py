"""A local Allsource: the wire of Core and of the Query Service over the embedded log, for development and tests.

It needs the extra ``server``. ``allsource-auth serve`` runs it; in a program::

    log = SqliteLog("auth.db")
    async with serving(LocalAllsource(log)) as running:
        ...  # requests to running.core_url and running.query_url
    await log.close()
"""

from __future__ import annotations

from allsource_auth.server.faults import Faults, Seen
from allsource_auth.server.local import LocalAllsource
from allsource_auth.server.sockets import Running, serving

__all__ = ["Faults", "LocalAllsource", "Running", "Seen", "serving"]
