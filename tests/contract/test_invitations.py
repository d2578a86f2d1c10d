"""Invitations: created, found while they are pending, answered once."""

import asyncio
import unicodedata
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, Invitation, InvitationNotFound
from tests.contract.conftest import MakeAdapter
from tests.support.bad_values import BAD_IDS, BAD_LABELS, BAD_TIMES, Case, cases, named
from tests.support.canaries import email
from tests.support.clocks import START, ManualClock
from tests.support.crowds import spellings
from tests.support.events import refused, stored, written_by
from tests.support.samples import list_of

pytestmark = pytest.mark.tables

WEEK = timedelta(days=7)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
MISSING = ["nothing", "", " x", "x" * 500]
ANSWERS = ("accepted", "rejected", "canceled")


async def invite(adapter: AllsourceAuthAdapter, **given: Any) -> Invitation:
    """Invite Ada to the organization ``o`` for a week, or with other values."""
    usual = {
        "organization_id": "o",
        "email": email("Ada"),
        "inviter_id": "boss",
        "expires_at": START + WEEK,
    }
    return await adapter.invitations.create(**{**usual, **given})


@pytest.fixture
async def invitation(adapter: AllsourceAuthAdapter) -> Invitation:
    return await invite(adapter)


async def test_every_given_field_is_kept(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    invitation = await invite(adapter, role="admin,billing", id="chosen")
    assert invitation == Invitation(
        id="chosen",
        created_at=clock(),
        organization_id="o",
        email=email("Ada"),
        inviter_id="boss",
        expires_at=clock() + WEEK,
        role="admin,billing",
        status="pending",
    )
    assert await adapter.invitations.get("chosen") == invitation


async def test_role_is_member_unless_one_is_given(invitation: Invitation) -> None:
    assert (invitation.role, invitation.status) == ("member", "pending")


async def test_expiry_with_an_offset_is_read_as_utc(adapter: AllsourceAuthAdapter) -> None:
    end = datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    invitation = await invite(adapter, expires_at=end)
    assert invitation.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert invitation.expires_at.tzinfo is UTC


async def test_newest_of_several_invitations_of_an_email_is_found(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    made = []
    for _ in range(3):
        made.append(await invite(adapter))
        clock.move(MINUTE)
    assert await adapter.invitations.find_pending("o", email("Ada")) == made[2]
    assert await adapter.invitations.list_for_email(email("Ada")) == made[::-1]
    await adapter.invitations.update_status(made[2].id, "canceled")
    assert await adapter.invitations.find_pending("o", email("Ada")) == made[1]


async def test_second_invitation_with_an_id_conflicts(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    first = await invite(adapter, id="same")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await invite(adapter, id="same", email=email("other"))
    assert (caught.value.kind, caught.value.field) == ("invitation", "id")
    assert written.events == []
    assert await adapter.invitations.list_for_organization("o") == [first]
    assert await adapter.invitations.list_for_email(email("other")) == []


@pytest.mark.parametrize("spelling", [email("ada").lower(), email("ADA").upper(), *spellings(email("ada"), 3)])
async def test_email_is_found_ignoring_case(
    adapter: AllsourceAuthAdapter, invitation: Invitation, spelling: str
) -> None:
    assert await adapter.invitations.find_pending("o", spelling) == invitation
    assert await adapter.invitations.list_for_email(spelling) == [invitation]
    assert invitation.email == email("Ada")


async def test_email_is_found_in_any_normal_form(adapter: AllsourceAuthAdapter) -> None:
    invitation = await invite(adapter, email=unicodedata.normalize("NFC", email("Zoë")))
    for form in ("NFC", "NFD"):
        spelling = unicodedata.normalize(form, email("ZOË"))
        assert await adapter.invitations.find_pending("o", spelling) == invitation


async def test_spellings_of_one_email_share_an_index(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    made = []
    for spelling in spellings(email("ada"), 5):
        made.append(await invite(adapter, email=spelling))
        clock.move(MINUTE)
    await invite(adapter, email=email("ada") + ".net")
    assert await adapter.invitations.list_for_email(email("ADA")) == made[::-1]


async def test_find_pending_matches_organization_and_email(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    ours = await invite(adapter)
    clock.move(MINUTE)
    theirs = await invite(adapter, organization_id="p")
    clock.move(MINUTE)
    other = await invite(adapter, email=email("Bob"))
    assert await adapter.invitations.find_pending("o", email("Ada")) == ours
    assert await adapter.invitations.find_pending("p", email("Ada")) == theirs
    assert await adapter.invitations.find_pending("o", email("Bob")) == other
    for pair in (("p", email("Bob")), ("O", email("Ada")), ("q", email("Ada")), ("o", ""), ("", email("Ada"))):
        assert await adapter.invitations.find_pending(*pair) is None
    assert await adapter.invitations.list_for_email(email("Ada")) == [theirs, ours]


@pytest.mark.parametrize(
    ("remaining", "pending"),
    [(-WEEK, False), (-TICK, False), (timedelta(0), False), (TICK, True), (WEEK, True)],
    ids=["long-over", "just-over", "now", "just-not-over", "in-a-week"],
)
async def test_invitation_is_expired_at_expires_at(
    adapter: AllsourceAuthAdapter, clock: ManualClock, invitation: Invitation, remaining: timedelta, pending: bool
) -> None:
    clock.now = invitation.expires_at - remaining
    assert await adapter.invitations.find_pending("o", email("Ada")) == (invitation if pending else None)
    assert await adapter.invitations.list_for_email(email("Ada")) == ([invitation] if pending else [])
    assert await adapter.invitations.list_for_organization("o") == [invitation]
    assert await adapter.invitations.get(invitation.id) == invitation


async def test_expired_invitation_does_not_hide_an_older_valid_one(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    lasting = await invite(adapter)
    clock.move(MINUTE)
    await invite(adapter, expires_at=clock())
    assert await adapter.invitations.find_pending("o", email("Ada")) == lasting


@pytest.mark.parametrize("status", ANSWERS)
async def test_answered_invitation_is_not_pending(
    adapter: AllsourceAuthAdapter, store: EventStore, invitation: Invitation, status: Any
) -> None:
    async with written_by(store) as written:
        answered = await adapter.invitations.update_status(invitation.id, status)
    assert written.types == ["auth.invitation.updated"]
    assert answered == msgspec.structs.replace(invitation, status=status)
    assert await adapter.invitations.get(invitation.id) == answered
    assert await adapter.invitations.find_pending("o", email("Ada")) is None
    assert await adapter.invitations.list_for_email(email("Ada")) == []
    assert await adapter.invitations.list_for_organization("o") == [answered]
    pending = await adapter.invitations.update_status(invitation.id, "pending")
    assert pending == invitation
    assert await adapter.invitations.find_pending("o", email("Ada")) == invitation


async def test_expired_invitation_can_be_answered(
    adapter: AllsourceAuthAdapter, clock: ManualClock, invitation: Invitation
) -> None:
    """The application decides whether that is allowed."""
    clock.move(WEEK + WEEK)
    answered = await adapter.invitations.update_status(invitation.id, "accepted", expected="pending")
    assert answered.status == "accepted"


@pytest.mark.parametrize("now", ANSWERS)
@pytest.mark.parametrize("wanted", ANSWERS)
async def test_status_other_than_expected_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, invitation: Invitation, now: Any, wanted: Any
) -> None:
    answered = await adapter.invitations.update_status(invitation.id, now, expected="pending")
    async with written_by(store) as written:
        with pytest.raises(Conflict) as caught:
            await adapter.invitations.update_status(invitation.id, wanted, expected="pending")
    assert (caught.value.kind, caught.value.field) == ("invitation", "status")
    assert written.events == []
    assert await adapter.invitations.get(invitation.id) == answered
    again = await adapter.invitations.update_status(invitation.id, wanted, expected=now)
    assert again.status == wanted


@pytest.mark.race
@pytest.mark.parametrize("adapters", [1, 2])
async def test_concurrent_accept_and_cancel_have_one_winner(make_adapter: MakeAdapter, adapters: int) -> None:
    seen = [make_adapter() for _ in range(adapters)]
    outcomes = await asyncio.gather(*[_accepted_and_canceled(seen[0], seen[-1], number) for number in range(200)])
    assert Counter(outcomes).total() == 200
    assert set(outcomes) <= {"accepted", "canceled"}


async def _accepted_and_canceled(one: AllsourceAuthAdapter, other: AllsourceAuthAdapter, number: int) -> str:
    """Accept and cancel an invitation concurrently; return the results."""
    invitation = await invite(one, id=f"i{number}", email=email(f"guest-{number}"))
    calls = [
        one.invitations.update_status(invitation.id, "accepted", expected="pending"),
        other.invitations.update_status(invitation.id, "canceled", expected="pending"),
    ]
    outcomes = await asyncio.gather(*calls[:: -1 if number % 2 else 1], return_exceptions=True)
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Invitation)]
    (loser,) = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (loser.kind, loser.field) == ("invitation", "status")
    assert await other.invitations.get(invitation.id) == winner
    changes = await one.invitations.history(invitation.id)
    assert [change.event for change in changes] == ["InvitationCreated", "InvitationUpdated"]
    return winner.status


@pytest.mark.parametrize("missing", MISSING)
async def test_missing_invitation_is_not_found(adapter: AllsourceAuthAdapter, store: EventStore, missing: str) -> None:
    assert await adapter.invitations.get(missing) is None
    async with written_by(store) as written:
        for call in (
            adapter.invitations.update_status(missing, "accepted"),
            adapter.invitations.update_status(missing, "accepted", expected="pending"),
            adapter.invitations.restore(missing),
        ):
            with pytest.raises(InvitationNotFound) as caught:
                await call
            assert caught.value.kind == "invitation"
    assert written.events == []


async def test_deleted_invitation_can_be_restored(adapter: AllsourceAuthAdapter, invitation: Invitation) -> None:
    """An invitation is only deleted together with its organization or inviter."""
    answered = await adapter.invitations.update_status(invitation.id, "rejected")
    organization = await adapter.organizations.create(name="O", slug="o", id="o")
    await adapter.organizations.delete(organization.id)
    assert await adapter.invitations.get(invitation.id) is None
    assert await adapter.invitations.list_for_organization("o") == []
    with pytest.raises(InvitationNotFound):
        await adapter.invitations.update_status(invitation.id, "accepted")
    await adapter.organizations.restore("o")
    assert await adapter.invitations.list_for_organization("o") == []
    assert await adapter.invitations.restore(invitation.id) == answered
    assert await adapter.invitations.list_for_organization("o") == [answered]
    assert await adapter.invitations.list_for_email(email("Ada")) == []
    again = await adapter.invitations.update_status(invitation.id, "pending")
    assert await adapter.invitations.list_for_email(email("Ada")) == [again]


async def test_list_of_an_organization_has_every_status_newest_first(
    adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    made = []
    for number, status in enumerate(("pending", *ANSWERS)):
        sent = await invite(adapter, email=email(f"guest-{number}"), expires_at=clock() + MINUTE)
        made.append(await adapter.invitations.update_status(sent.id, status))  # type: ignore[arg-type]
        await invite(adapter, organization_id="p")
        clock.move(WEEK)
    assert await adapter.invitations.list_for_organization("o") == made[::-1]


async def test_invitations_with_equal_times_are_ordered_by_id(adapter: AllsourceAuthAdapter) -> None:
    for name in ("a", "c", "b"):
        await invite(adapter, id=name)
    assert [found.id for found in await adapter.invitations.list_for_organization("o")] == ["c", "b", "a"]
    assert [found.id for found in await adapter.invitations.list_for_email(email("Ada"))] == ["c", "b", "a"]
    found = await adapter.invitations.find_pending("o", email("Ada"))
    assert found is not None
    assert found.id == "c"


@pytest.mark.parametrize("value", [*MISSING, "\ud800"])
async def test_unknown_organization_and_email_have_no_invitations(
    adapter: AllsourceAuthAdapter, invitation: Invitation, value: str
) -> None:
    assert await adapter.invitations.list_for_organization(value) == []
    assert await adapter.invitations.list_for_email(value) == []
    assert await adapter.invitations.find_pending("o", value) is None
    assert await adapter.invitations.find_pending(value, email("Ada")) is None


@pytest.mark.parametrize("value", [None, 7, b"x"])
async def test_look_up_by_other_than_text_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, value: Any
) -> None:
    async with refused(store, "organization_id"):
        await adapter.invitations.list_for_organization(value)
    async with refused(store, "email"):
        await adapter.invitations.list_for_email(value)
    async with refused(store, "email"):
        await adapter.invitations.find_pending("o", value)
    async with refused(store, "organization_id"):
        await adapter.invitations.find_pending(value, email("Ada"))


BAD_FIELDS = [
    *cases(("organization_id", "inviter_id", "id"), BAD_IDS),
    *cases(("email", "role"), BAD_LABELS),
    *cases(("expires_at",), BAD_TIMES),
    *cases(("organization_id", "inviter_id", "email", "role", "expires_at"), {"none": None}),
]


@pytest.mark.parametrize("case", BAD_FIELDS, ids=named)
async def test_bad_field_is_refused_before_anything_is_written(
    adapter: AllsourceAuthAdapter, store: EventStore, case: Case
) -> None:
    field, _, value = case
    async with refused(store, field):
        await invite(adapter, **{field: value})
    assert await adapter.invitations.list_for_organization("o") == []


BAD_STATUSES: list[Any] = [
    None,
    "",
    "PENDING",
    "Accepted",
    "cancelled",
    "expired",
    " pending",
    1,
    b"pending",
    ["pending"],
]


@pytest.mark.parametrize("status", BAD_STATUSES)
async def test_unknown_status_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, invitation: Invitation, status: Any
) -> None:
    async with refused(store, "status"):
        await adapter.invitations.update_status(invitation.id, status)
    async with refused(store, "expected"):
        await adapter.invitations.update_status(invitation.id, "accepted", expected=status)
    assert await adapter.invitations.get(invitation.id) == invitation


async def test_invitation_is_in_three_indexes_one_of_which_ignores_case(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await invite(adapter, id="i")
    for field, value in (("organization", "o"), ("inviter", "boss"), ("email", email("Ada").lower())):
        (entry,) = await stored(store, list_of("invitation", field, value))
        assert entry.type == "auth.index.added"
    assert await stored(store, list_of("invitation", "email", email("Ada"))) == []
