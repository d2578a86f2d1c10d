"""Kinds that are declared at run time: a replaced declaration of a built-in kind, and a new kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, InvalidInput, User
from allsource_auth import values as checks
from allsource_auth.engine.collection import declare
from allsource_auth.entities import Entity
from allsource_auth.errors import NotFound
from allsource_auth.kind import Index, Kind, Unique
from allsource_auth.kinds import USER, VERIFICATION

OLD = datetime(2020, 1, 1, tzinfo=UTC)


class Person(User, frozen=True, kw_only=True, rename="camel"):
    """A user with a badge."""

    badge: str | None = None


PERSON = replace(
    USER,
    entity=Person,
    checks={**USER.checks, "badge": checks.label, "created_at": checks.instant, "updated_at": checks.instant},
    unique=(*USER.unique, Unique("badge", ("badge",))),
)


class Device(Entity, frozen=True, kw_only=True, rename="camel"):
    """A child of a user, of a kind that is not built in."""

    user_id: str


class DeviceNotFound(NotFound):
    kind = "device"


DEVICE = Kind(
    name="device",
    entity=Device,
    prefix="auth-device:",
    not_found=DeviceNotFound,
    checks={"user_id": checks.identifier},
    indexes=(Index("user", "user_id", owner="user"),),
)


@pytest.fixture
async def adapter() -> AsyncIterator[AllsourceAuthAdapter]:
    async with AllsourceAuthAdapter.embedded() as opened:
        declare(opened.context, PERSON)
        declare(opened.context, DEVICE)
        yield opened


async def created(adapter: AllsourceAuthAdapter, **given: Any) -> Person:
    person = await adapter.context.collections["user"].create(given, key=None)
    assert isinstance(person, Person)
    return person


async def test_attributes_of_a_replaced_declaration_are_stored_and_unique(adapter: AllsourceAuthAdapter) -> None:
    person = await created(adapter, badge="7", email="ada@example.org")
    await adapter.users.update(person.id, name="Ada")
    found = await adapter.users.get_by_email("ada@example.org")
    assert isinstance(found, Person)
    assert (found.badge, found.name) == ("7", "Ada")
    with pytest.raises(Conflict) as conflict:
        await created(adapter, badge="7")
    assert conflict.value.field == "badge"
    await adapter.users.delete(person.id)
    other = await created(adapter, badge="7")
    with pytest.raises(Conflict):
        await adapter.users.restore(person.id)
    assert not (await adapter.check()).findings
    assert msgspec.structs.asdict(other)["badge"] == "7"


async def test_new_kind_takes_part_in_cascades_and_transactions(adapter: AllsourceAuthAdapter) -> None:
    async with adapter.transaction() as tx:
        person = await tx.context.collections["user"].create({"badge": "7"}, key=None)
        await tx.context.collections["device"].create({"user_id": person.id}, key="phone")
        await tx.context.collections["device"].create({"user_id": "nobody"}, key="lamp")
    devices = adapter.context.collections["device"]
    assert await devices.exists("phone")
    await adapter.users.delete(person.id)
    assert [device.id async for device in devices.scan()] == ["lamp"]
    with pytest.raises(NotFound, match="user"):
        await devices.restore("phone")


async def test_given_times_override_the_clock(adapter: AllsourceAuthAdapter) -> None:
    person = await created(adapter, created_at=OLD, updated_at=OLD)
    assert (person.created_at, person.updated_at) == (OLD, OLD)
    later = OLD + timedelta(days=1)
    users = adapter.context.collections["user"]
    assert (await users.update(person.id, {"name": "Ada", "updated_at": later})).updated_at == later
    assert (await adapter.users.update(person.id, name="A")).updated_at > later


async def test_key_of_a_final_kind_is_reused_only_on_demand(adapter: AllsourceAuthAdapter) -> None:
    given = {"identifier": "i", "value": "v", "expires_at": OLD}
    verifications = adapter.context.collections[VERIFICATION.name]
    await verifications.create(given, key="v")
    for reuse_key in (False, True):
        with pytest.raises(Conflict):
            await verifications.create(given, key="v", reuse_key=reuse_key)
    await adapter.verifications.delete("v")
    with pytest.raises(Conflict):
        await verifications.create(given, key="v")
    await verifications.create(given, key="v", reuse_key=True)
    assert len(await adapter.verifications.history("v")) == 3
    with pytest.raises(InvalidInput):
        await verifications.restore("v")
