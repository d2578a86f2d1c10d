"""``LocalAllsource``: Core and the Query Service on one embedded log, as two ASGI applications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from allsource_auth.errors import AllsourceAuthError, InvalidInput
from allsource_auth.server.admission import Admission
from allsource_auth.server.appending import Appender
from allsource_auth.server.core import CoreRoutes, empty_reply, rejected_reply, storage_reply
from allsource_auth.server.credentials import Credentials
from allsource_auth.server.feed import Feed
from allsource_auth.server.live_events import LiveEvents
from allsource_auth.server.log_access import DirectAccess, LogAccess
from allsource_auth.server.query_service import QueryServiceRoutes
from allsource_auth.server.reading import Reader
from allsource_auth.server.replies import Rejected
from allsource_auth.store.sqlite.log import SqliteLog

__all__ = ["LocalAllsource", "Middleware"]

SERVICE: Final = "allsource-auth-local"


class Middleware:
    """Hooks into one `LocalAllsource`, for tests that record requests or inject faults.

    Subclass it and override what is needed. The methods here change nothing. The server calls each of them when it is
    created: `attach` first, `log_access` once, and the other two once for each port, Core first.
    """

    def attach(self, server: LocalAllsource) -> None:
        """Take note of the server, of which ``log`` and ``generation`` are set. It serves after its construction."""

    def before_admission(self, app: ASGIApp) -> ASGIApp:
        """Return the application to serve on a port.

        ``app`` is the whole server behind that port. Requests that it will answer with 429 arrive here, too.
        """
        return app

    def after_admission(self, app: ASGIApp) -> ASGIApp:
        """Return the application that handles the requests within the limit of concurrent requests.

        ``app`` contains the routes. A request that is delayed here keeps its slot. WebSockets pass as well: handle a
        scope only if its type is the expected one.
        """
        return app

    def log_access(self, access: LogAccess) -> LogAccess:
        """Return the access to the log that appends and queries use, on both ports. The event feed does not use it."""
        return access


class LocalAllsource:
    """A stand-in for an Allsource, on one `SqliteLog`, for development and tests.

    Args:
        log: where the events are stored. The caller closes it. Other stores may use it at the same time.
        generation: the version of Core to imitate. ``"0.23"`` reports version 1 for every event in a query, and has no
            ETags, strict reads, page limit, event feed or limit on concurrent requests.
        api_keys: the known API keys, each with its tenant. Without any, the server is in development mode. As on Core,
            keys matter only for the event feed; the Query Service requires one for every request but health checks.
        envelope: the reply to a query of the Query Service: ``"events"`` as in its newest version, ``"data"`` as in
            older ones.
        max_requests: how many requests 0.27 processes at a time, on both ports together.
        max_waiting: how many more may wait. Further ones are answered with 429.
        patience: how long a request may wait, in seconds.
        middleware: hooks for tests, see `Middleware`.

    Raises `InvalidInput` for a value out of range.
    """

    core: ASGIApp
    """The application that Core serves on port 3900."""
    query_service: ASGIApp
    """The application that the Query Service serves on port 3902."""

    def __init__(
        self,
        log: SqliteLog,
        *,
        generation: Literal["0.23", "0.27"] = "0.27",
        api_keys: Mapping[str, str] | None = None,
        envelope: Literal["events", "data"] = "events",
        max_requests: int = 16,
        max_waiting: int = 64,
        patience: float = 2.0,
        middleware: Middleware | None = None,
    ) -> None:
        if generation not in ("0.23", "0.27"):
            raise InvalidInput("generation", 'must be "0.23" or "0.27"')
        if envelope not in ("events", "data"):
            raise InvalidInput("envelope", 'must be "events" or "data"')
        if max_requests < 1 or max_waiting < 0 or patience < 0:
            raise InvalidInput("max_requests", "must be at least 1; max_waiting and patience must not be negative")
        if "" in (api_keys or {}):
            raise InvalidInput("api_keys", "a key must not be empty")
        self.log = log
        self.generation = generation
        newer = generation == "0.27"
        hooks = Middleware() if middleware is None else middleware
        hooks.attach(self)
        self._live_events = LiveEvents()
        self._feed = Feed(log) if newer else None
        access = hooks.log_access(DirectAccess(log))
        appender = Appender(access, self._live_events, newer=newer)
        reader = Reader(access, newer=newer)
        credentials = Credentials(api_keys or {})
        core = CoreRoutes(appender, reader, self._live_events, self._feed, credentials, self._health())
        query_service = QueryServiceRoutes(reader, credentials, envelope, log.clock_ns, self._health())
        admission = Admission(max_requests, max_waiting, patience) if newer else None
        self.core = _port(core.routes(), admission, hooks)
        self.query_service = _port(query_service.routes(), admission, hooks)

    def __repr__(self) -> str:
        return f"LocalAllsource(log={self.log!r}, generation={self.generation!r})"

    def restart(self) -> None:
        """Close the WebSockets and start a new epoch of every event feed, as a restarted Core does."""
        self._live_events.close_all()
        if self._feed is not None:
            self._feed.restart()

    def _health(self) -> dict[str, object]:
        return {
            "replication": {"edition": "local", "status": "not_available"},
            "role": "leader",
            "service": SERVICE,
            "status": "healthy",
            "system_streams": {"mode": "in-memory", "status": "disabled"},
            "version": f"{self.generation}.0",
        }


def _port(routes: list[BaseRoute], admission: Admission | None, hooks: Middleware) -> ASGIApp:
    # Starlette's type of an exception handler does not allow a narrower exception.
    handlers: dict[Any, Any] = {
        Rejected: rejected_reply,
        AllsourceAuthError: storage_reply,
        HTTPException: empty_reply,
    }
    starlette = Starlette(routes=routes, exception_handlers=handlers)
    starlette.router.redirect_slashes = False
    app = hooks.after_admission(starlette)
    if admission is not None:
        app = admission.limit(app)
    return hooks.before_admission(app)
