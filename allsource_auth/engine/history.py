"""The history of one entity: its changes, and its state at a point in time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Generic, TypeVar

from allsource_auth import values
from allsource_auth.audit import Change, difference, metadata_of
from allsource_auth.codec import datetime_of, is_tombstone, nanoseconds
from allsource_auth.engine.ordering import newest_of
from allsource_auth.engine.streams import PAGE, Streams
from allsource_auth.entities import Entity
from allsource_auth.errors import InvalidInput
from allsource_auth.kind import FENCED, Kind
from allsource_auth.store.base import Event

__all__ = ["History"]

E = TypeVar("E", bound=Entity)


class History(Generic[E]):
    """The histories of the entities of one kind."""

    def __init__(self, streams: Streams, kind: Kind[E]) -> None:
        self._streams = streams
        self._kind = kind

    async def changes(self, stream: str, *, limit: int | None, newest_first: bool, fences: bool) -> list[Change[E]]:
        """Return at most ``limit`` changes, counted from the oldest or, with ``newest_first``, from the newest."""
        if newest_first:
            return await self._newest(stream, limit, fences)
        found: list[Change[E]] = []
        async with aclosing(self.iterate(stream, fences=fences)) as every:
            async for change in every:
                found.append(change)
                if len(found) == limit:
                    break
        return found

    async def iterate(self, stream: str, *, fences: bool) -> AsyncGenerator[Change[E], None]:
        """Iterate over the changes of a stream, oldest first, reading in pages."""
        before: E | None = None
        offset = 0
        while True:
            if self._streams.store.time_skew:
                # Stored order and the order of decisions may differ anywhere in the stream.
                events, more = await self._streams.read_all(stream), False
            else:
                events = await self._streams.page(stream, offset=offset)
                more = len(events) == PAGE
            for event in events:
                state = self._kind.decode(event)
                if fences or event.type != FENCED:
                    yield self.change(event, before, state)
                before = state
            offset += len(events)
            if not more:
                return

    async def _newest(self, stream: str, limit: int | None, fences: bool) -> list[Change[E]]:
        """Return the last changes of a stream, newest first.

        One more event is read, for the state before the oldest of them.
        """
        wanted: list[Event] = []
        while True:
            if self._streams.store.time_skew:
                events, more = (await self._streams.read_all(stream))[::-1], False
            else:
                events = await self._streams.page(stream, newest_first=True, offset=len(wanted))
                more = len(events) == PAGE
            known = {event.id for event in wanted}
            wanted += [event for event in events if event.id not in known]
            shown = [event for event in wanted if fences or event.type != FENCED]
            if not more or (limit is not None and len(shown) > limit):
                break
        found: list[Change[E]] = []
        before: E | None = None
        for event in reversed(wanted):
            state = self._kind.decode(event)
            if fences or event.type != FENCED:
                found.append(self.change(event, before, state))
            before = state
        return found[::-1][:limit]

    def change(self, event: Event, before: E | None, state: E | None) -> Change[E]:
        """Return the change that ``event`` made: from ``before`` to ``state``."""
        kind, metadata = self._kind, metadata_of(event)
        return Change(
            kind=kind.name,
            key=kind.key_of(event.stream),
            event=kind.label(event.type),
            wire_type=event.type,
            event_id=event.id,
            at=datetime_of(event.time),
            seq=metadata.seq,
            state=state,
            before=before,
            diff=difference(before, state, kind.secrets),
            actor=metadata.actor,
            impersonator=metadata.impersonator,
            ip=metadata.ip,
            user_agent=metadata.user_agent,
            request_id=metadata.request_id,
            reason=metadata.reason,
            op=metadata.op,
            restores=metadata.restores,
            reverted_to=metadata.reverted_to,
        )

    async def event_as_of(
        self, stream: str, when: datetime | str, *, field: str = "when", require_leader: bool = False
    ) -> Event | None:
        """Return the newest event of a stream at the end of the microsecond ``when``, or the event with the id ``when``.

        Raises `InvalidInput` that names ``field``, for a naive time and for an id that is not in the stream.
        """
        if isinstance(when, str):
            return await self._event(stream, when, field, require_leader)
        until = nanoseconds(values.instant(field, when)) + 999
        if self._streams.store.time_skew:
            return newest_of((await self._streams.read_all(stream, until=until, require_leader=require_leader))[::-1])
        page = await self._streams.page(stream, newest_first=True, until=until, limit=1, require_leader=require_leader)
        return page[0] if page else None

    async def _event(self, stream: str, event_id: str, field: str, require_leader: bool) -> Event:
        seen = 0
        while True:
            page = await self._streams.page(stream, newest_first=True, offset=seen, require_leader=require_leader)
            for event in page:
                if event.id == event_id:
                    return event
            seen += len(page)
            if len(page) < PAGE:
                raise InvalidInput(field, f"there is no such event in the history of this {self._kind.name}")

    async def last_state(self, stream: str) -> Event | None:
        """Return the newest event of a stream that is not a tombstone, read from the leader."""
        for event in reversed(await self._streams.read_all(stream, require_leader=True)):
            if not is_tombstone(event.payload):
                return event
        return None
