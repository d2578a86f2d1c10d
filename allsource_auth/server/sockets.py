"""Serving a `LocalAllsource` on sockets, in the running event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
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
"""How long requests in progress may continue after the server was asked to stop, in seconds."""

IDLE: Final = 600
"""How long an idle connection is kept open, in seconds. Core keeps it for minutes; uvicorn's default is 5 s."""

_BACKLOG: Final = 2048


class Running:
    """A running server and its URLs. Created by `serving`."""

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
        """Wait for a signal or a call of `ask_to_stop`."""
        await self._asked.wait()

    async def stop(self) -> None:
        """Stop listening, wait up to a second for requests in progress, then close all connections.

        May be called several times. The server also stops completely if the caller is cancelled.
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
) -> AsyncGenerator[Running]:
    """Serve both ports until the block exits.

    Args:
        local: the server. Its log is not closed.
        host: the address to listen on.
        core_port: the port of Core; 0 selects a free one.
        query_port: the port of the Query Service; 0 selects a free one.
        signals: whether SIGINT and SIGTERM make `Running.asked_to_stop` return instead of their default action. Has no
            effect on Windows.

    Raises `OSError` with the address in its message if the server cannot listen there.
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
            if os.name == "posix":  # on Windows it would allow two servers on one port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            # Listen here and not in `_Listener.start`, so that a port in use is reported before anything is served.
            bound.listen(_BACKLOG)
            bound.setblocking(False)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return bound


@contextmanager
def _signals(stop: Callable[[], None]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    with ExitStack() as handlers:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            with suppress(NotImplementedError):  # not implemented on Windows, where Ctrl-C raises an exception
                loop.add_signal_handler(number, stop)
                # Removal installs Python's default handler, not the one that asyncio's runner had set for SIGINT.
                handlers.callback(signal.signal, number, before)
                handlers.callback(loop.remove_signal_handler, number)
        yield


class _Connection(HTTPProtocol):
    """A connection without access log. The application finds its transport in ``scope["state"]["connection"]``."""

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
    """One port. uvicorn's own `Server` is not used: it polls, logs, and exits the process if it cannot start."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._app = app
        self._socket = bound
        self._state = ServerState()
        self._config = uvicorn.Config(
            self._serve,
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
        self._date_timer: asyncio.TimerHandle | None = None
        self._stopping = False
        host, port = bound.getsockname()[:2]
        self.url: str = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._update_date(loop)
        self._server = await loop.create_server(
            lambda: _Connection(self._config, self._state, {}), sock=self._socket, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        self._stopping = True
        if self._date_timer is not None:
            self._date_timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=GRACE)
        for connection in list(self._state.connections):
            with suppress(AttributeError):  # there is no transport: it was just upgraded, or not connected yet
                connection.transport.abort()
        # Two iterations of the loop: `connection_lost` runs before the requests are cancelled.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in (unfinished := list(self._state.tasks)):
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # After `stop` has closed the connection; uvicorn would log the cancellation as an error.
            if not self._stopping:
                raise

    def _update_date(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the header ``Date``, which clients use to estimate the server's clock, every second."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._date_timer = loop.call_later(1.0, self._update_date, loop)
