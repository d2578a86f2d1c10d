"""The WebSocket of live events: every event that this process stores, of all tenants."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

__all__ = ["LiveEvents"]

BUFFER: Final = 1000
"""How many events are buffered for one WebSocket. Further ones are dropped and counted."""

_SERVICE_RESTART: Final = 1012


class _Subscribe(msgspec.Struct):
    """A message of the client, in either form: ``filters``, or the members of the older form."""

    type: str | None = None
    filters: list[str] = []
    entity_id: str | None = None
    event_type: str | None = None
    event_type_prefixes: list[str] = []


_decode = msgspec.json.Decoder(_Subscribe).decode


class _Subscriber:
    """One WebSocket: its subscription and the frames to send."""

    def __init__(self) -> None:
        self.subscription = _Subscribe()
        self.frames: deque[str] = deque()
        self.missed = 0
        self.closing = False
        self.changed = asyncio.Event()

    def offer(self, kind: str, entity: str, frame: str) -> None:
        if not _selects(self.subscription, kind, entity):
            return
        if len(self.frames) < BUFFER:
            self.frames.append(frame)
        else:
            self.missed += 1
        self.changed.set()

    def close(self) -> None:
        self.closing = True
        self.changed.set()


class LiveEvents:
    """The open WebSockets."""

    def __init__(self) -> None:
        self.subscribers: set[_Subscriber] = set()

    def publish(self, kind: str, entity: str, frame: str) -> None:
        """Queue an event for every WebSocket whose subscription selects it."""
        for subscriber in self.subscribers:
            subscriber.offer(kind, entity, frame)

    def close_all(self) -> None:
        """Close every WebSocket, as a server that stops does."""
        for subscriber in self.subscribers:
            subscriber.close()

    async def serve(self, socket: WebSocket) -> None:
        """Serve one WebSocket from the handshake until either side closes it."""
        await socket.accept()
        subscriber = _Subscriber()
        self.subscribers.add(subscriber)
        sending = asyncio.create_task(_send(socket, subscriber))
        try:
            await _receive(socket, subscriber)
        finally:
            self.subscribers.discard(subscriber)
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()  # retrieved, so that asyncio does not log it; the connection is closed


async def _receive(socket: WebSocket, subscriber: _Subscriber) -> None:
    """Apply the client's messages. Anything that is not a subscription is ignored."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            subscription = _decode(message.get("text") or "")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        subscriber.subscription = subscription


async def _send(socket: WebSocket, subscriber: _Subscriber) -> None:
    try:
        while not subscriber.closing:
            while subscriber.frames:
                await socket.send_text(subscriber.frames.popleft())
            if subscriber.missed:
                missed, subscriber.missed = subscriber.missed, 0
                await socket.send_text(f'{{"type":"lagged","missed":{missed}}}')
            elif not subscriber.closing:
                subscriber.changed.clear()
                await subscriber.changed.wait()
        await socket.close(_SERVICE_RESTART)
    except (WebSocketDisconnect, RuntimeError):
        return  # the client has closed the connection


def _selects(subscription: _Subscribe, kind: str, entity: str) -> bool:
    if subscription.type == "subscribe":
        return not subscription.filters or _matches(subscription.filters, kind)
    return (
        (subscription.entity_id is None or subscription.entity_id == entity)
        and (subscription.event_type is None or subscription.event_type == kind)
        and (not subscription.event_type_prefixes or _matches(subscription.event_type_prefixes, kind))
    )


def _matches(patterns: list[str], kind: str) -> bool:
    """Whether a pattern matches: ``auth.*`` matches every type that begins with ``auth.``, others the exact type."""
    return any(kind.startswith(pattern[:-1]) if pattern.endswith(".*") else kind == pattern for pattern in patterns)
