"""Streams: versions learned from conflicts, and versions that count events which are not visible."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest

from allsource_auth import Acknowledged, Event, Latest, NewEvent, SqliteLog, SqliteStore, VersionConflict
from allsource_auth.audit import encode_metadata
from allsource_auth.engine.settling import LONGEST_PATIENCE, LONGEST_PAUSE, PATIENCE
from allsource_auth.engine.streams import PAGE, Streams
from tests.support.events import new_event
from tests.support.wrappers import WrappedStore

TAKEN = "auth-idx:user.email:taken"
FREE = "auth-idx:user.username:free"
PERSON = "auth-user:ada"


def numbered_event(stream: str, seq: int) -> NewEvent:
    return msgspec.structs.replace(new_event(stream), metadata=encode_metadata(op=f"op{seq}", seq=seq))


async def test_conflict_of_one_stream_does_not_affect_others_in_the_batch() -> None:
    store = SqliteStore(SqliteLog(None))
    streams = Streams(store)
    await store.append([new_event(TAKEN)])
    for _ in range(3):
        with pytest.raises(VersionConflict):
            await streams.append([new_event(TAKEN, guard=0), new_event(FREE, guard=0)])
    assert (await streams.head(FREE)).guard == 0
    assert (await streams.head(TAKEN)).guard == 1
    await store.close()


async def test_operation_is_found_below_a_full_page_of_later_events() -> None:
    store = SqliteStore(SqliteLog(None))
    await store.append([numbered_event(PERSON, number + 1) for number in range(PAGE + 1)])
    streams = Streams(store)
    found = await streams.written_since(await streams.head(PERSON), "op1", since=None)
    assert found is not None
    assert found.version == 1
    await store.close()


class Misreporting(WrappedStore):
    """A store whose reads report version 1 of a stream, while guards are checked against version 7."""

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        for event in events:
            if event.guard not in (None, 7):
                raise VersionConflict(expected=event.guard or 0, actual=7, stream=event.stream)
        return [Acknowledged(id="e", time=0, version=8) for _ in events]


async def test_version_in_two_equal_conflicts_becomes_the_guard() -> None:
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


class LostCounters(WrappedStore):
    """A store that reports version 1, like a server that has lost its counters. Its events keep their versions."""

    @property
    def atomic_batches(self) -> bool:
        return False

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        return msgspec.structs.replace(await super().latest(stream, require_leader=require_leader), version=1)


async def test_guard_is_the_version_of_the_newest_event_if_the_counter_is_lower() -> None:
    store = SqliteStore(SqliteLog(None))
    await store.append([numbered_event(TAKEN, number) for number in (1, 2, 3)])
    assert (await Streams(LostCounters(store)).head(TAKEN)).guard == 3
    await store.close()


class Lagging(WrappedStore):
    """A store that counts the newest event of a stream, but hides it for ``hidden[stream]`` reads, as Core may do."""

    @property
    def atomic_batches(self) -> bool:
        return False

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.hidden: dict[str, int] = {}
        self.pages = 0

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        latest = await super().latest(stream, require_leader=require_leader)
        if not self._hides(stream):
            return latest
        events = await super().read(stream, newest_first=True)
        return Latest(event=events[1] if len(events) > 1 else None, version=latest.version)

    async def read(self, stream: str, **options: Any) -> list[Event]:
        self.pages += 1
        events = await super().read(stream, **options)
        return events[1:] if self._hides(stream) else events

    def _hides(self, stream: str) -> bool:
        self.hidden[stream] = self.hidden.get(stream, 0) - 1
        return self.hidden[stream] >= 0


@pytest.mark.parametrize("reads", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_decision_waits_until_a_counted_event_is_visible(before: int, reads: int) -> None:
    store = SqliteStore(SqliteLog(None))
    lagging = Lagging(store)
    for number in range(before + 1):
        await store.append([numbered_event(TAKEN, number + 1)])
    lagging.hidden[TAKEN] = reads
    head = await Streams(lagging).head(TAKEN)
    assert head.event is not None
    assert head.event == (await store.latest(TAKEN)).event
    assert (head.guard, head.seq) == (before + 1, before + 1)
    await store.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two polls. They are recorded instead of slept."""
    recorded: list[float] = []

    async def sleep(seconds: float) -> None:
        recorded.append(seconds)

    monkeypatch.setattr("allsource_auth.engine.settling.asyncio.sleep", sleep)
    return recorded


Shared = tuple[SqliteStore, Streams, Callable[[], Streams]]


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    """A store of another tenant, and streams that count its events but never show them: one object, and a factory."""
    store = SqliteStore(SqliteLog(None))
    for stream in (TAKEN, PERSON):
        await store.append([numbered_event(stream, 1)])
    lagging = Lagging(store)
    yield SqliteStore(store._log, "other", owns_log=False), Streams(lagging), lambda: Streams(lagging)
    await store.close()


@pytest.mark.parametrize("stream", [TAKEN, PERSON])
async def test_event_that_never_becomes_visible_is_waited_for_once(
    shared: Shared, pauses: list[float], stream: str
) -> None:
    theirs, _, opened = shared
    for count in (2, 3):
        await theirs.append([new_event(stream)])
        streams = opened()
        for repeated in (False, True):
            pauses.clear()
            head = await streams.head(stream)
            assert (head.guard, head.seq) == (count, 1)
            assert sum(pauses) == 0 if repeated else PATIENCE <= sum(pauses) < 2 * PATIENCE


@pytest.mark.parametrize(("stream", "short"), [(PERSON, True), (TAKEN, False)])
async def test_wait_is_short_for_an_id_that_another_tenant_uses(
    shared: Shared, pauses: list[float], stream: str, short: bool
) -> None:
    """The wait for an index stream stays long, because its name contains the tenant."""
    theirs, streams, _ = shared
    for number in range(3):
        await theirs.append([new_event(stream)])
        pauses.clear()
        assert (await streams.head(stream)).guard == number + 2
        if number and short:
            assert 0 < sum(pauses) <= 2 * LONGEST_PAUSE
        else:
            assert sum(pauses) >= PATIENCE


async def test_wait_is_limited_even_after_appends_that_took_minutes(shared: Shared, pauses: list[float]) -> None:
    theirs, streams, _ = shared
    streams._append_times.append(60.0)
    await theirs.append([new_event(PERSON)])
    assert (await streams.head(PERSON)).guard == 2
    assert LONGEST_PATIENCE <= sum(pauses) < LONGEST_PATIENCE + 2 * LONGEST_PAUSE


async def test_long_stream_is_not_read_again_at_every_poll(pauses: list[float]) -> None:
    store = SqliteStore(SqliteLog(None))
    await store.append([numbered_event(PERSON, number + 1) for number in range(2500)])
    await SqliteStore(store._log, "other", owns_log=False).append([new_event(PERSON)])
    lagging = Lagging(store)
    assert (await Streams(lagging).head(PERSON)).guard == 2501
    assert len(pauses) > 5
    assert lagging.pages <= 2 * 3
    await store.close()
