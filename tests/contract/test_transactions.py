"""Transactions."""

# ruff: noqa: PT012 - a transaction is a block, and ends with it

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import timedelta

import msgspec
import pytest

from allsource_auth import (
    AllsourceAuthAdapter,
    AllsourceAuthError,
    Conflict,
    Event,
    EventStore,
    InvalidInput,
    NewEvent,
    StoreClosed,
    User,
    UserNotFound,
    VersionConflict,
    audit,
)
from allsource_auth.audit import encode_metadata, metadata_of
from allsource_auth.store.base import is_newer_by_time
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored_user, whole_log
from tests.support.names import claim_stream
from tests.support.sign_ups import sign_up
from tests.support.wrappers import CountingStore, CrashingStore, DelayedStore, PatientStore


async def test_a_sign_up_is_one_append(store: EventStore, make_adapter: MakeAdapter, clock: ManualClock) -> None:
    counting = CountingStore(store)
    adapter = make_adapter(store=counting)
    await adapter.users.create(id="warm")
    counting.forget()
    async with adapter.transaction() as tx:
        user = await sign_up(tx, "ada", email("Ada"), clock)
        assert counting.appends == []
    (batch,) = counting.appends
    assert Counter(event.type for event in batch) == Counter(
        {
            "auth.index.claimed": 3,
            "auth.index.added": 2,
            "auth.user.created": 1,
            "auth.account.created": 1,
            "auth.session.created": 1,
        }
    )
    assert await adapter.users.get_by_email(email("Ada")) == user
    assert await adapter.users.get_by_username("ada") == user
    (account,) = await adapter.accounts.list_for_user(user.id)
    assert await adapter.accounts.get_by_provider("credential", user.id) == account
    (session,) = await adapter.sessions.list_for_user(user.id)
    found = await adapter.load_session(session.token)
    assert found is not None
    assert found.user == user


