"""All ten kinds as the Rust crate writes them: read, restored, and written with the same keys."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, OrganizationNotFound
from tests.support.clocks import START
from tests.support.events import payload, rust_event, rust_events, stored
from tests.support.samples import SAMPLES, Sample, sample_of

pytestmark = pytest.mark.tables

ATTRIBUTES = {"key": "key_hash", "credentialID": "credential_id"}
"""Attributes whose names differ from their JSON keys."""

WIRE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d+)(Z|\+00:00)")


def each(samples: Sequence[Sample]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", samples, ids=str)


def events_of_the_crate(sample: Sample) -> dict[str, list[dict[str, Any]]]:
    """The events of a kind that the crate wrote, by key."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in rust_events(sample.name):
        found.setdefault(event["entity_id"].removeprefix(sample.prefix), []).append(event)
    return found


def living_states(sample: Sample) -> dict[str, dict[str, Any]]:
    """The newest payloads of the living entities of a kind, by key."""
    newest = {key: events[-1]["payload"] for key, events in events_of_the_crate(sample).items()}
    return {key: state for key, state in newest.items() if "_deleted" not in state}


def deleted_states(sample: Sample) -> dict[str, dict[str, Any]]:
    """The last living_states of the deleted entities of a kind, by key."""
    return {
        key: events[-2]["payload"]
        for key, events in events_of_the_crate(sample).items()
        if "_deleted" in events[-1]["payload"]
    }


def attribute(key: str) -> str:
    return ATTRIBUTES.get(key) or re.sub("[A-Z]", lambda letter: "_" + letter.group().lower(), key)


def read(value: Any) -> Any:
    """A value as an entity contains it: times are cut to microseconds."""
    if isinstance(value, str) and (found := WIRE_TIME.fullmatch(value)):
        assert len(found.group(1)) == 9
        return datetime.fromisoformat(f"{value[:26]}+00:00")
    return value


def written(entity: Any, state: dict[str, Any]) -> dict[str, Any]:
    return {key: getattr(entity, attribute(key)) for key in state}


def shape(state: dict[str, Any]) -> dict[str, str]:
    return {key: type(value).__name__ for key, value in state.items() if value is not None}


@pytest.fixture
async def rust_store(store: EventStore) -> None:
    """Append everything that the crate wrote."""
    for sample in SAMPLES:
        for event in rust_events(sample.name):
            await store.append([rust_event(event)])


@each(SAMPLES)
async def test_fixture_has_living_and_deleted_entities(sample: Sample) -> None:
    assert living_states(sample)
    assert deleted_states(sample)


@each(SAMPLES)
@pytest.mark.usefixtures("rust_store")
async def test_state_reads_key_by_key_as_it_was_written(adapter: AllsourceAuthAdapter, sample: Sample) -> None:
    for key, state in living_states(sample).items():
        entity = await sample.of(adapter).get(key)
        assert written(entity, state) == {name: read(value) for name, value in state.items()}
        absent = set(entity.__struct_fields__) - {attribute(name) for name in state}
        assert absent <= sample.optional
        assert all(getattr(entity, name) is None for name in absent)
        times = [value for value in written(entity, state).values() if isinstance(value, datetime)]
        assert times
        assert all(time.tzinfo is UTC for time in times)


@each(SAMPLES)
@pytest.mark.usefixtures("rust_store")
async def test_tombstone_of_the_crate_is_a_tombstone(adapter: AllsourceAuthAdapter, sample: Sample) -> None:
    for key in deleted_states(sample):
        assert await sample.of(adapter).get(key) is None
        assert not await sample.of(adapter).exists(key)
    living = {sample.key_of(entity) async for entity in sample.of(adapter).scan()}
    assert living == set(living_states(sample))


@each(SAMPLES)
@pytest.mark.usefixtures("rust_store")
async def test_history_has_the_changes_of_the_crate(adapter: AllsourceAuthAdapter, sample: Sample) -> None:
    name = "".join(word.capitalize() for word in sample.name.split("_"))
    for key, events in events_of_the_crate(sample).items():
        changes = await sample.of(adapter).history(key)
        verbs = [event["event_type"].removeprefix(f"auth.{sample.name}.") for event in events]
        labels = ["".join(word.capitalize() for word in verb.split("_")) for verb in verbs]
        assert [change.event for change in changes] == [f"{name}{label}" for label in labels]
        assert [change.wire_type for change in changes] == [event["event_type"] for event in events]
        for change, event in zip(changes, events, strict=True):
            if "_deleted" in event["payload"]:
                assert change.state is None
            else:
                state = {name: read(value) for name, value in event["payload"].items()}
                assert written(change.state, event["payload"]) == state
                assert await sample.of(adapter).as_of(key, change.event_id) == change.state
            assert (change.seq, change.op, change.actor) == (None, None, None)


