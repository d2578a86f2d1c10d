"""Second factors: one for each user, with single-use backup codes. `test_credentials` has what they share."""

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import (
    UNSET,
    AllsourceAuthAdapter,
    Conflict,
    EventStore,
    InvalidInput,
    TwoFactor,
    TwoFactorNotFound,
    User,
    VersionConflict,
)
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_IDS, BAD_TEXTS, cases
from tests.support.canaries import CANARY, revealed
from tests.support.clocks import ManualClock
from tests.support.events import refused, stored, written_by
from tests.support.wrappers import ContendedStore, CountingStore

pytestmark = pytest.mark.tables

CALLERS = 200

SECRET = f"JBSWY3DP{CANARY}"
CODES = f'["{CANARY}-1","{CANARY}-2"]'
FEWER = f'["{CANARY}-2"]'

BAD_FACTORS = [
    *cases(["user_id", "id"], BAD_IDS),
    *cases(["user_id"], {"none": None}),
    *cases(["secret"], BAD_TEXTS | {"none": None}),
    *cases(["backup_codes"], BAD_TEXTS),
]


@pytest.fixture
async def factor(adapter: AllsourceAuthAdapter) -> TwoFactor:
    return await adapter.two_factors.create(user_id="u", secret=SECRET, backup_codes=CODES)


async def test_each_user_has_one(adapter: AllsourceAuthAdapter, factor: TwoFactor) -> None:
    with pytest.raises(Conflict) as caught:
        await adapter.two_factors.create(user_id="u", secret="other")
    assert (caught.value.kind, caught.value.field) == ("two_factor", "user")
    other = await adapter.two_factors.create(user_id="U", secret=SECRET, backup_codes=CODES)
    assert await adapter.two_factors.get_by_user("u") == factor
    assert await adapter.two_factors.get_by_user("U") == other


async def test_flag_of_the_user_is_not_changed(adapter: AllsourceAuthAdapter, ada: User) -> None:
    await adapter.two_factors.create(user_id=ada.id, secret=SECRET)
    assert await adapter.users.get(ada.id) == ada
    enabled = await adapter.users.update(ada.id, two_factor_enabled=True)
    await adapter.two_factors.delete_for_user(ada.id)
    assert await adapter.users.get(ada.id) == enabled


@pytest.mark.parametrize("codes", [FEWER, CODES, "", " \n\x00", None])
async def test_codes_are_replaced(
    adapter: AllsourceAuthAdapter, clock: ManualClock, factor: TwoFactor, codes: str | None
) -> None:
    later = clock.move(timedelta(minutes=1))
    changed = await adapter.two_factors.update_backup_codes("u", codes)
    assert changed == msgspec.structs.replace(factor, backup_codes=codes, updated_at=later)
    assert await adapter.two_factors.get_by_user("u") == changed
    again = await adapter.two_factors.update_backup_codes("u", CODES, expected=codes)
    assert again.backup_codes == CODES


@pytest.mark.parametrize("expected", [FEWER, CODES.upper(), f"{CODES} ", CODES[:-1], "", None])
async def test_codes_other_than_expected_conflict(
    adapter: AllsourceAuthAdapter, store: EventStore, factor: TwoFactor, expected: str | None
) -> None:
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.two_factors.update_backup_codes("u", "new", expected=expected)
    assert (caught.value.kind, caught.value.field) == ("two_factor", "backup_codes")
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")
    assert written.events == []
    assert await adapter.two_factors.get_by_user("u") == factor


async def test_expected_none_matches_missing_codes(adapter: AllsourceAuthAdapter) -> None:
    await adapter.two_factors.create(user_id="u", secret=SECRET)
    with pytest.raises(Conflict):
        await adapter.two_factors.update_backup_codes("u", CODES, expected="")
    changed = await adapter.two_factors.update_backup_codes("u", CODES, expected=None)
    assert changed.backup_codes == CODES


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 3])
async def test_one_of_many_with_one_code_wins(make_adapter: MakeAdapter, factor: TwoFactor, adapters: int) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    outcomes = await asyncio.gather(
        *[
            seen[number % adapters].two_factors.update_backup_codes("u", f"after {number}", expected=CODES)
            for number in range(CALLERS)
        ],
        return_exceptions=True,
    )
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, TwoFactor)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert {loser.field for loser in losers} == {"backup_codes"}
    assert len(losers) == CALLERS - 1
    assert await seen[-1].two_factors.get_by_user("u") == winner
    assert len(await seen[0].two_factors.history(factor.id)) == 2


@pytest.mark.race
async def test_each_of_many_codes_is_used_once(make_adapter: MakeAdapter) -> None:
    """Callers retry with the current codes after a conflict."""
    seen = [make_adapter(), make_adapter()]
    await seen[0].two_factors.create(user_id="u", secret=SECRET, backup_codes="0,1,2,3")

    async def use(adapter: AllsourceAuthAdapter, code: str) -> bool:
        while True:
            found = await adapter.two_factors.get_by_user("u")
            assert found is not None
            assert found.backup_codes is not None
            codes = found.backup_codes.split(",")
            if code not in codes:
                return False
            codes.remove(code)
            try:
                await adapter.two_factors.update_backup_codes("u", ",".join(codes), expected=found.backup_codes)
            except Conflict:
                continue
            return True

    passed = await asyncio.gather(*[use(seen[number % 2], str(number % 4)) for number in range(40)])
    assert sum(passed) == 4
    left = await seen[0].two_factors.get_by_user("u")
    assert left is not None
    assert left.backup_codes == ""


