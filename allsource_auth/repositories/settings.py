"""The store's own settings, so that two adapters with different ones cannot write into the same tenant.

Written by the first writer, held against the adapter's by everybody who opens the store (``format.md``, "Index streams").
"""

from __future__ import annotations

import msgspec

from ..audit import encode_metadata
from ..errors import InvalidInput, Json, VersionConflict
from ..ids import operation_id
from ..kinds import CONFIGURED, digest
from ..store.base import EventStore, NewEvent

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every adapter of a tenant must agree on. ``format`` is the number of the format that is written."""

    v: int = 1
    format: int = 1
    hash_key: str | None = None
    session_tokens: str = "plain"
    encryption: str | None = None

    async def check(self, store: EventStore) -> bool:
        """Whether the store has settings. Raises `InvalidInput` naming the one that differs from these."""
        latest = await store.latest(_stream(store), decisive=True)
        if latest.event is None:
            return False
        try:
            stored = msgspec.json.decode(latest.event.payload, type=Settings)
        except msgspec.MsgspecError:
            raise Json("the settings of this store cannot be read", event_id=latest.event.id) from None
        for name in ("format", "hash_key", "session_tokens", "encryption"):
            if getattr(stored, name) != getattr(self, name):
                raise InvalidInput(name, "this store was written with another setting; open it with the same one")
        return True

    async def write(self, store: EventStore) -> None:
        """Make these the store's settings if it has none; raises `InvalidInput` if it has others."""
        if await self.check(store):
            return
        stream = _stream(store)
        metadata = encode_metadata(op=operation_id(), seq=1)
        payload = msgspec.json.encode(self)
        guard = (await store.latest(stream, decisive=True)).version
        try:
            await store.append(
                [NewEvent(type=CONFIGURED, stream=stream, payload=payload, metadata=metadata, guard=guard)]
            )
        except VersionConflict:
            await self.check(store)


def _stream(store: EventStore) -> str:
    return f"auth-idx:store:{digest(store.tenant)}"