@each([sample for sample in SAMPLES if sample.restorable])
@pytest.mark.usefixtures("rust_store")
async def test_entity_deleted_by_the_crate_can_be_restored(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    for key, state in deleted_states(sample).items():
        if state.get("organizationId") in deleted_states(sample_of("org")):
            with pytest.raises(OrganizationNotFound):
                await sample.of(adapter).restore(key)
            await adapter.organizations.restore(state["organizationId"])
        back = await sample.of(adapter).restore(key)
        now = {"updatedAt": START} if "updatedAt" in state else {}
        assert written(back, state) == {name: read(value) for name, value in state.items()} | now
        newest = (await stored(store, sample.prefix + key))[-1]
        fresh = {"updatedAt": "2026-11-23T12:00:00.000000Z"} if "updatedAt" in state else {}
        assert payload(newest) == {**state, **fresh}
        assert await sample.of(adapter).get(key) == back


@each([sample for sample in SAMPLES if not sample.restorable])
@pytest.mark.usefixtures("rust_store")
async def test_secret_deleted_by_the_crate_cannot_be_restored(adapter: AllsourceAuthAdapter, sample: Sample) -> None:
    for key in deleted_states(sample):
        with pytest.raises(InvalidInput):
            await adapter.context.collections[sample.name].restore(key)


@pytest.mark.usefixtures("rust_store")
async def test_restored_entity_is_found_by_unique_values_and_indexes(adapter: AllsourceAuthAdapter) -> None:
    (organization_id,) = deleted_states(sample_of("org"))
    organization = await adapter.organizations.restore(organization_id)
    assert await adapter.organizations.get_by_slug("rm-org-del") == organization
    back = {
        sample.name: [await sample.of(adapter).restore(key) for key in deleted_states(sample)]
        for sample in SAMPLES
        if sample.restorable and sample.name not in ("user", "org")
    }
    for account in back["account"]:
        assert await adapter.accounts.get_by_provider(account.provider_id, account.account_id) == account
        assert account in await adapter.accounts.list_for_user(account.user_id)
    for member in back["member"]:
        assert await adapter.members.find(member.organization_id, member.user_id) == member
        assert member in await adapter.members.list_for_organization(member.organization_id)
        with pytest.raises(Conflict):
            await adapter.members.create(organization_id=member.organization_id, user_id=member.user_id)
    for invitation in back["invitation"]:
        assert invitation in await adapter.invitations.list_for_organization(invitation.organization_id)
        assert await adapter.invitations.find_pending(organization_id, invitation.email.upper()) == invitation
    for factor in back["two_factor"]:
        assert await adapter.two_factors.get_by_user(factor.user_id) == factor
    for key in back["api_key"]:
        assert await adapter.api_keys.get_by_hash(key.key_hash) == key
    for passkey in back["passkey"]:
        assert await adapter.passkeys.get_by_credential_id(passkey.credential_id) == passkey
    assert all(back.values())


@each([sample for sample in SAMPLES if sample.touch is not None and sample.name != "two_factor"])
@pytest.mark.usefixtures("rust_store")
async def test_change_keeps_other_members_as_the_crate_wrote_them(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    """Without second factors: they are looked up by user, which needs a claim that the crate does not write."""
    assert sample.touch is not None
    for key, state in living_states(sample).items():
        await sample.touch(adapter, await sample.of(adapter).get(key))
        newest = (await stored(store, sample.prefix + key))[-1]
        assert payload(newest) == {**state, **sample.touched}


@each(SAMPLES)
async def test_creation_writes_the_keys_of_the_rust_crate(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    """Without optional values: they are null, except the few that are omitted."""
    entity = await sample.create(adapter)
    (event,) = await stored(store, sample.stream(entity))
    assert event.type == f"auth.{sample.name}.created"
    ours = payload(event)
    theirs = [event["payload"] for event in rust_events(sample.name) if event["event_type"].endswith(".created")]
    assert theirs
    assert all(set(ours) == set(their) - sample.optional for their in theirs)
    for their in theirs:
        common = shape(ours).keys() & shape(their).keys()
        assert {key: shape(ours)[key] for key in common} == {key: shape(their)[key] for key in common}


@each(SAMPLES)
@pytest.mark.usefixtures("rust_store")
async def test_tombstone_has_the_keys_of_the_rust_crate_and_the_bare_id(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    (theirs, *_) = [event["payload"] for event in rust_events(sample.name) if "_deleted" in event["payload"]]
    if sample.name == "invitation":
        await adapter.organizations.create(name="O", slug="o", id="o")
    entity = await sample.create(adapter)
    match sample.name:
        case "invitation":
            await adapter.organizations.delete("o")
        case "two_factor":
            await adapter.two_factors.delete_for_user(entity.user_id)
        case _:
            await sample.of(adapter).delete(sample.key_of(entity))
    (*_, event) = await stored(store, sample.stream(entity))
    assert event.type == f"auth.{sample.name}.deleted"
    ours = payload(event)
    assert set(ours) == set(theirs)
    assert (ours["_deleted"], ours["id"]) == (True, entity.id)
    assert all(value == getattr(entity, attribute(key)) for key, value in ours.items() if key != "_deleted")