async def test_replacements_without_expected_all_succeed(make_adapter: MakeAdapter, factor: TwoFactor) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await asyncio.gather(
        *[seen[number % 2].two_factors.update_backup_codes("u", str(number), expected=UNSET) for number in range(20)]
    )
    assert {changed.backup_codes for changed in made} == {str(number) for number in range(20)}
    history = await seen[0].two_factors.history(factor.id)
    assert len(history) == 21
    assert await seen[1].two_factors.get_by_user("u") == history[-1].state


async def test_update_that_always_loses_gives_up(
    make_adapter: MakeAdapter, store: EventStore, factor: TwoFactor
) -> None:
    contended = ContendedStore(store, f"auth-2fa:{factor.id}")
    adapter = make_adapter(store=contended)
    seconds = itertools.count()
    adapter.context.mutations.now = lambda: next(seconds)  # each reading of the clock advances it by a second
    with pytest.raises(VersionConflict):
        await adapter.two_factors.update_backup_codes("u", FEWER, expected=CODES)
    assert contended.lost > 1
    assert await adapter.two_factors.get_by_user("u") == factor


@pytest.mark.parametrize("given", [{}, {"expected": CODES}, {"expected": None}])
async def test_user_without_a_factor_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, factor: TwoFactor, given: dict[str, Any]
) -> None:
    await adapter.two_factors.delete_for_user("u")
    async with written_by(store) as written:
        for missing in ("u", factor.id, "nobody", "", " ", "x" * 500, "\ud800"):
            with pytest.raises(TwoFactorNotFound):
                await adapter.two_factors.update_backup_codes(missing, FEWER, **given)
            assert await adapter.two_factors.get_by_user(missing) is None
    assert written.events == []


async def test_update_during_a_replacement_changes_the_new_factor(
    make_adapter: MakeAdapter, store: EventStore, factor: TwoFactor
) -> None:
    """Between the look-up of the factor and the decision the factor is deleted and a new one is created."""
    other = make_adapter()

    class Replacing(CountingStore):
        async def latest(self, stream: str, *, require_leader: bool = False) -> Any:
            latest = await super().latest(stream, require_leader=require_leader)
            if stream == f"auth-2fa:{factor.id}" and self.reads.count(stream) == 1:
                await other.two_factors.delete_for_user("u")
                await other.two_factors.create(user_id="u", secret="new", backup_codes="new")
            return latest

    adapter = make_adapter(store=Replacing(store))
    changed = await adapter.two_factors.update_backup_codes("u", FEWER)
    assert (changed.secret, changed.backup_codes) == ("new", FEWER)
    assert changed.id != factor.id
    assert await other.two_factors.get_by_user("u") == changed
    assert await other.two_factors.get(factor.id) is None


async def test_restored_factor_has_its_newest_codes(adapter: AllsourceAuthAdapter, factor: TwoFactor) -> None:
    changed = await adapter.two_factors.update_backup_codes("u", FEWER, expected=CODES)
    await adapter.two_factors.delete_for_user("u")
    assert await adapter.two_factors.restore(factor.id) == changed
    with pytest.raises(Conflict):
        await adapter.two_factors.update_backup_codes("u", "", expected=CODES)


@pytest.mark.parametrize("codes", [FEWER, None])
async def test_revert_does_not_bring_back_used_codes(
    adapter: AllsourceAuthAdapter, store: EventStore, factor: TwoFactor, codes: str | None
) -> None:
    changed = await adapter.two_factors.update_backup_codes("u", codes)
    created = (await adapter.two_factors.history(factor.id))[0]
    assert await adapter.two_factors.revert(factor.id, to=created.event_id) == changed
    assert await adapter.two_factors.get_by_user("u") == changed
    assert len(await stored(store, f"auth-2fa:{factor.id}")) == 3


async def test_revert_keeps_the_current_secret(adapter: AllsourceAuthAdapter) -> None:
    await adapter.two_factors.create(user_id="u", secret=f"lost-{CANARY}", backup_codes=f"lost-{CANARY}", id="same")
    await adapter.two_factors.delete_for_user("u")
    present = await adapter.two_factors.create(user_id="u", secret=SECRET, backup_codes=CODES, id="same")
    lost = (await adapter.two_factors.history("same"))[0]
    assert await adapter.two_factors.revert("same", to=lost.event_id) == present


@pytest.mark.parametrize("field", dict.fromkeys(field for field, _, _ in BAD_FACTORS))
async def test_bad_factor_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, field: str) -> None:
    for name, wrong, value in BAD_FACTORS:
        if name == field:
            async with refused(store, field):
                await adapter.two_factors.create(**{"user_id": "u", "secret": SECRET, field: value})
            assert await adapter.two_factors.get_by_user("u") is None, wrong


@pytest.mark.parametrize("field", ["backup_codes", "expected"])
async def test_bad_codes_are_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, factor: TwoFactor, field: str
) -> None:
    for _, wrong, value in cases([field], BAD_TEXTS):
        async with refused(store, field):
            await adapter.two_factors.update_backup_codes("u", **{"backup_codes": FEWER, field: value})
        assert await adapter.two_factors.get_by_user("u") == factor, wrong


@pytest.mark.parametrize("call", ["get_by_user", "delete_for_user", "update_backup_codes"])
async def test_user_must_be_text(
    adapter: AllsourceAuthAdapter, store: EventStore, factor: TwoFactor, call: str
) -> None:
    more = ("new",) if call == "update_backup_codes" else ()
    for wrong in (7, None, b"u"):
        async with refused(store, "user_id"):
            await getattr(adapter.two_factors, call)(wrong, *more)
    assert await adapter.two_factors.get_by_user("u") == factor


async def test_more_than_two_megabytes_are_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, factor: TwoFactor
) -> None:
    async with written_by(store) as written:
        with pytest.raises(InvalidInput):
            await adapter.two_factors.update_backup_codes("u", "x" * 2_000_001)
    assert written.events == []
    assert await adapter.two_factors.get_by_user("u") == factor
