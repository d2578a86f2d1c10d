"""Cascades: children of a deleted user or organization, interrupted deletions, and restores."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import (
    Acknowledged,
    AllsourceAuthAdapter,
    Conflict,
    EventStore,
    Http,
    Latest,
    NewEvent,
    NotFound,
    Organization,
    OrganizationNotFound,
    Session,
    User,
    UserNotFound,
)
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import new_event, stored, written_by
from tests.support.families import CHILDREN, by_value, children, given, living
from tests.support.samples import Sample, sample_of
from tests.support.wrappers import WrappedStore

WEEK = timedelta(days=7)

RESTORABLE = [sample for sample in CHILDREN if sample.restorable]
LISTED = [sample for sample in RESTORABLE if sample.lists]
REMOVABLE = [sample for sample in LISTED if sample.name != "invitation"]
HOLDERS = [sample for sample in CHILDREN if sample.name in ("account", "member", "two_factor", "api_key", "passkey")]
TRANSFERABLE = [sample for sample in HOLDERS if sample.name in ("account", "api_key", "passkey")]


def each(samples: Sequence[Sample]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", samples, ids=str)


async def append_tombstone(store: EventStore, *, user: str | None = None, organization: str | None = None) -> None:
    """Append the tombstone alone, as a process that crashed right after it. All children still exist."""
    kind, prefix, key = ("user", "auth-user:", user) if user else ("org", "auth-org:", organization)
    events = await stored(store, f"{prefix}{key}")
    tombstone = {"_deleted": True, "id": key}
    metadata = {"v": 1, "op": "f" * 32, "seq": len(events) + 1}
    await store.append(
        [new_event(f"{prefix}{key}", tombstone, type=f"auth.{kind}.deleted", metadata=metadata, guard=len(events))]
    )


@pytest.fixture
async def acme(adapter: AllsourceAuthAdapter) -> Organization:
    return await adapter.organizations.create(name="Acme", slug="acme", id="acme")


async def test_deleting_a_user_deletes_everything_it_owns(adapter: AllsourceAuthAdapter, ada: User) -> None:
    made = await children(adapter, ada.id)
    assert await living(adapter, made) == [sample.name for sample, _ in made]
    await adapter.users.delete(ada.id)
    assert await living(adapter, made) == []
    for sample, child in made:
        *_, change = await sample.of(adapter).history(sample.key_of(child))
        assert change.state is None


async def test_deleting_a_user_deletes_nothing_of_others(
    adapter: AllsourceAuthAdapter, clock: ManualClock, ada: User, acme: Organization
) -> None:
    bob = await adapter.users.create(email=email("Bob"))
    await children(adapter, ada.id)
    made = await children(adapter, bob.id)
    made += [
        (sample, await sample.create(adapter, **values))
        for sample, values in [
            (sample_of("verification"), {"identifier": email("Ada"), "value": ada.id}),
            (sample_of("member"), {"organization_id": acme.id, "user_id": bob.id}),
            (sample_of("invitation"), {"organization_id": acme.id, "email": email("Ada"), "inviter_id": bob.id}),
        ]
    ]
    await adapter.members.create(organization_id=acme.id, user_id=ada.id, role="owner")
    await adapter.users.delete(ada.id)
    assert await adapter.users.get(bob.id) == bob
    assert await adapter.organizations.get(acme.id) == acme
    for sample, child in made:
        assert await sample.of(adapter).get(sample.key_of(child)) == child
    assert await living(adapter, made) == [sample.name for sample, _ in made]
    assert await adapter.members.count(acme.id) == 1
    assert await adapter.members.count_owners(acme.id) == 0


async def test_deleting_a_user_deletes_more_children_than_one_batch(adapter: AllsourceAuthAdapter, ada: User) -> None:
    for number in range(40):
        await adapter.members.create(organization_id=f"o{number}", user_id=ada.id)
        await adapter.members.create(organization_id=f"o{number}", user_id="other")
    await adapter.users.delete(ada.id)
    assert [await adapter.members.count(f"o{number}") for number in range(40)] == [1] * 40


async def complete_by_deleting_again(adapter: AllsourceAuthAdapter, user: User) -> None:
    await adapter.users.delete(user.id)
    assert await adapter.users.get(user.id) is None


async def complete_by_restoring(adapter: AllsourceAuthAdapter, user: User) -> None:
    assert (await adapter.users.restore(user.id)).email == user.email


async def complete_by_creating_over_it(adapter: AllsourceAuthAdapter, user: User) -> None:
    again = await adapter.users.create(id=user.id, email=user.email, username=user.username)
    assert await adapter.users.get(user.id) == again


COMPLETIONS = pytest.mark.parametrize(
    "finish",
    [complete_by_deleting_again, complete_by_restoring, complete_by_creating_over_it],
    ids=["deleting-again", "restoring", "creating-over-it"],
)


@COMPLETIONS
async def test_interrupted_deletion_of_a_user_is_completed(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, store: EventStore, ada: User, finish: Any
) -> None:
    made = await children(adapter, ada.id)
    await append_tombstone(store, user=ada.id)
    assert [await sample.of(adapter).get(sample.key_of(child)) for sample, child in made] == [c for _, c in made]
    await finish(make_adapter(), ada)
    assert await living(adapter, made) == []


@COMPLETIONS
async def test_children_created_after_the_deletion_are_deleted_too(
    adapter: AllsourceAuthAdapter, ada: User, finish: Any
) -> None:
    await adapter.users.delete(ada.id)
    made = await children(adapter, ada.id)
    await finish(adapter, ada)
    assert await living(adapter, made) == []


class FailingStore(WrappedStore):
    """Accepts a given number of appends, then fails."""

    def __init__(self, store: EventStore, appends: int) -> None:
        super().__init__(store)
        self.left = appends

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if self.left == 0:
            raise Http("the connection is gone")
        self.left -= 1
        return await super().append(events)


async def test_deletion_interrupted_anywhere_is_completed_by_deleting_again(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, store: EventStore
) -> None:
    appends, finished = 0, False
    while not finished:
        user = await adapter.users.create(email=email(f"u{appends}"))
        made = await children(adapter, user.id, count=1)
        try:
            await make_adapter(store=FailingStore(store, appends)).users.delete(user.id)
            finished = True
        except Http:
            assert (await adapter.users.get(user.id) is None) == (appends > 0)
            assert await living(adapter, made) != []
        await adapter.users.delete(user.id)
        assert await living(adapter, made) == []
        appends += 1
    # The tombstones of the user and of each of its children are separate appends.
    assert appends > len(made)


async def test_deletion_of_an_organization_is_completed_by_deleting_again(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, acme: Organization
) -> None:
    member = await adapter.members.create(organization_id=acme.id, user_id="u")
    other = await adapter.members.create(organization_id="other", user_id="u")
    invitation = await adapter.invitations.create(
        organization_id=acme.id, email=email("x"), inviter_id="u", expires_at=clock() + WEEK
    )
    await append_tombstone(store, organization=acme.id)
    assert await adapter.members.count(acme.id) == 1
    assert await adapter.organizations.list_for_user("u") == []
    await adapter.organizations.delete(acme.id)
    assert await adapter.members.list_for_organization(acme.id) == []
    assert await adapter.invitations.list_for_organization(acme.id) == []
    assert await adapter.members.get(member.id) is None
    assert await adapter.invitations.get(invitation.id) is None
    assert await adapter.members.get(other.id) == other
    again = await adapter.organizations.create(name="Again", slug="acme")
    assert await adapter.organizations.get_by_slug("acme") == again


@pytest.mark.parametrize("over", [False, True], ids=["restoring", "creating-over-it"])
async def test_deletion_of_an_organization_is_completed_before_it_is_restored(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization, over: bool
) -> None:
    member = await adapter.members.create(organization_id=acme.id, user_id="u")
    await append_tombstone(store, organization=acme.id)
    if over:
        await adapter.organizations.create(name="Again", slug="acme", id=acme.id)
    else:
        await adapter.organizations.restore(acme.id)
    assert await adapter.members.get(member.id) is None
    assert await adapter.members.count(acme.id) == 0
    assert await adapter.organizations.list_for_user("u") == []


@each(HOLDERS)
async def test_value_of_a_child_of_a_deleted_user_is_free(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, store: EventStore, ada: User, sample: Sample
) -> None:
    old = await sample.create(adapter, **given(sample, ada.id, "wanted"))
    await append_tombstone(store, user=ada.id)
    # Memberships and second factors are unique per user. Those created now belong to the deleted user, too, so the next
    # contender may take the value again.
    taker = ada.id if sample not in TRANSFERABLE else (await adapter.users.create(email=email("ada"))).id
    wanted = given(sample, taker, "wanted")
    contenders = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(
        *[sample.create(contenders[number % 2], **wanted) for number in range(10)], return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    if sample in TRANSFERABLE:
        (new,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(refused) == 9
        assert await by_value(adapter, sample, old) == new
        assert await sample.of(adapter).list_for_user(taker) == [new]
        assert await sample.of(adapter).list_for_user(ada.id) == []
    else:
        assert not all(isinstance(outcome, BaseException) for outcome in outcomes)
    assert await sample.of(adapter).get(old.id) is None
    changes = await sample.of(adapter).history(old.id)
    assert [change.state for change in changes] == [old, None]


@each(TRANSFERABLE)
async def test_restored_child_takes_its_value_from_a_child_of_a_deleted_user(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, sample: Sample
) -> None:
    bob = await adapter.users.create(email=email("Bob"))
    first = await sample.create(adapter, **given(sample, bob.id, "wanted"))
    await sample.of(adapter).delete(first.id)
    second = await sample.create(adapter, **given(sample, ada.id, "wanted"))
    with pytest.raises(Conflict):
        await sample.of(adapter).restore(first.id)
    await append_tombstone(store, user=ada.id)
    back = await sample.of(adapter).restore(first.id)
    assert await by_value(adapter, sample, first) == back
    assert await sample.of(adapter).get(second.id) is None
    assert await sample.of(adapter).list_for_user(ada.id) == []


@each(HOLDERS)
async def test_value_of_a_child_whose_user_never_existed_is_taken(
    adapter: AllsourceAuthAdapter, store: EventStore, sample: Sample
) -> None:
    first = await sample.create(adapter, **given(sample, "nobody", "wanted"))
    with pytest.raises(Conflict) as caught:
        await sample.create(adapter, **given(sample, "nobody", "wanted"))
    assert caught.value.kind == sample.name
    assert await by_value(adapter, sample, first) == first


async def test_membership_of_a_deleted_organization_blocks_no_new_one(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization
) -> None:
    old = await adapter.members.create(organization_id=acme.id, user_id="u")
    await append_tombstone(store, organization=acme.id)
    new = await adapter.members.create(organization_id=acme.id, user_id="u")
    assert await adapter.members.get(old.id) is None
    assert await adapter.members.list_for_organization(acme.id) == [new]


@each(RESTORABLE)
async def test_child_of_a_deleted_user_cannot_be_restored_before_it(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, sample: Sample
) -> None:
    child = await sample.create(adapter, **given(sample, ada.id))
    await adapter.users.delete(ada.id)
    await _refused(store, UserNotFound, sample.of(adapter).restore(child.id))
    assert await sample.of(adapter).get(child.id) is None
    await adapter.users.restore(ada.id)
    assert await sample.of(adapter).get(child.id) is None
    back = await sample.of(adapter).restore(child.id)
    assert await sample.of(adapter).get(child.id) == back
    assert await by_value(adapter, sample, child) in (back, None)


@each([sample_of("member"), sample_of("invitation")])
async def test_child_of_a_deleted_organization_cannot_be_restored_before_it(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization, sample: Sample
) -> None:
    child = await sample.create(adapter, organization_id=acme.id)
    await adapter.organizations.delete(acme.id)
    await _refused(store, OrganizationNotFound, sample.of(adapter).restore(child.id))
    await adapter.organizations.restore(acme.id)
    assert await sample.of(adapter).list_for_organization(acme.id) == []
    assert await sample.of(adapter).restore(child.id) == child
    assert await sample.of(adapter).list_for_organization(acme.id) == [child]


async def _refused(store: EventStore, error: type[NotFound], call: Any) -> None:
    async with written_by(store) as written:
        with pytest.raises(error):
            await call
    assert written.events == []


@each(LISTED)
async def test_child_restored_after_its_user_is_listed_once(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, ada: User, sample: Sample
) -> None:
    child = await sample.create(adapter, **given(sample, ada.id))
    for _ in range(3):
        await adapter.users.delete(ada.id)
        await adapter.users.restore(ada.id)
        await sample.of(adapter).restore(child.id)
        back = await sample.of(adapter).restore(child.id)
        for by in (adapter, make_adapter()):
            for call, field in sample.lists:
                assert await getattr(sample.of(by), call)(getattr(child, field)) == [back]
    assert back.created_at == child.created_at


async def test_restored_member_is_counted_once_and_is_in_both_indexes(
    adapter: AllsourceAuthAdapter, ada: User, acme: Organization
) -> None:
    member = await adapter.members.create(organization_id=acme.id, user_id=ada.id, role="owner")
    for _ in range(3):
        await adapter.users.delete(ada.id)
        assert await adapter.members.count(acme.id) == 0
        await adapter.users.restore(ada.id)
        assert await adapter.members.restore(member.id) == member
        assert (await adapter.members.count(acme.id), await adapter.members.count_owners(acme.id)) == (1, 1)
        assert await adapter.organizations.list_for_user(ada.id) == [acme]


@each(REMOVABLE)
async def test_index_is_right_after_concurrent_deletion_and_restore(
    make_adapter: MakeAdapter, clock: ManualClock, sample: Sample
) -> None:
    one, two = make_adapter(), make_adapter()
    for number in range(30):
        child = await sample.create(one, **given(sample, f"u{number}", str(number)))
        if number % 3 == 0:
            await sample.of(two).delete(child.id)
        calls = [getattr(sample.of(by), call)(child.id) for call in ("delete", "restore") for by in (one, two)]
        outcomes = await asyncio.gather(*calls[number % 4 :], *calls[: number % 4], return_exceptions=True)
        assert all(isinstance(outcome, type(child) | NotFound | None) for outcome in outcomes)
        state = await sample.of(one).get(child.id)
        for call, field in sample.lists:
            assert await getattr(sample.of(two), call)(getattr(child, field)) == ([] if state is None else [state])
        assert await by_value(one, sample, child) == state


async def test_refused_deletion_keeps_the_children(adapter: AllsourceAuthAdapter, ada: User, session: Session) -> None:
    assert await adapter.context.collections["user"].delete_where([ada.id], lambda user: False) == 0
    assert await adapter.users.get(ada.id) == ada
    assert await adapter.sessions.get(session.token) == session


class Interfering(WrappedStore):
    """Runs another call right after the first read of ``stream`` that a decision depends on."""

    def __init__(self, store: EventStore, stream: str, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(store)
        self._stream = stream
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        found = await super().latest(stream, require_leader=require_leader)
        if stream == self._stream and require_leader and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            await meanwhile()
        return found


async def test_restore_of_a_living_entity_returns_the_state_it_read(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, store: EventStore
) -> None:
    """The entity is deleted right after `restore` has read it."""
    member = await adapter.members.create(organization_id="o", user_id="u")
    overtaken = Interfering(store, f"auth-member:{member.id}", lambda: adapter.members.delete(member.id))
    assert await make_adapter(store=overtaken).members.restore(member.id) == member
