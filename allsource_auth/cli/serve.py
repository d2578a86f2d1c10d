"""The local Allsource that ``allsource-auth serve`` runs on two ports until it receives a signal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from allsource_auth import SqliteLog
from allsource_auth.server import LocalAllsource, Running, serving

__all__ = ["serve_until_stopped"]

_LOOPBACK = ("127.", "::1", "localhost")


async def serve_until_stopped(
    data: Path | None,
    *,
    host: str,
    port: int,
    query_port: int,
    api_key: str | None,
    tenant: str,
    generation: Literal["0.23", "0.27"],
) -> None:
    """Serve the file ``data`` (``None``: memory), print the URLs and how to use them, and stop on SIGINT or SIGTERM.

    Raises `InvalidInput`; `Storage` if the file cannot be used; `OSError` if the server cannot listen on the address.
    """
    log = SqliteLog(data)
    try:
        keys = {} if api_key is None else {api_key: tenant}
        local = LocalAllsource(log, generation=generation, api_keys=keys)
        await log.open()
        async with serving(local, host=host, core_port=port, query_port=query_port, signals=True) as running:
            location = "in memory, lost when the server stops" if log.path is None else log.path
            sys.stdout.write(_banner(running, generation, location, host, tenant, with_key=api_key is not None))
            sys.stdout.flush()
            await running.asked_to_stop()
    finally:
        await log.close()


def _banner(running: Running, generation: str, location: str, host: str, tenant: str, *, with_key: bool) -> str:
    core, query_service = running.core_url, running.query_url
    if with_key:
        credentials = f"one API key, for tenant {tenant}; the Query Service and the event feed require it"
    else:
        credentials = "no API key is required"
    lines = [
        f"A local Allsource that replies like {generation}, for development only. Do not keep real data in it.",
        "",
        f"  Core           {core}",
        f"  Query Service  {query_service}",
        f"  events         {location}",
        f"  credentials    {credentials}",
        "",
        "In Python:",
        f'  AllsourceAuthAdapter("{core}", "{query_service}", api_key=..., tenant_id="{tenant}")',
        "In the environment:",
        f"  ALLSOURCE_CORE_URL={core}",
        f"  ALLSOURCE_QUERY_URL={query_service}",
        f"  ALLSOURCE_TENANT={tenant}",
        "",
    ]
    if not host.startswith(_LOOPBACK):
        lines += [
            f"Anyone who can connect to {core} can read and write every event, even without a key, as on Core.",
            "",
        ]
    return "\n".join([*lines, "Ctrl-C stops it.", ""])
