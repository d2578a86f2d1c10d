"""``Newest``: which event of each of many streams is the newest, in few bytes for each stream.

A store that can only be read in time order tells that when it has been read to its end. Keeping the events until then takes a
kilobyte for each stream; this takes 16 bytes for a place in a table that is at least 4/9 full.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from os import urandom

from allsource_auth.audit import metadata_of
from allsource_auth.store.base import Event

__all__ = ["Newest"]

FIRST_SIZE = 1024
SEQ_BITS = 24
"""Of the lower half of a place; the rest tells the event from the others of its stream."""

MOST = (1 << SEQ_BITS) - 1


class Newest:
    """A table of streams, by a keyed hash of 64 bits: two of a million streams share one in one of 37 million runs."""

    def __init__(self) -> None:
        self._key = urandom(16)
        self._size = FIRST_SIZE
        self._streams = array("Q", bytes(8 * self._size))
        self._events = array("Q", bytes(8 * self._size))
        self._count = 0

    def __len__(self) -> int:
        """How many streams were met."""
        return self._count

    @property
    def nbytes(self) -> int:
        """The size of the table."""
        return self._streams.itemsize * 2 * self._size

    def add(self, events: Iterable[Event]) -> None:
        """Meet events, later ones in later calls. Where two of a stream have a ``seq``, it tells which is the newer one."""
        for event in events:
            place = self._place(stream := self._hash(event.stream))
            seq = min(metadata_of(event).seq or 0, MOST)
            if self._streams[place] == 0:
                self._streams[place] = stream
                self._count += 1
            elif 0 < seq < self._events[place] & MOST:
                continue
            self._events[place] = self._mark(event, seq)
            if 3 * self._count > 2 * self._size:
                self._grow()

    def has(self, event: Event) -> bool:
        """Whether an event is the newest that was met of its stream."""
        place = self._place(self._hash(event.stream))
        return self._streams[place] != 0 and self._events[place] == self._mark(
            event, min(metadata_of(event).seq or 0, MOST)
        )

    def _hash(self, text: str) -> int:
        """Never 0, which marks a place that is free."""
        return int.from_bytes(blake2b(text.encode(), digest_size=8, key=self._key).digest()) or 1

    def _mark(self, event: Event, seq: int) -> int:
        return self._hash(event.id) >> SEQ_BITS << SEQ_BITS | seq

    def _place(self, stream: int) -> int:
        place = stream % self._size
        while self._streams[place] not in (0, stream):
            place = (place + 1) % self._size
        return place

    def _grow(self) -> None:
        streams, events = self._streams, self._events
        self._size = self._size * 3 // 2
        self._streams = array("Q", bytes(8 * self._size))
        self._events = array("Q", bytes(8 * self._size))
        for stream, event in zip(streams, events, strict=True):
            if stream:
                place = self._place(stream)
                self._streams[place], self._events[place] = stream, event
