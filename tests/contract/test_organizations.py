"""Organizations: created, found by id, slug and member, changed, deleted, restored."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, Organization, OrganizationNotFound
from tests.support.bad_values import BAD_IDS, BAD_LABELS, BAD_TEXTS, Case, cases, named
from tests.support.canaries import CANARY, email
from tests.support.clocks import ManualClock
from tests.support.events import new_event, payload, refused, stored, written_by

pytestmark = pytest.mark.tables

WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)
MISSING = ["nothing", "", " x", "x" * 500]


@pytest.fixture
async def acme(adapter: AllsourceAuthAdapter) -> Organization:
    return await adapter.organizations.create(name="Acme", slug="acme", logo="acme.png", metadata={"plan": CANARY})


async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    organization = await adapter.organizations.create(
        name="Acme", slug="acme", logo="acme.png", metadata={"seats": 5}, id="chosen"
    )
    assert organization == Organization(
        id="chosen",
        created_at=clock(),
        updated_at=clock(),
        name="Acme",
        slug="acme",
        logo="acme.png",
        metadata={"seats": 5},
    )
    assert await adapter.organizations.get("chosen") == organization
    assert await adapter.organizations.get_by_slug("acme") == organization


async def test_missing_logo_is_null_and_missing_metadata_is_omitted(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    organization = await adapter.organizations.create(name="Acme", slug="acme")
    assert (organization.logo, organization.metadata) == (None, None)
    (created,) = await stored(store, f"auth-org:{organization.id}")
    assert payload(created)["logo"] is None
    assert "metadata" not in payload(created)


async def test_empty_metadata_is_not_missing_metadata(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    organization = await adapter.organizations.create(name="Acme", slug="acme", metadata={})
    assert organization.metadata == {}
    (created,) = await stored(store, f"auth-org:{organization.id}")
    assert payload(created)["metadata"] == {}
    assert await adapter.organizations.get(organization.id) == organization


async def test_names_are_not_unique(adapter: AllsourceAuthAdapter, acme: Organization) -> None:
    other = await adapter.organizations.create(name=acme.name, slug="acme-2")
    assert other.id != acme.id


async def test_slug_is_found_exactly(adapter: AllsourceAuthAdapter, acme: Organization) -> None:
    assert await adapter.organizations.get_by_slug("acme") == acme
    for other in ("Acme", "acm", "acme ", "", "\ud800", "x" * 5000):
        assert await adapter.organizations.get_by_slug(other) is None
    capital = await adapter.organizations.create(name="Acme", slug="ACME")
    assert await adapter.organizations.get_by_slug("ACME") == capital
    assert await adapter.organizations.get_by_slug("acme") == acme


@pytest.mark.parametrize("slug", [None, 7, b"acme"])
async def test_slug_that_is_not_text_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, slug: Any) -> None:
    async with refused(store, "slug"):
        await adapter.organizations.get_by_slug(slug)


@pytest.mark.parametrize(("given", "field"), [({"slug": "acme"}, "slug"), ({"slug": "b", "id": "same"}, "id")])
async def test_second_organization_with_a_slug_or_an_id_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, given: dict[str, Any], field: str
) -> None:
    first = await adapter.organizations.create(name="Acme", slug="acme", id="same")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.organizations.create(name="Other", **given)
    assert (caught.value.kind, caught.value.field) == ("org", field)
    assert written.events == []
    assert await adapter.organizations.get("same") == first
    assert await adapter.organizations.get_by_slug("b") is None


async def test_change_of_every_field(adapter: AllsourceAuthAdapter, clock: ManualClock, acme: Organization) -> None:
    later = clock.move(HOUR)
    given: dict[str, Any] = {"name": "New", "slug": "new", "logo": "new.png", "metadata": {"seats": 6}}
    changed = await adapter.organizations.update(acme.id, **given)
    assert changed == msgspec.structs.replace(acme, **given, updated_at=later)
    assert await adapter.organizations.get(acme.id) == changed
    assert await adapter.organizations.get_by_slug("new") == changed
    assert await adapter.organizations.get_by_slug("acme") is None


@pytest.mark.parametrize("field", ["name", "slug", "logo", "metadata"])
async def test_change_of_one_field_leaves_the_others_unchanged(
    adapter: AllsourceAuthAdapter, clock: ManualClock, acme: Organization, field: str
) -> None:
    given: dict[str, Any] = {field: {"seats": 6} if field == "metadata" else "new"}
    later = clock.move(HOUR)
    changed = await adapter.organizations.update(acme.id, **given)
    assert changed == msgspec.structs.replace(acme, **given, updated_at=later)


async def test_none_clears_optional_fields(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization
) -> None:
    cleared = await adapter.organizations.update(acme.id, logo=None, metadata=None)
    assert cleared == msgspec.structs.replace(acme, logo=None, metadata=None)
    written = payload((await stored(store, f"auth-org:{acme.id}"))[-1])
    assert written["logo"] is None
    assert "metadata" not in written


async def test_update_without_fields_sets_updated_at(
    adapter: AllsourceAuthAdapter, clock: ManualClock, acme: Organization
) -> None:
    later = clock.move(HOUR)
    assert await adapter.organizations.update(acme.id) == msgspec.structs.replace(acme, updated_at=later)


async def test_own_slug_can_be_kept(adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization) -> None:
    async with written_by(store) as written:
        changed = await adapter.organizations.update(acme.id, slug="acme", name="New")
    assert written.types == ["auth.org.updated"]
    assert await adapter.organizations.get_by_slug("acme") == changed


async def test_change_to_a_taken_slug_conflicts_and_changes_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization
) -> None:
    other = await adapter.organizations.create(name="Other", slug="other")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.organizations.update(acme.id, slug="other", name="New")
    assert (caught.value.kind, caught.value.field) == ("org", "slug")
    assert written.events == []
    assert await adapter.organizations.get(acme.id) == acme
    assert await adapter.organizations.get_by_slug("other") == other


async def test_former_slug_is_free(adapter: AllsourceAuthAdapter, acme: Organization) -> None:
    await adapter.organizations.update(acme.id, slug="moved")
    taker = await adapter.organizations.create(name="Taker", slug="acme")
    assert await adapter.organizations.get_by_slug("acme") == taker
    with pytest.raises(Conflict):
        await adapter.organizations.update(acme.id, slug="acme")


@pytest.mark.parametrize("missing", MISSING)
async def test_missing_organization_is_not_found(
    adapter: AllsourceAuthAdapter, store: EventStore, missing: str
) -> None:
    assert await adapter.organizations.get(missing) is None
    async with written_by(store) as written:
        await adapter.organizations.delete(missing)
        for call in (adapter.organizations.update(missing, name="x"), adapter.organizations.restore(missing)):
            with pytest.raises(OrganizationNotFound) as caught:
                await call
            assert caught.value.kind == "org"
    assert written.events == []


async def test_deleted_organization_is_not_found_and_its_slug_is_free(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization
) -> None:
    await adapter.organizations.delete(acme.id)
    assert await adapter.organizations.get(acme.id) is None
    assert await adapter.organizations.get_by_slug("acme") is None
    with pytest.raises(OrganizationNotFound):
        await adapter.organizations.update(acme.id, name="x")
    async with written_by(store) as written:
        await adapter.organizations.delete(acme.id)
    assert written.events == []
    again = await adapter.organizations.create(name="Again", slug="acme")
    assert await adapter.organizations.get_by_slug("acme") == again


async def test_deletion_deletes_its_members_and_invitations_only(
    adapter: AllsourceAuthAdapter, clock: ManualClock, acme: Organization
) -> None:
    other = await adapter.organizations.create(name="Other", slug="other")
    for organization in (acme, other):
        for number in range(5):
            await adapter.members.create(organization_id=organization.id, user_id=f"u{number}")
            await adapter.invitations.create(
                organization_id=organization.id,
                email=email(f"guest-{number}"),
                inviter_id=f"u{number}",
                expires_at=clock() + WEEK,
            )
    members = await adapter.members.list_for_organization(other.id)
    invitations = await adapter.invitations.list_for_organization(other.id)
    await adapter.organizations.delete(acme.id)
    assert await adapter.members.list_for_organization(acme.id) == []
    assert await adapter.members.count(acme.id) == 0
    assert await adapter.invitations.list_for_organization(acme.id) == []
    assert await adapter.members.find(acme.id, "u0") is None
    assert await adapter.invitations.find_pending(acme.id, email("guest-0")) is None
    assert await adapter.organizations.get(other.id) == other
    assert await adapter.members.list_for_organization(other.id) == members
    assert await adapter.invitations.list_for_organization(other.id) == invitations
    assert (len(members), len(invitations)) == (5, 5)
    assert [member.id async for member in adapter.members.scan()] == sorted(member.id for member in members)


async def test_sessions_keep_the_id_of_a_deleted_organization(
    adapter: AllsourceAuthAdapter, clock: ManualClock, acme: Organization
) -> None:
    session = await adapter.sessions.create(
        user_id="u", expires_at=clock() + WEEK, active_organization_id=acme.id, id="s"
    )
    await adapter.organizations.delete(acme.id)
    assert await adapter.sessions.get(session.token) == session


async def test_restored_organization_is_unchanged_but_has_no_members(
    adapter: AllsourceAuthAdapter, clock: ManualClock, acme: Organization
) -> None:
    member = await adapter.members.create(organization_id=acme.id, user_id="u")
    await adapter.organizations.delete(acme.id)
    later = clock.move(HOUR)
    back = await adapter.organizations.restore(acme.id)
    assert back == msgspec.structs.replace(acme, updated_at=later)
    assert await adapter.organizations.get_by_slug("acme") == back
    assert await adapter.members.get(member.id) is None
    assert await adapter.organizations.list_for_user("u") == []
    with pytest.raises(Conflict):
        await adapter.organizations.create(name="x", slug="acme")


async def test_restore_with_a_taken_slug_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization
) -> None:
    await adapter.organizations.delete(acme.id)
    taker = await adapter.organizations.create(name="Taker", slug="acme")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.organizations.restore(acme.id)
    assert (caught.value.kind, caught.value.field) == ("org", "slug")
    assert written.events == []
    assert await adapter.organizations.get(acme.id) is None
    assert await adapter.organizations.get_by_slug("acme") == taker
    await adapter.organizations.delete(taker.id)
    assert (await adapter.organizations.restore(acme.id)).slug == "acme"


async def test_revert_brings_the_former_slug_back_unless_it_is_taken(
    adapter: AllsourceAuthAdapter, acme: Organization
) -> None:
    await adapter.organizations.update(acme.id, slug="moved")
    (created, _) = await adapter.organizations.history(acme.id)
    taker = await adapter.organizations.create(name="Taker", slug="acme")
    with pytest.raises(Conflict) as caught:
        await adapter.organizations.revert(acme.id, to=created.event_id)
    assert caught.value.field == "slug"
    await adapter.organizations.delete(taker.id)
    back = await adapter.organizations.revert(acme.id, to=created.event_id)
    assert await adapter.organizations.get_by_slug("acme") == back
    assert await adapter.organizations.get_by_slug("moved") is None


async def test_history_has_all_changes(adapter: AllsourceAuthAdapter, acme: Organization) -> None:
    await adapter.organizations.update(acme.id, name="New")
    await adapter.organizations.delete(acme.id)
    await adapter.organizations.restore(acme.id)
    changes = await adapter.organizations.history(acme.id)
    assert [change.event for change in changes] == ["OrgCreated", "OrgUpdated", "OrgDeleted", "OrgUpdated"]
    assert changes[1].diff == {"name": ("Acme", "New")}
    assert changes[3].restores == changes[1].event_id


async def test_organizations_of_a_user_are_those_it_is_a_member_of_newest_first(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    made = []
    for number in range(5):
        made.append(await adapter.organizations.create(name="x", slug=f"slug-{number}"))
        clock.move(HOUR)
    for organization in (made[2], made[0], made[4]):
        await adapter.members.create(organization_id=organization.id, user_id="u")
        clock.move(HOUR)
    await adapter.members.create(organization_id=made[1].id, user_id="v")
    assert await adapter.organizations.list_for_user("u") == [made[4], made[2], made[0]]
    assert await adapter.organizations.list_for_user("v") == [made[1]]


async def test_organizations_with_equal_times_are_ordered_by_id(adapter: AllsourceAuthAdapter) -> None:
    for name in ("a", "c", "b"):
        await adapter.organizations.create(name="x", slug=name, id=name)
        await adapter.members.create(organization_id=name, user_id="u")
    assert [found.id for found in await adapter.organizations.list_for_user("u")] == ["c", "b", "a"]


async def test_organizations_of_a_user_follow_every_change(adapter: AllsourceAuthAdapter, acme: Organization) -> None:
    member = await adapter.members.create(organization_id=acme.id, user_id="u")
    await adapter.members.create(organization_id="never-founded", user_id="u")
    renamed = await adapter.organizations.update(acme.id, name="New")
    assert await adapter.organizations.list_for_user("u") == [renamed]
    await adapter.members.delete(member.id)
    assert await adapter.organizations.list_for_user("u") == []
    await adapter.members.restore(member.id)
    assert await adapter.organizations.list_for_user("u") == [renamed]
    await adapter.organizations.delete(acme.id)
    assert await adapter.organizations.list_for_user("u") == []


@pytest.mark.parametrize("user_id", [*MISSING, "\ud800"])
async def test_unknown_user_has_no_organizations(adapter: AllsourceAuthAdapter, user_id: str) -> None:
    assert await adapter.organizations.list_for_user(user_id) == []


@pytest.mark.parametrize("user_id", [None, 7, b"u"])
async def test_list_of_other_than_text_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, user_id: Any
) -> None:
    async with refused(store, "user_id"):
        await adapter.organizations.list_for_user(user_id)


async def test_undecodable_organization_does_not_hide_the_others(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization
) -> None:
    await adapter.members.create(organization_id=acme.id, user_id="u")
    await adapter.members.create(organization_id="broken", user_id="u")
    await store.append([new_event("auth-org:broken", {"id": "broken", "slug": CANARY}, type="auth.org.created")])
    assert await adapter.organizations.list_for_user("u") == [acme]


BAD_METADATA = {
    "list": ["x"],
    "text": CANARY,
    "number-as-key": {7: 1},
    "bytes": {"a": b"x"},
    "nan": {"a": float("nan")},
}
BAD_FIELDS = [
    *cases(("name", "logo"), BAD_TEXTS),
    *cases(("slug",), BAD_LABELS),
    *cases(("metadata",), BAD_METADATA),
    *cases(("name", "slug"), {"none": None}),
]


@pytest.mark.parametrize("case", BAD_FIELDS, ids=named)
async def test_bad_field_is_refused_before_anything_is_written(
    adapter: AllsourceAuthAdapter, store: EventStore, acme: Organization, case: Case
) -> None:
    field, _, value = case
    given: dict[str, Any] = {"name": "Other", "slug": "other", field: value}
    async with refused(store, field):
        await adapter.organizations.create(**given)
    async with refused(store, field):
        await adapter.organizations.update(acme.id, **{field: value})
    assert await adapter.organizations.get(acme.id) == acme


@pytest.mark.parametrize("chosen", BAD_IDS.values(), ids=BAD_IDS)
async def test_bad_id_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, chosen: Any) -> None:
    async with refused(store, "id"):
        await adapter.organizations.create(name="x", slug="x", id=chosen)


async def test_creation_over_a_tombstone_has_no_former_members(
    adapter: AllsourceAuthAdapter, acme: Organization
) -> None:
    member = await adapter.members.create(organization_id=acme.id, user_id="u")
    await adapter.organizations.delete(acme.id)
    again = await adapter.organizations.create(name="Again", slug="again", id=acme.id)
    assert await adapter.organizations.get(acme.id) == again
    assert await adapter.members.count(again.id) == 0
    assert await adapter.members.get(member.id) is None
