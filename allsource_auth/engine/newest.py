"""A compact hash table that tells which event of each stream is the newest.

In a store that can only be read in time order, the newest events are known once all events were read. Keeping the events
until then would take a kilobyte per stream. This table takes 16 bytes per slot, and at least 4/9 of the slots are used.
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
"""Bits of a slot's second number that hold ``seq``. The other 40 bits identify the event within its stream."""

MAX_SEQ = (1 << SEQ_BITS) - 1
"""Larger sequence numbers are stored as this one."""


class Newest:
    """A table of streams, keyed by a keyed hash of 64 bits. A million streams have a collision in one of 37 million runs."""

    def __init__(self) -> None:
        self._key = urandom(16)
        self._size = FIRST_SIZE
        self._streams = array("Q", bytes(8 * self._size))
        self._events = array("Q", bytes(8 * self._size))
        self._count = 0

    def __len__(self) -> int:
        """The number of streams."""
        return self._count

    @property
    def nbytes(self) -> int:
        """The size of the table in bytes."""
        return self._streams.itemsize * 2 * self._size

    def add(self, events: Iterable[Event]) -> None:
        """Add events, in time order over all calls. Of two events of a stream that have a ``seq``, the higher one is newer."""
        for event in events:
            slot = self._slot(stream := self._hash(event.stream))
            seq = min(metadata_of(event).seq or 0, MAX_SEQ)
            if self._streams[slot] == 0:
                self._streams[slot] = stream
                self._count += 1
            elif 0 < seq < self._events[slot] & MAX_SEQ:
                continue
            self._events[slot] = self._mark(event, seq)
            if 3 * self._count > 2 * self._size:
                self._grow()

    def has(self, event: Event) -> bool:
        """Return whether an event is the newest of its stream among those added."""
        slot = self._slot(self._hash(event.stream))
        return self._streams[slot] != 0 and self._events[slot] == self._mark(
            event, min(metadata_of(event).seq or 0, MAX_SEQ)
        )

    def _hash(self, text: str) -> int:
        """A keyed hash of 64 bits. It is never 0, which marks an empty slot."""
        return int.from_bytes(blake2b(text.encode(), digest_size=8, key=self._key).digest()) or 1

    def _mark(self, event: Event, seq: int) -> int:
        return self._hash(event.id) >> SEQ_BITS << SEQ_BITS | seq

    def _slot(self, stream: int) -> int:
        slot = stream % self._size
        while self._streams[slot] not in (0, stream):
            slot = (slot + 1) % self._size
        return slot

    def _grow(self) -> None:
        streams, events = self._streams, self._events
        self._size = self._size * 3 // 2
        self._streams = array("Q", bytes(8 * self._size))
        self._events = array("Q", bytes(8 * self._size))
        for stream, event in zip(streams, events, strict=True):
            if stream:
                slot = self._slot(stream)
                self._streams[slot], self._events[slot] = stream, event
