"""The options that say where the events are, of every command that works on a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from allsource_auth import AllsourceStore, EventStore, SqliteLog, SqliteStore

__all__ = ["ApiKey", "Place"]

ApiKey = Annotated[str | None, Parameter(env_var="ALLSOURCE_API_KEY", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file, or an Allsource.

    Parameters
    ----------
    data
        The file with the events.
    core
        The URL of an Allsource Core to use instead of a file, such as http://127.0.0.1:3900.
    query
        The URL of its Query Service, for plain reads; by default the Core. May be given several times, for as many
        Query Services.
    api_key
        The API key for all of them. A key in the arguments can be seen in the list of processes: better set the environment
        variable.
    tenant
        The tenant to use.
    """

    data: Path | None = None
    core: str | None = None
    query: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    api_key: ApiKey = field(default=None, repr=False)
    tenant: str = "default"

    def wrong(self) -> str | None:
        """What is wrong with the options, in a sentence."""
        if self.core is not None and self.data is not None:
            return "--data and --core are two different places; name one of them"
        if self.core is None and self.query:
            return "--query needs --core, which takes the writes"
        return None

    def missing(self) -> str | None:
        """What is wrong where the store must be there already."""
        if self.core is None and self.data is None:
            return "name the store: --data FILE or --core URL"
        if self.data is not None and not self.data.exists():
            return f"there is no file {self.data}"
        return None

    def store(self, data: Path | None = None) -> EventStore:
        """Open the store; ``data`` is the file to use where none was named."""
        if self.core is not None:
            return AllsourceStore(self.core, self.query or None, self.api_key, tenant_id=self.tenant)
        return SqliteStore(SqliteLog(self.data or data), self.tenant)

    def __str__(self) -> str:
        return str(self.data) if self.core is None else f"tenant {self.tenant} of {self.core}"
