"""Passkeys and their signature counters. `test_credentials` has what they share with other credentials."""

import asyncio
from typing import Any

import msgspec
import pytest

from allsource_auth import UNSET, AllsourceAuthAdapter, Conflict, EventStore, Passkey, PasskeyNotFound
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_COUNTS, BAD_FLAGS, BAD_IDS, BAD_LABELS, BAD_TEXTS, cases
from tests.support.canaries import CANARY
from tests.support.credentials import PASSKEY
from tests.support.events import payload, refused, stored, written_by

pytestmark = pytest.mark.tables

CALLERS = 200
LARGEST = 2**63 - 1

BAD_PASSKEYS = [
    *cases(["user_id", "id"], BAD_IDS),
    *cases(["credential_id", "device_type"], BAD_LABELS),
    *cases(["public_key", "name", "transports"], BAD_TEXTS),
    *cases(["counter"], BAD_COUNTS),
    *cases(["backed_up"], BAD_FLAGS),
    *cases(["user_id", "credential_id", "public_key", "counter", "device_type"], {"none": None}),
]


@pytest.fixture
async def passkey(adapter: AllsourceAuthAdapter) -> Passkey:
    """A passkey with all optional values and a counter of 3."""
    made: Passkey = await PASSKEY.make(adapter, **PASSKEY.optional)
    return made


async def count(adapter: AllsourceAuthAdapter, passkey: Passkey) -> int:
    found = await adapter.passkeys.get(passkey.id)
    assert found is not None
    return found.counter


@pytest.mark.parametrize("odd", ["AbC-_9=", "a b", "%_", "a/b?c#d", "😀", "x" * 1500])
async def test_credential_ids_are_compared_exactly_and_for_all_users(adapter: AllsourceAuthAdapter, odd: str) -> None:
    made = await PASSKEY.make(adapter, credential_id=odd)
    assert await adapter.passkeys.get_by_credential_id(odd) == made
    assert await adapter.passkeys.get_by_credential_id(f"{odd}=") is None
    with pytest.raises(Conflict) as caught:
        await PASSKEY.make(adapter, user_id="other", credential_id=odd)
    assert caught.value.field == "credential"


@pytest.mark.parametrize("transports", [None, "", '["usb","nfc"]'])
async def test_missing_transports_are_omitted(
    adapter: AllsourceAuthAdapter, store: EventStore, transports: str | None
) -> None:
    made = await PASSKEY.make(adapter, transports=transports)
    await adapter.passkeys.update_name(made.id, None)
    for event in await stored(store, f"auth-passkey:{made.id}"):
        written = payload(event)
        assert written.get("transports") == transports
        assert ("transports" in written) is (transports is not None)
        assert written["name"] is None
        assert written["credentialID"] == made.credential_id
    found = await adapter.passkeys.get(made.id)
    assert found == made


@pytest.mark.parametrize("counter", [0, 2, 3, 4, LARGEST])
@pytest.mark.parametrize("given", [{}, {"expected": UNSET}], ids=["nothing", "unset"])
async def test_counter_is_overwritten_without_expected(
    adapter: AllsourceAuthAdapter, passkey: Passkey, counter: int, given: dict[str, Any]
) -> None:
    changed = await adapter.passkeys.update_counter(passkey.id, counter, **given)
    assert changed == msgspec.structs.replace(passkey, counter=counter)
    assert await adapter.passkeys.get_by_credential_id(passkey.credential_id) == changed


@pytest.mark.parametrize(
    ("stored_one", "expected", "counter"),
    [(3, 3, 4), (3, 3, LARGEST), (0, 0, 1), (0, 0, 0), (LARGEST - 1,) * 2 + (LARGEST,)],
)
async def test_counter_grows_from_the_expected_value(
    adapter: AllsourceAuthAdapter, stored_one: int, expected: int, counter: int
) -> None:
    made = await PASSKEY.make(adapter, counter=stored_one)
    changed = await adapter.passkeys.update_counter(made.id, counter, expected=expected)
    assert changed == msgspec.structs.replace(made, counter=counter)
    assert await adapter.passkeys.get(made.id) == changed


@pytest.mark.parametrize(
    ("stored_one", "expected", "counter"),
    [(3, 2, 4), (3, 4, 5), (3, 0, 0), (3, 0, 4), (3, 3, 3), (3, 3, 2), (3, 3, 0), (0, 1, 2), (0, 3, 0)],
)
async def test_counter_that_is_unexpected_or_does_not_grow_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, stored_one: int, expected: int, counter: int
) -> None:
    made = await PASSKEY.make(adapter, counter=stored_one)
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.passkeys.update_counter(made.id, counter, expected=expected)
    assert (caught.value.kind, caught.value.field) == ("passkey", "counter")
    assert written.events == []
    assert await adapter.passkeys.get(made.id) == made


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 3])
async def test_one_of_many_with_one_assertion_wins(make_adapter: MakeAdapter, passkey: Passkey, adapters: int) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    outcomes = await asyncio.gather(
        *[seen[number % adapters].passkeys.update_counter(passkey.id, 4, expected=3) for number in range(CALLERS)],
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Passkey) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) and outcome.field == "counter" for outcome in outcomes) == CALLERS - 1
    assert await count(seen[-1], passkey) == 4
    assert len(await seen[0].passkeys.history(passkey.id)) == 2


