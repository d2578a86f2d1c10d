"""Members: added, found, counted, given other roles, deleted."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, Member, MemberNotFound, NewEvent
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_IDS, BAD_LABELS, Case, cases, named
from tests.support.clocks import ManualClock
from tests.support.events import metadata, payload, refused, stored, written_by
from tests.support.samples import list_of
from tests.support.targets import Target

pytestmark = pytest.mark.tables

MINUTE = timedelta(minutes=1)
MISSING = ["nothing", "", " x", "x" * 500]


@pytest.fixture
async def member(adapter: AllsourceAuthAdapter) -> Member:
    return await adapter.members.create(organization_id="o", user_id="u", role="admin")


async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    member = await adapter.members.create(organization_id="o", user_id="u", role="owner,admin", id="chosen")
    assert member == Member(id="chosen", created_at=clock(), organization_id="o", user_id="u", role="owner,admin")
    assert member.roles == {"owner", "admin"}
    assert await adapter.members.get("chosen") == member
    assert await adapter.members.find("o", "u") == member


async def test_role_is_member_unless_one_is_given(adapter: AllsourceAuthAdapter) -> None:
    assert (await adapter.members.create(organization_id="o", user_id="u")).role == "member"


async def test_ids_are_compared_exactly(adapter: AllsourceAuthAdapter, member: Member) -> None:
    assert await adapter.members.find("o", "u") == member
    for pair in (("u", "o"), ("O", "u"), ("o", "U"), ("o", ""), ("", "u"), ("ou", ""), ("o", "\ud800")):
        assert await adapter.members.find(*pair) is None


@pytest.mark.parametrize(("field", "pair"), [("organization_id", (None, "u")), ("user_id", ("o", 7))])
async def test_look_up_by_other_than_text_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, field: str, pair: Any
) -> None:
    async with refused(store, field):
        await adapter.members.find(*pair)


async def test_user_is_a_member_of_many_organizations_and_each_has_many(adapter: AllsourceAuthAdapter) -> None:
    for organization_id in ("o", "p"):
        for user_id in ("u", "v"):
            await adapter.members.create(organization_id=organization_id, user_id=user_id)
    assert [await adapter.members.count(organization_id) for organization_id in ("o", "p", "q")] == [2, 2, 0]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"organization_id": "o", "user_id": "u"}, "organization_user"),
        ({"organization_id": "p", "user_id": "v", "id": "same"}, "id"),
    ],
)
async def test_second_membership_or_second_id_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, given: dict[str, str], field: str
) -> None:
    first = await adapter.members.create(organization_id="o", user_id="u", id="same")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.members.create(**given)
    assert (caught.value.kind, caught.value.field) == ("member", field)
    assert written.events == []
    assert await adapter.members.list_for_organization("o") == [first]
    assert await adapter.members.list_for_organization("p") == []


@pytest.mark.race
async def test_one_of_many_concurrent_additions_of_a_user_wins(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    outcomes = await asyncio.gather(
        *[
            seen[number % 2].members.create(organization_id="o", user_id="u", role=f"role-{number}")
            for number in range(50)
        ],
        return_exceptions=True,
    )
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Member)]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 49
    assert await seen[0].members.list_for_organization("o") == [winner]
    assert await seen[1].members.find("o", "u") == winner


async def test_role_is_changed_and_nothing_else(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock, member: Member
) -> None:
    clock.move(MINUTE)
    async with written_by(store) as written:
        changed = await adapter.members.update_role(member.id, "owner")
    assert written.types == ["auth.member.updated"]
    assert changed == msgspec.structs.replace(member, role="owner")
    assert await adapter.members.get(member.id) == changed
    assert await adapter.members.find("o", "u") == changed
    assert await adapter.members.list_for_organization("o") == [changed]
    (_, change) = await adapter.members.history(member.id)
    assert (change.event, change.diff) == ("MemberUpdated", {"role": ("admin", "owner")})


@pytest.mark.parametrize("missing", MISSING)
async def test_missing_member_is_not_found(adapter: AllsourceAuthAdapter, store: EventStore, missing: str) -> None:
    assert await adapter.members.get(missing) is None
    async with written_by(store) as written:
        await adapter.members.delete(missing)
        for call in (adapter.members.update_role(missing, "owner"), adapter.members.restore(missing)):
            with pytest.raises(MemberNotFound) as caught:
                await call
            assert caught.value.kind == "member"
    assert written.events == []


async def test_deleted_member_is_not_found(adapter: AllsourceAuthAdapter, store: EventStore, member: Member) -> None:
    stays = await adapter.members.create(organization_id="o", user_id="v")
    await adapter.members.delete(member.id)
    assert await adapter.members.get(member.id) is None
    assert await adapter.members.find("o", "u") is None
    assert await adapter.members.list_for_organization("o") == [stays]
    assert await adapter.members.count("o") == 1
    with pytest.raises(MemberNotFound):
        await adapter.members.update_role(member.id, "owner")
    async with written_by(store) as written:
        await adapter.members.delete(member.id)
    assert written.events == []


async def test_deleted_member_can_join_again(adapter: AllsourceAuthAdapter, member: Member) -> None:
    await adapter.members.delete(member.id)
    again = await adapter.members.create(organization_id="o", user_id="u")
    assert again.id != member.id
    assert await adapter.members.find("o", "u") == again
    assert await adapter.members.list_for_organization("o") == [again]


async def test_restored_member_is_as_it_was_and_counts_once(adapter: AllsourceAuthAdapter, member: Member) -> None:
    for _ in range(3):
        await adapter.members.delete(member.id)
        assert await adapter.members.restore(member.id) == member
        assert await adapter.members.restore(member.id) == member
        assert await adapter.members.find("o", "u") == member
        assert await adapter.members.list_for_organization("o") == [member]
        assert await adapter.members.count("o") == 1


async def test_restore_after_the_user_joined_again_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, member: Member
) -> None:
    await adapter.members.delete(member.id)
    again = await adapter.members.create(organization_id="o", user_id="u")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.members.restore(member.id)
    assert (caught.value.kind, caught.value.field) == ("member", "organization_user")
    assert written.events == []
    assert await adapter.members.list_for_organization("o") == [again]
    await adapter.members.delete(again.id)
    assert await adapter.members.restore(member.id) == member


async def test_revert_brings_the_former_role_back(adapter: AllsourceAuthAdapter, member: Member) -> None:
    await adapter.members.update_role(member.id, "owner")
    (joined, _) = await adapter.members.history(member.id)
    assert await adapter.members.revert(member.id, to=joined.event_id) == member
    assert await adapter.members.count_owners("o") == 0


async def test_list_is_oldest_first(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = []
    for number in range(5):
        made.append(await adapter.members.create(organization_id="o", user_id=f"u{9 - number}"))
        await adapter.members.create(organization_id="p", user_id=f"u{number}")
        clock.move(MINUTE)
    made[1] = await adapter.members.update_role(made[1].id, "owner")
    assert await adapter.members.list_for_organization("o") == made


async def test_members_with_equal_times_are_ordered_by_id(adapter: AllsourceAuthAdapter) -> None:
    for name in ("b", "c", "a"):
        await adapter.members.create(organization_id="o", user_id=name, id=name)
    assert [member.id for member in await adapter.members.list_for_organization("o")] == ["a", "b", "c"]


@pytest.mark.parametrize("organization_id", [*MISSING, "\ud800"])
async def test_unknown_organization_has_no_members(adapter: AllsourceAuthAdapter, organization_id: str) -> None:
    assert await adapter.members.list_for_organization(organization_id) == []
    assert await adapter.members.count(organization_id) == 0
    assert await adapter.members.count_owners(organization_id) == 0


@pytest.mark.parametrize("call", ["list_for_organization", "count", "count_owners"])
@pytest.mark.parametrize("organization_id", [None, 7, b"o"])
async def test_list_of_other_than_text_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, call: str, organization_id: Any
) -> None:
    async with refused(store, "organization_id"):
        await getattr(adapter.members, call)(organization_id)


@pytest.mark.parametrize(
    ("role", "owns"),
    [
        ("owner", True),
        ("owner,admin", True),
        ("admin,owner", True),
        ("admin, owner ,member", True),
        ("member", False),
        ("Owner", False),
        ("co-owner", False),
        ("owners", False),
        ("owner admin", False),
        ("admin,co-owner", False),
    ],
)
async def test_owners_have_the_role_alone_or_among_others(adapter: AllsourceAuthAdapter, role: str, owns: bool) -> None:
    await adapter.members.create(organization_id="o", user_id="u", role=role)
    await adapter.members.create(organization_id="o", user_id="v", role="member")
    await adapter.members.create(organization_id="p", user_id="u", role="owner")
    assert await adapter.members.count_owners("o") == int(owns)
    assert await adapter.members.count("o") == 2


async def test_counts_follow_every_change(adapter: AllsourceAuthAdapter) -> None:
    async def counts() -> tuple[int, int]:
        return await adapter.members.count("o"), await adapter.members.count_owners("o")

    first = await adapter.members.create(organization_id="o", user_id="u", role="owner")
    second = await adapter.members.create(organization_id="o", user_id="v")
    assert await counts() == (2, 1)
    await adapter.members.update_role(second.id, "owner")
    assert await counts() == (2, 2)
    await adapter.members.update_role(first.id, "member")
    assert await counts() == (2, 1)
    await adapter.members.delete(second.id)
    assert await counts() == (1, 0)
    await adapter.members.restore(second.id)
    assert await counts() == (2, 1)


@pytest.mark.race
async def test_owner_count_is_right_during_concurrent_demotions(
    make_adapter: MakeAdapter,
) -> None:
    """The number of owners only falls here, so a count must be between the numbers before and after it."""
    one, two, reader = make_adapter(), make_adapter(), make_adapter()
    for number in range(12):
        name = f"o{number}"
        owners = [await one.members.create(organization_id=name, user_id=user, role="owner") for user in ("u", "v")]
        await asyncio.gather(
            _watch_owners(reader, name, owners),
            one.members.update_role(owners[1].id, "member"),
            two.members.update_role(owners[0].id, "member"),
            _watch_owners(reader, name, owners),
        )
        for adapter in (one, two, reader):
            assert await adapter.members.count_owners(name) == 0
        assert await reader.members.list_for_organization(name) == await _as_they_are(reader, owners)


async def _watch_owners(adapter: AllsourceAuthAdapter, organization_id: str, members: list[Member]) -> None:
    for _ in range(3):
        before = [member.role for member in await _as_they_are(adapter, members)].count("owner")
        counted = await adapter.members.count_owners(organization_id)
        after = [member.role for member in await _as_they_are(adapter, members)].count("owner")
        assert after <= counted <= before


async def _as_they_are(adapter: AllsourceAuthAdapter, members: list[Member]) -> list[Member]:
    """The members by their own states, in the order of `list_for_organization`."""
    found = await adapter.members.get_many(member.id for member in members)
    return sorted(found.values(), key=lambda member: (member.created_at, member.id))


@pytest.mark.race
async def test_other_owner_is_counted_while_one_is_demoted_and_leaves(make_adapter: MakeAdapter) -> None:
    seen = [make_adapter(), make_adapter()]
    for number in range(25):
        name = f"o{number}"
        first, second = [
            await seen[0].members.create(organization_id=name, user_id=user_id, role="owner") for user_id in ("u", "v")
        ]
        outcomes = await asyncio.gather(
            seen[0].members.update_role(first.id, "member"),
            seen[1].members.delete(first.id),
            return_exceptions=True,
        )
        assert outcomes[1] is None
        assert isinstance(outcomes[0], Member | MemberNotFound)
        assert await seen[0].members.list_for_organization(name) == [second]
        assert await seen[1].members.count_owners(name) == 1


async def test_organization_of_hundreds_is_listed_and_counted(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter
) -> None:
    other = make_adapter()
    made = await asyncio.gather(
        *[
            (adapter, other)[number % 2].members.create(
                organization_id="o", user_id=f"u{number}", role="owner" if number % 100 == 0 else "member"
            )
            for number in range(200)
        ]
    )
    await asyncio.gather(*[other.members.delete(member.id) for member in made[::3]])
    await asyncio.gather(*[adapter.members.restore(member.id) for member in made[::6]])
    living = [member for number, member in enumerate(made) if number % 3 or number % 6 == 0]
    assert await adapter.members.list_for_organization("o") == await _as_they_are(other, living)
    assert await other.members.count("o") == len(living) == 167
    assert await adapter.members.count_owners("o") == 2


@pytest.mark.heavy
async def test_organization_of_ten_thousand_is_listed_and_counted(
    adapter: AllsourceAuthAdapter, store: EventStore, target: Target
) -> None:
    if target.name != "sqlite-memory":
        pytest.skip("this many members are tested on one target only")
    await adapter.members.create(organization_id="o", user_id="first", role="owner", id="first")
    for start in range(0, 10_000, 2000):
        await store.append([event for number in range(start, start + 2000) for event in _joined(number)])
    listed = await adapter.members.list_for_organization("o")
    assert {member.id for member in listed} == {"first", *[f"m{number:05}" for number in range(10_000)]}
    assert [member.id for member in listed[:3]] == ["m00000", "m00001", "m00002"]
    assert listed[-1].id == "first"
    assert sum("owner" in member.roles for member in listed) == 11
    await adapter.members.delete("m00001")
    assert await adapter.members.count("o") == 10_000


def _joined(number: int) -> list[NewEvent]:
    """The events of joining, except the claim. Every thousandth member is an owner."""
    stream = f"auth-member:m{number:05}"
    state = {
        "id": f"m{number:05}",
        "createdAt": "2026-11-23T10:59:20Z",
        "organizationId": "o",
        "userId": f"u{number}",
        "role": "member" if number % 1000 else "owner",
    }
    return [
        NewEvent(
            type="auth.index.added",
            stream=list_of("member", "organization", "o"),
            payload=json.dumps({"v": 1, "stream": stream}).encode(),
            metadata=b'{"v":1,"op":"%032d","entitySeq":1}' % number,
        ),
        NewEvent(
            type="auth.member.created",
            stream=stream,
            payload=json.dumps(state).encode(),
            metadata=b'{"v":1,"op":"%032d","seq":1}' % number,
            guard=0,
        ),
    ]


BAD_FIELDS = [
    *cases(("organization_id", "user_id", "id"), BAD_IDS),
    *cases(("role",), BAD_LABELS),
    *cases(("organization_id", "user_id", "role"), {"none": None}),
]


@pytest.mark.parametrize("case", BAD_FIELDS, ids=named)
async def test_bad_field_is_refused_before_anything_is_written(
    adapter: AllsourceAuthAdapter, store: EventStore, case: Case
) -> None:
    field, _, value = case
    given: dict[str, Any] = {"organization_id": "o", "user_id": "u", field: value}
    async with refused(store, field):
        await adapter.members.create(**given)
    assert await adapter.members.list_for_organization("o") == []


@pytest.mark.parametrize("role", BAD_LABELS.values(), ids=BAD_LABELS)
async def test_bad_role_is_refused_before_anything_is_written(
    adapter: AllsourceAuthAdapter, store: EventStore, member: Member, role: Any
) -> None:
    async with refused(store, "role"):
        await adapter.members.update_role(member.id, role)
    assert await adapter.members.get(member.id) == member


async def test_joining_claims_and_indexes_first_and_leaving_releases_last(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    async with written_by(store) as written:
        await adapter.members.create(organization_id="o", user_id="u", id="m")
        await adapter.members.delete("m")
    lists = [list_of("member", "organization", "o"), list_of("member", "user", "u")]
    assert [event.type for event in written.events if "auth-idx:store" not in event.stream] == [
        "auth.index.claimed",
        "auth.index.added",
        "auth.index.added",
        "auth.member.created",
        "auth.member.deleted",
        "auth.index.released",
        "auth.index.removed",
        "auth.index.removed",
    ]
    for stream in lists:
        added, removed = await stored(store, stream)
        assert payload(added) == payload(removed) == {"v": 1, "stream": "auth-member:m"}
        assert (metadata(added)["entitySeq"], metadata(removed)["entitySeq"]) == (1, 2)