async def test_all_events_carry_one_operation(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    with audit(actor="form", reason="why not"):
        async with adapter.transaction() as tx:
            await sign_up(tx, "ada", email("Ada"), clock)
    events = [event for event in await whole_log(store) if event.type != "auth.index.configured"]
    assert len({metadata_of(event).op for event in events}) == 1
    assert {metadata_of(event).actor for event in events} == {"form"}


async def test_writes_are_visible_inside_and_not_outside(
    adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    async with adapter.transaction() as tx:
        await tx.users.update(ada.id, name="Lovelace")
        eve = await tx.users.create(email=email("Eve"))
        session = await tx.sessions.create(user_id=eve.id, expires_at=clock() + timedelta(days=1))
        changed = await tx.users.get(ada.id)
        assert changed is not None
        assert changed.name == "Lovelace"
        assert await tx.users.get_by_email(email("Eve")) == eve
        assert await tx.sessions.list_for_user(eve.id) == [session]
        assert (await tx.users.list()).total == 2
        assert [user.id async for user in tx.users.scan()] == sorted([ada.id, eve.id])
        assert await tx.users.get_many([ada.id, eve.id]) == {ada.id: changed, eve.id: eve}
        assert len(await tx.users.history(ada.id)) == 2

        assert await adapter.users.get(ada.id) == ada
        assert await adapter.users.get(eve.id) is None
        assert await adapter.users.get_by_email(email("Eve")) is None
        assert (await adapter.users.list()).total == 1
    assert await adapter.users.get(ada.id) == changed
    assert (await adapter.users.list()).total == 2


async def test_mutations_of_one_entity_become_one_event(
    adapter: AllsourceAuthAdapter, ada: User, store: EventStore
) -> None:
    before = len(await whole_log(store))
    async with adapter.transaction() as tx:
        await tx.users.update(ada.id, name="one")
        await tx.users.update(ada.id, role="two")
        await tx.users.update(ada.id, name="three")
    assert len(await whole_log(store)) == before + 1
    (change,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    assert set(change.diff) - {"updated_at"} == {"name", "role"}


async def test_entity_created_and_deleted_inside_leaves_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    before = await whole_log(store)
    async with adapter.transaction() as tx:
        eve = await tx.users.create(email=email("Eve"))
        await tx.users.delete(eve.id)
    async with adapter.transaction():
        pass
    assert await whole_log(store) == before
    await adapter.users.create(email=email("Eve"))


async def test_exception_inside_leaves_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, clock: ManualClock
) -> None:
    before = await whole_log(store)
    with pytest.raises(LookupError):
        async with adapter.transaction() as tx:
            await sign_up(tx, "eve", email("Eve"), clock)
            await tx.users.delete(ada.id)
            raise LookupError
    assert await whole_log(store) == before
    assert await adapter.users.get(ada.id) == ada


async def test_conflict_inside_can_be_caught_and_the_rest_is_stored(adapter: AllsourceAuthAdapter, ada: User) -> None:
    async with adapter.transaction() as tx:
        with pytest.raises(Conflict) as caught:
            await tx.users.create(email=email("ADA"))
        assert (caught.value.kind, caught.value.field) == ("user", "email")
        eve = await tx.users.create(email=email("Eve"))
    assert await adapter.users.get(eve.id) == eve


async def test_value_taken_meanwhile_conflicts_and_nothing_is_stored(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    with pytest.raises(Conflict) as caught:
        async with adapter.transaction() as tx:
            loser = await sign_up(tx, "eve", email("Eve"), clock)
            winner = await adapter.users.create(email=email("EVE"))
    assert (caught.value.kind, caught.value.field) == ("user", "email")
    assert await adapter.users.get(loser.id) is None
    assert await adapter.sessions.list_for_user(loser.id) == []
    assert await adapter.accounts.list_for_user(loser.id) == []
    assert await adapter.users.get_by_email(email("Eve")) == winner
    await adapter.users.create(username="eve")


async def test_updates_of_other_fields_meanwhile_survive(adapter: AllsourceAuthAdapter, ada: User) -> None:
    async with adapter.transaction() as tx:
        await tx.users.update(ada.id, name="Lovelace")
        await tx.users.create(email=email("Eve"))
        await adapter.users.update(ada.id, role="admin")
    user = await adapter.users.get(ada.id)
    assert user is not None
    assert (user.name, user.role) == ("Lovelace", "admin")


async def test_entity_deleted_meanwhile_cannot_be_changed(adapter: AllsourceAuthAdapter, ada: User) -> None:
    with pytest.raises(UserNotFound):
        async with adapter.transaction() as tx:
            await tx.users.update(ada.id, name="Lovelace")
            eve = await tx.users.create(email=email("Eve"))
            await adapter.users.delete(ada.id)
    assert await adapter.users.get(eve.id) is None
    await adapter.users.create(email=email("Eve"))


async def test_id_taken_meanwhile_conflicts(adapter: AllsourceAuthAdapter) -> None:
    with pytest.raises(Conflict) as caught:
        async with adapter.transaction() as tx:
            await tx.users.create(id="u1", email=email("Eve"))
            await adapter.users.create(id="u1")
    assert (caught.value.kind, caught.value.field) == ("user", "id")
    await adapter.users.create(email=email("Eve"))


async def test_token_is_consumed_together_with_the_change(
    adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    async def redeem() -> str | None:
        async with adapter.transaction() as tx:
            if await tx.verifications.consume("reset", "value") is None:
                return None
            session = await tx.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=1))
        return session.token

    await adapter.verifications.create(identifier="reset", value="value", expires_at=clock() + timedelta(hours=1))
    found = await asyncio.gather(*[redeem() for _ in range(20)], return_exceptions=True)
    tokens = [token for token in found if isinstance(token, str)]
    assert len(tokens) == 1
    assert all(token is None or isinstance(token, VersionConflict | str) for token in found)
    assert [session.token for session in await adapter.sessions.list_for_user(ada.id)] == tokens


async def test_consumption_is_the_decision_even_after_another_change(
    adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock
) -> None:
    await adapter.verifications.create(identifier="reset", value="value", expires_at=clock() + timedelta(hours=1))
    with pytest.raises(VersionConflict):
        async with adapter.transaction() as tx:
            await tx.users.update(ada.id, email_verified=True)
            assert await tx.verifications.consume("reset", "value") is not None
            assert await adapter.verifications.consume("reset", "value") is not None
    assert await adapter.users.get(ada.id) == ada


async def test_only_one_change_inside_may_depend_on_an_exact_state(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    for value in ("one", "two"):
        await adapter.verifications.create(identifier="i", value=value, expires_at=clock() + timedelta(hours=1))
    with pytest.raises(InvalidInput, match="transaction"):
        async with adapter.transaction() as tx:
            await tx.verifications.consume("i", "one")
            await tx.verifications.consume("i", "two")
    assert await adapter.verifications.find("i", "one") is not None
    assert await adapter.verifications.find("i", "two") is not None


async def test_value_cannot_move_between_entities_inside(adapter: AllsourceAuthAdapter, ada: User) -> None:
    with pytest.raises(Conflict) as caught:
        async with adapter.transaction() as tx:
            await tx.users.update(ada.id, email=email("Lovelace"))
            await tx.users.create(email=email("Ada"))
    assert (caught.value.kind, caught.value.field) == ("user", "email")
    assert await adapter.users.get_by_email(email("Ada")) == ada
    await adapter.users.create(email=email("Lovelace"))


async def test_deletion_and_restoration_inside(adapter: AllsourceAuthAdapter, ada: User, clock: ManualClock) -> None:
    await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=1))
    async with adapter.transaction() as tx:
        await tx.users.delete(ada.id)
        eve = await tx.users.create(email=email("Eve"))
        assert await tx.users.get(ada.id) is None
        assert await tx.sessions.list_for_user(ada.id) == []
    assert await adapter.users.get(ada.id) is None
    assert await adapter.sessions.list_for_user(ada.id) == []
    async with adapter.transaction() as tx:
        restored = await tx.users.restore(ada.id)
        await tx.users.update(eve.id, name="Eve")
    assert await adapter.users.get_by_email(email("Ada")) == restored
    changes = await adapter.users.history(ada.id)
    assert [change.event for change in changes] == ["UserCreated", "UserDeleted", "UserUpdated"]
    assert changes[-1].restores == changes[0].event_id


async def test_200_sign_ups_with_one_email(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    async def one(number: int) -> None:
        async with adapter.transaction() as tx:
            await sign_up(tx, f"name{number}", email("Eve"), clock)

    ends = await asyncio.gather(*[one(number) for number in range(200)], return_exceptions=True)
    assert Counter(type(end) for end in ends) == Counter({Conflict: 199, type(None): 1})
    (user,) = (await adapter.users.list()).items
    assert len(await adapter.accounts.list_for_user(user.id)) == 1
    assert len(await adapter.sessions.list_for_user(user.id)) == 1
    assert len([account async for account in adapter.accounts.scan()]) == 1
    assert len([session async for session in adapter.sessions.scan()]) == 1
    for number in (0, 1, 100, 199):
        if f"name{number}" != user.username:
            await adapter.users.create(username=f"name{number}")


async def test_ended_transaction_is_closed(adapter: AllsourceAuthAdapter) -> None:
    async with adapter.transaction() as tx:
        await tx.users.create(email=email("Eve"))
    with pytest.raises(StoreClosed, match="async with"):
        await tx.users.create(email=email("Ada"))
    with pytest.raises(StoreClosed, match="async with"):
        await tx.users.get("u1")


async def test_transaction_that_is_too_large_is_refused(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    before = await whole_log(store)
    with pytest.raises(InvalidInput, match="transaction"):
        async with adapter.transaction() as tx:
            for number in range(5):
                await tx.users.create(name="x" * 100_000, username=f"u{number}")
    assert await whole_log(store) == before


async def test_unknown_members_survive(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    payload = {
        "id": "u1", "createdAt": "2026-01-01T00:00:00.123456789Z", "updatedAt": "2026-01-01T00:00:00Z",
        "twoFactorEnabled": False, "banned": False, "emailVerified": False, "colour": "blue",
    }  # fmt: skip
    await store.append(
        [NewEvent(type="auth.user.created", stream="auth-user:u1", payload=msgspec.json.encode(payload), metadata=b"")]
    )
    async with adapter.transaction() as tx:
        await tx.users.update("u1", name="Ada")
        await tx.users.create(email=email("Eve"))
    latest = (await store.latest("auth-user:u1")).event
    assert latest is not None
    members = msgspec.json.decode(latest.payload)
    assert (members["colour"], members["createdAt"], members["name"]) == ("blue", payload["createdAt"], "Ada")


async def test_as_of_inside_sees_the_writes_inside(
    adapter: AllsourceAuthAdapter, dated: ManualClock, ada: User
) -> None:
    before = dated()
    dated.move(timedelta(minutes=1))
    async with adapter.transaction() as tx:
        changed = await tx.users.update(ada.id, name="Lovelace")
        assert await tx.users.as_of(ada.id, dated()) == changed
        assert await tx.users.as_of(ada.id, before) == ada


async def test_email_with_a_claim_that_has_no_operation_id_is_a_conflict(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    claim = {"v": 1, "owner": "auth-user:theirs", "ownerVersion": 0}
    wanted = claim_stream("email", email("Eve").lower())
    await store.append([new_event(wanted, claim, type="auth.index.claimed", metadata={})])
    await store.append([new_event("auth-user:theirs", stored_user("theirs", email=email("Eve")))])
    with pytest.raises(Conflict) as caught:
        async with adapter.transaction() as tx:
            await tx.users.create(email=email("Eve"))
    assert (caught.value.kind, caught.value.field) == ("user", "email")
    assert [user.id async for user in adapter.users.scan()] == ["theirs"]


async def test_restoration_of_an_entity_created_inside_does_not_count_as_conditional(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    await adapter.verifications.create(identifier="i", value="v", expires_at=clock() + timedelta(hours=1))
    async with adapter.transaction() as tx:
        eve = await tx.users.create(email=email("Eve"))
        await tx.users.delete(eve.id)
        restored = await tx.users.restore(eve.id)
        assert await tx.verifications.consume("i", "v")
    assert await adapter.users.get_by_email(email("Eve")) == restored
    assert await adapter.verifications.find("i", "v") is None


async def fence(store: EventStore, stream: str) -> None:
    """Append a fence: the newest state of the stream, once more."""
    newest = (await store.latest(stream, require_leader=True)).event
    assert newest is not None
    metadata = encode_metadata(op="f" * 32, seq=(metadata_of(newest).seq or 0) + 1)
    await store.append(
        [NewEvent(type="auth.index.fenced", stream=stream, payload=bytes(newest.payload), metadata=metadata)]
    )


async def test_concurrent_fence_does_not_fail_a_consumption(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    made = await adapter.verifications.create(identifier="i", value="v", expires_at=clock() + timedelta(hours=1))
    async with adapter.transaction() as tx:
        assert await tx.verifications.consume("i", "v")
        user = await tx.users.create(email=email("Eve"))
        await fence(store, f"auth-verification:{made.id}")
    assert await adapter.verifications.find("i", "v") is None
    assert await adapter.users.get_by_email(email("Eve")) == user


async def test_concurrent_change_below_a_fence_fails_a_comparison(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    made = await adapter.invitations.create(
        organization_id="o", email=email("guest"), inviter_id="u", expires_at=clock() + timedelta(hours=1)
    )
    with pytest.raises(VersionConflict):
        async with adapter.transaction() as tx:
            await tx.invitations.update_status(made.id, "accepted", expected="pending")
            await adapter.invitations.update_status(made.id, "canceled")
            await fence(store, f"auth-invitation:{made.id}")
    found = await adapter.invitations.get(made.id)
    assert found is not None
    assert found.status == "canceled"


@pytest.mark.parametrize("then", ["fenced", "deleted", "deleted and fenced"])
async def test_id_used_and_then_fenced_or_deleted_meanwhile_is_a_conflict(
    adapter: AllsourceAuthAdapter, store: EventStore, then: str
) -> None:
    with pytest.raises(Conflict) as caught:
        async with adapter.transaction() as tx:
            await tx.users.create(id="u1", name="inside")
            await adapter.users.create(id="u1", name="outside")
            if "deleted" in then:
                await adapter.users.delete("u1")
            if "fenced" in then:
                await fence(store, "auth-user:u1")
    assert (caught.value.kind, caught.value.field) == ("user", "id")
    assert [user.name async for user in adapter.users.scan()] == (["outside"] if then == "fenced" else [])


async def test_concurrent_update_below_a_fence_is_not_lost(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with adapter.transaction() as tx:
        await tx.users.update(ada.id, name="Lovelace")
        await adapter.users.update(ada.id, role="admin")
        await fence(store, f"auth-user:{ada.id}")
    user = await adapter.users.get(ada.id)
    assert user is not None
    assert (user.name, user.role) == ("Lovelace", "admin")


@pytest.mark.parametrize("fences", [0, 1, 2])
async def test_restoration_does_not_return_to_a_life_before_the_last(
    adapter: AllsourceAuthAdapter, store: EventStore, fences: int
) -> None:
    await adapter.users.create(id="u1", name="first")
    await adapter.users.delete("u1")
    with pytest.raises(VersionConflict):
        async with adapter.transaction() as tx:
            assert (await tx.users.restore("u1")).name == "first"
            await adapter.users.create(id="u1", name="second")
            await adapter.users.delete("u1")
            for _ in range(fences):
                await fence(store, "auth-user:u1")
    assert await adapter.users.get("u1") is None
    assert (await adapter.users.restore("u1")).name == "second"


async def test_concurrent_fences_do_not_fail_a_restoration(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await adapter.users.create(id="u1", name="Ada")
    await adapter.users.delete("u1")
    async with adapter.transaction() as tx:
        restored = await tx.users.restore("u1")
        await fence(store, "auth-user:u1")
        await fence(store, "auth-user:u1")
    assert await adapter.users.get("u1") == restored


async def test_append_that_is_stored_late_does_not_conflict_with_itself(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    """The reply is lost. The append is stored between the reads of the first and of the second entity for the retry."""
    delayed = DelayedStore(store, lambda call, stream: stream == "auth-user:eve")
    async with make_adapter(store=delayed).transaction() as tx:
        changed = await tx.users.update(ada.id, name="Lovelace")
        eve = await tx.users.create(id="eve")
    assert await adapter.users.get(ada.id) == changed
    assert await adapter.users.get("eve") == eve


async def half(make_adapter: MakeAdapter, store: EventStore, clock: ManualClock, kept: int) -> None:
    """The events of Eve's sign-up as one transaction: three claims, two index entries, the user, the account, the session."""
    crashing = make_adapter(store=CrashingStore(store, kept))
    with pytest.raises(AllsourceAuthError) as caught:
        async with crashing.transaction() as tx:
            await sign_up(tx, "eve", email("Eve"), clock)
    assert caught.value.ambiguous


@pytest.mark.parametrize("kept", range(9))
async def test_interrupted_sign_up_is_stored_completely_or_not_at_all(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, kept: int
) -> None:
    await adapter.users.create(id="warm")
    await half(make_adapter, store, clock, kept)
    later = PatientStore(store)
    checked = await make_adapter(store=later).check(repair=True)
    assert [finding.problem for finding in checked.findings if finding.problem == "half_transaction"] == (
        ["half_transaction"] if kept in (6, 7) else []
    )
    assert (await make_adapter(store=later).check()).findings == ()
    user = await adapter.users.get_by_email(email("Eve"))
    assert (user is not None) == (kept >= 6)
    counts = [
        len([entity async for entity in repository.scan()])
        for repository in (adapter.users, adapter.accounts, adapter.sessions)
    ]
    assert counts == ([2, 1, 1] if user is not None else [1, 0, 0])
    if user is not None:
        assert await adapter.accounts.get_by_provider("credential", user.id) is not None
        assert len(await adapter.sessions.list_for_user(user.id)) == 1
    else:
        await make_adapter(store=later).users.create(email=email("Eve"), username="eve")


class AgeingStore(PatientStore):
    """A store whose time leaps ahead once the index streams are read."""

    def __init__(self, store: EventStore) -> None:
        super().__init__(store)
        self._old = False

    def server_time(self) -> int:
        return super().server_time() if self._old else self._store.server_time()

    def heads(
        self, stream_prefix: str, type_prefix: str, *, newer: Callable[[Event, Event], bool] = is_newer_by_time
    ) -> AsyncGenerator[list[Event], None]:
        self._old = self._old or stream_prefix.startswith("auth-idx:")
        return super().heads(stream_prefix, type_prefix, newer=newer)


@pytest.mark.parametrize("kept", [6, 7])
async def test_check_keeps_index_entries_of_a_transaction_that_ages_meanwhile(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, kept: int
) -> None:
    """`check` first finds the transaction too recent to complete, and later its index entries old enough to be dead."""
    await adapter.users.create(id="warm")
    await half(make_adapter, store, clock, kept)
    await make_adapter(store=AgeingStore(store)).check(repair=True)
    user = await adapter.users.get_by_email(email("Eve"))
    assert user is not None
    with pytest.raises(Conflict):
        await adapter.accounts.create(user_id="warm", provider_id="credential", account_id=user.id)
    assert len(await adapter.accounts.list_for_user(user.id)) == 1
    assert len(await adapter.sessions.list_for_user(user.id)) == 1


async def test_contender_completes_a_decided_transaction(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    """The pair of the account is claimed, and the account is not stored yet."""
    await adapter.users.create(id="warm")
    await half(make_adapter, store, clock, kept=6)
    user = await adapter.users.get_by_email(email("Eve"))
    assert user is not None
    assert await adapter.accounts.list_for_user(user.id) == []
    with pytest.raises(Conflict):
        await adapter.accounts.create(user_id="warm", provider_id="credential", account_id=user.id)
    assert await adapter.accounts.get_by_provider("credential", user.id) is not None
    assert len(await adapter.sessions.list_for_user(user.id)) == 1


@pytest.mark.parametrize("then", ["created", "restored"])
async def test_check_does_not_apply_an_old_deletion_to_the_next_life_of_an_id(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, ada: User, then: str
) -> None:
    """The change is stored and decides, the deletion is missing. Another caller has deleted the user by then."""
    await adapter.users.create(id="eve", name="Eve")
    with pytest.raises(AllsourceAuthError):
        async with make_adapter(store=CrashingStore(store, kept=1)).transaction() as tx:
            await tx.users.update(ada.id, name="Lovelace")
            await tx.users.delete("eve")
    await adapter.users.delete("eve")
    eve = await (adapter.users.create(id="eve") if then == "created" else adapter.users.restore("eve"))
    assert (await make_adapter(store=PatientStore(store)).check(repair=True)).findings == ()
    assert await adapter.users.get("eve") == eve


async def test_value_of_an_undecided_transaction_is_free_after_the_grace_period(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    await adapter.users.create(id="warm")
    await half(make_adapter, store, clock, kept=5)
    user = await make_adapter(store=PatientStore(store)).users.create(email=email("Eve"), username="eve")
    assert await adapter.users.get_by_email(email("Eve")) == user


async def test_value_of_an_undecided_transaction_is_taken_before_that(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await adapter.users.create(id="warm")
    await half(make_adapter, store, dated, kept=5)
    with pytest.raises(Conflict):
        await adapter.users.create(email=email("Eve"))


@pytest.mark.parametrize("turns", range(40))
async def test_transaction_cancelled_at_any_point_is_stored_completely_or_not(
    make_adapter: MakeAdapter, adapter: AllsourceAuthAdapter, clock: ManualClock, turns: int
) -> None:
    async def run() -> None:
        async with adapter.transaction() as tx:
            await sign_up(tx, "eve", email("Eve"), clock)

    await adapter.users.create(id="warm")
    task = asyncio.create_task(run())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    # Tasks of a server in this event loop may still be finishing.
    assert not [other for other in asyncio.all_tasks() if "Transaction._carry_out" in repr(other)]
    user = await adapter.users.get_by_email(email("Eve"))
    accounts = [account async for account in adapter.accounts.scan()]
    sessions = [session async for session in adapter.sessions.scan()]
    assert len(accounts) == len(sessions) == (user is not None)
    if user is None:
        await make_adapter().users.create(email=email("Eve"), username="eve")
    assert (await adapter.check()).findings == ()


async def test_audit_fields_inside_are_kept_whatever_their_prefix(adapter: AllsourceAuthAdapter, ada: User) -> None:
    async with adapter.transaction() as tx:
        with audit(actor="pending-1", reason='pending-approval "/\n'):
            await tx.users.update(ada.id, name="Lovelace")
        await tx.users.create(email=email("Eve"))
    (change,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    assert (change.actor, change.reason) == ("pending-1", 'pending-approval "/\n')


async def test_links_to_events_that_were_never_stored_are_omitted(adapter: AllsourceAuthAdapter, ada: User) -> None:
    async with adapter.transaction() as tx:
        await tx.users.delete(ada.id)
        await tx.users.restore(ada.id)
        changed = await tx.users.update(ada.id, name="Lovelace")
        (first, *_) = await tx.users.history(ada.id)
        await tx.users.revert(ada.id, to=(await tx.users.history(ada.id))[-1].event_id)
    (change,) = await adapter.users.history(ada.id, newest_first=True, limit=1)
    assert (change.restores, change.reverted_to) == (None, None)
    assert change.state is not None
    assert (change.state.name, first.event) == (changed.name, "UserCreated")


async def test_transaction_is_open_only_inside_its_block(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    tx = adapter.transaction()
    with pytest.raises(StoreClosed, match="async with"):
        await tx.users.create(email=email("Eve"))
    async with tx:
        await tx.users.create(email=email("Eve"))
    before = await whole_log(store)
    with pytest.raises(StoreClosed, match="async with"):
        async with tx:
            pass
    assert await whole_log(store) == before


async def test_largest_transaction_is_stored_and_a_larger_one_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    """The decision carries all other events, here almost as many bytes as allowed. The server must accept such an event."""

    async def both(name: str, size: int) -> None:
        async with adapter.transaction() as tx:
            await tx.users.create(id=f"{name}1", email=email(f"{name}1"))
            await tx.users.create(id=f"{name}2", email=email(f"{name}2"), metadata={"text": "x" * size})

    with pytest.raises(InvalidInput, match="at most 400000"):
        await both("a", 400_000)
    assert await whole_log(store) == []
    await both("b", 399_000)
    second = await adapter.users.get_by_email(email("b2"))
    assert second is not None
    assert second.metadata == {"text": "x" * 399_000}
    assert [user.id async for user in adapter.users.scan()] == ["b1", "b2"]
    assert (await adapter.check()).findings == ()
    assert (await adapter.users.update("b1", name="Ada")).email == email("b1")
