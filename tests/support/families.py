"""All entities that can belong to a user: creating them, and finding which exist."""

from __future__ import annotations

from typing import Any

from allsource_auth import AllsourceAuthAdapter
from tests.support.samples import SAMPLES, Sample

__all__ = ["CHILDREN", "by_value", "children", "given", "living"]

OWNED = ("session", "account", "member", "invitation", "two_factor", "api_key", "passkey")
CHILDREN = [sample for sample in SAMPLES if sample.name in OWNED]


def given(sample: Sample, user_id: str, mark: str = "") -> dict[str, Any]:
    """Arguments that create an entity of this user. ``mark`` makes its unique value different."""
    values: dict[str, Any] = {"inviter_id" if sample.name == "invitation" else "user_id": user_id}
    marked = {"account": "account_id", "api_key": "key_hash", "passkey": "credential_id", "member": "organization_id"}
    if sample.name in marked:
        values[marked[sample.name]] = f"{sample.name}-{mark}"
    return values


async def children(adapter: AllsourceAuthAdapter, user_id: str, *, count: int = 2) -> list[tuple[Sample, Any]]:
    """Create ``count`` entities of each kind that can belong to a user, and one second factor."""
    return [
        (sample, await sample.create(adapter, **given(sample, user_id, f"{user_id}-{number}")))
        for sample in CHILDREN
        for number in range(1 if sample.name == "two_factor" else count)
    ]


async def living(adapter: AllsourceAuthAdapter, made: list[tuple[Sample, Any]]) -> list[str]:
    """The kinds of the entities that can still be found: by key, in a list, or by a unique value."""
    found = []
    for sample, child in made:
        states = [await sample.of(adapter).get(sample.key_of(child)), await by_value(adapter, sample, child)]
        lists = [await getattr(sample.of(adapter), call)(getattr(child, field)) for call, field in sample.lists]
        if any(states) or any(child.id in [listed.id for listed in found] for found in lists):
            found.append(sample.name)
    return found


async def by_value(adapter: AllsourceAuthAdapter, sample: Sample, child: Any) -> Any:
    """Look up an entity by its unique value."""
    match sample.name:
        case "account":
            return await adapter.accounts.get_by_provider(child.provider_id, child.account_id)
        case "member":
            return await adapter.members.find(child.organization_id, child.user_id)
        case "two_factor":
            return await adapter.two_factors.get_by_user(child.user_id)
        case "api_key":
            return await adapter.api_keys.get_by_hash(child.key_hash)
        case "passkey":
            return await adapter.passkeys.get_by_credential_id(child.credential_id)
    return None
