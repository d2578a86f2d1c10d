"""Raw events, without the repositories."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import Event, EventStore, InvalidInput, NewEvent

__all__ = [
    "metadata",
    "new_event",
    "payload",
    "refused",
    "rust_event",
    "rust_events",
    "stored",
    "stored_user",
    "whole_log",
    "written_by",
]

RUST_EVENTS = Path(__file__).parent.parent / "contract" / "fixtures" / "rust-events.ndjson"


def new_event(
    stream: str,
    payload: object = None,
    *,
    type: str = "auth.user.created",  # noqa: A002
    metadata: object = None,
    guard: int | None = None,
) -> NewEvent:
    return NewEvent(
        type=type,
        stream=stream,
        payload=json.dumps({} if payload is None else payload).encode(),
        metadata=json.dumps(metadata).encode(),
        guard=guard,
    )


def payload(event: Event) -> Any:
    return json.loads(bytes(event.payload))


def metadata(event: Event) -> Any:
    return json.loads(bytes(event.metadata))


async def stored(store: EventStore, stream: str) -> list[Event]:
    """All events of a stream, oldest first."""
    found: list[Event] = []
    while page := await store.read(stream, offset=len(found)):
        found += page
    return found


async def whole_log(store: EventStore) -> list[Event]:
    """All events of the store's tenant."""
    return [event async for page in store.scan("auth.") for event in page]


class Written:
    """The events that a block stored. `events` is set when the block ends."""

    events: list[Event]

    def of(self, stream: str) -> list[Event]:
        return [event for event in self.events if event.stream == stream]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


@asynccontextmanager
async def written_by(store: EventStore) -> AsyncIterator[Written]:
    before = {event.id for event in await whole_log(store)}
    written = Written()
    yield written
    written.events = [event for event in await whole_log(store) if event.id not in before]


@asynccontextmanager
async def refused(store: EventStore, field: str) -> AsyncIterator[None]:
    """Check that the block raises `InvalidInput` for ``field`` and stores nothing."""
    async with written_by(store) as written:
        with pytest.raises(InvalidInput) as caught:
            yield
    assert caught.value.field == field
    assert caught.value.reason
    assert written.events == []


def stored_user(id: str, **members: object) -> dict[str, object]:  # noqa: A002
    """The payload of a user as another program may have written it."""
    return {
        "id": id,
        "name": None,
        "email": None,
        "emailVerified": False,
        "image": None,
        "createdAt": "2026-11-23T10:59:20.552604072Z",
        "updatedAt": "2026-11-23T10:59:20.552604999Z",
        "username": None,
        "displayUsername": None,
        "twoFactorEnabled": False,
        "role": None,
        "banned": False,
        "banReason": None,
        "banExpires": None,
        **members,
    }


def rust_events(kind: str) -> list[dict[str, Any]]:
    """The events of a kind that the Rust crate wrote, as Core returned them, in order."""
    found = [json.loads(line) for line in RUST_EVENTS.read_text().splitlines()]
    return [event for event in found if event["event_type"].startswith(f"auth.{kind}.")]


def rust_event(event: dict[str, Any]) -> NewEvent:
    """An event of the Rust crate to append, without metadata and guard."""
    return new_event(event["entity_id"], event["payload"], type=event["event_type"])
