"""``Faults``: what can go wrong between a client and a server, armed by tests and never by itself.

A test arms a fault, makes the client work against it, and looks at what the server saw. What is armed first acts first,
on one request each; a delay, a rewriting and what a server has forgotten last until `Faults.clear`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allsource_auth.server.answers import Answer, encode
from allsource_auth.server.memory import Memory

__all__ = ["Faults", "Seen"]

_Act = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


class Seen(NamedTuple):
    """A request that arrived: its method, its path and its query string as they were sent."""

    method: str
    path: str
    query: str


class _Armed:
    """A fault for some of the coming requests."""

    def __init__(self, act: _Act, on: str, count: int, every: int) -> None:
        if count < 1 or every < 1:
            raise ValueError("count and every must be at least 1")
        self.act = act
        self.left = count
        self._on = on
        self._every = every
        self._met = 0

    def takes(self, request: str) -> bool:
        """Whether the fault acts on this request, of those that it is for."""
        if self._on not in request:
            return False
        self._met += 1
        if self._met % self._every:
            return False
        self.left -= 1
        return True


class Faults:
    """The faults of one `LocalAllsource`, on both of its ports.

    ``on`` names the requests that a fault is for: those whose ``"METHOD /path"`` contains it; the empty text means all.
    Arming raises `ValueError` for a count or a step below 1.
    """

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        """Every HTTP request that arrived, in order, the refused ones, too."""
        self.most_at_once = 0
        """The highest number of HTTP requests that were in progress, or waiting for a place, at a time."""
        self._at_once = 0
        self._armed: list[_Armed] = []
        self._hold: float | asyncio.Event | None = None
        self._held = ""
        self._rewrite: Callable[[Any], Any] | None = None
        self._rewritten = ""
        self._memory: Memory | None = None
        self._restarted: list[Callable[[], None]] = []
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    def lose_replies(self, count: int = 1, *, on: str = "POST") -> None:
        """Carry out the next ``count`` requests, and close the connection instead of answering.

        Without a socket (an ASGI client in the same process), the client gets a `ConnectionResetError`.
        """

        async def act(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
            await _caught(app, scope, receive)
            await _drop(scope, receive)

        self._armed.append(_Armed(act, on, count, 1))

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

        ``stored``: carry the request out first, as a server that cannot say whether it did.
        """
        self._armed.append(_Armed(_answering(Answer(status, body, None, headers), stored), on, count, every))

    def garble(
        self, body: bytes, content_type: str, status: int = 200, *, count: int = 1, stored: bool = True, on: str = ""
    ) -> None:
        """Answer the next ``count`` requests with something else: a page of a proxy, half a document.

        ``stored``: the request is carried out before.
        """
        self._armed.append(_Armed(_answering(Answer(status, body, content_type), stored), on, count, 1))

    def rewrite(self, function: Callable[[Any], Any], *, on: str = "") -> None:
        """Pass the decoded JSON of every answer of status 200 or 201 through ``function``, until `clear`."""
        self._rewrite, self._rewritten = function, on

    def delay(self, hold: float | asyncio.Event, *, on: str = "") -> None:
        """Hold every request before it is carried out: for seconds, or until the event is set; until `clear`."""
        self._hold, self._held = hold, on

    def stale(self, stream: str | None = None) -> None:
        """Run short of memory now: ordinary queries of ``stream`` (``None``: of any) miss what is appended from here on.

        As 0.27 does: 200, with the true ``entity_version``; strict reads see everything; queries without an entity are
        answered with 503. Until `clear`.
        """
        self._server().run_short(stream)

    def restart(self, *, cold: bool) -> None:
        """Close all connections and sockets, and begin new epochs of the feed.

        ``cold``: as 0.23 with a data directory, count every existing stream from 0 until its tenant is queried. 0.27
        remembers. Until `clear`.
        """
        memory = self._server()
        if cold:
            memory.forget()
        for restarted in self._restarted:
            restarted()
        for connection in list(self._connections):
            connection.abort()

    def clear(self) -> None:
        """Disarm everything; the counters stay."""
        self._armed.clear()
        self._hold = self._rewrite = None
        if self._memory is not None:
            self._memory.recover()

    def attach(self, memory: Memory, *restarted: Callable[[], None]) -> None:
        """Called by the server that these faults are for: its memory, and what else a restart means to it.

        Raises `RuntimeError` if there is one already.
        """
        if self._memory is not None:
            raise RuntimeError("these faults belong to another server")
        self._memory = memory
        self._restarted += restarted

    def arrived(self, scope: Scope) -> None:
        """Count a request; called before it waits for a place."""
        self.requests.append(Seen(scope["method"], scope["path"], scope["query_string"].decode("latin-1")))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        connection = _connection(scope)
        if connection is not None:
            self._connections.add(connection)

    def left(self) -> None:
        """A request that `arrived` is done with."""
        self._at_once -= 1

    async def carry_out(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let ``app`` answer a request, or do what is armed."""
        request = f"{scope['method']} {scope['path']}"
        if self._held in request:
            if isinstance(self._hold, asyncio.Event):
                await self._hold.wait()
            elif self._hold is not None:
                await asyncio.sleep(self._hold)
        armed = next((fault for fault in self._armed if fault.takes(request)), None)
        if armed is not None:
            if not armed.left:
                self._armed.remove(armed)
            await armed.act(app, scope, receive, send)
        elif self._rewrite is not None and self._rewritten in request:
            await _rewritten(await _caught(app, scope, receive), self._rewrite)(scope, receive, send)
        else:
            await app(scope, receive, send)

    def _server(self) -> Memory:
        if self._memory is None:
            raise RuntimeError("pass these faults to a LocalAllsource first")
        return self._memory


def _answering(answer: Answer, stored: bool) -> _Act:
    async def act(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if stored:
            await _caught(app, scope, receive)
        await answer(scope, receive, send)

    return act


async def _caught(app: ASGIApp, scope: Scope, receive: Receive) -> Answer:
    """Carry out a request and keep the answer."""
    answer = Answer(500)

    async def catch(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            answer.content_type = headers.pop("content-type", None)
            headers.pop("content-length", None)
            answer.headers = headers
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, catch)
    return answer


def _rewritten(answer: Answer, function: Callable[[Any], Any]) -> Answer:
    if answer.status in (200, 201) and answer.content_type == "application/json":
        answer.body = encode(function(msgspec.json.decode(answer.body)))
    return answer


def _connection(scope: Scope) -> asyncio.Transport | None:
    state = scope.get("state") or {}
    return state.get("connection")


async def _drop(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request that has not been answered."""
    connection = _connection(scope)
    if connection is None:
        raise ConnectionResetError("the reply was lost")
    connection.abort()
    # The server takes a silent application for a failed one unless it knows that the client is gone.
    while (await receive())["type"] != "http.disconnect":
        pass
