"""The WebSocket stream of live events (section 10 of the contract): those that this process stores, of all tenants."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

__all__ = ["Hub"]

BUFFER: Final = 1000
"""How many events wait for one socket; more are lost to it."""

_GOING_AWAY: Final = 1012


class _Subscribe(msgspec.Struct):
    """Both forms of the message: ``filters``, and the fields of the older one."""

    type: str | None = None
    filters: list[str] = []
    entity_id: str | None = None
    event_type: str | None = None
    event_type_prefixes: list[str] = []


_decode = msgspec.json.Decoder(_Subscribe).decode


class _Listener:
    """One socket: what it wants, and what waits to be sent to it."""

    def __init__(self) -> None:
        self.wanted = _Subscribe()
        self.waiting: deque[str] = deque()
        self.missed = 0
        self.closing = False
        self.changed = asyncio.Event()

    def offer(self, kind: str, entity: str, frame: str) -> None:
        if not _wants(self.wanted, kind, entity):
            return
        if len(self.waiting) < BUFFER:
            self.waiting.append(frame)
        else:
            self.missed += 1
        self.changed.set()

    def close(self) -> None:
        self.closing = True
        self.changed.set()


class Hub:
    """The open sockets."""

    def __init__(self) -> None:
        self.listeners: set[_Listener] = set()

    def publish(self, kind: str, entity: str, frame: str) -> None:
        """Hand an event to every socket that wants it."""
        for listener in self.listeners:
            listener.offer(kind, entity, frame)

    def close_all(self) -> None:
        """Close every socket, as a server that stops does."""
        for listener in self.listeners:
            listener.close()

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from the handshake until either side leaves."""
        await socket.accept()
        listener = _Listener()
        self.listeners.add(listener)
        sending = asyncio.create_task(_send(socket, listener))
        try:
            await _listen(socket, listener)
        finally:
            self.listeners.discard(listener)
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()  # the socket is gone; nothing more can be said


async def _listen(socket: WebSocket, listener: _Listener) -> None:
    """Take what the client wants; what is no such message changes nothing."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            wanted = _decode(message.get("text") or "")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        listener.wanted = wanted


async def _send(socket: WebSocket, listener: _Listener) -> None:
    try:
        while not listener.closing:
            while listener.waiting:
                await socket.send_text(listener.waiting.popleft())
            if listener.missed:
                missed, listener.missed = listener.missed, 0
                await socket.send_text(f'{{"type":"lagged","missed":{missed}}}')
            elif not listener.closing:
                listener.changed.clear()
                await listener.changed.wait()
        await socket.close(_GOING_AWAY)
    except (WebSocketDisconnect, RuntimeError):
        return  # the client left first


def _wants(wanted: _Subscribe, kind: str, entity: str) -> bool:
    if wanted.type == "subscribe":
        return not wanted.filters or _matches(wanted.filters, kind)
    return (
        (wanted.entity_id is None or wanted.entity_id == entity)
        and (wanted.event_type is None or wanted.event_type == kind)
        and (not wanted.event_type_prefixes or _matches(wanted.event_type_prefixes, kind))
    )


def _matches(patterns: list[str], kind: str) -> bool:
    """``auth.*`` is everything below ``auth.``, anything else an exact type."""
    return any(kind.startswith(pattern[:-1]) if pattern.endswith(".*") else kind == pattern for pattern in patterns)