async def test_all_callers_succeed_if_the_authenticator_does_not_count(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await PASSKEY.make(seen[0])
    outcomes = await asyncio.gather(
        *[seen[number % 2].passkeys.update_counter(made.id, 0, expected=0) for number in range(20)]
    )
    assert outcomes == [made] * 20


@pytest.mark.race
async def test_counter_never_falls_with_concurrent_callers(make_adapter: MakeAdapter, passkey: Passkey) -> None:
    seen = [make_adapter(), make_adapter()]

    async def sign_in(adapter: AllsourceAuthAdapter) -> None:
        while True:
            known = await count(adapter, passkey)
            try:
                await adapter.passkeys.update_counter(passkey.id, known + 1, expected=known)
            except Conflict:
                continue
            return

    await asyncio.gather(*[sign_in(seen[number % 2]) for number in range(20)])
    history = await seen[0].passkeys.history(passkey.id)
    assert [change.state.counter for change in history if change.state] == list(range(3, 24))


@pytest.mark.parametrize("name", ["phone", "", None, "Zoë's 😀"])
async def test_name_is_set_and_cleared(adapter: AllsourceAuthAdapter, passkey: Passkey, name: str | None) -> None:
    changed = await adapter.passkeys.update_name(passkey.id, name)
    assert changed == msgspec.structs.replace(passkey, name=name)
    assert await adapter.passkeys.list_for_user(passkey.user_id) == [changed]


@pytest.mark.race
async def test_concurrent_changes_of_name_and_counter_are_merged(make_adapter: MakeAdapter, passkey: Passkey) -> None:
    seen = [make_adapter(), make_adapter()]
    await asyncio.gather(
        *[seen[number % 2].passkeys.update_name(passkey.id, str(number)) for number in range(10)],
        *[seen[number % 2].passkeys.update_counter(passkey.id, number) for number in range(10, 20)],
    )
    history = (await seen[0].passkeys.history(passkey.id))[1:]
    assert all(len(change.diff) == 1 for change in history)
    assert {change.diff["name"][1] for change in history if "name" in change.diff} == {
        str(number) for number in range(10)
    }
    assert {change.diff["counter"][1] for change in history if "counter" in change.diff} == set(range(10, 20))


@pytest.mark.parametrize("given", [{}, {"expected": 0}])
async def test_counter_of_a_missing_passkey_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, passkey: Passkey, given: dict[str, Any]
) -> None:
    await adapter.passkeys.delete(passkey.id)
    async with written_by(store) as written:
        for missing in (passkey.id, passkey.credential_id, "nothing", "", "x" * 500):
            with pytest.raises(PasskeyNotFound):
                await adapter.passkeys.update_counter(missing, 0, **given)
    assert written.events == []


async def test_restored_passkey_has_its_newest_counter(adapter: AllsourceAuthAdapter, passkey: Passkey) -> None:
    changed = await adapter.passkeys.update_counter(passkey.id, 9, expected=3)
    await adapter.passkeys.delete(passkey.id)
    assert await adapter.passkeys.restore(passkey.id) == changed
    with pytest.raises(Conflict):
        await adapter.passkeys.update_counter(passkey.id, 9, expected=3)


async def test_revert_keeps_the_counter(adapter: AllsourceAuthAdapter, passkey: Passkey) -> None:
    await adapter.passkeys.update_name(passkey.id, "phone")
    await adapter.passkeys.update_counter(passkey.id, 9, expected=3)
    created = (await adapter.passkeys.history(passkey.id))[0]
    reverted = await adapter.passkeys.revert(passkey.id, to=created.event_id)
    assert reverted == msgspec.structs.replace(passkey, counter=9)
    assert await adapter.passkeys.get_by_credential_id(passkey.credential_id) == reverted


async def test_revert_keeps_the_current_credential(adapter: AllsourceAuthAdapter) -> None:
    lost = await PASSKEY.make(adapter, 1, id="same", name="lost", public_key=f"lost-{CANARY}")
    await adapter.passkeys.delete("same")
    present = await PASSKEY.make(adapter, 2, id="same", counter=7)
    first = (await adapter.passkeys.history("same"))[0]
    reverted = await adapter.passkeys.revert("same", to=first.event_id)
    assert reverted == msgspec.structs.replace(present, name="lost")
    assert await adapter.passkeys.get_by_credential_id(lost.credential_id) is None
    assert await adapter.passkeys.get_by_credential_id(present.credential_id) == reverted


@pytest.mark.parametrize("field", dict.fromkeys(field for field, _, _ in BAD_PASSKEYS))
async def test_bad_passkey_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, field: str) -> None:
    for name, wrong, value in BAD_PASSKEYS:
        if name == field:
            async with refused(store, field):
                await PASSKEY.make(adapter, **{field: value})
            assert await adapter.passkeys.list_for_user("u") == [], wrong


@pytest.mark.parametrize("field", ["counter", "expected"])
async def test_bad_counter_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, passkey: Passkey, field: str
) -> None:
    for _, wrong, value in cases([field], BAD_COUNTS | {"none": None}):
        async with refused(store, field):
            await adapter.passkeys.update_counter(passkey.id, **{"counter": 4, field: value})
        assert await count(adapter, passkey) == 3, wrong


async def test_bad_name_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, passkey: Passkey) -> None:
    for _, wrong, value in cases(["name"], BAD_TEXTS):
        async with refused(store, "name"):
            await adapter.passkeys.update_name(passkey.id, value)
        assert await adapter.passkeys.get(passkey.id) == passkey, wrong
