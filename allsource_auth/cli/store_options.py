"""The options that name the store, for every command that works on one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from allsource_auth import AllsourceStore, EventStore, SqliteLog, SqliteStore

__all__ = ["ApiKey", "StoreOptions"]

ApiKey = Annotated[str | None, Parameter(env_var="ALLSOURCE_API_KEY", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """A file, or an Allsource.

    Parameters
    ----------
    data
        The file with the events.
    core
        The URL of an Allsource Core to use instead of a file, such as http://127.0.0.1:3900.
    query
        The URL of its Query Service, for reads that need not go to Core. Default: Core answers all reads. May be given
        several times, once for each Query Service.
    api_key
        The API key for Core and the Query Services. Arguments are visible in the list of processes, so prefer the environment
        variable.
    tenant
        The tenant to use.
    """

    data: Path | None = None
    core: str | None = None
    query: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    api_key: ApiKey = field(default=None, repr=False)
    tenant: str = "default"

    def conflict(self) -> str | None:
        """The error message if the options contradict each other, else ``None``."""
        if self.core is not None and self.data is not None:
            return "--data and --core name two different stores; give one of them"
        if self.core is None and self.query:
            return "--query needs --core, to which writes go"
        return None

    def missing(self) -> str | None:
        """The error message if no existing store is named, else ``None``. Does not connect to a server."""
        if self.core is None and self.data is None:
            return "name the store: --data FILE or --core URL"
        if self.data is not None and not self.data.exists():
            return f"the file {self.data} does not exist"
        return None

    def store(self, default: Path | None = None) -> EventStore:
        """The store. ``default`` is the file to use if the options name no store."""
        if self.core is not None:
            return AllsourceStore(self.core, self.query or None, self.api_key, tenant_id=self.tenant)
        return SqliteStore(SqliteLog(self.data or default), self.tenant)

    def __str__(self) -> str:
        return str(self.data) if self.core is None else f"tenant {self.tenant} of {self.core}"
