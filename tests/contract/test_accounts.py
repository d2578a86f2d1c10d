"""Accounts. `test_credentials` has what they share with other credentials."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from allsource_auth import UNSET, Account, AllsourceAuthAdapter, Conflict, EventStore, InvalidInput
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_IDS, BAD_LABELS, BAD_TEXTS, BAD_TIMES, cases
from tests.support.canaries import CANARY, email
from tests.support.clocks import START, ManualClock
from tests.support.credentials import ACCOUNT
from tests.support.events import payload, refused, stored, written_by

pytestmark = pytest.mark.tables

MINUTE = timedelta(minutes=1)

CHANGES: dict[str, Any] = {
    "access_token": f"access-2-{CANARY}",
    "refresh_token": f"refresh-2-{CANARY}",
    "id_token": f"id-2-{CANARY}",
    "access_token_expires_at": START + 5 * MINUTE,
    "refresh_token_expires_at": START + 6 * MINUTE,
    "scope": "read:user,repo",
    "password": f"$argon2id$2{CANARY}",
}
TEXTS = ("access_token", "refresh_token", "id_token", "scope", "password")
TIMES = ("access_token_expires_at", "refresh_token_expires_at")

BAD_CHANGES = [*cases(TEXTS, BAD_TEXTS), *cases(TIMES, BAD_TIMES)]
BAD_ACCOUNTS = [
    *BAD_CHANGES,
    *cases(["user_id", "id"], BAD_IDS),
    *cases(["provider_id", "account_id"], BAD_LABELS),
    *cases(["user_id", "provider_id", "account_id"], {"none": None}),
]


@pytest.fixture
async def account(adapter: AllsourceAuthAdapter) -> Account:
    """An account at GitHub with all optional values."""
    made: Account = await ACCOUNT.make(adapter, **ACCOUNT.optional)
    return made


async def link(adapter: AllsourceAuthAdapter, provider_id: str, account_id: str) -> Account:
    return await adapter.accounts.create(user_id="u", provider_id=provider_id, account_id=account_id)


async def test_provider_and_account_ids_are_compared_exactly(adapter: AllsourceAuthAdapter) -> None:
    pairs = [("github", "ab"), ("GitHub", "ab"), ("github", "AB"), ("ab", "github"), ("githuba", "b"), ("google", "ab")]
    made = [await link(adapter, *pair) for pair in pairs]
    assert [await adapter.accounts.get_by_provider(*pair) for pair in pairs] == made
    assert len({account.id for account in made}) == len(pairs)
    assert await adapter.accounts.get_by_provider("google", "AB") is None
    for pair in pairs:
        with pytest.raises(Conflict):
            await link(adapter, *pair)


@pytest.mark.parametrize("odd", ["o'neil@example.org", 'a"b\\', "a b", "%_", "a/b?c#d", "😀", "\u202e", "x" * 3000])
async def test_odd_ids_are_found_again(adapter: AllsourceAuthAdapter, odd: str) -> None:
    account = await link(adapter, odd, odd)
    assert await adapter.accounts.get_by_provider(odd, odd) == account


@pytest.mark.parametrize("field", CHANGES)
async def test_one_field_changes_and_the_others_stay(
    adapter: AllsourceAuthAdapter, clock: ManualClock, account: Account, field: str
) -> None:
    later = clock.move(MINUTE)
    changed = await adapter.accounts.update(account.id, **{field: CHANGES[field]})
    assert changed == msgspec.structs.replace(account, updated_at=later, **{field: CHANGES[field]})
    assert await adapter.accounts.get(account.id) == changed


@pytest.mark.parametrize("field", CHANGES)
async def test_none_clears_a_field(
    adapter: AllsourceAuthAdapter, store: EventStore, account: Account, field: str
) -> None:
    nothing: dict[str, Any] = {field: None}
    cleared = await adapter.accounts.update(account.id, **nothing)
    assert cleared == msgspec.structs.replace(account, **nothing)
    assert await adapter.accounts.get(account.id) == cleared
    created, updated = [payload(event) for event in await stored(store, f"auth-account:{account.id}")]
    assert set(updated) == set(created)
    assert list(updated.values()).count(None) == 1


async def test_all_fields_change_at_once(adapter: AllsourceAuthAdapter, account: Account) -> None:
    changed = await adapter.accounts.update(account.id, **CHANGES)
    assert changed == msgspec.structs.replace(account, **CHANGES)
    assert await adapter.accounts.list_for_user(account.user_id) == [changed]


@pytest.mark.parametrize("given", [{}, dict.fromkeys(CHANGES, UNSET)], ids=["nothing", "unset"])
async def test_update_without_fields_sets_updated_at(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, account: Account, given: dict[str, Any]
) -> None:
    later = clock.move(MINUTE)
    async with written_by(store) as written:
        changed = await adapter.accounts.update(account.id, **given)
    assert written.types == ["auth.account.updated"]
    assert changed == msgspec.structs.replace(account, updated_at=later)
    assert await adapter.accounts.get(account.id) == changed


async def test_time_in_any_zone_is_read_as_utc(adapter: AllsourceAuthAdapter, account: Account) -> None:
    local = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=-3)))
    changed = await adapter.accounts.update(account.id, access_token_expires_at=local)
    assert changed.access_token_expires_at is not None
    assert changed.access_token_expires_at == datetime(2027, 1, 1, 3, tzinfo=UTC)
    assert changed.access_token_expires_at.tzinfo is UTC


@pytest.mark.race
async def test_concurrent_updates_of_different_fields_are_merged(make_adapter: MakeAdapter, account: Account) -> None:
    seen = [make_adapter(), make_adapter()]
    await asyncio.gather(
        *[
            seen[number % 2].accounts.update(account.id, **{field: value})
            for number, (field, value) in enumerate(CHANGES.items())
        ]
    )
    assert await seen[0].accounts.get(account.id) == msgspec.structs.replace(account, **CHANGES)
    assert len(await seen[1].accounts.history(account.id)) == 1 + len(CHANGES)


async def test_last_account_of_a_user_can_be_deleted(adapter: AllsourceAuthAdapter, account: Account) -> None:
    await adapter.accounts.delete(account.id)
    assert await adapter.accounts.list_for_user(account.user_id) == []


async def test_revert_keeps_current_password_and_tokens(adapter: AllsourceAuthAdapter, account: Account) -> None:
    """The times of expiry of the tokens are kept, too."""
    changed = await adapter.accounts.update(account.id, **CHANGES)
    created = (await adapter.accounts.history(account.id))[0]
    reverted = await adapter.accounts.revert(account.id, to=created.event_id)
    assert reverted == msgspec.structs.replace(changed, scope=account.scope)
    assert await adapter.accounts.get(account.id) == reverted


async def test_revert_does_not_bring_back_a_removed_password(adapter: AllsourceAuthAdapter, account: Account) -> None:
    secrets: dict[str, Any] = dict.fromkeys(ACCOUNT.secrets)
    await adapter.accounts.update(account.id, **secrets)
    created = (await adapter.accounts.history(account.id))[0]
    reverted = await adapter.accounts.revert(account.id, to=created.event_id)
    assert [getattr(reverted, name) for name in secrets] == [None] * len(secrets)


async def test_restored_account_has_its_newest_password(adapter: AllsourceAuthAdapter, account: Account) -> None:
    changed = await adapter.accounts.update(account.id, **CHANGES)
    await adapter.accounts.delete(account.id)
    assert await adapter.accounts.restore(account.id) == changed


@pytest.mark.parametrize("field", dict.fromkeys(field for field, _, _ in BAD_ACCOUNTS))
async def test_bad_account_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, field: str) -> None:
    for name, wrong, value in BAD_ACCOUNTS:
        if name == field:
            given = {"user_id": "u", "provider_id": "github", "account_id": email("a"), field: value}
            async with refused(store, field):
                await adapter.accounts.create(**given)
            assert await adapter.accounts.list_for_user("u") == [], wrong


@pytest.mark.parametrize("field", CHANGES)
async def test_bad_change_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, account: Account, field: str
) -> None:
    for name, wrong, value in BAD_CHANGES:
        if name == field:
            async with refused(store, field):
                await adapter.accounts.update(account.id, **{field: value})
            assert await adapter.accounts.get(account.id) == account, wrong


async def test_more_than_two_megabytes_are_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, account: Account
) -> None:
    async with written_by(store) as written:
        with pytest.raises(InvalidInput):
            await adapter.accounts.update(account.id, id_token="x" * 2_000_001)
        with pytest.raises(InvalidInput):
            await ACCOUNT.make(adapter, 1, id_token="é" * 1_000_001)
    assert written.events == []
    assert await adapter.accounts.get(account.id) == account
    assert (await ACCOUNT.make(adapter, 1)).id != account.id
