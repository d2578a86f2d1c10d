"""The connections to one origin in one event loop, the last used one first.

The pool has no limit of its own: a caller needs a slot of the origin's request queue first, and opens at most one connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from allsource_auth.store.allsource.http.connecting import open_connection
from allsource_auth.store.allsource.http.connection import Connection
from allsource_auth.store.allsource.http.failures import ConnectFailed, PoolClosed
from allsource_auth.store.allsource.http.origin import Origin
from allsource_auth.store.allsource.http.parsing import ReplyParser

__all__ = ["IDLE_SECONDS", "Pool"]

IDLE_SECONDS = 30.0
"""Seconds after which an idle connection is closed. Gateways commonly close idle connections after a minute."""

CLOSING_SECONDS = 1.0
"""Seconds that a server has to answer the shutdown of TLS, or to read what was sent."""


class Pool:
    """Opens connections to ``origin`` and keeps them while they are idle. It belongs to the running event loop."""

    def __init__(
        self, origin: Origin, parser: Callable[[], ReplyParser], tls: Callable[[], Awaitable[ssl.SSLContext]]
    ) -> None:
        self.origin = origin
        self.closed: bool = False
        self._loop = asyncio.get_running_loop()
        self._parser = parser
        self._tls = tls
        self._idle: list[Connection] = []
        self._open: dict[Connection, None] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def reuse(self) -> Connection | None:
        """The connection that was used last, or ``None``.

        The operating system is asked whether the server has sent anything or closed the connection meanwhile. A second reply to
        an earlier request is thus not taken for the reply to the next one.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable and not connection.has_input:
                return connection
            connection.abort()
        return None

    async def connect(self, seconds: float) -> Connection:
        """Open a connection within ``seconds``. Raises `ConnectFailed`, `TimedOut` and `PoolClosed`."""
        self._check_open()
        tls = await self._tls() if self.origin.scheme == "https" else None
        connection = await open_connection(self.origin, self._create, tls, seconds=seconds)
        try:
            self._check_open()
        except PoolClosed:
            connection.abort()
            raise
        if not connection.open:
            raise ConnectFailed("the server closed the connection at once")
        self._open[connection] = None
        return connection

    def _check_open(self) -> None:
        if self.closed:
            raise PoolClosed

    def _create(self) -> Connection:
        return Connection(self._loop, self._parser(), self._lost)

    def _lost(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)

    def release(self, connection: Connection) -> None:
        """Keep a connection whose exchange is over for the next request, or close it."""
        if not connection.finish():
            return
        if self.closed:
            connection.close()
            return
        connection.used = True
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        """Close the connections that have been idle for too long."""
        self._sweep = None
        expired = self._loop.time() - IDLE_SECONDS
        for connection in [each for each in self._idle if each.idle_since <= expired]:
            self._idle.remove(connection)
            connection.close()
        if self._idle:
            self._sweep = self._loop.call_at(self._idle[0].idle_since + IDLE_SECONDS, self._close_idle)

    @property
    def idle(self) -> int:
        """How many connections are idle."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when their exchange is over."""
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    async def aclose(self) -> None:
        """Close all connections and wait until they are closed, for a second at most; then end them at once."""
        idle = set(self._idle)
        self.close()
        for connection in set(self._open) - idle:
            connection.abort()
        ends_at = self._loop.time() + CLOSING_SECONDS
        while self._open:
            if self._loop.time() > ends_at:
                for connection in list(self._open):
                    connection.abort()
            await asyncio.sleep(0)
            if self._open:  # a shutdown of TLS, or bytes that the server has not read yet
                await asyncio.sleep(0.002)

    def discard(self) -> None:
        """Close all sockets without the event loop, which is closed or belongs to another process."""
        self.closed = True
        self._sweep = None
        self._idle.clear()
        while self._open:
            self._open.popitem()[0].discard()
