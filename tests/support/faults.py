"""``Faults``: failures between a client and a local Allsource, armed by tests.

A test arms a fault, sends requests, and checks what the server received. Faults act in the order of arming, each on one
request at a time. A delay, a rewriting, stale reads and forgotten versions last until `Faults.clear`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allsource_auth import VersionConflict
from allsource_auth.server import LocalAllsource, Middleware
from allsource_auth.server.log_access import LogAccess
from allsource_auth.server.query import Found, Query
from allsource_auth.server.replies import Reply, encode, error_reply
from allsource_auth.store.base import Acknowledged
from allsource_auth.store.sqlite.append import Record

__all__ = ["Faults", "ReceivedRequest"]

_Action = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


class ReceivedRequest(NamedTuple):
    """A request as it was sent."""

    method: str
    path: str
    query: str


class _ArmedFault:
    """A fault for ``count`` requests: each ``every``-th one of those that contain ``on``."""

    def __init__(self, action: _Action, on: str, count: int, every: int) -> None:
        if count < 1 or every < 1:
            raise ValueError("count and every must be at least 1")
        self.action = action
        self.remaining = count
        self._on = on
        self._every = every
        self._matched = 0

    def takes(self, request: str) -> bool:
        """Whether the fault acts on this request. Counts the request."""
        if self._on not in request:
            return False
        self._matched += 1
        if self._matched % self._every:
            return False
        self.remaining -= 1
        return True


class Faults(Middleware):
    """The faults of one `LocalAllsource`, on both of its ports.

    ``on`` selects the requests of a fault: those whose ``"METHOD /path"`` contains it. The empty text selects all.
    Arming raises `ValueError` if ``count`` or ``every`` is below 1.
    """

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        """Every HTTP request in order of arrival, including those that the server rejected with 429."""
        self.most_at_once = 0
        """The highest number of HTTP requests that were being processed or queued at a time."""
        self._at_once = 0
        self._armed: list[_ArmedFault] = []
        self._hold: float | asyncio.Event | None = None
        self._hold_on = ""
        self._rewrite: Callable[[Any], Any] | None = None
        self._rewrite_on = ""
        self._server: LocalAllsource | None = None
        self._log: _FaultyLog | None = None
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    def lose_replies(self, count: int = 1, *, on: str = "POST") -> None:
        """Process the next ``count`` requests, and close the connection instead of replying.

        Without a socket (an ASGI client in the same process) the client gets a `ConnectionResetError`.
        """

        async def action(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
            await _captured(app, scope, receive)
            await _drop(scope, receive)

        self._armed.append(_ArmedFault(action, on, count, 1))

    def refuse(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        count: int = 1,
        every: int = 1,
        stored: bool = False,
        on: str = "",
    ) -> None:
        """Answer ``count`` requests, each ``every``-th one, with ``status``, ``body`` and ``headers``.

        ``stored``: process the request first, like a server that does not know whether it did.
        """
        self._armed.append(_ArmedFault(_replying(Reply(status, body, None, headers), stored), on, count, every))

    def garble(
        self, body: bytes, content_type: str, status: int = 200, *, count: int = 1, stored: bool = True, on: str = ""
    ) -> None:
        """Answer the next ``count`` requests with another body: a proxy's page, a truncated document.

        ``stored``: process the request first.
        """
        self._armed.append(_ArmedFault(_replying(Reply(status, body, content_type), stored), on, count, 1))

    def rewrite(self, function: Callable[[Any], Any], *, on: str = "") -> None:
        """Pass the decoded JSON of every reply of status 200 or 201 through ``function``, until `clear`."""
        self._rewrite, self._rewrite_on = function, on

    def delay(self, hold: float | asyncio.Event, *, on: str = "") -> None:
        """Hold every request before it is processed, for seconds or until the event is set, until `clear`."""
        self._hold, self._hold_on = hold, on

    def stale(self, stream: str | None = None) -> None:
        """Behave like 0.27 short of memory: ordinary queries of ``stream`` (``None``: of any) miss later appends.

        They are answered with 200 and the true ``entity_version``. Strict reads return all events. Queries without an
        entity are answered with 503. Lasts until `clear`.
        """
        self._attached_log().run_short_of_memory(stream)

    def restart(self, *, cold: bool) -> None:
        """Close all connections and WebSockets, and start new epochs of the feed.

        ``cold``: as 0.23 with a data directory, count existing streams from 0 until their tenant is queried, or until
        `clear`. 0.27 keeps its versions.
        """
        log = self._attached_log()
        assert self._server is not None
        if cold and self._server.generation == "0.23":
            log.forget_versions()
        self._server.restart()
        for connection in list(self._connections):
            connection.abort()

    def clear(self) -> None:
        """Disarm all faults. `requests` and `most_at_once` are kept."""
        self._armed.clear()
        self._hold = self._rewrite = None
        if self._log is not None:
            self._log.recover()

    def _attached_log(self) -> _FaultyLog:
        if self._log is None:
            raise RuntimeError("pass these faults to a LocalAllsource first")
        return self._log

    # The hooks of Middleware

    def attach(self, server: LocalAllsource) -> None:
        """Raises `RuntimeError` if these faults belong to another server."""
        if self._server is not None:
            raise RuntimeError("these faults belong to another server")
        self._server = server

    def log_access(self, access: LogAccess) -> LogAccess:
        assert self._server is not None
        log = self._server.log
        self._log = _FaultyLog(access, lambda: log.newest)
        return self._log

    def before_admission(self, app: ASGIApp) -> ASGIApp:
        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            query = scope["query_string"].decode("latin-1")
            self.requests.append(ReceivedRequest(scope["method"], scope["path"], query))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            connection = _connection(scope)
            if connection is not None:
                self._connections.add(connection)
            try:
                await app(scope, receive, send)
            finally:
                self._at_once -= 1

        return recorded

    def after_admission(self, app: ASGIApp) -> ASGIApp:
        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._process(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return faulty

    async def _process(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        request = f"{scope['method']} {scope['path']}"
        if self._hold_on in request:
            if isinstance(self._hold, asyncio.Event):
                await self._hold.wait()
            elif self._hold is not None:
                await asyncio.sleep(self._hold)
        fault = next((fault for fault in self._armed if fault.takes(request)), None)
        if fault is not None:
            if not fault.remaining:
                self._armed.remove(fault)
            await fault.action(app, scope, receive, send)
        elif self._rewrite is not None and self._rewrite_on in request:
            reply = _rewritten(await _captured(app, scope, receive), self._rewrite)
            await reply(scope, receive, send)
        else:
            await app(scope, receive, send)


class _FaultyLog:
    """Access to a log that can forget versions, or hide new events from ordinary queries.

    The log itself is complete. 0.23 counts the events of an archived stream only after a query of the tenant. 0.27
    without enough memory answers ordinary queries from its archive, which lacks the newest events.
    """

    def __init__(self, access: LogAccess, newest: Callable[[], int]) -> None:
        self._access = access
        self._newest = newest
        self._queried: set[str] | None = None
        """The tenants queried since the versions were forgotten; ``None`` while all versions are known."""
        self._versions: dict[str, int] = {}
        """The versions of streams of other tenants, counted from 0 since then."""
        self._forgetful_append = asyncio.Lock()
        self._short_of_memory = False
        self._stale_stream: str | None = None
        self._archived_until = 0

    def forget_versions(self) -> None:
        self._queried = set()
        self._versions = {}

    def run_short_of_memory(self, stream: str | None) -> None:
        self._short_of_memory, self._stale_stream = True, stream
        self._archived_until = self._newest()

    def recover(self) -> None:
        self._queried = None
        self._short_of_memory = False

    async def find(self, query: Query, /, *, limit: int | None) -> Found:
        """Find events. Raises `Rejected` (503) for an ordinary query without a stream while short of memory."""
        assert query.tenant is not None
        if self._queried is not None:
            self._queried.add(query.tenant)
        if self._short_of_memory and query.integrity is None:
            if query.entity is None:
                sizes = {"needed_bytes": 1 << 30, "available_bytes": 1 << 20}
                raise error_reply(503, "archive_hydration_refused", {"retry-after": "30"}, **sizes)
            if self._stale_stream in (None, query.entity):
                until = self._archived_until if query.until is None else min(query.until, self._archived_until)
                query = msgspec.structs.replace(query, until=until)
        return await self._access.find(query, limit=limit)

    async def append(self, tenant: str, record: Record, /) -> Acknowledged:
        if self._has_forgotten(tenant):
            # Serialised, so that the forgotten version and the head in the log advance together.
            async with self._forgetful_append:
                if self._has_forgotten(tenant):
                    return await self._append_from_forgotten_version(tenant, record)
        return await self._access.append(tenant, record)

    def _has_forgotten(self, tenant: str) -> bool:
        return self._queried is not None and tenant not in self._queried

    async def _append_from_forgotten_version(self, tenant: str, record: Record) -> Acknowledged:
        version = self._versions.get(record.stream, 0)
        if record.guard is not None and record.guard != version:
            raise VersionConflict(expected=record.guard, actual=version, stream=record.stream)
        stored = await self._access.append(tenant, record._replace(guard=None))
        self._versions[record.stream] = version + 1
        return Acknowledged(id=stored.id, time=stored.time, version=version + 1)


def _replying(reply: Reply, stored: bool) -> _Action:
    async def action(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if stored:
            await _captured(app, scope, receive)
        await reply(scope, receive, send)

    return action


async def _captured(app: ASGIApp, scope: Scope, receive: Receive) -> Reply:
    """Process a request and return the reply instead of sending it."""
    reply = Reply(500)

    async def capture(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            reply.content_type = headers.pop("content-type", None)
            headers.pop("content-length", None)
            reply.headers = headers
        else:
            reply.body += message.get("body", b"")

    await app(scope, receive, capture)
    return reply


def _rewritten(reply: Reply, function: Callable[[Any], Any]) -> Reply:
    if reply.status in (200, 201) and reply.content_type == "application/json":
        reply.body = encode(function(msgspec.json.decode(reply.body)))
    return reply


def _connection(scope: Scope) -> asyncio.Transport | None:
    state = scope.get("state") or {}
    return state.get("connection")


async def _drop(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request that has not been answered."""
    connection = _connection(scope)
    if connection is None:
        raise ConnectionResetError("the reply was lost")
    connection.abort()
    # uvicorn logs an application that returns without a reply as failed, unless it knows that the client has gone.
    while (await receive())["type"] != "http.disconnect":
        pass
