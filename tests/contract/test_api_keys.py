"""API keys: what a use counts, when it is denied, and races for the last use. `test_credentials` has what they share."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from allsource_auth import (
    UNSET,
    AllsourceAuthAdapter,
    ApiKey,
    ApiKeyNotFound,
    ApiKeyUse,
    EventStore,
    InvalidInput,
    User,
)
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_COUNTS, BAD_FLAGS, BAD_IDS, BAD_LABELS, BAD_TEXTS, BAD_TIMES, cases
from tests.support.canaries import CANARY
from tests.support.clocks import START, ManualClock
from tests.support.credentials import API_KEY
from tests.support.events import payload, refused, stored, written_by
from tests.support.wrappers import CountingStore

pytestmark = pytest.mark.tables

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
CALLERS = 200
LARGEST = 2**63 - 1
LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)

HASH = f"sha256-{CANARY}"

CHANGES: dict[str, Any] = {
    "name": "new",
    "enabled": True,
    "remaining": 7,
    "rate_limit_enabled": False,
    "rate_limit_time_window": 5_000,
    "rate_limit_max": 3,
    "refill_interval": 90_000,
    "refill_amount": 9,
    "permissions": '{"repo":["write"]}',
    "metadata": '{"team":"b"}',
    "request_count": 4,
    "expires_at": START + 3 * DAY,
    "last_request": START + MINUTE,
    "last_refill_at": START + 2 * MINUTE,
}
FLAGS = ("enabled", "rate_limit_enabled")
REFILL = ("refill_interval", "refill_amount")
COUNTS = (*REFILL, "rate_limit_time_window", "rate_limit_max", "remaining")
CLEARABLE = [field for field in CHANGES if field not in (*FLAGS, *REFILL)]

BAD_KEYS = [
    *cases(["user_id", "id"], BAD_IDS),
    *cases(["key_hash"], BAD_LABELS),
    *cases(["user_id", "key_hash"], {"none": None}),
    *cases(["name", "start", "prefix", "permissions", "metadata"], BAD_TEXTS),
    *cases(COUNTS, BAD_COUNTS),
    *cases(FLAGS, BAD_FLAGS),
    *cases(["expires_at"], BAD_TIMES),
]
BAD_CHANGES = [
    *[case for case in BAD_KEYS if case[0] in CHANGES],
    *cases(["request_count"], BAD_COUNTS),
    *cases(["last_request", "last_refill_at"], BAD_TIMES),
]


@pytest.fixture
async def key(adapter: AllsourceAuthAdapter) -> ApiKey:
    """A disabled key with all optional values."""
    made: ApiKey = await API_KEY.make(adapter, **API_KEY.optional)
    return made


async def issue(adapter: AllsourceAuthAdapter, **given: Any) -> ApiKey:
    return await adapter.api_keys.create(**{"user_id": "u", "key_hash": HASH, **given})


async def rate_limited(adapter: AllsourceAuthAdapter, most: int, **given: Any) -> ApiKey:
    """Create a key with a rate limit of ``most`` uses per second."""
    return await issue(adapter, rate_limit_enabled=True, rate_limit_max=most, rate_limit_time_window=1_000, **given)


def reasons(uses: Iterable[ApiKeyUse]) -> Counter[str | None]:
    return Counter(use.reason for use in uses)


async def use_at_once(seen: list[AllsourceAuthAdapter], callers: int) -> list[ApiKeyUse]:
    return await asyncio.gather(*[seen[number % len(seen)].api_keys.use(HASH) for number in range(callers)])


# Uses


async def test_key_without_limits_is_always_allowed(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await issue(adapter)
    used = await adapter.api_keys.use(HASH)
    assert used == ApiKeyUse(
        allowed=True, api_key=msgspec.structs.replace(made, last_request=clock(), updated_at=clock())
    )
    assert await adapter.api_keys.get(made.id) == used.api_key
    for _ in range(20):
        assert await adapter.api_keys.use(HASH) == used


async def test_last_use_of_a_key_without_limits_is_written_once_a_minute(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    made = await issue(adapter)
    written_at = []
    for second in range(0, 200, 5):
        clock.now = START + second * SECOND
        assert (await adapter.api_keys.use(HASH)).allowed
        found = await adapter.api_keys.get(made.id)
        assert found is not None
        if found.last_request == clock():
            written_at.append(second)
    assert written_at == [0, 60, 120, 180]
    assert len(await stored(store, f"auth-apikey:{made.id}")) == 1 + len(written_at)


@pytest.mark.race
async def test_concurrent_uses_of_a_key_without_limits_write_one_event(
    make_adapter: MakeAdapter, store: EventStore
) -> None:
    seen = [make_adapter(), make_adapter()]
    await issue(seen[0])
    async with written_by(store) as written:
        uses = await use_at_once(seen, 50)
    assert all(use.allowed for use in uses)
    assert written.types == ["auth.api_key.updated"]


async def test_use_changes_only_the_usage_fields(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    made = await issue(adapter, **{**API_KEY.optional, "enabled": True})
    clock.move(SECOND)
    await adapter.api_keys.use(HASH)
    created, used = [payload(event) for event in await stored(store, f"auth-apikey:{made.id}")]
    assert {name for name in created if created[name] != used[name]} == {
        "lastRequest",
        "remaining",
        "requestCount",
        "updatedAt",
    }
    assert used["lastRequest"] == "2026-11-23T12:00:01.000000Z"


async def test_repr_of_a_use_shows_the_reason_and_no_secret(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await issue(adapter, user_id=ada.id, remaining=1, refill_interval=60_000, refill_amount=1)
    for _ in range(2):
        used = await adapter.api_keys.use(HASH)
        assert CANARY not in repr(used)
        assert f"reason={used.reason!r}" in repr(used)


# Denied uses


@pytest.mark.parametrize("unknown", [HASH.upper(), f"{HASH} ", "", " ", "x" * 5000, "\ud800"])
async def test_unknown_key_is_not_found(adapter: AllsourceAuthAdapter, store: EventStore, unknown: str) -> None:
    await issue(adapter)
    async with written_by(store) as written:
        assert await adapter.api_keys.use(unknown) == ApiKeyUse(allowed=False, reason="not_found")
    assert written.events == []


async def test_deleted_key_is_not_found_and_a_restored_one_is(adapter: AllsourceAuthAdapter) -> None:
    made = await issue(adapter)
    await adapter.api_keys.delete(made.id)
    assert await adapter.api_keys.use(HASH) == ApiKeyUse(allowed=False, reason="not_found")
    await adapter.api_keys.restore(made.id)
    assert (await adapter.api_keys.use(HASH)).allowed


@pytest.mark.parametrize("made", ["before", "after"])
async def test_key_of_a_deleted_user_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, made: str
) -> None:
    if made == "before":
        await issue(adapter, user_id=ada.id)
    await adapter.users.delete(ada.id)
    if made == "after":
        await issue(adapter, user_id=ada.id)
    async with written_by(store) as written:
        assert await adapter.api_keys.use(HASH) == ApiKeyUse(allowed=False, reason="not_found")
    assert written.events == []


OBSTACLES: dict[str, dict[str, Any]] = {
    "disabled": {"enabled": False},
    "expired": {"expires_at": START},
    "usage_exceeded": {"remaining": 0},
    "rate_limited": {
        "rate_limit_enabled": True,
        "rate_limit_time_window": 1_000,
        "rate_limit_max": 2,
        "request_count": 2,
        "last_request": START,
    },
}


@pytest.mark.parametrize("first", range(len(OBSTACLES)), ids=OBSTACLES)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with-all-that-follow"])
async def test_reason_is_the_first_failing_check(
    adapter: AllsourceAuthAdapter, store: EventStore, first: int, alone: bool
) -> None:
    made = await issue(adapter)
    reason, *others = list(OBSTACLES)[first:]
    obstacles = dict(OBSTACLES[reason])
    for other in [] if alone else others:
        obstacles |= OBSTACLES[other]
    hindered = await adapter.api_keys.update(made.id, **obstacles)
    async with written_by(store) as written:
        for _ in range(3):
            used = await adapter.api_keys.use(HASH)
            assert (used.allowed, used.reason, used.api_key) == (False, reason, hindered)
            assert used.remaining == hindered.remaining
    assert written.events == []
    assert await adapter.api_keys.get(made.id) == hindered


async def test_key_that_passes_all_checks_is_allowed(adapter: AllsourceAuthAdapter) -> None:
    made = await issue(adapter)
    for obstacles in OBSTACLES.values():
        await adapter.api_keys.update(made.id, **obstacles)
        assert not (await adapter.api_keys.use(HASH)).allowed
        nothing: dict[str, Any] = dict.fromkeys(obstacles)
        await adapter.api_keys.update(made.id, **{**nothing, **{name: name == "enabled" for name in FLAGS}})
        assert (await adapter.api_keys.use(HASH)).allowed


async def test_key_is_expired_at_expires_at(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await issue(adapter, expires_at=START + DAY)
    clock.now = START + DAY - MICROSECOND
    assert (await adapter.api_keys.use(HASH)).allowed
    clock.move(MICROSECOND)
    used = await adapter.api_keys.use(HASH)
    assert (used.reason, used.try_again_in) == ("expired", None)
    assert await adapter.api_keys.get_by_hash(HASH) == used.api_key
    assert await adapter.api_keys.exists(made.id)


# Quota, refill and rate limit


async def test_each_use_decrements_remaining(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await issue(adapter, remaining=3)
    for left in (2, 1, 0):
        now = clock.move(MICROSECOND)
        used = await adapter.api_keys.use(HASH)
        assert (used.allowed, used.reason, used.remaining) == (True, None, left)
        assert used.api_key == msgspec.structs.replace(made, remaining=left, last_request=now, updated_at=now)
        assert await adapter.api_keys.get(made.id) == used.api_key
    clock.move(365 * DAY)
    exceeded = await adapter.api_keys.use(HASH)
    assert exceeded == ApiKeyUse(allowed=False, reason="usage_exceeded", api_key=used.api_key, remaining=0)


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 3])
async def test_concurrent_uses_never_exceed_remaining(
    make_adapter: MakeAdapter, store: EventStore, adapters: int
) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    made = await issue(seen[0], remaining=7)
    async with written_by(store) as written:
        uses = await use_at_once(seen, CALLERS)
    assert reasons(uses) == {None: 7, "usage_exceeded": CALLERS - 7}
    assert sorted(use.remaining or 0 for use in uses if use.allowed) == list(range(7))
    assert written.types == ["auth.api_key.updated"] * 7
    found = await seen[-1].api_keys.get(made.id)
    assert found is not None
    assert found.remaining == 0


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 3])
async def test_concurrent_uses_never_exceed_the_rate_limit(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock, adapters: int
) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    made = await rate_limited(seen[0], 10)
    for _ in range(2):
        async with written_by(store) as written:
            uses = await use_at_once(seen, CALLERS)
        assert reasons(uses) == {None: 10, "rate_limited": CALLERS - 10}
        assert {use.try_again_in for use in uses if not use.allowed} == {SECOND + MICROSECOND}
        assert written.types == ["auth.api_key.updated"] * 10
        found = await seen[-1].api_keys.get(made.id)
        assert found is not None
        assert found.request_count == 10
        clock.move(SECOND + MICROSECOND)


@pytest.mark.race
async def test_concurrent_uses_never_exceed_the_refill(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    seen = [make_adapter(), make_adapter()]
    await issue(seen[0], remaining=0, refill_interval=1_000, refill_amount=4)
    for _ in range(2):
        clock.move(SECOND + MICROSECOND)
        assert reasons(await use_at_once(seen, 40)) == {None: 4, "usage_exceeded": 36}


@pytest.mark.parametrize("remaining", [0, 1, 5, 100])
async def test_refill_is_due_only_after_its_interval(
    adapter: AllsourceAuthAdapter, clock: ManualClock, remaining: int
) -> None:
    """A refill replaces the remaining uses, and the use itself takes one."""
    made = await issue(adapter, remaining=remaining, refill_interval=60_000, refill_amount=3)
    clock.now = START + MINUTE
    used = await adapter.api_keys.use(HASH)
    if remaining == 0:
        assert (used.reason, used.remaining, used.try_again_in) == ("usage_exceeded", 0, MICROSECOND)
    else:
        assert (used.allowed, used.remaining) == (True, remaining - 1)
    refilled_at = clock.move(MICROSECOND)
    used = await adapter.api_keys.use(HASH)
    assert (used.allowed, used.remaining) == (True, 2)
    assert used.api_key == msgspec.structs.replace(
        made, remaining=2, last_refill_at=refilled_at, last_request=refilled_at, updated_at=refilled_at
    )


async def test_next_interval_runs_from_the_refill(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    await issue(adapter, remaining=0, refill_interval=60_000, refill_amount=1)
    refilled_at = clock.move(10 * MINUTE)
    assert (await adapter.api_keys.use(HASH)).allowed
    for passed, left in ((timedelta(), MINUTE), (40 * SECOND, 20 * SECOND), (MINUTE, timedelta())):
        clock.now = refilled_at + passed
        used = await adapter.api_keys.use(HASH)
        assert (used.reason, used.try_again_in) == ("usage_exceeded", left + MICROSECOND)
    clock.move(MICROSECOND)
    assert (await adapter.api_keys.use(HASH)).allowed


async def test_denied_use_does_not_refill(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await rate_limited(adapter, 1, remaining=1, refill_interval=1_000, refill_amount=5)
    await adapter.api_keys.use(HASH)
    clock.now = START + SECOND
    busy = await adapter.api_keys.update(made.id, last_request=clock())
    clock.move(MICROSECOND)
    used = await adapter.api_keys.use(HASH)
    assert (used.reason, used.api_key, used.remaining) == ("rate_limited", busy, 0)
    assert await adapter.api_keys.get(made.id) == busy


async def test_window_runs_from_the_last_use(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    await rate_limited(adapter, 2)

    async def at(milliseconds: int, microseconds: int = 0) -> tuple[str | None, int | None, timedelta | None]:
        clock.now = START + timedelta(milliseconds=milliseconds, microseconds=microseconds)
        used = await adapter.api_keys.use(HASH)
        assert used.api_key is not None
        return used.reason, used.api_key.request_count, used.try_again_in

    assert await at(0) == (None, 1, None)
    assert await at(900) == (None, 2, None)
    assert await at(901) == ("rate_limited", 2, timedelta(milliseconds=999) + MICROSECOND)
    assert await at(1_500) == ("rate_limited", 2, timedelta(milliseconds=400) + MICROSECOND)
    assert await at(1_900) == ("rate_limited", 2, MICROSECOND)
    assert await at(1_900, 1) == (None, 1, None)
    assert await at(2_900, 1) == (None, 2, None)
    assert await at(3_900, 2) == (None, 1, None)


@pytest.mark.parametrize(
    "missing", [{"rate_limit_enabled": False}, {"rate_limit_max": None}, {"rate_limit_time_window": None}]
)
async def test_incomplete_rate_limit_does_not_apply(
    adapter: AllsourceAuthAdapter, store: EventStore, missing: dict[str, Any]
) -> None:
    await issue(
        adapter, **{"rate_limit_enabled": True, "rate_limit_max": 1, "rate_limit_time_window": 60_000, **missing}
    )
    async with written_by(store) as written:
        assert all([(await adapter.api_keys.use(HASH)).allowed for _ in range(5)])
    assert written.types == ["auth.api_key.updated"]


async def test_quota_and_rate_limit_both_apply(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    await rate_limited(adapter, 2, remaining=3)
    uses = [await adapter.api_keys.use(HASH) for _ in range(3)]
    assert [(used.reason, used.remaining) for used in uses] == [(None, 2), (None, 1), ("rate_limited", 1)]
    clock.move(SECOND + MICROSECOND)
    uses = [await adapter.api_keys.use(HASH) for _ in range(2)]
    assert [(used.reason, used.remaining) for used in uses] == [(None, 0), ("usage_exceeded", 0)]


# try_again_in


@pytest.mark.parametrize("seed", range(12))
async def test_use_is_allowed_after_try_again_in_and_not_before(
    adapter: AllsourceAuthAdapter, store: EventStore, seed: int
) -> None:
    """Keys with all combinations of limits. If `try_again_in` is ``None``, no later time is allowed either."""
    drawn = random.Random(seed)

    def maybe(*values: Any) -> Any:
        return drawn.choice((None, *values))

    refill = maybe(60_000, 1)
    made = await issue(
        adapter,
        refill_interval=refill,
        refill_amount=None if refill is None else drawn.choice((0, 1, 3)),
        rate_limit_enabled=drawn.random() < 0.7,
        rate_limit_time_window=maybe(1, 1_000, 90_000),
        rate_limit_max=maybe(0, 1, 2),
        remaining=maybe(0, 1, 4),
        expires_at=maybe(START + 30 * SECOND, START + 100 * SECOND, START + DAY),
    )
    now = START
    for _ in range(8):
        now += timedelta(microseconds=drawn.choice((1, 999, 1_000, 1_001, 500_000, 40_000_000)))
        used = await adapter.api_keys.use(HASH, now=now)
        if used.allowed:
            continue
        async with written_by(store) as written:
            if used.try_again_in is None:
                for wait in (MICROSECOND, SECOND, MINUTE, 10 * MINUTE, DAY, 3650 * DAY):
                    assert not (await adapter.api_keys.use(HASH, now=now + wait)).allowed
            else:
                assert used.reason in ("usage_exceeded", "rate_limited")
                assert used.try_again_in > timedelta()
                sooner = await adapter.api_keys.use(HASH, now=now + used.try_again_in - MICROSECOND)
                assert (sooner.allowed, sooner.try_again_in) == (False, MICROSECOND)
        assert written.events == []
        if used.try_again_in is not None:
            now += used.try_again_in
            assert (await adapter.api_keys.use(HASH, now=now)).allowed
    assert await adapter.api_keys.exists(made.id)


@pytest.mark.parametrize(
    "never",
    [
        {"remaining": 0, "refill_interval": 1_000, "refill_amount": 0},
        {"rate_limit_enabled": True, "rate_limit_max": 0, "rate_limit_time_window": 1_000},
        {"remaining": 0, "refill_interval": 60_000, "refill_amount": 1, "expires_at": START + MINUTE},
    ],
    ids=["refill-of-nothing", "window-for-nobody", "expired-by-then"],
)
async def test_try_again_in_is_none_if_waiting_does_not_help(
    adapter: AllsourceAuthAdapter, never: dict[str, Any]
) -> None:
    made = await issue(adapter, **never)
    assert (await adapter.api_keys.use(HASH)).try_again_in is None
    await adapter.api_keys.update(made.id, last_request=START, last_refill_at=START, request_count=5)
    assert (await adapter.api_keys.use(HASH)).try_again_in is None


async def test_try_again_in_is_the_longer_of_two_waits(adapter: AllsourceAuthAdapter) -> None:
    made = await issue(
        adapter,
        remaining=0,
        refill_interval=1_000,
        refill_amount=1,
        rate_limit_enabled=True,
        rate_limit_max=1,
        rate_limit_time_window=60_000,
    )
    await adapter.api_keys.update(made.id, last_request=START, request_count=1)
    used = await adapter.api_keys.use(HASH)
    assert (used.reason, used.try_again_in) == ("usage_exceeded", MINUTE + MICROSECOND)


# Times and races


async def test_use_takes_the_given_time_as_now(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = await issue(adapter, expires_at=START + DAY, remaining=5)
    local = (START + MINUTE).astimezone(timezone(timedelta(hours=5, minutes=45)))
    used = await adapter.api_keys.use(HASH, now=local)
    assert used.api_key is not None
    assert used.api_key.last_request is not None
    assert used.api_key.last_request == START + MINUTE
    assert used.api_key.last_request.tzinfo is UTC
    assert used.api_key.updated_at == clock() == START
    assert (await adapter.api_keys.use(HASH, now=START + DAY)).reason == "expired"
    clock.move(2 * DAY)
    assert (await adapter.api_keys.use(HASH, now=START + 2 * MINUTE)).allowed
    assert (await adapter.api_keys.use(HASH)).reason == "expired"
    assert await adapter.api_keys.exists(made.id)


async def test_clock_step_back_allows_no_further_use(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    await rate_limited(adapter, 1, remaining=2, refill_interval=1_000, refill_amount=2)
    assert (await adapter.api_keys.use(HASH)).allowed
    clock.move(-MINUTE)
    used = await adapter.api_keys.use(HASH)
    assert (used.reason, used.try_again_in) == ("rate_limited", MINUTE + SECOND + MICROSECOND)


@pytest.mark.parametrize("now", [START, LAST_MOMENT])
@pytest.mark.parametrize("last", [START, LAST_MOMENT])
@pytest.mark.parametrize("interval", [0, 1_000, LARGEST])
async def test_intervals_may_end_after_the_year_9999(
    adapter: AllsourceAuthAdapter, now: datetime, last: datetime, interval: int
) -> None:
    made = await issue(
        adapter,
        rate_limit_enabled=True,
        rate_limit_max=1,
        rate_limit_time_window=interval,
        remaining=1,
        refill_interval=interval,
        refill_amount=1,
    )
    over = last < now and interval < LARGEST
    await adapter.api_keys.update(made.id, last_request=last, last_refill_at=last, request_count=1)
    assert (await adapter.api_keys.use(HASH, now=now)).reason == (None if over else "rate_limited")
    await adapter.api_keys.update(
        made.id, last_request=last, last_refill_at=last, remaining=0, rate_limit_enabled=False
    )
    assert (await adapter.api_keys.use(HASH, now=now)).reason == (None if over else "usage_exceeded")
    await adapter.api_keys.update(made.id, last_request=last, remaining=None)
    assert (await adapter.api_keys.use(HASH, now=now)).allowed


@pytest.mark.parametrize("reason", ["not_found", "disabled", "expired", "usage_exceeded"])
async def test_use_is_checked_against_the_newest_state(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock, reason: str
) -> None:
    """Between the look-up and the decision another caller changes the key."""
    other = make_adapter()
    made = await issue(other, remaining=1)

    async def interfere() -> None:
        if reason == "not_found":
            await other.api_keys.delete(made.id)
        else:
            await other.api_keys.update(made.id, **OBSTACLES[reason])

    class Interfering(CountingStore):
        async def latest(self, stream: str, *, require_leader: bool = False) -> Any:
            latest = await super().latest(stream, require_leader=require_leader)
            if stream == f"auth-apikey:{made.id}" and self.reads.count(stream) == 1:
                await interfere()
            return latest

    used = await make_adapter(store=Interfering(store)).api_keys.use(HASH)
    assert (used.allowed, used.reason) == (False, reason)
    assert used.api_key == await other.api_keys.get(made.id)
    assert [event.type for event in await stored(store, f"auth-apikey:{made.id}")] == [
        "auth.api_key.created",
        "auth.api_key.deleted" if reason == "not_found" else "auth.api_key.updated",
    ]


@pytest.mark.race
async def test_concurrent_use_and_deletion_end_in_deletion(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await issue(seen[0], remaining=100)
    uses = await asyncio.gather(
        *[seen[number % 2].api_keys.use(HASH) for number in range(20)], seen[1].api_keys.delete(made.id)
    )
    assert set(reasons(uses[:-1])) <= {None, "not_found"}  # type: ignore[arg-type]
    assert (await seen[0].api_keys.use(HASH)).reason == "not_found"


@pytest.mark.parametrize("wrong", [7, None, b"x"])
async def test_hash_must_be_text(adapter: AllsourceAuthAdapter, store: EventStore, wrong: Any) -> None:
    for call in (adapter.api_keys.use, adapter.api_keys.get_by_hash):
        async with refused(store, "key_hash"):
            await call(wrong)


@pytest.mark.parametrize("now", BAD_TIMES.values(), ids=BAD_TIMES)
async def test_bad_time_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, now: Any) -> None:
    await issue(adapter)
    async with refused(store, "now"):
        await adapter.api_keys.use(HASH, now=now)


# Look-ups and changes


async def test_look_ups_find_disabled_and_expired_keys(adapter: AllsourceAuthAdapter) -> None:
    made = await issue(adapter, enabled=False, expires_at=START - DAY)
    assert await adapter.api_keys.get_by_hash(HASH) == made
    assert await adapter.api_keys.get(made.id) == made
    assert await adapter.api_keys.list_for_user("u") == [made]


@pytest.mark.parametrize("field", CHANGES)
async def test_one_field_changes_and_the_others_stay(
    adapter: AllsourceAuthAdapter, clock: ManualClock, key: ApiKey, field: str
) -> None:
    later = clock.move(MINUTE)
    changed = await adapter.api_keys.update(key.id, **{field: CHANGES[field]})
    assert changed == msgspec.structs.replace(key, updated_at=later, **{field: CHANGES[field]})
    assert getattr(changed, field) != getattr(key, field)
    assert await adapter.api_keys.get(key.id) == changed


@pytest.mark.parametrize("fields", [*[[field] for field in CLEARABLE], REFILL], ids="-".join)
async def test_none_clears_a_field(adapter: AllsourceAuthAdapter, key: ApiKey, fields: list[str]) -> None:
    full = await adapter.api_keys.update(key.id, **CHANGES)
    nothing: dict[str, Any] = dict.fromkeys(fields)
    cleared = await adapter.api_keys.update(key.id, **nothing)
    assert cleared == msgspec.structs.replace(full, **nothing)
    assert await adapter.api_keys.get_by_hash(key.key_hash) == cleared


async def test_all_fields_change_at_once(adapter: AllsourceAuthAdapter, key: ApiKey) -> None:
    changed = await adapter.api_keys.update(key.id, **CHANGES)
    assert changed == msgspec.structs.replace(key, **CHANGES)


@pytest.mark.parametrize("given", [{}, dict.fromkeys(CHANGES, UNSET)], ids=["nothing", "unset"])
async def test_update_without_fields_sets_updated_at(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, key: ApiKey, given: dict[str, Any]
) -> None:
    later = clock.move(MINUTE)
    async with written_by(store) as written:
        changed = await adapter.api_keys.update(key.id, **given)
    assert written.types == ["auth.api_key.updated"]
    assert changed == msgspec.structs.replace(key, updated_at=later)


@pytest.mark.race
async def test_concurrent_update_and_uses_are_merged(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await issue(seen[0], remaining=100)
    await asyncio.gather(
        *[seen[number % 2].api_keys.use(HASH) for number in range(20)],
        *[seen[number % 2].api_keys.update(made.id, name=str(number)) for number in range(10)],
    )
    found = await seen[0].api_keys.get(made.id)
    assert found is not None
    assert found.remaining == 80
    assert found.name in {str(number) for number in range(10)}


@pytest.mark.parametrize("half", REFILL)
async def test_refill_needs_interval_and_amount(adapter: AllsourceAuthAdapter, store: EventStore, half: str) -> None:
    async with refused(store, "refill_interval"):
        await issue(adapter, **{half: 5})
    made = await issue(adapter)
    async with refused(store, "refill_interval"):
        await adapter.api_keys.update(made.id, **{half: 5})  # type: ignore[arg-type]
    full = await adapter.api_keys.update(made.id, refill_interval=1_000, refill_amount=5)
    async with refused(store, "refill_interval"):
        await adapter.api_keys.update(made.id, **{half: None})  # type: ignore[arg-type]
    assert await adapter.api_keys.get(made.id) == full
    assert getattr(await adapter.api_keys.update(made.id, **{half: 7}), half) == 7  # type: ignore[arg-type]
    cleared = await adapter.api_keys.update(made.id, refill_interval=None, refill_amount=None)
    assert cleared == made


async def test_incomplete_refill_of_another_writer_allows_other_changes(
    adapter: AllsourceAuthAdapter, store: EventStore, key: ApiKey
) -> None:
    async with written_by(store) as written:
        with pytest.raises(ApiKeyNotFound):
            await adapter.api_keys.update("nothing", refill_amount=None)
    assert written.events == []
    assert (await adapter.api_keys.update(key.id, name="new")).name == "new"


@pytest.mark.parametrize("field", dict.fromkeys(field for field, _, _ in BAD_KEYS))
async def test_bad_key_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, field: str) -> None:
    whole: dict[str, Any] = {"refill_interval": 1, "refill_amount": 1}
    for name, wrong, value in BAD_KEYS:
        if name == field:
            async with refused(store, field):
                await issue(adapter, **{**whole, field: value})
            assert await adapter.api_keys.list_for_user("u") == [], wrong


@pytest.mark.parametrize("field", CHANGES)
async def test_bad_change_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, key: ApiKey, field: str) -> None:
    bad = [(wrong, value) for name, wrong, value in BAD_CHANGES if name == field]
    assert bad
    for wrong, value in bad:
        async with refused(store, field):
            await adapter.api_keys.update(key.id, **{field: value})
        assert await adapter.api_keys.get(key.id) == key, wrong


async def test_more_than_two_megabytes_are_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, key: ApiKey
) -> None:
    async with written_by(store) as written:
        with pytest.raises(InvalidInput):
            await adapter.api_keys.update(key.id, metadata="x" * 2_000_001)
    assert written.events == []
    assert await adapter.api_keys.get(key.id) == key


# Restore, revert and sweep


async def used_up(adapter: AllsourceAuthAdapter, clock: ManualClock) -> ApiKey:
    """A key that was refilled, used and renamed."""
    made = await rate_limited(adapter, 10, remaining=1, refill_interval=1_000, refill_amount=2)
    clock.move(MINUTE)
    for _ in range(2):
        assert (await adapter.api_keys.use(HASH)).allowed
    used = await adapter.api_keys.update(made.id, name="new")
    assert (used.remaining, used.request_count, used.last_request, used.last_refill_at) == (0, 2, clock(), clock())
    return used


async def test_restored_key_has_its_newest_usage(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    used = await used_up(adapter, clock)
    await adapter.api_keys.delete(used.id)
    assert await adapter.api_keys.restore(used.id) == used
    assert (await adapter.api_keys.use(HASH)).reason == "usage_exceeded"


async def test_revert_keeps_remaining_uses(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    used = await used_up(adapter, clock)
    created = (await adapter.api_keys.history(used.id))[0]
    assert await adapter.api_keys.revert(used.id, to=created.event_id) == msgspec.structs.replace(used, name=None)
    assert (await adapter.api_keys.use(HASH)).reason == "usage_exceeded"


async def test_revert_keeps_the_current_hash(adapter: AllsourceAuthAdapter) -> None:
    await issue(adapter, id="same", key_hash=f"lost-{CANARY}", name="lost")
    await adapter.api_keys.delete("same")
    present = await issue(adapter, id="same")
    lost = (await adapter.api_keys.history("same"))[0]
    reverted = await adapter.api_keys.revert("same", to=lost.event_id)
    assert reverted == msgspec.structs.replace(present, name="lost")
    assert (await adapter.api_keys.use(f"lost-{CANARY}")).reason == "not_found"
    assert (await adapter.api_keys.use(HASH)).allowed


async def test_sweep_deletes_and_counts_expired_keys(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    ends = {
        "past": START - MICROSECOND,
        "now": START,
        "future": START + MICROSECOND,
        "never": None,
        "disabled": START - DAY,
        "cleared": START - DAY,
        "set": None,
    }
    for name, end in ends.items():
        await issue(adapter, key_hash=name, id=name, expires_at=end, enabled=name != "disabled")
    await adapter.api_keys.update("cleared", expires_at=None)
    await adapter.api_keys.update("set", expires_at=START)
    assert await adapter.api_keys.delete_expired() == 4
    assert {key.id async for key in adapter.api_keys.scan()} == {"future", "never", "cleared"}
    assert await adapter.api_keys.get_by_hash("now") is None
    assert await adapter.api_keys.list_for_user("u") == [
        await adapter.api_keys.get(n) for n in ("never", "future", "cleared")
    ]
    clock.move(MICROSECOND)
    assert await adapter.api_keys.delete_expired() == 1
    assert await adapter.api_keys.delete_expired() == 0


async def test_sweep_finds_a_used_key_again(adapter: AllsourceAuthAdapter, dated: ManualClock) -> None:
    await issue(adapter, expires_at=START + 20 * DAY)
    for _ in range(19):
        dated.move(DAY)
        assert (await adapter.api_keys.use(HASH)).allowed
        assert await adapter.api_keys.delete_expired() == 0
    dated.move(DAY)
    assert await adapter.api_keys.delete_expired() == 1
    assert (await adapter.api_keys.use(HASH)).reason == "not_found"


async def test_repeated_sweeps_with_a_limit_delete_everything(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    for number in range(5):
        await issue(adapter, key_hash=str(number), expires_at=clock())
    assert [await adapter.api_keys.delete_expired(limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_concurrent_sweeps_count_each_key_once(make_adapter: MakeAdapter, clock: ManualClock) -> None:
    seen = [make_adapter() for _ in range(3)]
    for number in range(20):
        await issue(seen[number % 3], key_hash=str(number), expires_at=clock())
    removed = await asyncio.gather(*[adapter.api_keys.delete_expired() for adapter in seen])
    assert sum(removed) == 20


@pytest.mark.heavy
async def test_use_takes_few_reads_and_at_most_one_event(make_adapter: MakeAdapter, store: EventStore) -> None:
    counted = CountingStore(store)
    adapter = make_adapter(store=counted)
    await issue(adapter, remaining=20)
    counted.forget()
    assert (await adapter.api_keys.use(HASH)).allowed
    assert len(counted.reads) <= 4
    assert [len(batch) for batch in counted.appends] == [1]
    await issue(adapter, key_hash="free")
    await adapter.api_keys.use("free")
    counted.forget()
    assert (await adapter.api_keys.use("free")).allowed
    assert len(counted.reads) <= 3
    assert (counted.appends, counted.scanned) == ([], 0)
