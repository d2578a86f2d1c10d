"""The settings of a store: compared again while a process writes, and raised to a newer event format by an upgrade."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from allsource_auth import Acknowledged, AllsourceAuthAdapter, Http, InvalidInput, NewEvent, SqliteLog, SqliteStore
from allsource_auth.engine import store_settings
from allsource_auth.engine.store_settings import RECHECK_SECONDS, Settings, StoreSettings
from allsource_auth.engine.streams import Streams
from tests.support.events import new_event, payload, stored
from tests.support.names import settings_stream
from tests.support.wrappers import CountingStore, WrappedStore

NEXT_FORMAT = 2


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(SqliteLog(None))
    yield opened
    await opened.close()


def streams_on(store: SqliteStore | WrappedStore, clock: Clock) -> Streams:
    streams = Streams(store)
    streams.settings = StoreSettings(Settings(), store, Streams(store).head, now=clock)
    return streams


async def configure(store: SqliteStore, **changes: object) -> None:
    """Store changed settings, as a process of a newer version does."""
    settings = msgspec.to_builtins(Settings()) | changes
    await store.append([new_event(settings_stream(), settings, type="auth.index.configured")])


@pytest.mark.parametrize("changes", [{"format": NEXT_FORMAT}, {"keyRing": "k1"}, {"hashKey": "k1"}])
async def test_process_stops_writing_within_a_minute_of_a_change(
    store: SqliteStore, changes: dict[str, object]
) -> None:
    clock = Clock()
    streams = streams_on(store, clock)
    await streams.append([new_event("auth-user:a")])
    await configure(store, **changes)
    clock.seconds += RECHECK_SECONDS / 2
    await streams.append([new_event("auth-user:b")])
    clock.seconds += RECHECK_SECONDS / 2
    await streams.append([new_event("auth-user:c")])  # this write reads the settings at the same time
    for _ in range(2):
        with pytest.raises(InvalidInput) as caught:
            await streams.append([new_event("auth-user:d")])
    (key,) = changes
    assert caught.value.field == {"format": "event_format", "hashKey": "hash_key"}.get(key, key)
    assert await stored(store, "auth-user:d") == []
    assert (await streams.newest("auth-user:c")) is not None


async def test_lost_connection_makes_the_next_write_compare_the_settings(store: SqliteStore) -> None:
    class Disconnecting(WrappedStore):
        broken = False

        async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
            if self.broken:
                raise Http("the connection broke")
            return await super().append(events)

    disconnecting = Disconnecting(store)
    streams = streams_on(disconnecting, Clock())
    await streams.append([new_event("auth-user:a")])
    disconnecting.broken = True
    with pytest.raises(Http):
        await streams.append([new_event("auth-user:a")])
    disconnecting.broken = False
    await configure(store, format=NEXT_FORMAT)
    await streams.append([new_event("auth-user:b")])
    with pytest.raises(InvalidInput, match="newer version"):
        await streams.append([new_event("auth-user:c")])


async def test_failed_comparison_does_not_fail_the_write(store: SqliteStore) -> None:
    class Unreachable(WrappedStore):
        async def latest(self, stream: str, *, require_leader: bool = False) -> object:  # type: ignore[override]
            raise Http("no answer")

    clock = Clock()
    streams = streams_on(store, clock)
    await streams.append([new_event("auth-user:a")])
    assert streams.settings is not None
    streams.settings._head_of = Streams(Unreachable(store)).head  # type: ignore[arg-type]
    clock.seconds += RECHECK_SECONDS
    await streams.append([new_event("auth-user:b")])
    assert streams.settings.due


async def test_comparison_does_not_change_the_error_or_cancellation_of_a_write(store: SqliteStore) -> None:
    class Slow(WrappedStore):
        async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
            await asyncio.sleep(3600)
            raise AssertionError

    clock = Clock()
    streams = streams_on(store, clock)
    await streams.append([new_event("auth-user:a")])
    clock.seconds += RECHECK_SECONDS
    with pytest.raises(InvalidInput, match="bytes"):
        await streams.append([new_event("auth-user:a", {"text": "x" * 3_000_000})])
    streams.store = Slow(store)
    waiting = asyncio.ensure_future(streams.append([new_event("auth-user:a")]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_reads_never_compare_again(store: SqliteStore) -> None:
    clock, counting = Clock(), CountingStore(store)
    streams = streams_on(counting, clock)
    await streams.append([new_event("auth-user:a")])
    clock.seconds += 10 * RECHECK_SECONDS
    counting.forget()
    await streams.newest("auth-user:a")
    assert counting.reads == ["auth-user:a"]


async def test_upgrade_raises_the_format_and_older_processes_stop_writing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = AllsourceAuthAdapter.with_store(store)
    user = await older.users.create(email="ada@example.org")
    assert await older.upgrade() == await older.upgrade(dry_run=True)
    newer = AllsourceAuthAdapter.with_store(store)
    monkeypatch.setattr(store_settings, "EVENT_FORMAT", NEXT_FORMAT)
    assert await newer.users.get(user.id) == user  # the older format can still be read, and written
    await newer.users.update(user.id, name="Ada")
    possible = await newer.upgrade(dry_run=True)
    assert (possible.before, possible.after) == (1, NEXT_FORMAT)
    assert len(await stored(store, settings_stream())) == 1
    done = await newer.upgrade()
    assert (done.before, done.after) == (1, NEXT_FORMAT)
    assert payload((await stored(store, settings_stream()))[-1])["format"] == NEXT_FORMAT
    assert (await newer.upgrade()).before == NEXT_FORMAT
    await newer.users.update(user.id, name="Ada L.")

    monkeypatch.setattr(store_settings, "EVENT_FORMAT", 1)
    settings = older.context.streams.settings
    assert settings is not None
    settings.expire()
    await older.users.update(user.id, name="during")
    with pytest.raises(InvalidInput, match="format 2"):
        await older.users.update(user.id, name="after")


async def test_concurrent_upgrades_write_one_event(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [AllsourceAuthAdapter.with_store(store) for _ in range(5)]
    await adapters[0].users.create()
    monkeypatch.setattr(store_settings, "EVENT_FORMAT", NEXT_FORMAT)
    done = await asyncio.gather(*(adapter.upgrade() for adapter in adapters))
    assert {result.after for result in done} == {NEXT_FORMAT}
    assert len(await stored(store, settings_stream())) == 2


async def test_new_store_gets_the_newest_event_format(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_settings, "EVENT_FORMAT", NEXT_FORMAT)
    adapter = AllsourceAuthAdapter.with_store(store)
    await adapter.users.create()
    (settings,) = await stored(store, settings_stream())
    assert payload(settings)["format"] == NEXT_FORMAT
    done = await adapter.upgrade()
    assert (done.before, done.after) == (NEXT_FORMAT, NEXT_FORMAT)
