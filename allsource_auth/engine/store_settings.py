"""The store's own settings, so that two adapters with different ones cannot write into the same tenant.

Written by the first writer, held against the adapter's by everybody who opens the store (``format.md``, "Index streams").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from allsource_auth.audit import encode_metadata
from allsource_auth.engine.ordering import Head
from allsource_auth.errors import AllsourceAuthError, InvalidInput, Json, VersionConflict
from allsource_auth.ids import operation_id
from allsource_auth.kinds import CONFIGURED, INDEX_PREFIX, digest
from allsource_auth.store.base import Event, EventStore, NewEvent

__all__ = ["Settings"]

ATTEMPTS = 5
"""Appends of the settings whose replies may be lost before the first mutation gives up."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every adapter of a tenant must agree on. ``format`` is the number of the format that is written."""

    v: int = 1
    format: int = 1
    hash_key: str | None = None
    session_tokens: str = "plain"
    encryption: str | None = None

    async def check(self, store: EventStore) -> bool:
        """Whether the store has settings. Raises `InvalidInput` naming the one that differs from these."""
        return self._agrees((await store.latest(_stream(store), require_leader=True)).event)

    def _agrees(self, event: Event | None) -> bool:
        if event is None:
            return False
        try:
            stored = msgspec.json.decode(event.payload, type=Settings)
        except msgspec.MsgspecError:
            raise Json("the settings of this store cannot be read", event_id=event.id) from None
        for name in ("format", "hash_key", "session_tokens", "encryption"):
            if getattr(stored, name) != getattr(self, name):
                raise InvalidInput(name, "this store was written with another setting; open it with the same one")
        return True

    async def write(self, store: EventStore, head_of: Callable[[str], Awaitable[Head]]) -> None:
        """Make these the store's settings if it has none; raises `InvalidInput` if it has others.

        ``head_of`` reads the head of a stream from the server that accepts writes.
        """
        stream = _stream(store)
        metadata = encode_metadata(op=operation_id(), seq=1)
        payload = msgspec.json.encode(self)
        for attempt in range(ATTEMPTS):
            head = await head_of(stream)
            if self._agrees(head.event):
                return
            new = NewEvent(type=CONFIGURED, stream=stream, payload=payload, metadata=metadata, guard=head.guard)
            try:
                await store.append([new])
            except AllsourceAuthError as error:
                if not (isinstance(error, VersionConflict) or error.ambiguous):
                    raise
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return


def _stream(store: EventStore) -> str:
    return f"{INDEX_PREFIX}store:{digest(store.tenant)}"
