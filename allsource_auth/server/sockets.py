"""A `LocalAllsource` on real sockets, in the event loop that is running."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from allsource_auth.server.local import LocalAllsource

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as HTTPProtocol

__all__ = ["Running", "serving"]

GRACE: Final = 1.0
"""How long, in seconds, requests in progress may go on when the server stops."""

IDLE: Final = 600
"""How long, in seconds, an idle connection stays open. Core keeps it for minutes; uvicorn would close it after five seconds."""

_BACKLOG: Final = 2048


class Running:
    """A server that runs: where it listens. Made by `serving`."""

    core_url: str
    """The base URL of Core."""
    query_url: str
    """The base URL of the Query Service."""

    def __init__(self, core: _Listener, query_service: _Listener) -> None:
        self._listeners = (core, query_service)
        self.core_url = core.url
        self.query_url = query_service.url
        self._asked = asyncio.Event()
        self._stopping: asyncio.Future[list[None]] | None = None

    def __repr__(self) -> str:
        return f"Running(core_url={self.core_url!r}, query_url={self.query_url!r})"

    def ask_to_stop(self) -> None:
        """Make `asked_to_stop` return."""
        self._asked.set()

    async def asked_to_stop(self) -> None:
        """Wait until a signal or `ask_to_stop` asks for the end."""
        await self._asked.wait()

    async def stop(self) -> None:
        """Take no more connections, finish requests in progress within a second, close everything.

        May be called again: a caller that is cancelled does not leave it half done.
        """
        self.ask_to_stop()
        if self._stopping is None:
            self._stopping = asyncio.gather(*(listener.stop() for listener in self._listeners))
        await asyncio.shield(self._stopping)


@asynccontextmanager
async def serving(
    local: LocalAllsource,
    *,
    host: str = "127.0.0.1",
    core_port: int = 0,
    query_port: int = 0,
    signals: bool = False,
) -> AsyncIterator[Running]:
    """Serve both ports until the block ends.

    Args:
        local: what to serve; its log stays open.
        host: the address to listen on.
        core_port: the port for Core; 0 takes a free one.
        query_port: the same for the Query Service.
        signals: whether SIGINT and SIGTERM make `Running.asked_to_stop` return, as long as the block runs (not on
            Windows).

    Raises `OSError`, with a sentence, if an address cannot be listened on.
    """
    with ExitStack() as sockets:
        core_socket = sockets.enter_context(_bound(host, core_port))
        query_socket = sockets.enter_context(_bound(host, query_port))
        core = _Listener(local.core, core_socket)
        query_service = _Listener(local.query_service, query_socket)
        running = Running(core, query_service)
        try:
            await core.start()
            await query_service.start()
            with _signals(running.ask_to_stop) if signals else nullcontext():
                yield running
        finally:
            await running.stop()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere it would let two servers have one port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            # Listening now, and not in the event loop, so that a port in use is an error of this call.
            bound.listen(_BACKLOG)
            bound.setblocking(False)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return bound


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with ExitStack() as handlers:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            with suppress(NotImplementedError):  # Windows: Ctrl-C is an exception there
                loop.add_signal_handler(number, stop)
                # Removing it leaves Python's own handler, not the one that the loop's runner has for SIGINT.
                handlers.callback(signal.signal, number, before)
                handlers.callback(loop.remove_signal_handler, number)
        yield


class _Connection(HTTPProtocol):
    """A connection that tells the application of itself, for faults that close it, and writes no access log."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, dict(app_state), _loop)
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state["connection"] = transport
        super().connection_made(transport)


class _Listener:
    """One port. uvicorn's own `Server` would poll, log, and end the process when it cannot start."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._app = app
        self._socket = bound
        self._state = ServerState()
        self._config = uvicorn.Config(
            self._answer,
            http=_Connection,
            ws="websockets-sansio",
            interface="asgi3",
            lifespan="off",
            timeout_keep_alive=IDLE,
            log_config=None,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()
        self._server: asyncio.Server | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._stopping = False
        host, port = bound.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tell_time(loop)
        self._server = await loop.create_server(
            lambda: _Connection(self._config, self._state, {}), sock=self._socket, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        self._stopping = True
        if self._clock is not None:
            self._clock.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=GRACE)
        for connection in list(self._state.connections):
            with suppress(AttributeError):  # it was just upgraded, or never made
                connection.transport.abort()
        # The loop tells the connections of their end before their requests are cancelled.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in (rest := list(self._state.tasks)):
            task.cancel()
        if rest:
            await asyncio.wait(rest)
        if self._server is not None:
            await self._server.wait_closed()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # `stop` has closed the connection; uvicorn would log the cancellation as an error.
            if not self._stopping:
                raise

    def _tell_time(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep the header ``Date``, which clients compare times with."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._clock = loop.call_later(1.0, self._tell_time, loop)
