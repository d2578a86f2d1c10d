"""Sweeps delete expired sessions only, at a cost that depends on the living sessions."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Event, EventStore, Session
from tests.contract.conftest import MakeAdapter
from tests.support.clocks import ManualClock
from tests.support.events import metadata, new_event, payload, refused, stored, written_by
from tests.support.names import sweep_stream
from tests.support.wrappers import CountingStore

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def sign_in(
    adapter: AllsourceAuthAdapter, clock: ManualClock, lifetime: timedelta, count: int = 1
) -> list[Session]:
    return [
        await adapter.sessions.create(user_id=f"u{number % 3}", expires_at=clock() + lifetime)
        for number in range(count)
    ]


async def living(adapter: AllsourceAuthAdapter) -> set[str]:
    return {session.token async for session in adapter.sessions.scan()}


async def test_session_is_expired_at_expires_at(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    past, now, future = [
        (await sign_in(adapter, clock, lifetime))[0] for lifetime in (-MICROSECOND, timedelta(0), MICROSECOND)
    ]
    assert await adapter.sessions.delete_expired() == 2
    assert await living(adapter) == {future.token}
    assert await adapter.sessions.list_for_user("u0") == [future]
    for session in (past, now):
        (_, deleted) = await adapter.sessions.history(session.token)
        assert deleted.event == "SessionDeleted"
    clock.move(MICROSECOND)
    assert await adapter.sessions.delete_expired() == 1
    assert await living(adapter) == set()


async def test_sweep_of_nothing_counts_nothing(adapter: AllsourceAuthAdapter) -> None:
    assert await adapter.sessions.delete_expired() == 0
    assert await adapter.sessions.delete_expired() == 0


async def test_revoked_sessions_are_not_counted(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    (session,) = await sign_in(adapter, clock, HOUR)
    await adapter.sessions.delete(session.token)
    clock.move(DAY)
    assert await adapter.sessions.delete_expired() == 0


async def test_extended_session_is_kept_until_its_new_expiry(adapter: AllsourceAuthAdapter, dated: ManualClock) -> None:
    (session,) = await sign_in(adapter, dated, HOUR)
    await adapter.sessions.update_expiry(session.token, dated() + 10 * DAY)
    dated.move(2 * HOUR)
    assert await adapter.sessions.delete_expired() == 0
    dated.move(8 * DAY)
    assert await adapter.sessions.delete_expired() == 0
    dated.move(2 * DAY)
    assert await adapter.sessions.delete_expired() == 1


async def test_shortened_session_is_deleted_at_its_new_expiry(
    adapter: AllsourceAuthAdapter, dated: ManualClock
) -> None:
    (session,) = await sign_in(adapter, dated, 10 * DAY)
    dated.move(DAY)
    assert await adapter.sessions.delete_expired() == 0
    await adapter.sessions.update_expiry(session.token, dated() + HOUR)
    dated.move(HOUR)
    assert await adapter.sessions.delete_expired() == 1


async def test_repeated_sweeps_find_living_sessions_again(adapter: AllsourceAuthAdapter, dated: ManualClock) -> None:
    """The checkpoint never passes a living session, so each session is deleted by the first sweep after its expiry."""
    sessions = {}
    gone = 0
    for day in range(20):
        (session,) = await sign_in(adapter, dated, timedelta(days=1 + day * 7 % 5, hours=-1))
        sessions[session.token] = session.expires_at
        dated.move(DAY)
        due = {token for token, end in sessions.items() if end <= dated()}
        assert await adapter.sessions.delete_expired() == len(due) - gone
        gone = len(due)
        assert await living(adapter) == set(sessions) - due
    dated.move(10 * DAY)
    assert await adapter.sessions.delete_expired() == 20 - gone
    assert await living(adapter) == set()


async def test_checkpoint_moves_and_is_written_as_documented(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await sign_in(adapter, dated, HOUR, 3)
    dated.move(DAY)
    await adapter.sessions.delete_expired()
    dated.move(DAY)
    await sign_in(adapter, dated, HOUR)
    await adapter.sessions.delete_expired()
    events = await stored(store, sweep_stream())
    assert [event.type for event in events] == ["auth.index.swept"] * len(events)
    checkpoints = [payload(event) for event in events]
    assert all(set(checkpoint) == {"v", "until"} and checkpoint["v"] == 1 for checkpoint in checkpoints)
    untils = [int(checkpoint["until"]) for checkpoint in checkpoints]
    assert untils == sorted(set(untils))
    assert [metadata(event)["seq"] for event in events] == list(range(1, len(events) + 1))
    newest = max([event.time async for page in store.scan("auth.session.") for event in page])
    assert untils[-1] <= newest - 600 * 10**9


async def test_checkpoint_stays_before_the_oldest_living_session(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    (held,) = await sign_in(adapter, dated, 30 * DAY)
    (created,) = await stored(store, f"auth-session:{held.token}")
    for _ in range(5):
        dated.move(DAY)
        await sign_in(adapter, dated, HOUR, 3)
        dated.move(HOUR)
        assert await adapter.sessions.delete_expired() == 3
    assert all(int(payload(event)["until"]) <= created.time for event in await stored(store, sweep_stream()))


async def test_second_sweep_reads_less(make_adapter: MakeAdapter, store: EventStore, dated: ManualClock) -> None:
    counted = CountingStore(store)
    adapter = make_adapter(store=counted)
    await sign_in(adapter, dated, HOUR, 40)
    dated.move(DAY)
    assert await adapter.sessions.delete_expired() == 40
    dated.move(DAY)
    await sign_in(adapter, dated, HOUR, 2)
    await adapter.sessions.delete_expired()
    counted.forget()
    dated.move(DAY)
    assert await adapter.sessions.delete_expired() == 2
    assert 0 < counted.scanned < 10


@pytest.mark.parametrize("limit", [0, 1, 4, 7, 10, 11, None])
async def test_limit_bounds_one_sweep(adapter: AllsourceAuthAdapter, clock: ManualClock, limit: int | None) -> None:
    await sign_in(adapter, clock, HOUR, 10)
    clock.move(DAY)
    first = 10 if limit is None else min(limit, 10)
    assert await adapter.sessions.delete_expired(limit=limit) == first
    assert len(await living(adapter)) == 10 - first


async def test_repeated_sweeps_with_a_limit_delete_everything(
    adapter: AllsourceAuthAdapter, dated: ManualClock
) -> None:
    await sign_in(adapter, dated, HOUR, 10)
    await sign_in(adapter, dated, 30 * DAY, 2)
    dated.move(2 * DAY)
    await sign_in(adapter, dated, -HOUR, 3)
    removed = []
    while (count := await adapter.sessions.delete_expired(limit=4)) > 0:
        removed.append(count)
        dated.move(HOUR)
    assert removed == [4, 4, 4, 1]
    assert len(await living(adapter)) == 2


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True])
async def test_invalid_limit_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, limit: Any) -> None:
    async with refused(store, "limit"):
        await adapter.sessions.delete_expired(limit=limit)


async def test_concurrent_sweeps_count_each_session_once(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    adapters = [make_adapter() for _ in range(3)]
    await sign_in(adapters[0], clock, HOUR, 30)
    kept = await sign_in(adapters[1], clock, 30 * DAY, 5)
    clock.move(DAY)
    removed = await asyncio.gather(*[adapter.sessions.delete_expired() for adapter in adapters])
    assert sum(removed) == 30
    assert await living(adapters[2]) == {session.token for session in kept}


async def test_session_extended_during_the_sweep_is_kept(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock
) -> None:
    """Another process changes the expiry between the scan and the deletion."""
    rescuer = make_adapter()
    (session,) = await sign_in(rescuer, clock, HOUR)
    clock.move(DAY)

    class Rescued(CountingStore):
        async def scan(self, *args: Any, **named: Any) -> AsyncGenerator[list[Event]]:
            async for page in super().scan(*args, **named):
                await rescuer.sessions.update_expiry(session.token, clock() + DAY)
                yield page

    adapter = make_adapter(store=Rescued(store))
    assert await adapter.sessions.delete_expired() == 0
    assert await living(adapter) == {session.token}


async def test_sweep_skips_undecodable_events(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    await store.append([new_event("auth-session:broken", {"id": 5}, type="auth.session.created")])
    await sign_in(adapter, clock, HOUR, 2)
    clock.move(DAY)
    assert await adapter.sessions.delete_expired() == 2


async def test_sweep_of_thousands(adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock) -> None:
    made = [
        {
            "id": str(number),
            "token": f"t{number}",
            "userId": "u",
            "createdAt": "2026-11-23T10:59:20.552604072Z",
            "updatedAt": "2026-11-23T10:59:20.552604072Z",
            "expiresAt": "2026-11-23T11:00:00.000000Z" if number % 2 else "2027-11-23T11:00:00.000000Z",
        }
        for number in range(2400)
    ]
    for first in range(0, 2400, 600):
        await store.append(
            [
                new_event(f"auth-session:{session['token']}", session, type="auth.session.created")
                for session in made[first : first + 600]
            ]
        )
    assert await adapter.sessions.delete_expired() == 1200
    assert await living(adapter) == {f"t{number}" for number in range(0, 2400, 2)}
    async with written_by(store) as written:
        assert await adapter.sessions.delete_expired() == 0
    assert "auth.session.deleted" not in written.types
