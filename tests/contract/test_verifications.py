"""Verifications: found until they expire, consumed once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, Json, Latest, Verification
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_IDS, BAD_LABELS, BAD_TEXTS, BAD_TIMES, NOT_TEXT, cases
from tests.support.canaries import CANARY, email, revealed
from tests.support.clocks import START, ManualClock
from tests.support.events import new_event, payload, refused, rust_event, rust_events, stored, whole_log, written_by
from tests.support.names import hashed
from tests.support.wrappers import CountingStore, WrappedStore

pytestmark = pytest.mark.tables

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
CALLERS = 200

IDENTIFIER = email("Ada")
VALUE = f"reset_{CANARY}"

BAD_VERIFICATIONS = [
    *cases(["identifier"], BAD_LABELS | {"none": None}),
    *cases(["value"], BAD_TEXTS | {"empty": "", "none": None}),
    *cases(["expires_at"], BAD_TIMES | {"none": None}),
    *cases(["id"], BAD_IDS),
]

LookUp = Callable[[AllsourceAuthAdapter], Awaitable[Verification | None]]
LOOK_UPS: dict[str, LookUp] = {
    "find": lambda adapter: adapter.verifications.find(IDENTIFIER, VALUE),
    "get_by_value": lambda adapter: adapter.verifications.get_by_value(VALUE),
    "get_by_identifier": lambda adapter: adapter.verifications.get_by_identifier(IDENTIFIER),
}
look_ups = pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)


async def issue(adapter: AllsourceAuthAdapter, expires_at: datetime = START + HOUR, **given: Any) -> Verification:
    wanted = {"identifier": IDENTIFIER, "value": VALUE, "expires_at": expires_at, **given}
    return await adapter.verifications.create(**wanted)


async def three(adapter: AllsourceAuthAdapter, clock: ManualClock) -> list[Verification]:
    """Three verifications with one identifier and value, a second apart; newest first."""
    made = []
    for _ in range(3):
        clock.move(timedelta(seconds=1))
        made.append(await issue(adapter))
    return made[::-1]


async def living(adapter: AllsourceAuthAdapter) -> set[str]:
    return {verification.id async for verification in adapter.verifications.scan()}


def winners(outcomes: Iterable[Verification | None]) -> list[Verification]:
    return [outcome for outcome in outcomes if outcome is not None]


async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    verification = await issue(adapter, id=f"{IDENTIFIER}#7")
    assert verification == Verification(
        id=f"{IDENTIFIER}#7",
        created_at=clock(),
        updated_at=clock(),
        identifier=IDENTIFIER,
        value=VALUE,
        expires_at=START + HOUR,
    )
    assert await adapter.verifications.get(verification.id) == verification


async def test_older_verifications_are_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await three(adapter, clock)
    assert await living(adapter) == {verification.id for verification in made}
    assert len({verification.id for verification in made}) == 3


@pytest.mark.parametrize("removed", [None, "deleted", "consumed"])
async def test_chosen_id_that_exists_or_existed_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, removed: str | None
) -> None:
    await issue(adapter, id="same")
    if removed == "deleted":
        await adapter.verifications.delete("same")
    elif removed == "consumed":
        assert await adapter.verifications.consume(IDENTIFIER, VALUE)
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await issue(adapter, id="same", value="other")
    assert (caught.value.kind, caught.value.field) == ("verification", "id")
    assert not revealed(f"{caught.value!r} {vars(caught.value)}")
    assert written.events == []


@pytest.mark.parametrize("long", ["{}" * 50_000, '{"redirect":"/","state":"' + "x" * 300 + '"}', " ", "\n", "😀"])
async def test_value_of_any_length_is_found(adapter: AllsourceAuthAdapter, long: str) -> None:
    verification = await issue(adapter, identifier=f"oauth:{'x' * 300}", value=long)
    assert await adapter.verifications.get_by_value(long) == verification
    assert await adapter.verifications.find(f"oauth:{'x' * 300}", long) == verification
    assert await adapter.verifications.consume(f"oauth:{'x' * 300}", long) == verification


@look_ups
async def test_look_up_finds_the_newest(adapter: AllsourceAuthAdapter, clock: ManualClock, look_up: LookUp) -> None:
    assert await look_up(adapter) is None
    newest, middle, oldest = await three(adapter, clock)
    for found in (newest, middle, oldest):
        assert await look_up(adapter) == found
        await adapter.verifications.delete(found.id)
    assert await look_up(adapter) is None


@look_ups
async def test_with_equal_times_the_largest_id_is_found(adapter: AllsourceAuthAdapter, look_up: LookUp) -> None:
    made = {name: await issue(adapter, id=name) for name in ("a", "c", "b")}
    for name in "cba":
        assert await look_up(adapter) == made[name]
        assert await adapter.verifications.consume(IDENTIFIER, VALUE) == made[name]
    assert await look_up(adapter) is None


@look_ups
async def test_verification_is_expired_at_expires_at(
    adapter: AllsourceAuthAdapter, clock: ManualClock, look_up: LookUp
) -> None:
    verification = await issue(adapter, clock() + HOUR)
    clock.move(HOUR - MICROSECOND)
    assert await look_up(adapter) == verification
    clock.move(MICROSECOND)
    assert await look_up(adapter) is None
    assert await adapter.verifications.get(verification.id) == verification


@look_ups
async def test_older_verification_with_a_later_expiry_is_found(
    adapter: AllsourceAuthAdapter, clock: ManualClock, look_up: LookUp
) -> None:
    lasting = await issue(adapter, clock() + 2 * HOUR)
    clock.move(timedelta(minutes=1))
    await issue(adapter, clock() + timedelta(minutes=1))
    clock.move(HOUR)
    assert await look_up(adapter) == lasting
    assert await adapter.verifications.consume(IDENTIFIER, VALUE) == lasting


async def test_look_ups_are_exact(adapter: AllsourceAuthAdapter) -> None:
    verification = await issue(adapter)
    others = (IDENTIFIER.upper(), f"{IDENTIFIER} ", "", " ", "\ud800", "x" * 500)
    for other in others:
        assert await adapter.verifications.get_by_identifier(other) is None
        assert await adapter.verifications.find(other, VALUE) is None
        assert await adapter.verifications.consume(other, VALUE) is None
    for other in (VALUE.upper(), f"{VALUE} ", "", " ", "\ud800", VALUE[:-1]):
        assert await adapter.verifications.get_by_value(other) is None
        assert await adapter.verifications.find(IDENTIFIER, other) is None
        assert await adapter.verifications.consume(IDENTIFIER, other) is None
    assert await adapter.verifications.find(VALUE, IDENTIFIER) is None
    assert await adapter.verifications.find(IDENTIFIER, VALUE) == verification


@pytest.mark.parametrize("wrong", NOT_TEXT.values(), ids=NOT_TEXT)
async def test_look_up_by_other_than_text_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, wrong: Any
) -> None:
    await issue(adapter)
    verifications = adapter.verifications
    calls: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("identifier", lambda: verifications.get_by_identifier(wrong)),
        ("identifier", lambda: verifications.find(wrong, VALUE)),
        ("identifier", lambda: verifications.consume(wrong, VALUE)),
        ("value", lambda: verifications.get_by_value(wrong)),
        ("value", lambda: verifications.find(IDENTIFIER, wrong)),
        ("value", lambda: verifications.consume(IDENTIFIER, wrong)),
        ("id", lambda: verifications.delete(wrong)),
    ]
    for field, call in calls:
        async with refused(store, field):
            await call()


async def test_consumed_verification_is_returned_and_deleted(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    verification = await issue(adapter)
    assert await adapter.verifications.consume(IDENTIFIER, VALUE) == verification
    for look_up in LOOK_UPS.values():
        assert await look_up(adapter) is None
    assert await adapter.verifications.get(verification.id) is None
    async with written_by(store) as written:
        assert await adapter.verifications.consume(IDENTIFIER, VALUE) is None
        await adapter.verifications.delete(verification.id)
    assert written.events == []


async def test_verifications_are_consumed_newest_first(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await three(adapter, clock)
    other = await issue(adapter, value="other")
    assert [await adapter.verifications.consume(IDENTIFIER, VALUE) for _ in range(4)] == [*made, None]
    assert await living(adapter) == {other.id}


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 3])
async def test_one_of_many_callers_consumes_a_verification(
    make_adapter: MakeAdapter, store: EventStore, adapters: int
) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    verification = await issue(seen[0])
    outcomes = await asyncio.gather(
        *[seen[number % adapters].verifications.consume(IDENTIFIER, VALUE) for number in range(CALLERS)]
    )
    assert winners(outcomes) == [verification]
    assert outcomes.count(None) == CALLERS - 1
    assert [event.type for event in await stored(store, f"auth-verification:{verification.id}")] == [
        "auth.verification.created",
        "auth.verification.consumed",
    ]


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 3])
async def test_three_of_many_callers_consume_three_verifications(
    make_adapter: MakeAdapter, clock: ManualClock, adapters: int
) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    made = await three(seen[0], clock)
    outcomes = await asyncio.gather(
        *[seen[number % adapters].verifications.consume(IDENTIFIER, VALUE) for number in range(CALLERS)]
    )
    assert sorted(winners(outcomes), key=lambda taken: taken.created_at, reverse=True) == made
    assert outcomes.count(None) == CALLERS - 3
    assert await living(seen[-1]) == set()


@pytest.mark.race
async def test_consumption_against_deletion_has_one_winner(make_adapter: MakeAdapter, store: EventStore) -> None:
    seen = [make_adapter(), make_adapter()]
    verification = await issue(seen[0])
    outcomes = await asyncio.gather(
        *[
            seen[number % 2].verifications.delete(verification.id)
            if number % 3 == 0
            else seen[number % 2].verifications.consume(IDENTIFIER, VALUE)
            for number in range(30)
        ]
    )
    types = Counter(event.type for event in await stored(store, f"auth-verification:{verification.id}"))
    assert types["auth.verification.consumed"] == len(winners(outcomes)) <= 1
    assert types["auth.verification.consumed"] + types["auth.verification.deleted"] == 1


async def test_expired_verification_is_left_for_the_sweep(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    verification = await issue(adapter, clock() + HOUR)
    clock.move(HOUR)
    async with written_by(store) as written:
        assert await adapter.verifications.consume(IDENTIFIER, VALUE) is None
    assert written.events == []
    assert await adapter.verifications.get(verification.id) == verification
    assert await adapter.verifications.delete_expired() == 1
    assert await adapter.verifications.get(verification.id) is None


async def test_verification_that_expires_during_consume_is_not_consumed(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock
) -> None:
    """The state and the time of the decision count, not those of the look-up."""

    verification = await issue(make_adapter(), clock() + HOUR)

    class Slow(WrappedStore):
        async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
            if require_leader and stream == f"auth-verification:{verification.id}":
                clock.move(HOUR)
            return await super().latest(stream, require_leader=require_leader)

    adapter = make_adapter(store=Slow(store))
    assert await adapter.verifications.consume(IDENTIFIER, VALUE) is None
    assert clock() == START + HOUR
    assert await living(adapter) == {verification.id}


@pytest.mark.parametrize("verb", ["consumed", "deleted"])
async def test_tombstone_has_the_identifier_and_no_value(
    adapter: AllsourceAuthAdapter, store: EventStore, verb: str
) -> None:
    verification = await issue(adapter)
    if verb == "consumed":
        await adapter.verifications.consume(IDENTIFIER, VALUE)
    else:
        await adapter.verifications.delete(verification.id)
    newest = (await stored(store, f"auth-verification:{verification.id}"))[-1]
    assert newest.type == f"auth.verification.{verb}"
    assert payload(newest) == {"_deleted": True, "id": verification.id, "identifier": IDENTIFIER}
    (*_, change) = await adapter.verifications.history(verification.id)
    assert change.event == f"Verification{verb.capitalize()}"
    assert (change.state, change.before) == (None, verification)


async def test_diff_hides_secrets(adapter: AllsourceAuthAdapter) -> None:
    await issue(adapter, id=f"{IDENTIFIER}#1")
    await adapter.verifications.consume(IDENTIFIER, VALUE)
    created, consumed = await adapter.verifications.history(f"{IDENTIFIER}#1")
    for field in ("id", "identifier", "value"):
        assert created.diff[field] == (None, "***")
        assert consumed.diff[field] == ("***", None)


@pytest.mark.parametrize("call", ["restore", "revert"])
@pytest.mark.parametrize("removed", [False, True])
async def test_verifications_cannot_be_restored_or_reverted(
    adapter: AllsourceAuthAdapter, store: EventStore, call: str, removed: bool
) -> None:
    assert not hasattr(adapter.verifications, call)
    verification = await issue(adapter)
    created = (await adapter.verifications.history(verification.id))[0].event_id
    if removed:
        await adapter.verifications.consume(IDENTIFIER, VALUE)
    arguments = (verification.id,) if call == "restore" else (verification.id, created)
    async with written_by(store) as written:
        with pytest.raises(InvalidInput) as caught:
            await getattr(adapter.context.collections["verification"], call)(*arguments)
    assert caught.value.field == "id"
    assert written.events == []
    assert await adapter.verifications.exists(verification.id) is not removed


async def test_deleting_a_missing_verification_does_nothing(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    verification = await issue(adapter)
    await adapter.verifications.delete(verification.id)
    async with written_by(store) as written:
        for missing in (verification.id, "nothing", "", "x" * 500):
            await adapter.verifications.delete(missing)
    assert written.events == []


async def test_sweep_deletes_and_counts_expired_verifications(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    made = {
        name: await issue(adapter, clock() + lifetime, id=name)
        for name, lifetime in {"past": -MICROSECOND, "now": timedelta(), "future": MICROSECOND, "later": HOUR}.items()
    }
    await issue(adapter, clock() - HOUR, id="deleted")
    await adapter.verifications.delete("deleted")
    assert await adapter.verifications.delete_expired() == 2
    assert await living(adapter) == {"future", "later"}
    assert await adapter.verifications.get_by_identifier(IDENTIFIER) == made["later"]
    assert [change.event for change in await adapter.verifications.history("past")] == [
        "VerificationCreated",
        "VerificationDeleted",
    ]
    clock.move(MICROSECOND)
    assert await adapter.verifications.delete_expired() == 1
    assert await adapter.verifications.delete_expired() == 0
    assert await living(adapter) == {"later"}


async def test_repeated_sweeps_with_a_limit_delete_everything(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    for _ in range(5):
        await issue(adapter, clock())
    assert [await adapter.verifications.delete_expired(limit=2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True])
async def test_invalid_limit_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, limit: Any) -> None:
    async with refused(store, "limit"):
        await adapter.verifications.delete_expired(limit=limit)


async def test_concurrent_sweeps_count_each_verification_once(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    seen = [make_adapter() for _ in range(3)]
    for number in range(30):
        await issue(seen[number % 3], clock())
    kept = await issue(seen[0], clock() + HOUR)
    removed = await asyncio.gather(*[adapter.verifications.delete_expired() for adapter in seen])
    assert sum(removed) == 30
    assert await living(seen[1]) == {kept.id}


async def test_sweep_has_a_checkpoint_of_its_own(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await issue(adapter, dated() + HOUR)
    dated.move(timedelta(days=1))
    assert await adapter.sessions.delete_expired() == 0
    assert await adapter.verifications.delete_expired() == 1
    dated.move(timedelta(days=1))
    await issue(adapter, dated())
    assert await adapter.verifications.delete_expired() == 1
    assert await stored(store, f"auth-idx:sweep.verification:{hashed('default')}")


async def test_expiry_with_an_offset_is_read_as_utc(adapter: AllsourceAuthAdapter) -> None:
    end = datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    verification = await issue(adapter, end)
    assert verification.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert verification.expires_at.tzinfo is UTC


@pytest.mark.parametrize("field", dict.fromkeys(field for field, _, _ in BAD_VERIFICATIONS))
async def test_bad_verification_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, field: str) -> None:
    for name, wrong, value in BAD_VERIFICATIONS:
        if name == field:
            async with refused(store, field):
                await issue(adapter, **{field: value})
            assert await living(adapter) == set(), wrong


async def test_keys_are_those_of_the_rust_crate(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    verification = await issue(adapter)
    assert await adapter.verifications.consume(IDENTIFIER, VALUE) == verification
    theirs = {event["event_type"]: event["payload"] for event in rust_events("verification")}
    for event in await stored(store, f"auth-verification:{verification.id}"):
        ours, their = payload(event), theirs[event.type]
        assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in their.items()}


async def test_what_the_rust_crate_wrote_is_read(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    newest = {}
    for event in rust_events("verification"):
        await store.append([rust_event(event)])
        newest[event["payload"]["id"]] = event["payload"]
    assert await living(adapter) == {key for key, their in newest.items() if "_deleted" not in their}
    for key, their in newest.items():
        found = await adapter.verifications.get(key)
        if "_deleted" in their:
            assert found is None
            continue
        assert msgspec.to_builtins(found) == {
            name: f"{value[:26]}Z" if name.endswith("At") else value for name, value in their.items()
        }
        await adapter.verifications.delete(key)
        assert await adapter.verifications.get(key) is None


async def test_undecodable_verification_hides_no_other_and_shows_no_id(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    verification = await issue(adapter)
    stream = f"auth-verification:{IDENTIFIER}#1"
    await store.append([new_event(stream, {"id": 5}, type="auth.verification.created")])
    entry = {"v": 1, "stream": stream}
    listed = f"auth-idx:verification.by_identifier:{hashed('default', 'verification', 'identifier', IDENTIFIER)}"
    await store.append([new_event(listed, entry, type="auth.index.added")])
    assert await adapter.verifications.consume(IDENTIFIER, VALUE) == verification
    with pytest.raises(Json) as caught:
        await adapter.verifications.get(f"{IDENTIFIER}#1")
    assert caught.value.stream == "auth-verification:***"


async def test_no_secret_is_in_the_name_or_the_metadata_of_an_index(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await issue(adapter)
    await adapter.verifications.consume(IDENTIFIER, VALUE)
    events = await whole_log(store)
    assert len(events) >= 6
    for event in events:
        assert not revealed(f"{event.stream} {bytes(event.metadata)!r}")
        if event.type.startswith("auth.index."):
            assert not revealed(bytes(event.payload).decode())


@pytest.mark.heavy
async def test_costs_do_not_grow(make_adapter: MakeAdapter, store: EventStore) -> None:
    counted = CountingStore(store)
    adapter = make_adapter(store=counted)
    await adapter.users.create(id="warm")
    for number in range(20):
        counted.forget()
        await issue(adapter, identifier=str(number), value=f"v{number}")
        assert ([len(batch) for batch in counted.appends], counted.reads) == ([3], [])
    for look_up in (
        adapter.verifications.find("7", "v7"),
        adapter.verifications.get_by_value("v7"),
        adapter.verifications.get_by_identifier("7"),
    ):
        counted.forget()
        assert await look_up is not None
        assert len(counted.reads) == 2
    counted.forget()
    assert await adapter.verifications.consume("7", "v7") is not None
    assert len(counted.reads) == 3
    assert [len(batch) for batch in counted.appends] == [3]
    assert counted.scanned == 0
