"""Mutations whose appends get no reply: they look the outcome up, retry, or report it as ambiguous."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from allsource_auth import (
    Acknowledged,
    AllsourceAuthAdapter,
    Conflict,
    EventStore,
    Http,
    NewEvent,
    SqliteLog,
    SqliteStore,
)
from tests.support.clocks import START, ManualClock
from tests.support.events import stored
from tests.support.wrappers import CutStore, DelayedStore, WrappedStore

ALL = 100
EMAIL = "ada@example.org"
SESSION_CREATED = "auth.session.created"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteLog(None, clock_ns=clock.nanoseconds))
    yield store
    await store.close()


@pytest.fixture
async def others(store: SqliteStore, clock: ManualClock) -> AllsourceAuthAdapter:
    """An adapter without faults, on a store with a user ``ada``."""
    adapter = AllsourceAuthAdapter.with_store(store, clock=clock)
    await adapter.users.create(id="ada")
    return adapter


def over(store: EventStore, clock: ManualClock) -> AllsourceAuthAdapter:
    return AllsourceAuthAdapter.with_store(store, clock=clock)


def pauses_of(adapter: AllsourceAuthAdapter, *, seconds: float) -> list[int]:
    """Record the pauses between attempts. Each one moves the clock of mutations by ``seconds`` and takes no time."""
    pauses: list[int] = []

    async def pause(attempt: int) -> None:
        pauses.append(attempt)

    adapter.context.mutations.now, adapter.context.mutations.pause = lambda: seconds * len(pauses), pause
    return pauses


async def test_lost_reply_is_looked_up_although_a_read_fails(
    store: SqliteStore, others: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    cut = CutStore(store, (ALL, None))
    adapter = over(cut, clock)
    await adapter.users.get("ada")  # reads the settings
    cut.failing_reads = 1
    assert (await adapter.users.update("ada", name="Ada")).name == "Ada"
    assert len(await stored(store, "auth-user:ada")) == 2


async def test_lost_reply_is_ambiguous_once_reads_have_failed_for_ten_seconds(
    store: SqliteStore, others: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    cut = CutStore(store, (ALL, None))
    adapter = over(cut, clock)
    await adapter.users.get("ada")
    cut.failing_reads = 1000
    pauses = pauses_of(adapter, seconds=1)
    with pytest.raises(Http) as caught:
        await adapter.users.update("ada", name="Ada")
    assert caught.value.ambiguous
    assert len(pauses) == 10


async def test_refused_update_frees_what_its_last_attempt_claimed(
    store: SqliteStore, others: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    """Two attempts store only the claim of the email. The user changes in between, then the username is taken."""
    cut = CutStore(
        store,
        (1, lambda: others.users.update("ada", name="Ada")),
        (1, lambda: others.users.create(username="taken")),
    )
    with pytest.raises(Conflict) as caught:
        await over(cut, clock).users.update("ada", email=EMAIL, username="taken")
    assert caught.value.field == "username"
    assert await others.users.create(email=EMAIL)


@pytest.mark.parametrize("last", [False, True])
async def test_creation_stored_right_before_its_tombstone_is_returned(
    store: SqliteStore, others: AllsourceAuthAdapter, clock: ManualClock, last: bool
) -> None:
    """The first attempt is lost. The second one is stored late, right before the tombstone that would prevent it."""
    delayed = DelayedStore(store, lambda call, stream: call == "append", number=2)
    adapter = over(CutStore(delayed, (0, None)), clock)
    pauses_of(adapter, seconds=10 if last else 1)
    session = await adapter.sessions.create(user_id="ada", expires_at=START)
    assert await others.sessions.list_for_user("ada") == [session]
    assert [found async for found in others.sessions.scan()] == [session]


class LateSessionStore(WrappedStore):
    """Its first ``losses`` creations of sessions get no reply, and are stored by `store_late`."""

    def __init__(self, store: EventStore, losses: int) -> None:
        super().__init__(store)
        self._losses = losses
        self._late: list[Sequence[NewEvent]] = []

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if len(self._late) < self._losses and any(event.type == SESSION_CREATED for event in events):
            self._late.append(events)
            raise Http("no reply to an append", ambiguous=True)
        return await super().append(events)

    async def store_late(self) -> list[str]:
        """Store the lost creations; return their tokens."""
        for events in self._late:
            await super().append(events)
        streams = [event.stream for events in self._late for event in events if event.type == SESSION_CREATED]
        return [stream.removeprefix("auth-session:") for stream in streams]


async def test_creation_stored_late_after_it_failed_makes_no_living_session(
    store: SqliteStore, others: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    late = LateSessionStore(store, losses=2)
    adapter = over(late, clock)
    pauses_of(adapter, seconds=10)  # the second attempt is the last one
    with pytest.raises(Http):
        await adapter.sessions.create(user_id="ada", expires_at=START)
    first, second = await late.store_late()
    assert first != second
    assert await others.sessions.get_many([first, second]) == {}
    assert await others.sessions.list_for_user("ada") == []


async def test_creation_stored_late_after_a_retry_makes_no_second_session(
    store: SqliteStore, others: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    late = LateSessionStore(store, losses=1)
    session = await over(late, clock).sessions.create(user_id="ada", expires_at=START)
    (token,) = await late.store_late()
    assert token != session.token
    assert await others.sessions.get_many([token, session.token]) == {session.token: session}
    assert await others.sessions.list_for_user("ada") == [session]
