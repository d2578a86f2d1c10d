"""What streams learn from refusals."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from allsource_auth import Acknowledged, NewEvent, SqliteLog, SqliteStore, VersionConflict
from allsource_auth.repositories.streams import Streams
from tests.support.events import new_event
from tests.support.wrappers import WrappedStore

TAKEN = "auth-idx:user.email:taken"
FREE = "auth-idx:user.username:free"


async def test_refusal_of_one_stream_says_nothing_of_another_in_the_same_batch() -> None:
    store = SqliteStore(SqliteLog(None))
    streams = Streams(store)
    await store.append([new_event(TAKEN)])
    for _ in range(3):
        with pytest.raises(VersionConflict):
            await streams.append([new_event(TAKEN, guard=0), new_event(FREE, guard=0)])
    assert (await streams.head(FREE)).guard == 0
    assert (await streams.head(TAKEN)).guard == 1
    await store.close()


class Misreporting(WrappedStore):
    """Reads out the version 1 of a stream, and holds guards against 7."""

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        for event in events:
            if event.guard not in (None, 7):
                raise VersionConflict(expected=event.guard or 0, actual=7, stream=event.stream)
        return [Acknowledged(id="e", time=0, version=8) for _ in events]


async def test_version_that_a_refusal_names_twice_is_believed() -> None:
    store = SqliteStore(SqliteLog(None))
    await store.append([new_event(TAKEN)])
    streams = Streams(Misreporting(store))
    guards = []
    for _ in range(2):
        guards.append((await streams.head(TAKEN)).guard)
        with pytest.raises(VersionConflict):
            await streams.append([new_event(TAKEN, guard=guards[-1])])
    assert guards == [1, 1]
    assert (await streams.head(TAKEN)).guard == 7
    await streams.append([new_event(TAKEN, guard=7)])
    await store.close()
