"""Common behaviour of accounts, second factors, API keys and passkeys: each belongs to a user and has a unique value."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, User, UserNotFound
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import CANARY, revealed
from tests.support.clocks import ManualClock
from tests.support.credentials import CREDENTIALS, TWO_FACTOR, Credential
from tests.support.events import metadata, payload, rust_event, rust_events, stored, whole_log, written_by
from tests.support.wrappers import CountingStore

pytestmark = pytest.mark.tables

CALLERS = 50
MISSING = ("nothing", "", "x" * 500)

LISTED = [credential for credential in CREDENTIALS if credential is not TWO_FACTOR]


def each(credentials: Any = CREDENTIALS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sort", credentials, ids=lambda credential: credential.kind)


def touched(entity: Any, **changes: Any) -> Any:
    """Return ``entity`` with these changes, and with a new ``updated_at`` if the kind has one."""
    if not hasattr(entity, "updated_at"):
        changes.pop("updated_at", None)
    return msgspec.structs.replace(entity, **changes)


async def remove(adapter: AllsourceAuthAdapter, sort: Credential, entity: Any) -> None:
    if sort is TWO_FACTOR:
        await adapter.two_factors.delete_for_user(entity.user_id)
    else:
        await sort.of(adapter).delete(entity.id)


@each()
async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock, sort: Credential) -> None:
    made = await sort.make(adapter, id="my/ID @ é", **sort.optional)
    wanted = {"user_id": "u", **sort.defaults, **sort.unique(0), **sort.required, **sort.optional}
    if hasattr(made, "updated_at"):
        wanted["updated_at"] = clock()
    assert msgspec.structs.asdict(made) == {"id": "my/ID @ é", "created_at": clock(), **wanted}
    assert await sort.of(adapter).get(made.id) == made
    assert await sort.find(adapter, made) == made


@each()
async def test_what_is_not_given_has_its_default(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    made = await sort.make(adapter)
    assert {name: getattr(made, name) for name in sort.defaults} == sort.defaults
    assert await sort.of(adapter).get(made.id) == made


@each()
async def test_user_need_not_exist(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    made = await sort.make(adapter, user_id="nobody")
    assert await sort.find(adapter, made) == made


@each()
async def test_look_ups_of_missing_values_return_nothing(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    made = await sort.make(adapter)
    (name, value), *_ = [*sort.unique(0).items()][::-1]
    for other in (value.upper(), f"{value} ", "", "\ud800", "x" * 500):
        assert await sort.find(adapter, msgspec.structs.replace(made, **{name: other})) is None
    for missing in MISSING:
        assert await sort.of(adapter).get(missing) is None
        assert not await sort.of(adapter).exists(missing)
        assert await sort.of(adapter).history(missing) == []


@each()
async def test_look_up_by_other_than_text_is_refused(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    made = await sort.make(adapter)
    for name in sort.unique(0):
        with pytest.raises(InvalidInput) as caught:
            await sort.find(adapter, msgspec.structs.replace(made, **{name: 7}))
        assert caught.value.field == name


@each()
async def test_value_that_is_taken_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter)
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await sort.make(adapter, **{"user_id": "other", **sort.unique(0)})
    assert (caught.value.kind, caught.value.field) == (sort.kind, sort.field)
    assert not any(
        value in f"{caught.value!r} {caught.value} {vars(caught.value)}" for value in sort.unique(0).values()
    )
    assert written.events == []
    assert await sort.find(adapter, made) == made
    assert (await sort.make(adapter, 1)).id != made.id


@pytest.mark.race
@each()
async def test_one_of_many_with_one_value_wins(make_adapter: MakeAdapter, sort: Credential) -> None:
    seen = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(*[sort.make(seen[number % 2]) for number in range(CALLERS)], return_exceptions=True)
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert sum(isinstance(outcome, Conflict) and outcome.field == sort.field for outcome in outcomes) == CALLERS - 1
    assert await sort.find(seen[1], winner) == winner
    assert [found async for found in sort.of(seen[0]).scan()] == [winner]


@each()
async def test_chosen_id_that_exists_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter, id="same")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await sort.make(adapter, 1, id="same")
    assert (caught.value.kind, caught.value.field) == (sort.kind, "id")
    assert written.events == []
    assert await sort.of(adapter).get("same") == made


@each()
async def test_change_is_visible_and_in_the_history(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, sort: Credential
) -> None:
    made = await sort.make(adapter, **sort.optional)
    later = clock.move(timedelta(minutes=1))
    changed = await sort.change(adapter, made)
    assert changed == touched(made, updated_at=later, **sort.changed)
    assert await sort.of(adapter).get(made.id) == changed
    assert await sort.find(adapter, made) == changed
    history = await sort.of(adapter).history(made.id)
    assert [change.state for change in history] == [made, changed]
    assert set(history[1].diff) - {"updated_at"} == set(sort.changed)
    assert [event.type for event in await stored(store, sort.stream(made))] == [
        f"auth.{sort.kind}.created",
        f"auth.{sort.kind}.updated",
    ]


@each()
async def test_change_of_a_missing_entity_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter)
    await remove(adapter, sort, made)
    async with written_by(store) as written:
        for missing in (made.id, *MISSING):
            with pytest.raises(sort.not_found) as caught:
                await sort.change(adapter, msgspec.structs.replace(made, id=missing))
            assert type(caught.value) is sort.not_found
            assert caught.value.kind == sort.kind
    assert written.events == []


@each()
async def test_deleted_entity_is_not_found(adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential) -> None:
    made, kept = await sort.make(adapter), await sort.make(adapter, 1)
    await remove(adapter, sort, made)
    assert await sort.of(adapter).get(made.id) is None
    assert await sort.find(adapter, made) is None
    assert await sort.find(adapter, kept) == kept
    newest = (await stored(store, sort.stream(made)))[-1]
    assert newest.type == f"auth.{sort.kind}.deleted"
    beside = {key: getattr(made, name) for name, key in sort.beside.items()}
    assert payload(newest) == {"_deleted": True, "id": made.id, **beside}


@each()
async def test_deleting_a_missing_entity_does_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter)
    await remove(adapter, sort, made)
    async with written_by(store) as written:
        await remove(adapter, sort, made)
        for missing in MISSING:
            await remove(adapter, sort, msgspec.structs.replace(made, id=missing, user_id=missing))
    assert written.events == []


@each()
async def test_value_and_id_are_free_after_a_deletion(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    made = await sort.make(adapter, id="same")
    await remove(adapter, sort, made)
    again = await sort.make(adapter, id="same")
    assert await sort.find(adapter, made) == again


@each()
async def test_restored_entity_is_unchanged(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, sort: Credential
) -> None:
    made = await sort.make(adapter, **sort.optional)
    changed = await sort.change(adapter, made)
    await remove(adapter, sort, made)
    later = clock.move(timedelta(hours=1))
    back = await sort.of(adapter).restore(made.id)
    assert back == touched(changed, updated_at=later)
    assert await sort.find(adapter, made) == back
    events = await stored(store, sort.stream(made))
    assert events[-1].type == f"auth.{sort.kind}.updated"
    assert metadata(events[-1])["restores"] == events[1].id
    with pytest.raises(Conflict):
        await sort.make(adapter)
    async with written_by(store) as written:
        assert await sort.of(adapter).restore(made.id) == back
    assert written.events == []


@each()
async def test_value_taken_meanwhile_conflicts_with_a_restore(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter)
    await remove(adapter, sort, made)
    taker = await sort.make(adapter)
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await sort.of(adapter).restore(made.id)
    assert (caught.value.kind, caught.value.field) == (sort.kind, sort.field)
    assert written.events == []
    assert await sort.of(adapter).get(made.id) is None
    assert await sort.find(adapter, made) == taker
    await remove(adapter, sort, taker)
    assert (await sort.of(adapter).restore(made.id)).id == made.id


@each()
async def test_missing_entity_cannot_be_restored_or_reverted(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    async with written_by(store) as written:
        for missing in MISSING:
            with pytest.raises(sort.not_found):
                await sort.of(adapter).restore(missing)
            with pytest.raises(sort.not_found):
                await sort.of(adapter).revert(missing, to="no event")
    assert written.events == []


@pytest.mark.race
@each()
async def test_concurrent_restores_write_one_restoration(
    make_adapter: MakeAdapter, store: EventStore, sort: Credential
) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await sort.make(seen[0])
    await remove(seen[0], sort, made)
    back = await asyncio.gather(*[sort.of(seen[number % 2]).restore(made.id) for number in range(20)])
    assert back == [back[0]] * 20
    assert len(await stored(store, sort.stream(made))) == 3


@each()
async def test_restore_under_a_deleted_user_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, sort: Credential
) -> None:
    made = await sort.make(adapter, **{**sort.unique(0), "user_id": ada.id})
    await adapter.users.delete(ada.id)
    assert await sort.of(adapter).get(made.id) is None
    async with written_by(store) as written:
        with pytest.raises(UserNotFound):
            await sort.of(adapter).restore(made.id)
    assert written.events == []
    await adapter.users.restore(ada.id)
    assert await sort.of(adapter).get(made.id) is None
    back = await sort.of(adapter).restore(made.id)
    assert await sort.find(adapter, made) == back


async def orphan(adapter: AllsourceAuthAdapter, ada: User, sort: Credential) -> Any:
    """A credential that was created just after its user was deleted, as by a slow writer."""
    await adapter.users.delete(ada.id)
    return await sort.make(adapter, **{**sort.unique(0), "user_id": ada.id})


@each([credential for credential in CREDENTIALS if credential.kind in ("account", "passkey")])
async def test_look_up_by_value_skips_children_of_deleted_users(
    adapter: AllsourceAuthAdapter, ada: User, sort: Credential
) -> None:
    left = await orphan(adapter, ada, sort)
    assert await sort.of(adapter).get(left.id) == left
    assert await sort.find(adapter, left) is None


@each()
async def test_child_of_a_deleted_user_blocks_no_value(
    adapter: AllsourceAuthAdapter, ada: User, sort: Credential
) -> None:
    left = await orphan(adapter, ada, sort)
    wanted: dict[str, Any] = {"user_id": ada.id if sort is TWO_FACTOR else "other"}
    again = await sort.make(adapter, **wanted)
    assert await sort.of(adapter).get(left.id) is None
    assert await sort.of(adapter).get(again.id) == again


@each(LISTED)
async def test_list_is_newest_first_then_by_id(
    adapter: AllsourceAuthAdapter, clock: ManualClock, sort: Credential
) -> None:
    made = {}
    for number, name in enumerate("bdacfe"):
        made[name] = await sort.make(adapter, number, id=name)
        if number % 3 == 2:
            clock.move(timedelta(seconds=1))
    await sort.make(adapter, 10, user_id="other")
    assert await sort.of(adapter).list_for_user("u") == [made[name] for name in "fecdba"]
    await sort.of(adapter).delete("e")
    changed = await sort.change(adapter, made["c"])
    listed = await sort.of(adapter).list_for_user("u")
    assert listed == [made["f"], changed, made["d"], made["b"], made["a"]]


@each(LISTED)
async def test_list_of_an_unknown_user_is_empty(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    await sort.make(adapter)
    for nobody in (*MISSING, " ", "U", "\ud800"):
        assert await sort.of(adapter).list_for_user(nobody) == []


@pytest.mark.race
@each(LISTED)
async def test_concurrent_creations_are_all_listed(make_adapter: MakeAdapter, sort: Credential) -> None:
    seen = [make_adapter(), make_adapter()]
    made = await asyncio.gather(*[sort.make(seen[number % 2], number) for number in range(CALLERS)])
    listed = await sort.of(seen[0]).list_for_user("u")
    assert listed == sorted(made, key=lambda entity: entity.id, reverse=True)


@each()
async def test_keys_are_those_of_the_rust_crate(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter, **sort.optional)
    changed = await sort.change(adapter, made)
    theirs = [event["payload"] for event in rust_events(sort.kind) if "_deleted" not in event["payload"]]
    assert theirs
    for event in await stored(store, sort.stream(changed)):
        ours = payload(event)
        for their in theirs:
            assert set(ours) == set(their)
            assert all(type(ours[key]) is type(their[key]) for key in ours if None not in (ours[key], their[key]))


@each()
async def test_what_the_rust_crate_wrote_is_read(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    newest = {}
    for event in rust_events(sort.kind):
        await store.append([rust_event(event)])
        newest[event["entity_id"]] = event["payload"]
    assert any("_deleted" in their for their in newest.values())
    for stream, their in newest.items():
        found = await sort.of(adapter).get(stream.removeprefix(sort.prefix))
        if "_deleted" in their:
            assert found is None
            continue
        members = msgspec.to_builtins(found)
        assert set(members) == set(their)
        for key, value in their.items():
            if value is not None and (key.endswith("At") or key == "lastRequest"):
                assert members[key] == f"{value[:26]}Z"
            else:
                assert members[key] == value


@each()
async def test_diff_hides_secrets(adapter: AllsourceAuthAdapter, sort: Credential) -> None:
    made = await sort.make(adapter, **sort.optional)
    await sort.change(adapter, made)
    await remove(adapter, sort, made)
    created, updated, deleted = await sort.of(adapter).history(made.id)
    for name in sort.secrets:
        assert CANARY in getattr(created.state, name)
        assert created.diff[name] == (None, "***")
        assert deleted.diff[name] == ("***", None)
    assert all(not revealed(repr(updated.diff[name])) for name in sort.changed)


@pytest.mark.heavy
@each()
async def test_creation_is_one_append_and_at_most_a_read(
    make_adapter: MakeAdapter, store: EventStore, sort: Credential
) -> None:
    counted = CountingStore(store)
    adapter = make_adapter(store=counted)
    await adapter.users.create(id="warm")
    for number in range(3):
        counted.forget()
        await sort.make(adapter, number)
        assert [len(batch) for batch in counted.appends] == [sort.events]
        # On a store that loses versions on restart, a new claim is read back.
        assert len(counted.reads) <= (2 if counted.loses_versions_on_restart else 1)


@pytest.mark.heavy
@each()
async def test_look_ups_take_few_reads(make_adapter: MakeAdapter, store: EventStore, sort: Credential) -> None:
    counted = CountingStore(store)
    adapter = make_adapter(store=counted)
    made = [await sort.make(adapter, number) for number in range(20)]
    counted.forget()
    assert await sort.of(adapter).get(made[7].id) == made[7]
    assert counted.reads == [sort.stream(made[7])]
    counted.forget()
    assert await sort.find(adapter, made[7]) == made[7]
    assert len(counted.reads) <= (3 if sort.kind in ("account", "passkey") else 2)
    assert (counted.scanned, counted.appends) == (0, [])


@each()
async def test_no_secret_is_in_a_name_or_in_metadata(
    adapter: AllsourceAuthAdapter, store: EventStore, sort: Credential
) -> None:
    made = await sort.make(adapter, **sort.optional)
    await sort.change(adapter, made)
    await remove(adapter, sort, made)
    events = await whole_log(store)
    assert len(events) > sort.events
    for event in events:
        assert not revealed(f"{event.stream} {bytes(event.metadata)!r}")
        if event.type.startswith("auth.index."):
            assert not revealed(bytes(event.payload).decode())
