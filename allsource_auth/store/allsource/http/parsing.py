"""Parsers of HTTP/1.1 replies: httptools, or h11 where httptools is not installed.

A parser holds the state of the one reply that it is receiving. `Connection` feeds it with bytes and looks at its attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

__all__ = ["H11Parser", "HttptoolsParser", "Malformed", "ReplyParser", "parser_class"]

Headers = list[tuple[bytes, bytes]]

NO_LIMIT = 1 << 30
"""`Connection` limits the size of the head."""


class Malformed(Exception):
    """What arrived is not a reply, or not one to the request that was sent."""


class ReplyParser(Protocol):
    """Parses the replies of one connection, one after another.

    Attributes:
        status: the status of the reply; 0 before its head is complete.
        reason: the reason phrase, if `begin` was asked for it.
        headers: names and values, as received.
        parts: the parts of the body that have not been taken.
        size: bytes of the body that have been received.
        complete: whether the whole reply has been received.
        keep_alive: whether the connection may carry another request; valid once ``complete`` is true.
    """

    status: int
    reason: bytes
    headers: Headers
    parts: list[bytes]
    size: int
    complete: bool
    keep_alive: bool

    @property
    def version(self) -> str:
        """The version of HTTP that the reply has, such as ``1.1``. Valid after its head, until the next `begin`."""
        ...

    def begin(self, method: bytes, *, with_reason: bool = False) -> None:
        """Expect the reply to a request with this method."""
        ...

    def feed(self, data: bytes) -> bool:
        """Parse ``data``; return ``complete``. Raises `Malformed`."""
        ...

    def end(self) -> bool:
        """The server has closed its side: return whether that completed the reply, whose length only the end shows."""
        ...


class HttptoolsParser:
    """A `ReplyParser` on llhttp. Methods with ``on_`` are its callbacks."""

    on_status: Callable[[bytes], None] | None = None  # looked up when a parser is created

    def __init__(self) -> None:
        self._chunked = True  # the first call of `begin` creates the parser
        self._reset(b"GET")

    def _reset(self, method: bytes) -> None:
        self._method = method
        self.status: int = 0
        self.reason: bytes = b""
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.size: int = 0
        self.complete: bool = False
        self.keep_alive: bool = False

    @property
    def version(self) -> str:
        version: str = self._parser.get_http_version()
        return version

    def begin(self, method: bytes, *, with_reason: bool = False) -> None:
        if with_reason and self.on_status is None:
            self.on_status = self._add_reason
            self._chunked = True
        if self._chunked or self._method == b"HEAD":
            # A new parser: trailers of a chunked reply are reported late, as headers of the next one, and the parser expects
            # the body of which the reply to HEAD only names the length.
            self._parser: Any = _httptools().HttpResponseParser(self)
            self._feed = self._parser.feed_data
            self._chunked = False
        self._reset(method)

    def feed(self, data: bytes) -> bool:
        try:
            self._feed(data)
        except (_httptools().HttpParserError, _httptools().HttpParserUpgrade):
            pass
        else:
            return self.complete
        if not self.complete:
            raise Malformed
        self.keep_alive = False  # the reply is complete; only what follows it is malformed
        return True

    def on_message_begin(self) -> None:
        if self.complete:
            raise Malformed  # a second reply to one request

    def _add_reason(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100:
            raise Malformed  # the parser accepts it, with a body
        if status < 200:
            self.headers.clear()
            self.reason = b""
            return
        self.status = status
        if self._method == b"HEAD":
            self.keep_alive = self._parser.should_keep_alive()
            self.complete = True

    def on_chunk_header(self) -> None:
        self._chunked = True

    def on_body(self, data: bytes) -> None:
        if self.complete:
            raise Malformed  # the reply to HEAD has no body
        self.parts.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        if self.status and not self.complete:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()

    def end(self) -> bool:
        if self.status and not self.complete and _ends_with_connection(self.headers):
            self.complete = True
        return self.complete


class H11Parser:
    """A `ReplyParser` on h11."""

    def __init__(self) -> None:
        import h11

        self._h11: Any = h11
        self.begin(b"GET")

    @property
    def version(self) -> str:
        return self._version.decode("ascii")

    def begin(self, method: bytes, *, with_reason: bool = False) -> None:
        h11 = self._h11
        self._connection = connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=NO_LIMIT)
        connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"x")]))
        connection.send(h11.EndOfMessage())
        self._version = b""
        self.status: int = 0
        self.reason: bytes = b""
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.size: int = 0
        self.complete: bool = False
        self.keep_alive: bool = False

    def feed(self, data: bytes) -> bool:
        try:
            self._connection.receive_data(data)
            self._parse()
        except self._h11.RemoteProtocolError:
            pass
        else:
            return self.complete
        raise Malformed  # the text of the error would quote what has arrived

    def _parse(self) -> None:
        h11, connection = self._h11, self._connection
        while not self.complete:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                self.status, self.reason, self._version = event.status_code, bytes(event.reason), event.http_version
                self.headers = [(bytes(name), bytes(value)) for name, value in event.headers]
                if {b"content-length", b"transfer-encoding"}.issubset(name for name, _ in self.headers):
                    raise Malformed  # conflicting lengths, which h11 accepts
            elif isinstance(event, h11.Data):
                self.parts.append(bytes(event.data))
                self.size += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
                self.keep_alive = connection.their_state is h11.DONE and not connection.trailing_data[0]
            elif not isinstance(event, h11.InformationalResponse):
                return  # more data is needed

    def end(self) -> bool:
        if not self.complete:
            try:
                self._connection.receive_data(b"")
                self._parse()
            except (self._h11.RemoteProtocolError, RuntimeError):  # RuntimeError: the end was received before
                return False
            self.keep_alive = False
        return self.complete


def _ends_with_connection(headers: Headers) -> bool:
    """Whether the end of the connection is the end of the body: neither a length nor chunks say where it ends."""
    return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)


def _httptools() -> Any:
    import httptools

    return httptools


def parser_class() -> type[ReplyParser]:
    """The parser to use: on httptools if it is installed, else on h11."""
    return H11Parser if find_spec("httptools") is None else HttptoolsParser
