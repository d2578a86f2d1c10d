"""The overlay: what a transaction reads of its own writes."""

from __future__ import annotations

import pytest

from allsource_auth import SqliteLog, SqliteStore, VersionConflict
from allsource_auth.engine.streams import Streams
from allsource_auth.transactions.overlay import Overlay
from tests.support.events import new_event

ADA, EVE = "auth-user:ada", "auth-user:eve"


async def test_guards_hold_inside_a_transaction() -> None:
    store = SqliteStore(SqliteLog(None))
    await store.append([new_event(ADA)])
    overlay = Overlay(Streams(store))
    overlay.begin()
    assert (await overlay.latest(ADA, require_leader=True)).version == 1
    for events in ([new_event(ADA, guard=0)], [new_event(EVE, guard=0), new_event(EVE, guard=0)]):
        with pytest.raises(VersionConflict) as caught:
            await overlay.append(events)
        assert (caught.value.expected, caught.value.stream) == (0, events[-1].stream)
    assert overlay.written == {}
    await overlay.append([new_event(ADA, guard=1), new_event(ADA, guard=2)])
    assert (await overlay.latest(ADA)).version == 3
    assert (await store.latest(ADA)).version == 1
    await store.close()
