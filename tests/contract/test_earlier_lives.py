"""An id that was deleted and created again: a revert to the time before does not change the owner."""

from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter
from tests.support.families import CHILDREN
from tests.support.samples import Sample

REVERTED = [sample for sample in CHILDREN if sample.restorable]
PARENTS = {"user_id": "users", "inviter_id": "users", "organization_id": "organizations"}
MARKS = {"account": "account_id", "api_key": "key_hash", "passkey": "credential_id"}


@pytest.fixture(params=REVERTED, ids=str)
def sample(request: pytest.FixtureRequest) -> Sample:
    found: Sample = request.param
    return found


async def lived_twice(adapter: AllsourceAuthAdapter, sample: Sample) -> tuple[Any, Any]:
    """Create a child whose id was used before, by a child of other parents that are deleted now. Return both."""
    lives = []
    for life in ("old", "new"):
        await adapter.users.create(id=life)
        await adapter.organizations.create(id=life, name=life, slug=life)
        given = {field: life for field in sample.given if field in PARENTS}
        if sample.name in MARKS:
            given[MARKS[sample.name]] = f"{sample.name}-{life}"
        lives.append(await sample.create(adapter, id="same", **given))
        if life == "old":
            await adapter.users.delete(life)
            await adapter.organizations.delete(life)
            assert not await sample.of(adapter).exists("same")
    return lives[0], lives[1]


async def test_revert_keeps_the_parents_of_a_child(adapter: AllsourceAuthAdapter, sample: Sample) -> None:
    former, present = await lived_twice(adapter, sample)
    first = (await sample.of(adapter).history("same"))[0]
    reverted = await sample.of(adapter).revert("same", to=first.event_id)
    for field in PARENTS:
        assert getattr(reverted, field, None) == getattr(present, field, None)
    assert reverted.created_at == former.created_at
    for call, field in sample.lists:
        if field in PARENTS:
            assert await getattr(sample.of(adapter), call)(getattr(present, field)) == [reverted]
            assert await getattr(sample.of(adapter), call)(getattr(former, field)) == []
    assert (await adapter.check()).findings == ()


async def test_revert_keeps_the_provider_and_account_id(adapter: AllsourceAuthAdapter) -> None:
    await adapter.accounts.create(id="same", user_id="old", provider_id="github", account_id="1")
    await adapter.accounts.delete("same")
    await adapter.accounts.create(id="same", user_id="new", provider_id="google", account_id="2")
    first = (await adapter.accounts.history("same"))[0]
    reverted = await adapter.accounts.revert("same", to=first.event_id)
    assert await adapter.accounts.get_by_provider("github", "1") is None
    assert await adapter.accounts.get_by_provider("google", "2") == reverted
