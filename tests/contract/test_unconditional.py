"""Changes without `expected`: in a transaction they apply to any newer state, like other updates."""

# ruff: noqa: PT012 - a transaction is a block, and ends with it

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Transaction, VersionConflict
from tests.support.samples import Sample, sample_of

Change = Callable[[AllsourceAuthAdapter | Transaction, Any], Awaitable[Any]]

UNCONDITIONAL: list[tuple[str, str, Any, Change, Change]] = [
    (
        "invitation",
        "status",
        "rejected",
        lambda group, made: group.invitations.update_status(made.id, "rejected"),
        lambda group, made: group.invitations.update_status(made.id, "rejected", expected="pending"),
    ),
    (
        "two_factor",
        "backup_codes",
        "new",
        lambda group, made: group.two_factors.update_backup_codes(made.user_id, "new"),
        lambda group, made: group.two_factors.update_backup_codes(made.user_id, "new", expected=None),
    ),
    (
        "passkey",
        "counter",
        7,
        lambda group, made: group.passkeys.update_counter(made.id, 7),
        lambda group, made: group.passkeys.update_counter(made.id, 7, expected=0),
    ),
]

unconditional = pytest.mark.parametrize(
    ("sample", "field", "value", "change", "compare"),
    [pytest.param(sample_of(kind), *rest, id=kind) for kind, *rest in UNCONDITIONAL],
)


@unconditional
async def test_transaction_may_have_several_unconditional_changes(
    adapter: AllsourceAuthAdapter, sample: Sample, field: str, value: Any, change: Change, compare: Change
) -> None:
    given = [{"user_id": "u0", "credential_id": "c0"}, {"user_id": "u1", "credential_id": "c1"}]
    names = {"two_factor": ["user_id"], "passkey": ["credential_id"]}.get(sample.name, [])
    made = [await sample.create(adapter, **{name: each[name] for name in names}) for each in given]
    async with adapter.transaction() as tx:
        for each in made:
            await change(tx, each)
    for each in made:
        assert getattr(await sample.of(adapter).get(each.id), field) == value


@unconditional
async def test_unconditional_change_in_a_transaction_survives_a_concurrent_one(
    adapter: AllsourceAuthAdapter, sample: Sample, field: str, value: Any, change: Change, compare: Change
) -> None:
    made = await sample.create(adapter)
    async with adapter.transaction() as tx:
        await change(tx, made)
        await change(adapter, made)
    assert getattr(await sample.of(adapter).get(made.id), field) == value


@unconditional
async def test_change_with_expected_fails_after_a_concurrent_one(
    adapter: AllsourceAuthAdapter, sample: Sample, field: str, value: Any, change: Change, compare: Change
) -> None:
    made = await sample.create(adapter)
    with pytest.raises(VersionConflict):
        async with adapter.transaction() as tx:
            await compare(tx, made)
            await change(adapter, made)
