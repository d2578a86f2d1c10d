"""A connection to a server: one request at a time, with limits on how long the reply takes and how large it is."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from math import inf
from typing import Any, cast

from allsource_auth.store.allsource.http.failures import (
    BadReply,
    Broken,
    ConnectFailed,
    Failure,
    TimedOut,
    client_certificate_problem,
)
from allsource_auth.store.allsource.http.parsing import Malformed, ReplyParser

__all__ = ["MAX_BODY", "MAX_HEAD", "Connection"]

MAX_HEAD = 64 * 1024
"""Maximum bytes of the head of a reply, with interim replies and trailers."""

MAX_BODY = 17 * 1024 * 1024
"""Maximum bytes of a body that is read as a whole. Core limits its replies to 16 MiB."""

MAX_CHUNK_OVERHEAD = 8
"""Maximum bytes between the chunks of a body, for each byte of the body. Chunks of one byte have five."""

READ_AHEAD = 256 * 1024
"""Bytes of a streamed body that are buffered before the connection stops reading."""


class Connection(asyncio.Protocol):
    """A connection that a pool has opened. ``idle_since`` and ``used`` belong to the pool.

    A reply is read as a whole with `send` and `take`; or in parts with `start`, then `write` and `drain` for each further part
    of the request, `head`, and `part` for each part of the body. `finish` ends an exchange whose reply is complete, and
    `abort` ends it at any point.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, parser: ReplyParser, lost: Callable[[Connection], None]
    ) -> None:
        self.parser = parser
        self.idle_since: float = 0.0
        self.used: bool = False
        self.open: bool = False
        self.sock: socket.socket | None = None
        self._loop = loop
        self._lost = lost
        self._transport: asyncio.Transport
        self._busy = False
        self._whole = True
        self._received = self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Failure | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._phase = "read"
        self._limit = self._silent_at = 0.0
        self._total = self._ends_at = 0.0
        self._reading = self._writable = True
        self._check_input: Callable[[], bool] | None = None

    # An exchange whose reply is read as a whole

    def send(self, method: bytes, message: bytes, *, read: float, total: float, ends_at: float) -> asyncio.Future[None]:
        """Send a request. The future is resolved when the whole reply has been received, or raises `Failure`.

        Args:
            method: the method of the request.
            message: the request.
            read: seconds of silence after which the request fails.
            total: seconds in total; reported if the request fails at ``ends_at``.
            ends_at: the time of the loop at which the request fails.
        """
        loop = self._loop
        self.parser.begin(method)
        self._busy = self._whole = True
        self._failure = None
        self._received = 0
        self._phase, self._limit, self._total, self._ends_at = "read", read, total, ends_at
        self._silent_at = silent_at = loop.time() + read
        when = min(ends_at, silent_at)
        if self._timer is None or when < self._timer_at:
            self._set_timer(when)
        waiter = self._waiter = loop.create_future()
        self._transport.write(message)
        return waiter

    def take(self) -> bytes:
        """Remove and return the parts of the body that have been received."""
        parser = self.parser
        parts = parser.parts
        self._taken = parser.size
        if len(parts) == 1:
            return parts.pop()
        found = b"".join(parts)
        parts.clear()
        return found

    # An exchange in parts, with a time limit for each wait

    def start(self, method: bytes, message: bytes) -> None:
        """Send a request, or its first part."""
        self.parser.begin(method, with_reason=True)
        self._busy, self._whole = True, False
        self._failure = self._waiter = None
        self._received = self._taken = 0
        self._ends_at = inf
        self._transport.write(message)

    @property
    def rejects(self) -> bool:
        """Whether there is no use in sending more of the request: the connection is closed, or the reply is an error."""
        return not self.open or self.parser.status >= 400

    def write(self, data: bytes) -> None:
        """Send a further part of the request."""
        self._transport.write(data)

    async def drain(self, seconds: float) -> None:
        """Wait until the write buffer has room, or until the server `rejects` the request."""
        ends_at = self._loop.time() + seconds
        while not self._writable and not self.rejects:
            await self._wait("write", ends_at - self._loop.time())

    async def head(self, seconds: float) -> None:
        """Wait until the head of the reply has been received. Raises `Failure`."""
        while not self.parser.status:
            await self._wait("read", seconds)

    async def part(self, seconds: float) -> bytes:
        """The next part of the body, empty at its end. Raises `Failure`."""
        parser = self.parser
        while not parser.parts and not parser.complete:
            self._resume_reading()
            await self._wait("read", seconds)
        return self.take()

    async def _wait(self, phase: str, seconds: float) -> None:
        """Wait for the next event. A wait of more than ``seconds`` ends the connection."""
        if self._failure is not None:
            raise self._failure
        self._phase, self._limit = phase, seconds
        self._silent_at = self._loop.time() + seconds
        self._set_timer(self._silent_at)
        self._waiter = self._loop.create_future()
        await self._waiter

    def finish(self) -> bool:
        """End an exchange whose reply is complete. Returns whether the connection can carry another one."""
        self._busy = False
        self._waiter = None
        if self.parser.complete and self.parser.keep_alive and self._writable and self.open:
            self._resume_reading()
            return True
        self.close()
        return False

    # The connection

    @property
    def usable(self) -> bool:
        """Whether a request can be sent: the server has not closed the connection, as far as the event loop knows."""
        return self.open and not self._busy and not self._transport.is_closing()

    @property
    def has_input(self) -> bool:
        """Whether bytes or the end of the connection wait to be processed. An idle connection then cannot be used."""
        try:
            if self._check_input is None:
                self._check_input = _input_check(cast("socket.socket", self.sock).fileno())
            return self._check_input()
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """Close the connection, with a shutdown of TLS, once what was written has been sent."""
        self._end(Broken(unanswered=not self._received))
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._end(Broken(unanswered=not self._received))
        self._transport.abort()

    def discard(self) -> None:
        """Close the socket without the event loop, which is closed or belongs to another process."""
        self.open = False
        self._timer = None
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.close()
            _mark_closed(self._transport)

    def _end(self, failure: Failure) -> None:
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail_waiters(failure)

    def _fail(self, failure: Failure) -> None:
        """End the exchange and the connection, even if the reply is complete: it may be too large."""
        self.parser.complete = False
        self._end(failure)
        self._transport.abort()

    def _fail_waiters(self, failure: Failure) -> None:
        if not self._busy:
            return
        if self._failure is None and not self.parser.complete:
            self._failure = failure
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._whole and self._failure is not None:
                waiter.set_exception(self._failure)
            else:
                waiter.set_result(None)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # Time limits: the timer of a request is left running for the next one, because it rarely has to be set anew.

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
            self._timer = None
        if when == inf:
            return
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        waiter = self._waiter
        if not self._busy or waiter is None or waiter.done():
            return
        now = self._loop.time()
        if now >= self._ends_at:
            self._fail(TimedOut("total", self._total))
        elif now >= self._silent_at:
            self._fail(TimedOut(self._phase, self._limit))
        else:
            self._set_timer(min(self._silent_at, self._ends_at))

    # Callbacks of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # the transports of uvloop are not a subclass
        self.open = True

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        if not self._busy or parser.complete:
            parser.keep_alive = False
            if not self._busy:
                self.abort()
            return
        self._received = received = self._received + len(data)
        try:
            complete = parser.feed(data)
        except Malformed:
            self._fail(BadReply("it is not valid HTTP/1.1"))
            return
        size = parser.size
        if received - size > MAX_HEAD and received - size > MAX_HEAD + MAX_CHUNK_OVERHEAD * size:
            self._fail(BadReply(f"its head has more than {MAX_HEAD} bytes"))
        elif self._whole:
            if size > MAX_BODY:
                self._fail(BadReply(f"its body has more than {MAX_BODY} bytes"))
            elif complete:
                self._wake()
            else:
                self._silent_at = self._loop.time() + self._limit
        else:
            self._wake()
            if size - self._taken > READ_AHEAD and self._reading:
                self._transport.pause_reading()
                self._reading = False

    def _resume_reading(self) -> None:
        if not self._reading and self.open:
            self._transport.resume_reading()
            self._reading = True

    def eof_received(self) -> bool:
        self.open = False
        if self._busy:
            if not self.parser.complete and not self.parser.end():
                self._fail(Broken(unanswered=not self._received))
            self._wake()
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        failure: Failure = Broken(unanswered=not self._received, by_error=exc is not None)
        if not self.used and (problem := client_certificate_problem(exc)) is not None:
            failure = ConnectFailed(problem)
        self._end(failure)
        self._lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._whole:
            self._silent_at = self._loop.time() + self._limit
        else:
            self._wake()


def _input_check(descriptor: int) -> Callable[[], bool]:
    """A function that returns whether the socket can be read. It takes less than a microsecond."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda: bool(poll.poll(0))


def _mark_closed(transport: Any) -> None:
    """Keep a transport, whose socket is closed, from warning that it was not closed. No public method does that.

    `asyncio.Transport.close` and `abort` would call the event loop.
    """
    tls = getattr(transport, "_ssl_protocol", None)
    with contextlib.suppress(AttributeError):  # uvloop, which closes and reports transports with the loop
        if tls is not None:
            transport._closed = True
            transport = tls._transport
        transport._sock = None
