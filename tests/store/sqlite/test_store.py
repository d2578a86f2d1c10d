"""`SqliteStore` in a file and in memory: appends, guards, tenants, times, reads, scans."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest

from allsource_auth.errors import InvalidInput, VersionConflict
from allsource_auth.store.base import Event, EventStore, NewEvent
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore


def event(stream: str, *, kind: str = "auth.user.updated", guard: int | None = None, payload: str = "{}") -> NewEvent:
    return NewEvent(type=kind, stream=stream, payload=payload.encode(), metadata=b"", guard=guard)


@pytest.fixture(params=["file", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "events.db" if request.param == "file" else None


@pytest.fixture
async def log(path: Path | None) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(path)
    yield log
    await log.close()


@pytest.fixture
def store(log: SqliteLog) -> SqliteStore:
    return SqliteStore(log)


async def collect(pages: AsyncIterator[list[Event]]) -> list[Event]:
    return [item async for page in pages for item in page]


def test_sqlite_store_is_an_event_store(log: SqliteLog) -> None:
    store: EventStore = SqliteStore(log, "acme")
    assert (store.tenant, store.atomic_batches, store.time_skew) == ("acme", True, 0)


async def test_event_is_read_as_it_was_appended(store: SqliteStore) -> None:
    payload = '{"name": "Zoë", "n": 1.50, "at": "2026-01-01T00:00:00.123456789Z"}'
    new = NewEvent(type="auth.user.created", stream="auth-user:1", payload=payload.encode(), metadata=b'{"v": 1}')
    (acknowledged,) = await store.append([new])
    latest = await store.latest("auth-user:1")
    stored = latest.event
    assert stored is not None
    assert bytes(stored.payload) == payload.encode()
    assert bytes(stored.metadata) == b'{"v": 1}'
    assert (stored.type, stored.stream, stored.version) == ("auth.user.created", "auth-user:1", 1)
    assert (stored.id, stored.time, stored.version) == (acknowledged.id, acknowledged.time, acknowledged.version)
    assert UUID(stored.id).version == 4
    assert latest.version == 1


async def test_missing_metadata_is_null(store: SqliteStore) -> None:
    await store.append([event("s")])
    (stored,) = await store.read("s")
    assert bytes(stored.metadata) == b"null"


async def test_an_unknown_stream_is_empty_at_version_0(store: SqliteStore) -> None:
    latest = await store.latest("nothing")
    assert (latest.event, latest.version) == (None, 0)
    assert await store.read("nothing") == []


async def test_guard_0_wins_once(store: SqliteStore) -> None:
    await store.append([event("s", guard=0)])
    with pytest.raises(VersionConflict) as caught:
        await store.append([event("s", guard=0)])
    assert (caught.value.expected, caught.value.actual, caught.value.stream) == (0, 1, "s")
    assert len(await store.read("s")) == 1


async def test_a_guard_ahead_of_the_stream_fails(store: SqliteStore) -> None:
    with pytest.raises(VersionConflict) as caught:
        await store.append([event("s", guard=3)])
    assert (caught.value.expected, caught.value.actual) == (3, 0)


async def test_an_append_without_guard_always_counts_up(store: SqliteStore) -> None:
    versions = [(await store.append([event("s")]))[0].version for _ in range(3)]
    assert versions == [1, 2, 3]


async def test_a_failed_guard_stores_nothing_of_its_batch(store: SqliteStore) -> None:
    with pytest.raises(VersionConflict) as caught:
        await store.append([event("a", guard=0), event("b", guard=7), event("c")])
    assert caught.value.stream == "b"
    assert [(await store.latest(stream)).version for stream in "abc"] == [0, 0, 0]
    await store.append([event("a", guard=0)])


async def test_guards_of_one_batch_build_on_each_other(store: SqliteStore) -> None:
    acknowledged = await store.append([event("s", guard=0), event("t"), event("s", guard=1), event("s", guard=2)])
    assert [item.version for item in acknowledged] == [1, 1, 2, 3]
    with pytest.raises(VersionConflict) as caught:
        await store.append([event("s", guard=3), event("s", guard=3)])
    assert (caught.value.expected, caught.value.actual) == (3, 4)
    assert (await store.latest("s")).version == 3


async def test_an_empty_batch_does_nothing(store: SqliteStore, log: SqliteLog) -> None:
    assert await store.append([]) == []
    assert log.syncs == 0


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("stream", NewEvent(type="t", stream="\ud800", payload=b"{}", metadata=b"")),
        ("type", NewEvent(type="\udfff", stream="s", payload=b"{}", metadata=b"")),
        ("payload", NewEvent(type="t", stream="s", payload=b"\xff", metadata=b"")),
        ("metadata", NewEvent(type="t", stream="s", payload=b"{}", metadata=b"\xc3")),
    ],
)
async def test_text_that_is_not_utf8_is_refused(store: SqliteStore, field: str, new: NewEvent) -> None:
    with pytest.raises(InvalidInput) as caught:
        await store.append([event("s"), new])
    assert caught.value.field == field
    assert (await store.latest("s")).version == 0


async def test_tenants_share_versions_but_not_events(log: SqliteLog) -> None:
    one, two = SqliteStore(log, "one"), SqliteStore(log, "two", owns_log=False)
    await one.append([event("s", payload="1")])
    assert (await two.latest("s")).event is None
    assert (await two.latest("s")).version == 1
    with pytest.raises(VersionConflict) as caught:
        await two.append([event("s", guard=0)])
    assert caught.value.actual == 1
    await two.append([event("s", guard=1, payload="2")])
    for store, payload, version in ((one, b"1", 1), (two, b"2", 2)):
        latest = await store.latest("s")
        assert latest.event is not None
        assert (bytes(latest.event.payload), latest.event.version, latest.version) == (payload, version, 2)
        assert [bytes(item.payload) for item in await store.read("s")] == [payload]
        assert [bytes(item.payload) for item in await collect(store.scan("auth."))] == [payload]
        assert [bytes(item.payload) for item in await collect(store.heads("s", "auth."))] == [payload]


async def test_latest_does_not_walk_over_another_tenants_events(log: SqliteLog) -> None:
    mine, other = SqliteStore(log, "mine"), SqliteStore(log, "other", owns_log=False)
    await mine.append([event("s", payload="1")])
    for _ in range(20):
        await other.append([event("s") for _ in range(500)])
    reader = await log.open()
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    reader.set_progress_handler(count, 100)
    latest = await mine.latest("s")
    reader.set_progress_handler(None, 0)
    assert latest.event is not None
    assert bytes(latest.event.payload) == b"1"
    assert latest.version == 10_001
    assert steps < 5  # in units of 100 SQLite instructions


@pytest.mark.parametrize("clock", [lambda: 1_000, iter(range(5_000, 0, -7)).__next__], ids=["frozen", "stepping back"])
async def test_times_increase_strictly_with_any_clock(path: Path | None, clock: Callable[[], int]) -> None:
    store = SqliteStore(SqliteLog(path, clock_ns=clock))
    for _ in range(3):
        await store.append([event("s"), event("t")])
    times = [item.time for item in await collect(store.scan(""))]
    assert len(times) == 6
    assert times == sorted(set(times))
    assert store.server_time() == times[-1]
    await store.close()


async def test_times_increase_after_a_restart_with_an_earlier_clock(tmp_path: Path) -> None:
    first = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=lambda: 9_000))
    await first.append([event("s")])
    await first.close()
    second = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=lambda: 5))
    assert second.server_time() == 5
    (acknowledged,) = await second.append([event("s")])
    assert acknowledged.time == 9_001
    assert second.server_time() == 9_001
    await second.close()


async def test_server_time_follows_the_events_that_were_read(tmp_path: Path) -> None:
    ahead = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=lambda: 9_000))
    await ahead.append([event("s")])
    for read in ("latest", "read", "scan", "heads"):
        behind = SqliteStore(SqliteLog(tmp_path / "events.db", clock_ns=lambda: 5))
        if read == "latest":
            await behind.latest("s")
        elif read == "read":
            await behind.read("s")
        else:
            await collect(behind.scan("") if read == "scan" else behind.heads("", ""))
        assert behind.server_time() == 9_000
        await behind.close()
    await ahead.close()


async def test_read_pages_in_both_directions(store: SqliteStore) -> None:
    await store.append([event("s", payload=str(n)) for n in range(1_205)] + [event("other")])

    async def payloads(**options: int | bool) -> list[int]:
        return [int(bytes(item.payload)) for item in await store.read("s", **options)]  # type: ignore[arg-type]

    assert await payloads() == list(range(1_000))
    assert await payloads(limit=5_000) == list(range(1_000))
    assert await payloads(offset=1_000) == list(range(1_000, 1_205))
    assert await payloads(offset=3, limit=2) == [3, 4]
    assert await payloads(newest_first=True, limit=2) == [1_204, 1_203]
    assert await payloads(newest_first=True, offset=1_203) == [1, 0]
    assert await payloads(limit=0) == []
    assert await payloads(limit=-1) == []
    assert await payloads(offset=2_000) == []


async def test_read_until_is_inclusive(store: SqliteStore) -> None:
    times = [item.time for item in await store.append([event("s") for _ in range(5)])]
    assert [item.time for item in await store.read("s", until=times[2])] == times[:3]
    assert [item.time for item in await store.read("s", until=times[2] - 1)] == times[:2]
    assert [item.time for item in await store.read("s", until=times[3], newest_first=True, offset=1)] == times[2::-1]
    assert await store.read("s", until=times[0] - 1) == []
    assert len(await store.read("s", until=2**80)) == 5
    assert await store.read("s", until=-(2**80)) == []


async def test_scan_pages_through_types_in_time_order(store: SqliteStore) -> None:
    kinds = ["auth.user.created", "auth.user.updated", "auth.user.deleted", "auth.users", "auth.usef", "zebra"]
    for start in range(0, 5_400, 600):
        await store.append([event(f"s{n % 7}", kind=kinds[n % 6], payload=str(n)) for n in range(start, start + 600)])
    pages = [page async for page in store.scan("auth.user.")]
    assert [len(page) for page in pages] == [1_000, 1_000, 700]
    assert [int(bytes(item.payload)) for page in pages for item in page] == [n for n in range(5_400) if n % 6 < 3]
    assert len(await collect(store.scan("auth.user"))) == 3_600
    assert len(await collect(store.scan(""))) == 5_400
    assert await collect(store.scan("auth.user.x")) == []


async def test_scan_merges_more_types_than_one_statement_allows(store: SqliteStore) -> None:
    for start in range(0, 2_400, 600):
        await store.append([event("s", kind=f"t{n % 640}", payload=str(n)) for n in range(start, start + 600)])
    assert [int(bytes(item.payload)) for item in await collect(store.scan("t"))] == list(range(2_400))


async def test_scan_bounds_are_inclusive(store: SqliteStore) -> None:
    times = [item.time for item in await store.append([event("s") for _ in range(6)])]
    found = [item.time for item in await collect(store.scan("auth.", since=times[1], until=times[4]))]
    assert found == times[1:5]
    found = [item.time for item in await collect(store.scan("auth.", since=times[1] + 1, until=times[4] - 1))]
    assert found == times[2:4]
    assert len(await collect(store.scan("auth.", since=-(2**70), until=2**70))) == 6


async def test_prefixes_are_exact(store: SqliteStore) -> None:
    names = ["a%", "a_", "aB", "ab", "a\ud7ffx", "a\ue000x", "a\U0010ffff", "a\U0010ffffz", "b"]
    await store.append([event(name, kind=name) for name in names])
    for prefix in ["", "a", "a%", "a_", "A", "a\ud7ff", "a\U0010ffff", "\U0010ffff"]:
        expected = {name for name in names if name.startswith(prefix)}
        assert {item.type for item in await collect(store.scan(prefix))} == expected
        assert {item.stream for item in await collect(store.heads(prefix, ""))} == expected


async def test_scan_tolerates_concurrent_appends(store: SqliteStore) -> None:
    first = [item.id for item in await store.append([event("s", kind=f"t.{n % 3}") for n in range(3_300)])]
    seen: list[str] = []
    times: list[int] = []
    rounds = 0
    async for page in store.scan("t."):
        seen += [item.id for item in page]
        times += [item.time for item in page]
        if rounds < 3:
            await store.append([event("s", kind=f"t.{n % 5}") for n in range(500)])
        rounds += 1
    assert seen[:3_300] == first
    assert times == sorted(set(times))
    every = [item.id for item in await collect(store.scan("t."))]
    assert seen == every[: len(seen)]


async def test_a_page_of_a_scan_is_one_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = SqliteStore(SqliteLog(path))
    await store.append([event("s", kind="t.a") for _ in range(999)])
    await store.latest("s")
    scanner = store._log._file.scanner()
    written: list[tuple[object, ...]] = []

    def write_between_the_statements(statement: str) -> None:
        if "AS page" in statement and not written:
            other = sqlite3.connect(path)
            for position, kind in ((1_000, "t.b"), (1_001, "t.a")):
                row = (position, 2**62 + position, position, str(position), "default", "s", kind, "null", "{}")
                written.append(row)
                other.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            other.commit()
            other.close()

    scanner.set_trace_callback(write_between_the_statements)
    seen = [item.id for item in await collect(store.scan("t."))]
    scanner.set_trace_callback(None)
    assert len(written) == 2
    every = [item.id for item in await collect(store.scan("t."))]
    assert len(every) == 1_001
    assert seen == every[: len(seen)]
    await store.close()


async def test_heads_shows_each_stream_once_at_its_newest(store: SqliteStore) -> None:
    streams = [f"auth-user:{n:04}" for n in range(3_100)]
    for payload in ("1", "2"):
        await store.append([event(stream, payload=payload) for stream in streams])
        await store.append([event(f"auth-session:{n}") for n in range(50)])
    rounds = 0
    seen: list[str] = []
    async for page in store.heads("auth-user:", "auth.user."):
        assert {bytes(item.payload) for item in page} == {b"2"}
        seen += [item.stream for item in page]
        if rounds == 0:  # before the events that were read
            await store.append([event("auth-user:0000x")])
        rounds += 1
    assert rounds == 4
    assert seen == streams


async def test_abandoned_scan_leaves_nothing_open(store: SqliteStore, log: SqliteLog) -> None:
    await store.append([event(f"s{n}") for n in range(2_500)])
    for pages in (store.scan(""), store.heads("", "")):
        async for page in pages:
            assert len(page) == 1_000
            break
        await pages.aclose()
    # An open snapshot would prevent a complete checkpoint of the write-ahead log.
    reader = await log.open()
    await store.append([event("s")])
    busy, _, _ = reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert (await store.latest("s")).version == 1
