"""What ``allsource-auth serve`` does: a local Allsource on two ports, until it is asked to stop."""

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
    """Serve the file ``data``, or memory, say where and how to use it, and end after SIGINT or SIGTERM.

    Raises `InvalidInput`, `Storage` for the file, `OSError` with one sentence for an address that cannot be had.
    """
    log = SqliteLog(data)
    try:
        keys = {} if api_key is None else {api_key: tenant}
        local = LocalAllsource(log, generation=generation, api_keys=keys)
        await log.open()
        async with serving(local, host=host, core_port=port, query_port=query_port, signals=True) as running:
            kept = "in memory, gone when this ends" if log.path is None else log.path
            sys.stdout.write(_announcement(running, generation, kept, host, tenant, with_key=api_key is not None))
            sys.stdout.flush()
            await running.asked_to_stop()
    finally:
        await log.close()


def _announcement(running: Running, generation: str, kept: str, host: str, tenant: str, *, with_key: bool) -> str:
    core, query_service = running.core_url, running.query_url
    if with_key:
        asked = f"one API key, of tenant {tenant}; the Query Service and the event feed ask for it"
    else:
        asked = "nobody is asked for an API key"
    lines = [
        f"A local stand-in for Allsource {generation}, for development: not a server for other people's data.",
        "",
        f"  Core           {core}",
        f"  Query Service  {query_service}",
        f"  events         {kept}",
        f"  credentials    {asked}",
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
        lines += [f"Anybody who reaches {core} can read and write every event, with or without a key, as on Core.", ""]
    return "\n".join([*lines, "Ctrl-C stops it.", ""])
