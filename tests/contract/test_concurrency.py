"""Concurrent callers: a unique value has one winner, and no update is lost."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import (
    Acknowledged,
    AllsourceAuthAdapter,
    Conflict,
    EventStore,
    NewEvent,
    Session,
    SessionNotFound,
    User,
    VersionConflict,
)
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email, token
from tests.support.clocks import START, ManualClock
from tests.support.crowds import spellings
from tests.support.events import stored, written_by
from tests.support.names import claim_stream
from tests.support.ownership import assert_sound
from tests.support.updates import assert_nothing_lost, writes
from tests.support.wrappers import ContendedStore, WrappedStore

CALLERS = 200


def split(outcomes: Iterable[Any]) -> tuple[list[User], list[BaseException]]:
    found = list(outcomes)
    return (
        [outcome for outcome in found if isinstance(outcome, User)],
        [outcome for outcome in found if isinstance(outcome, BaseException)],
    )


@pytest.mark.parametrize("adapters", [1, 3])
async def test_one_of_many_sign_ups_with_one_email_wins(make_adapter: MakeAdapter, adapters: int) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    wanted = spellings(email("wanted"), CALLERS)
    outcomes = await asyncio.gather(
        *[
            seen[number % adapters].users.create(email=spelling, username=f"caller-{number}")
            for number, spelling in enumerate(wanted)
        ],
        return_exceptions=True,
    )
    winners, losers = split(outcomes)
    assert (len(winners), len(losers)) == (1, CALLERS - 1)
    assert {(type(loser), getattr(loser, "field", None)) for loser in losers} == {(Conflict, "email")}
    assert (await seen[-1].users.list()).total == 1
    assert await seen[-1].users.get_by_email(email("wanted")) == winners[0]
    taken = await asyncio.gather(
        *[
            seen[0].users.create(username=f"caller-{number}")
            for number in range(CALLERS)
            if winners[0].username != f"caller-{number}"
        ]
    )
    assert len(taken) == CALLERS - 1
    await assert_sound(seen[-1])


async def test_one_of_many_sign_ups_with_one_chosen_id_wins(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(
        *[seen[number % 2].users.create(id="same", name=str(number)) for number in range(50)], return_exceptions=True
    )
    winners, losers = split(outcomes)
    assert (len(winners), len(losers)) == (1, 49)
    assert all(isinstance(loser, Conflict) and loser.field == "id" for loser in losers)
    assert await seen[0].users.get("same") == winners[0]


async def test_one_of_many_sign_ins_with_one_given_token_wins(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(
        *[
            seen[number % 2].sessions.create(user_id=str(number), expires_at=START, token=token("same"))
            for number in range(50)
        ],
        return_exceptions=True,
    )
    winners = [outcome for outcome in outcomes if isinstance(outcome, Session)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 49
    assert await seen[0].sessions.get(token("same")) == winners[0]


async def test_one_of_many_renames_to_one_value_wins(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    users = [await seen[0].users.create(id=f"u{number}", username=f"old-{number}") for number in range(40)]
    outcomes = await asyncio.gather(
        *[seen[number % 2].users.update(user.id, username="wanted") for number, user in enumerate(users)],
        return_exceptions=True,
    )
    winners, losers = split(outcomes)
    assert (len(winners), len(losers)) == (1, 39)
    assert {type(loser) for loser in losers} == {Conflict}
    assert Counter([user.username async for user in seen[0].users.scan()])["wanted"] == 1
    await assert_sound(seen[1])


@pytest.mark.parametrize("adapters", [1, 2])
async def test_no_update_of_any_field_is_lost(make_adapter: MakeAdapter, ada: User, adapters: int) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    written = writes(100)
    await asyncio.gather(
        *[
            seen[number % adapters].users.update(ada.id, **{field: value})
            for number, (field, value) in enumerate(written)
        ]
    )
    changes = await seen[0].users.history(ada.id)
    assert_nothing_lost(await seen[-1].users.get(ada.id), changes[1:], written)
    await assert_sound(seen[-1])


async def test_update_that_always_loses_gives_up_and_changes_nothing(
    make_adapter: MakeAdapter, store: EventStore, ada: User
) -> None:
    contended = ContendedStore(store, f"auth-user:{ada.id}")
    adapter = make_adapter(store=contended)
    seconds = itertools.count()
    adapter.context.mutations.now = lambda: next(seconds)  # each reading of the clock advances it by a second
    with pytest.raises(VersionConflict) as caught:
        await adapter.users.update(ada.id, name="x", email=email("never"), username="never")
    assert contended.lost > 1
    assert caught.value.actual > caught.value.expected
    assert not caught.value.ambiguous
    assert await adapter.users.get(ada.id) == ada
    assert await adapter.users.get_by_email(email("never")) is None
    fresh = make_adapter()
    assert await fresh.users.get_by_email(email("Ada")) == ada
    taker = await fresh.users.create(email=email("never"), username="never")
    assert await fresh.users.get_by_username("never") == taker


class Interfering(WrappedStore):
    """Stores the first events of a batch, as Core does. Just before the first sign-up, ``interfere`` runs."""

    @property
    def atomic_batches(self) -> bool:
        return False

    def __init__(self, store: EventStore, interfere: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store)
        self._overtake: Callable[[], Awaitable[object]] | None = interfere

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        interfere = self._overtake
        if interfere is not None and any(event.type == "auth.user.created" for event in events):
            self._overtake = None
            await interfere()
        found = []
        for event in events:
            found += await super().append([event])
        return found


async def test_value_that_a_refused_sign_up_has_claimed_is_free_at_once(
    make_adapter: MakeAdapter, store: EventStore
) -> None:
    faster = make_adapter()
    slower = make_adapter(store=Interfering(store, lambda: faster.users.create(username="ada")))
    with pytest.raises(Conflict, match="username"):
        await slower.users.create(email=email("Eve"), username="ada")
    claims = await stored(store, claim_stream("email", email("Eve").lower()))
    assert [claim.type for claim in claims] == ["auth.index.claimed"]
    eve = await faster.users.create(email=email("Eve"))
    assert await faster.users.get_by_email(email("Eve")) == eve


async def test_last_attempt_is_made_after_the_mutation_deadline(adapter: AllsourceAuthAdapter) -> None:
    """On a busy machine the deadline may pass during the first attempt.

    The caller still gets the real reason, such as `Conflict`.
    """
    minutes = itertools.count(step=60.0)
    adapter.context.mutations.now = lambda: next(minutes)
    outcomes = await asyncio.gather(
        *(adapter.users.create(email=email("Ada")) for _ in range(20)), return_exceptions=True
    )
    assert Counter(map(type, outcomes)) == {User: 1, Conflict: 19}


async def test_update_that_loses_for_a_while_wins_in_the_end(
    make_adapter: MakeAdapter, store: EventStore, ada: User
) -> None:
    class SlowStore(ContendedStore):
        async def append(self, events: Any) -> Any:
            if self.lost >= 5:
                return await self._store.append(events)
            return await super().append(events)

    adapter = make_adapter(store=SlowStore(store, f"auth-user:{ada.id}"))
    changed = await adapter.users.update(ada.id, email=email("late"))
    assert await adapter.users.get_by_email(email("late")) == changed
    assert await adapter.users.get_by_email(email("Ada")) is None


async def test_concurrent_deletion_and_updates_end_in_deletion(make_adapter: MakeAdapter, ada: User) -> None:
    seen = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(
        *[seen[number % 2].users.update(ada.id, name=str(number), email=email(str(number))) for number in range(30)],
        seen[1].users.delete(ada.id),
        *[
            seen[number % 2].users.update(ada.id, name=str(number), email=email(str(number)))
            for number in range(30, 60)
        ],
        return_exceptions=True,
    )
    assert outcomes[30] is None
    assert await seen[0].users.get(ada.id) is None
    for number in range(60):
        assert await seen[0].users.get_by_email(email(str(number))) is None
    again = await seen[0].users.create(email=email("Ada"), username="ada")
    assert await seen[1].users.get_by_email(email("ada")) == again
    await assert_sound(seen[1])


async def test_concurrent_deletions_write_one_tombstone(
    make_adapter: MakeAdapter, store: EventStore, ada: User, session: Session
) -> None:
    seen = [make_adapter(), make_adapter()]
    await asyncio.gather(*[seen[number % 2].users.delete(ada.id) for number in range(20)])
    types = [event.type for event in await stored(store, f"auth-user:{ada.id}")]
    assert types == ["auth.user.created", "auth.user.deleted"]
    types = [event.type for event in await stored(store, f"auth-session:{session.token}")]
    assert types == ["auth.session.created", "auth.session.deleted"]


async def test_concurrent_restores_write_one_restoration(
    make_adapter: MakeAdapter, store: EventStore, ada: User
) -> None:
    seen = [make_adapter(), make_adapter()]
    await seen[0].users.delete(ada.id)
    users = await asyncio.gather(*[seen[number % 2].users.restore(ada.id) for number in range(20)])
    assert users == [users[0]] * 20
    assert len(await stored(store, f"auth-user:{ada.id}")) == 3


async def test_restore_against_sign_up_has_one_winner(make_adapter: MakeAdapter, ada: User) -> None:
    seen = [make_adapter(), make_adapter()]
    await seen[0].users.delete(ada.id)
    outcomes = await asyncio.gather(
        *[seen[0].users.restore(ada.id), *[seen[1].users.create(email=email("ada")) for _ in range(5)]],
        return_exceptions=True,
    )
    winners, losers = split(outcomes)
    assert len(winners) == 1
    assert {type(loser) for loser in losers} == {Conflict}
    assert await seen[0].users.get_by_email(email("ada")) == winners[0]
    await assert_sound(seen[1])


async def test_revoked_counts_add_up(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    seen = [make_adapter(), make_adapter()]
    for _ in range(40):
        await seen[0].sessions.create(user_id="u", expires_at=clock() + timedelta(days=1))
    counts = await asyncio.gather(*[seen[number % 2].sessions.delete_for_user("u") for number in range(6)])
    assert sum(counts) == 40
    assert await seen[0].sessions.list_for_user("u") == []


async def test_extension_against_revocation_ends_in_revocation(
    make_adapter: MakeAdapter, clock: ManualClock, session: Session
) -> None:
    seen = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(
        *[
            seen[number % 2].sessions.update_expiry(session.token, clock() + timedelta(days=number))
            for number in range(20)
        ],
        seen[1].sessions.delete(session.token),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, Session | SessionNotFound | None) for outcome in outcomes)
    assert await seen[0].load_session(session.token) is None


async def test_concurrent_sign_ins_are_all_listed(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await asyncio.gather(
        *[
            seen[number % 2].sessions.create(user_id="u", expires_at=clock() + timedelta(days=1))
            for number in range(CALLERS)
        ]
    )
    listed = await seen[0].sessions.list_for_user("u")
    assert {session.token for session in listed} == {session.token for session in made}


async def test_mutations_of_one_user_go_in_the_order_of_arrival(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with written_by(store) as written:
        await asyncio.gather(*[adapter.users.update(ada.id, name=str(number)) for number in range(30)])
    changes = (await adapter.users.history(ada.id))[1:]
    assert [change.state.name for change in changes if change.state] == [str(number) for number in range(30)]
    assert len(written.events) == 30
