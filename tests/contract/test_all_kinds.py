"""Behaviour of every kind: undecodable states, unknown members, index entries out of order."""

from collections.abc import Sequence
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, InvalidInput, Json, User
from tests.support.canaries import CANARY
from tests.support.clocks import START
from tests.support.events import metadata, new_event, payload, stored, written_by
from tests.support.samples import SAMPLES, Sample, list_of, sample_of

pytestmark = pytest.mark.tables

CHANGEABLE = [sample for sample in SAMPLES if sample.touch is not None]
RESTORABLE = [sample for sample in SAMPLES if sample.restorable]
LISTS = [(sample, *found) for sample in SAMPLES for found in sample.lists]
SECRET_KEYS = ("session", "verification")

NANOSECONDS = "2026-11-23T10:59:20.552604072Z"
UNKNOWN = {"teamId": "t", "later": [1.5, {"a": None}], "seenAt": NANOSECONDS, "flag": False}
UNIQUE = {"account": "account_id", "api_key": "key_hash", "passkey": "credential_id", "member": "user_id"}


def each(samples: Sequence[Sample]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", samples, ids=str)


async def rewritten(store: EventStore, stream: str, kind: str, **members: Any) -> Any:
    """Append the newest state once more, with these members, as another program would; return the new state."""
    state = {**payload((await stored(store, stream))[-1]), **members}
    await store.append([new_event(stream, state, type=f"auth.{kind}.updated")])
    return state


@each(SAMPLES)
@pytest.mark.parametrize(
    ("broken", "path"), [({"createdAt": CANARY}, "$.createdAt"), ({"id": [CANARY]}, "$.id")], ids=["time", "id"]
)
async def test_undecodable_state_raises_json_error_with_its_location(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample, broken: dict[str, Any], path: str
) -> None:
    entity = await sample.create(adapter)
    stream = sample.stream(entity)
    await rewritten(store, stream, sample.name, **broken)
    event = (await stored(store, stream))[-1]
    with pytest.raises(Json) as caught:
        await sample.of(adapter).get(sample.key_of(entity))
    error = caught.value
    assert (error.event_id, error.path) == (event.id, path)
    assert error.stream == (f"{sample.prefix}***" if sample.name in SECRET_KEYS else stream)
    for fact in (error.stream, error.event_id, error.path):
        assert fact
        assert fact in str(error)
    assert await sample.of(adapter).exists(sample.key_of(entity))


@each(SAMPLES)
async def test_missing_required_field_raises_json_error_with_its_path(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    entity = await sample.create(adapter)
    stream = sample.stream(entity)
    state = payload((await stored(store, stream))[-1])
    del state["createdAt"]
    await store.append([new_event(stream, state, type=f"auth.{sample.name}.updated")])
    event = (await stored(store, stream))[-1]
    with pytest.raises(Json) as caught:
        await sample.of(adapter).get(sample.key_of(entity))
    assert (caught.value.event_id, caught.value.path) == (event.id, "$.createdAt")
    assert str(caught.value).endswith(" at $.createdAt")


async def three(adapter: AllsourceAuthAdapter, sample: Sample, **given: Any) -> list[Any]:
    """Create three entities of a kind in the same index."""
    field = UNIQUE.get(sample.name)
    differing = [{} if field is None else {field: f"v{number}"} for number in range(3)]
    return [await sample.create(adapter, **given, **values) for values in differing]


@pytest.mark.parametrize(("sample", "call", "field"), LISTS, ids=lambda value: str(value))
async def test_undecodable_state_does_not_hide_others_in_an_index(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample, call: str, field: str
) -> None:
    made = await three(adapter, sample)
    value = getattr(made[0], field)
    complete = await getattr(sample.of(adapter), call)(value)
    assert {entity.id for entity in complete} == {entity.id for entity in made}
    await rewritten(store, sample.stream(made[1]), sample.name, createdAt=CANARY)
    assert await getattr(sample.of(adapter), call)(value) == [found for found in complete if found.id != made[1].id]


async def test_undecodable_member_is_not_counted(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    for user in ("u", "v", "w"):
        await adapter.members.create(organization_id="o", user_id=user, role="owner", id=user)
    await rewritten(store, "auth-member:v", "member", role=7)
    assert (await adapter.members.count("o"), await adapter.members.count_owners("o")) == (2, 2)


async def test_cascade_skips_undecodable_children(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    """For every kind that is found by an index. The undecodable entities stay."""
    kept = [sample for sample in SAMPLES if ("list_for_user", "user_id") in sample.lists]
    for sample in kept:
        first, _, _ = await three(adapter, sample, user_id=ada.id)
        await rewritten(store, sample.stream(first), sample.name, createdAt=CANARY)
    await adapter.users.delete(ada.id)
    for sample in kept:
        assert await sample.of(adapter).list_for_user(ada.id) == []
        assert len([event async for page in store.scan(f"auth.{sample.name}.deleted") for event in page]) == 2


async def test_cascade_skips_an_undecodable_second_factor(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    factor = await adapter.two_factors.create(user_id=ada.id, secret=CANARY)
    key = await adapter.api_keys.create(user_id=ada.id, key_hash=CANARY)
    await rewritten(store, f"auth-2fa:{factor.id}", "two_factor", createdAt=CANARY)
    await adapter.users.delete(ada.id)
    assert await adapter.api_keys.get(key.id) is None


@each(CHANGEABLE)
async def test_unknown_fields_survive_an_update(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    entity = await sample.create(adapter)
    state = await rewritten(store, sample.stream(entity), sample.name, **UNKNOWN, createdAt=NANOSECONDS)
    assert sample.touch is not None
    await sample.touch(adapter, entity)
    newest = (await stored(store, sample.stream(entity)))[-1]
    assert payload(newest) == {**state, **sample.touched}


@each(RESTORABLE)
async def test_unknown_fields_survive_a_deletion_with_a_restore(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    entity = await sample.create(adapter)
    stream = sample.stream(entity)
    state = await rewritten(store, stream, sample.name, **UNKNOWN, createdAt=NANOSECONDS)
    tombstone = {"_deleted": True, "id": entity.id}
    await store.append([new_event(stream, tombstone, type=f"auth.{sample.name}.deleted")])
    await sample.of(adapter).restore(entity.id)
    now = {"updatedAt": "2026-11-23T12:00:00.000000Z"} if "updatedAt" in state else {}
    assert payload((await stored(store, stream))[-1]) == {**state, **now}


async def test_verification_with_unknown_fields_is_consumed(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    """It is never written again, so no member can be lost."""
    sample = sample_of("verification")
    entity = await sample.create(adapter)
    await rewritten(store, sample.stream(entity), sample.name, **UNKNOWN)
    assert await adapter.verifications.get(entity.id) == entity
    async with written_by(store) as written:
        assert await adapter.verifications.consume(entity.identifier, entity.value) == entity
    assert written.types[0] == "auth.verification.consumed"


@each([sample for sample in SAMPLES if not sample.restorable])
@pytest.mark.parametrize("call", ["restore", "revert"])
async def test_deleted_secret_cannot_be_restored_or_reverted(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample, call: str
) -> None:
    entity = await sample.create(adapter)
    key = sample.key_of(entity)
    (created,) = await sample.of(adapter).history(key)
    await sample.of(adapter).delete(key)
    arguments = (key,) if call == "restore" else (key, created.event_id)
    async with written_by(store) as written:
        with pytest.raises(InvalidInput) as caught:
            await getattr(adapter.context.collections[sample.name], call)(*arguments)
    assert caught.value.field == sample.key
    assert written.events == []


IN_LISTS = [
    ("account", "user", "user_id"),
    ("member", "organization", "organization_id"),
    ("member", "user", "user_id"),
    ("api_key", "user", "user_id"),
    ("passkey", "user", "user_id"),
]


@pytest.mark.parametrize(("kind", "name", "field"), IN_LISTS)
async def test_index_entries_have_the_seq_of_their_entity_event(
    adapter: AllsourceAuthAdapter, store: EventStore, kind: str, name: str, field: str
) -> None:
    sample = sample_of(kind)
    entity = await sample.create(adapter)
    await sample.of(adapter).delete(entity.id)
    await sample.of(adapter).restore(entity.id)
    entries = await stored(store, list_of(sample.name, name, getattr(entity, field)))
    own = await stored(store, sample.stream(entity))
    assert [(entry.type, metadata(entry)["entitySeq"]) for entry in entries] == [
        ("auth.index.added", 1),
        ("auth.index.removed", 2),
        ("auth.index.added", 3),
    ]
    assert [metadata(event)["seq"] for event in own] == [1, 2, 3]
    assert [metadata(entry)["op"] for entry in entries] == [metadata(event)["op"] for event in own]


@pytest.mark.parametrize(
    ("late", "listed"),
    [
        ([("removed", 2)], True),
        ([("added", 1), ("removed", 2)], True),
        ([("removed", 2), ("removed", 2)], True),
        ([("removed", 4)], False),
        ([("removed", 4), ("added", 3)], False),
        ([("removed", 4), ("added", 5)], True),
        ([("removed", None)], False),
        ([("removed", None), ("added", None)], True),
    ],
    ids=str,
)
async def test_late_index_entry_is_ignored(
    adapter: AllsourceAuthAdapter, store: EventStore, late: list[tuple[str, int | None]], listed: bool
) -> None:
    """A member was deleted and restored; the `removed` entry of the deletion is stored after the `added` entry of the restore.

    Entries of other programs have no number. They count in the order in which they are stored.
    """
    member = await adapter.members.create(organization_id="o", user_id="u")
    await adapter.members.create(organization_id="o", user_id="other", id="other")
    await adapter.members.delete(member.id)
    await adapter.members.restore(member.id)
    for verb, seq in late:
        written = {"v": 1, "op": "f" * 32} | ({} if seq is None else {"entitySeq": seq})
        entry = {"v": 1, "stream": f"auth-member:{member.id}"}
        await store.append(
            [new_event(list_of("member", "organization", "o"), entry, type=f"auth.index.{verb}", metadata=written)]
        )
    found = await adapter.members.list_for_organization("o")
    assert {entity.id for entity in found} == ({member.id, "other"} if listed else {"other"})
    assert await adapter.members.count("o") == len(found)


@each(RESTORABLE)
async def test_history_has_creation_deletion_and_restore(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    entity = await sample.create(adapter)
    if sample.name == "invitation":
        await adapter.organizations.create(name="O", slug="o", id="o")
        await adapter.organizations.delete("o")
        await adapter.organizations.restore("o")
    else:
        remove = getattr(sample.of(adapter), "delete", None)
        await (adapter.two_factors.delete_for_user("u") if remove is None else remove(entity.id))
    back = await sample.of(adapter).restore(entity.id)
    created, deleted, restored = await sample.of(adapter).history(entity.id)
    name = "".join(word.capitalize() for word in sample.name.split("_"))
    assert [change.event for change in (created, deleted, restored)] == [
        f"{name}Created",
        f"{name}Deleted",
        f"{name}Updated",
    ]
    assert restored.restores == created.event_id
    assert (created.state, deleted.state, restored.state) == (entity, None, back)
    assert await sample.of(adapter).as_of(entity.id, created.event_id) == entity
    assert await sample.of(adapter).as_of(entity.id, deleted.event_id) is None
    assert back.created_at == START
