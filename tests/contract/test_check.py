"""`check` finds what crashes, other writers and faulty servers leave, and repairs what needs no decision."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import (
    AllsourceAuthAdapter,
    Event,
    EventStore,
    Finding,
    Latest,
    NewEvent,
    Session,
    StoreClosed,
    User,
    VersionConflict,
)
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email, revealed, token
from tests.support.clocks import START, ManualClock
from tests.support.events import metadata, new_event, payload, stored, stored_user, written_by
from tests.support.names import claim_stream, index_stream
from tests.support.ownership import assert_sound
from tests.support.wrappers import CrashingStore, PatientStore, WrappedStore

pytestmark = pytest.mark.tables

WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)
WANTED = claim_stream("email", email("wanted").lower())


async def one_of_each(adapter: AllsourceAuthAdapter, clock: ManualClock) -> User:
    """A user with one entity of each kind, and an organization."""
    user = await adapter.users.create(email=email("all"), username="all")
    later = clock() + WEEK
    org = await adapter.organizations.create(name="Org", slug="org")
    await adapter.sessions.create(user_id=user.id, expires_at=later)
    await adapter.accounts.create(user_id=user.id, provider_id="github", account_id="42")
    await adapter.verifications.create(identifier="reset", value=email("secret"), expires_at=later)
    await adapter.members.create(organization_id=org.id, user_id=user.id)
    await adapter.invitations.create(organization_id=org.id, email=email("guest"), inviter_id=user.id, expires_at=later)
    await adapter.two_factors.create(user_id=user.id, secret=email("totp"))
    await adapter.api_keys.create(user_id=user.id, key_hash=email("hash"))
    await adapter.passkeys.create(user_id=user.id, credential_id="credential", public_key="key")
    return user


def tombstone_of(user: User) -> NewEvent:
    """The first event of a deletion that was interrupted after it."""
    gone = {"_deleted": True, "id": user.id}
    return new_event(f"auth-user:{user.id}", gone, type="auth.user.deleted", metadata={"op": "a", "seq": 2}, guard=1)


def claim_by(owner: str, version: int) -> NewEvent:
    claim = {"v": 1, "owner": owner, "ownerVersion": version}
    return new_event(WANTED, claim, type="auth.index.claimed", metadata={"op": "f" * 32, "seq": 1})


def entry_of(stream: str, user_id: str = "u", *, seq: int = 1) -> NewEvent:
    entry = {"v": 1, "stream": stream}
    return new_event(index_stream(user_id), entry, type="auth.index.added", metadata={"op": "e", "entitySeq": seq})


async def found(adapter: AllsourceAuthAdapter, store: EventStore) -> tuple[Finding, ...]:
    """The findings of a check, which must not write anything."""
    async with written_by(store) as written:
        checked = await adapter.check()
    assert written.events == []
    assert not revealed(f"{checked!r} {checked.findings!r}")
    assert checked.remaining == checked.findings
    return checked.findings


async def repaired(adapter: AllsourceAuthAdapter, store: EventStore) -> list[Event]:
    """The types that a repair writes. It must repair everything, and a second repair must find nothing."""
    expected = await found(adapter, store)
    async with written_by(store) as written:
        checked = await adapter.check(repair=True)
    assert checked.remaining == ()
    assert sorted((finding.problem, finding.keys) for finding in checked.findings) == sorted(
        (finding.problem, finding.keys) for finding in expected
    )
    async with written_by(store) as nothing:
        assert (await adapter.check(repair=True)).findings == ()
    assert nothing.events == []
    return written.events


async def test_consistent_store_has_no_findings_and_is_not_written_to(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    user = await one_of_each(adapter, clock)
    other = await adapter.users.create(email=email("other"))
    await adapter.users.update(other.id, email=email("changed"), username="other")
    await adapter.users.delete(other.id)
    await adapter.users.restore(other.id)
    gone = await adapter.sessions.create(user_id=user.id, expires_at=clock() + WEEK)
    await adapter.sessions.delete(gone.token)
    await adapter.verifications.consume("reset", email("secret"))
    async with written_by(store) as written:
        for repair in (False, True):
            checked = await adapter.check(repair=repair)
            assert (checked.findings, checked.counts) == ((), {})
            assert checked.entities == 10
            assert checked.events > 10
            assert checked.index_streams > 10
    assert written.events == []
    await adapter.users.delete(user.id)
    assert await found(adapter, store) == ()


async def test_progress_is_reported_after_each_page(adapter: AllsourceAuthAdapter) -> None:
    for number in range(3):
        await adapter.users.create(id=f"u{number}", email=email(f"u{number}"))
    await adapter.sessions.create(user_id="u0", expires_at=START)
    reported: list[tuple[str, int]] = []
    checked = await adapter.check(progress=lambda what, count: reported.append((what, count)))
    assert {what for what, _ in reported} == {"events", "entities", "index streams"}
    assert dict(reported) == {
        "events": checked.events,
        "entities": checked.entities,
        "index streams": checked.index_streams,
    }
    assert (checked.events, checked.entities) == (4, 4)


async def test_empty_store_has_no_findings(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    assert await found(adapter, store) == ()


# Claims


async def test_claim_of_an_owner_without_the_value_is_released(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await store.append([claim_by(f"auth-user:{ada.id}", 0)])
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.kind, finding.field) == ("orphan_claim", "user", "email")
    assert (finding.keys, finding.stream) == ((ada.id,), WANTED)
    (release,) = await repaired(adapter, store)
    assert (release.type, release.stream) == ("auth.index.released", WANTED)
    assert payload(release) == {"v": 1, "owner": f"auth-user:{ada.id}"}
    assert metadata(release)["seq"] == 2
    assert await adapter.users.get(ada.id) == ada


async def test_claim_of_a_deleted_owner_is_released(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await store.append([tombstone_of(ada)])
    problems = [(finding.problem, finding.field) for finding in await found(adapter, store)]
    assert sorted(problems) == [("orphan_claim", "email"), ("orphan_claim", "username")]
    assert [event.type for event in await repaired(adapter, store)] == ["auth.index.released"] * 2
    assert await adapter.users.restore(ada.id)
    assert await found(adapter, store) == ()


@pytest.mark.parametrize("owner_exists", [False, True])
async def test_claim_of_a_sign_up_in_progress_is_no_finding(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock, ada: User, owner_exists: bool
) -> None:
    await store.append([claim_by(f"auth-user:{ada.id}" if owner_exists else "auth-user:slow", int(owner_exists))])
    for repair in (False, True):
        async with written_by(store) as written:
            assert (await adapter.check(repair=repair)).findings == ()
        assert written.events == []


async def test_old_claim_without_its_owner_is_fenced_and_released(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await store.append([claim_by("auth-user:slow", 0)])
    dated.move(HOUR)
    await adapter.users.create(id="warm")
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.keys) == ("orphan_claim", ("slow",))
    fence, release = await repaired(adapter, store)
    assert (fence.type, payload(fence)) == ("auth.index.fenced", {"_deleted": True, "id": "slow"})
    assert (release.type, release.stream) == ("auth.index.released", WANTED)
    late = new_event("auth-user:slow", stored_user("slow", email=email("wanted")), guard=0)
    with pytest.raises(VersionConflict):
        await store.append([late])
    assert await adapter.users.create(email=email("wanted"))


async def test_claim_of_an_undecided_transaction_is_released_by_one_repair(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, store: EventStore, ada: User
) -> None:
    """The account's claim is stored, and nothing else. The user, whose event decides, is fenced first."""

    async def break_off() -> None:
        async with make_adapter(store=CrashingStore(store, kept=1)).transaction() as tx:
            await tx.users.update(ada.id, name="Lovelace")
            await tx.accounts.create(id="never", user_id=ada.id, provider_id="github", account_id="42")

    with pytest.raises(StoreClosed):
        await break_off()
    patient = make_adapter(store=PatientStore(store))
    async with written_by(store) as written:
        checked = await patient.check(repair=True)
    assert [(finding.problem, finding.kind, finding.keys) for finding in checked.findings] == [
        ("orphan_claim", "account", ("never",))
    ]
    assert sorted(written.types) == ["auth.index.fenced", "auth.index.released"]
    assert (await patient.check()).findings == ()
    assert await adapter.accounts.create(user_id=ada.id, provider_id="github", account_id="42")


async def test_repair_does_not_release_a_newer_claim(
    make_adapter: MakeAdapter, store: EventStore, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another caller takes the free value between the read of its claim and the release."""
    await store.append([claim_by(f"auth-user:{ada.id}", 0)])
    adapter, others = make_adapter(), make_adapter()
    append = store.append
    raced = adapter._store

    async def behind(events: Any) -> Any:
        if events[-1].type == "auth.index.released" and not await others.users.get_by_email(email("wanted")):
            await others.users.create(email=email("wanted"))
        return await append(events)

    monkeypatch.setattr(raced, "append", behind)
    assert (await adapter.check(repair=True)).findings == ()
    assert await others.users.get_by_email(email("wanted"))
    assert await found(others, store) == ()


async def test_living_entity_without_its_claims_gets_them(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await store.append([new_event("auth-user:u", stored_user("u", email=email("U"), username="u"))])
    problems = await found(adapter, store)
    assert {(finding.problem, finding.field, finding.keys) for finding in problems} == {
        ("missing_claim", "email", ("u",)),
        ("missing_claim", "username", ("u",)),
    }
    await adapter.users.create(id="warm")
    events = await repaired(adapter, store)
    assert {event.type for event in events} == {"auth.index.claimed"}
    user = await adapter.users.get_by_email(email("u"))
    assert user == await adapter.users.get_by_username("u") == await adapter.users.get("u")
    assert user is not None


async def test_duplicates_are_reported_and_left_alone(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    early, late = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
    for user_id, name, created_at in (("a", "ada", late), ("b", "bob", late), ("c", "bob", early)):
        await store.append(
            [new_event(f"auth-user:{user_id}", stored_user(user_id, email=email(name), createdAt=created_at))]
        )
    problems = await found(adapter, store)
    assert {finding.problem for finding in problems} == {"duplicate"}
    assert sorted(finding.keys for finding in problems) == sorted([(ada.id, "a"), ("c", "b")])
    async with written_by(store) as written:
        checked = await adapter.check(repair=True)
    assert written.events == []
    assert checked.remaining == checked.findings
    assert sorted(finding.keys for finding in checked.findings) == sorted([(ada.id, "a"), ("c", "b")])
    assert await adapter.users.get_by_email(email("ada")) == ada


async def test_duplicate_gets_the_claim_after_the_other_gave_up_the_value(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await store.append([new_event("auth-user:a", stored_user("a", email=email("ada")))])
    await adapter.users.update(ada.id, email=email("moved"))
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.keys) == ("missing_claim", ("a",))
    await repaired(adapter, store)
    user = await adapter.users.get_by_email(email("ada"))
    assert user is not None
    assert user.id == "a"


class LastHolderDeleted(WrappedStore):
    """Deletes ``user`` just before its stream is read on the side that accepts writes."""

    def __init__(self, store: EventStore, user: User) -> None:
        super().__init__(store)
        self._user: User | None = user

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        user = self._user
        if user is not None and stream == f"auth-user:{user.id}" and require_leader:
            self._user = None
            await self.append([tombstone_of(user)])
        return await super().latest(stream, require_leader=require_leader)


async def test_value_is_claimed_for_the_living_one_of_two_users(make_adapter: MakeAdapter, store: EventStore) -> None:
    for user_id in ("a", "b"):
        await store.append([new_event(f"auth-user:{user_id}", stored_user(user_id, email=email("both")))])
    reader = make_adapter()
    last = await reader.users.get("b")
    assert last is not None
    checked = await make_adapter(store=LastHolderDeleted(store, last)).check(repair=True)
    assert [(finding.problem, finding.keys, finding.repaired) for finding in checked.findings] == [
        ("missing_claim", ("a",), True)
    ]
    assert await reader.users.get_by_email(email("both")) == await reader.users.get("a")


# Indexes


async def test_living_entities_without_index_entries_get_them(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await adapter.users.create(id="warm")
    await store.append([append_session(name, "u") for name in ("a", "b", "c")])
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.kind, finding.field) == ("missing_entry", "session", "user")
    assert (finding.keys, finding.stream) == ((token("a"), token("b"), token("c")), index_stream("u"))
    assert finding.shown_keys == ("***",) * 3
    events = await repaired(adapter, store)
    assert {event.type for event in events} == {"auth.index.added"}
    assert len(events) == 3
    sessions = await adapter.sessions.list_for_user("u")
    assert {session.token for session in sessions} == {token("a"), token("b"), token("c")}


async def test_entry_of_a_revoked_session_is_removed(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    stream = f"auth-session:{session.token}"
    gone = {"_deleted": True, "id": session.id}
    await store.append([new_event(stream, gone, type="auth.session.deleted", metadata={"op": "a", "seq": 2}, guard=1)])
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.keys, finding.stream) == ("dead_entry", (session.token,), index_stream(ada.id))
    (entry,) = await repaired(adapter, store)
    assert (entry.type, payload(entry)) == ("auth.index.removed", {"v": 1, "stream": stream})
    assert metadata(entry)["entitySeq"] == 2


async def test_entry_in_the_wrong_index_is_removed_only_there(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    await store.append([entry_of(f"auth-session:{session.token}", "other")])
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.stream) == ("dead_entry", index_stream("other"))
    (entry,) = await repaired(adapter, store)
    assert (entry.type, entry.stream) == ("auth.index.removed", index_stream("other"))
    assert await adapter.sessions.list_for_user(ada.id) == [session]


async def test_entry_of_a_session_in_creation_is_no_finding(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await store.append([entry_of(f"auth-session:{token('soon')}")])
    for repair in (False, True):
        async with written_by(store) as written:
            assert (await adapter.check(repair=repair)).findings == ()
        assert written.events == []


async def test_old_entry_without_a_session_is_removed_and_its_stream_fenced(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await store.append([entry_of(f"auth-session:{token('never')}")])
    dated.move(HOUR)
    await adapter.users.create(id="warm")
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.keys) == ("dead_entry", (token("never"),))
    fence, entry = await repaired(adapter, store)
    assert (fence.type, entry.type) == ("auth.index.fenced", "auth.index.removed")
    late = append_session("never", "u")
    await store.append(
        [new_event(late.stream, json.loads(late.payload), type=late.type, metadata={"v": 1, "op": "x", "seq": 1})]
    )
    assert await adapter.sessions.get(token("never")) is None
    assert await found(adapter, store) == ()


async def test_all_entries_of_a_long_index_are_checked(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, clock: ManualClock
) -> None:
    gone = [f"auth-session:{token(f'gone-{number:04}')}" for number in range(700)]
    for start in range(0, 700, 350):
        part = gone[start : start + 350]
        tombstones = [new_event(one, {"_deleted": True, "id": "x"}, type="auth.session.deleted") for one in part]
        await store.append(tombstones + [entry_of(one, ada.id) for one in part])
    living = await adapter.sessions.create(user_id=ada.id, expires_at=clock() + WEEK)
    findings = await found(adapter, store)
    assert {finding.problem for finding in findings} == {"dead_entry"}
    assert len({key for finding in findings for key in finding.keys}) == 700
    await repaired(adapter, store)
    assert await adapter.sessions.list_for_user(ada.id) == [living]


# Cascades


async def test_unfinished_cascade_is_completed(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    user = await one_of_each(adapter, clock)
    await store.append([tombstone_of(user)])
    findings = [finding for finding in await found(adapter, store) if finding.problem == "half_cascade"]
    assert {finding.kind for finding in findings} == {
        "session",
        "account",
        "member",
        "invitation",
        "two_factor",
        "api_key",
        "passkey",
    }
    assert {finding.field for finding in findings} == {"user"}
    await repaired(adapter, store)
    assert [session async for session in adapter.sessions.scan()] == []
    assert await adapter.two_factors.get_by_user(user.id) is None
    assert (await adapter.sessions.history((await _tokens(store))[0]))[-1].event == "SessionDeleted"
    kept = [(await adapter.organizations.get_by_slug("org")), await adapter.verifications.get_by_identifier("reset")]
    assert None not in kept
    again = await adapter.users.create(id=user.id, email=email("all"), username="all")
    assert await adapter.two_factors.create(user_id=again.id, secret="s")
    assert await found(adapter, store) == ()


async def test_child_of_a_deleted_parent_is_one_finding(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    """Its claim and its index entry are not reported in addition."""
    gone = {"_deleted": True, "id": "gone"}
    account = {"id": "a", "userId": "gone", "providerId": "github", "accountId": "42"}
    account |= {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
    await store.append([new_event("auth-user:gone", gone, type="auth.user.deleted")])
    await store.append([new_event("auth-account:a", account, type="auth.account.created")])
    await adapter.users.create(id="warm")
    (finding,) = await found(adapter, store)
    assert (finding.problem, finding.kind, finding.field, finding.keys) == ("half_cascade", "account", "user", ("a",))
    assert (await repaired(adapter, store))[0].type == "auth.account.deleted"


async def test_child_of_a_user_that_never_existed_is_left_alone(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    await adapter.sessions.create(user_id="nobody", expires_at=clock() + WEEK)
    assert await found(adapter, store) == ()


async def test_child_of_a_deleted_user_does_not_make_a_duplicate_after_the_repair(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    old = await adapter.accounts.create(user_id=ada.id, provider_id="github", account_id="42")
    await store.append([tombstone_of(ada)])
    account = {"id": "new", "userId": "u", "providerId": "github", "accountId": "42"}
    account |= {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
    await store.append([new_event("auth-account:new", account, type="auth.account.created")])
    checked = await adapter.check(repair=True)
    assert checked.remaining == ()
    assert await adapter.accounts.get(old.id) is None
    current = await adapter.accounts.get_by_provider("github", "42")
    assert current is not None
    assert current.id == "new"
    assert await found(adapter, store) == ()


# Undecodable events


async def test_undecodable_events_are_reported_and_left_alone(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    broken = stored_user(ada.id, email=email("ada"), emailVerified=email("no flag"))
    [old] = await store.append([new_event(f"auth-user:{ada.id}", broken, type="auth.user.updated")])
    await store.append([new_event(f"auth-user:{ada.id}", stored_user(ada.id, email=email("ada")), guard=2)])
    [newest] = await store.append(
        [new_event(f"auth-session:{session.token}", {"token": 7}, type="auth.session.updated")]
    )
    [claim] = await store.append([new_event(WANTED, {"owner": 7}, type="auth.index.claimed")])
    [entry] = await store.append([new_event(index_stream("u"), {"stream": 7}, type="auth.index.added")])
    for repair in (False, True):
        checked = await adapter.check(repair=repair)
        findings = [finding for finding in checked.findings if finding.problem == "undecodable"]
        assert {(finding.event_id, finding.kind, finding.stream) for finding in findings} == {
            (old.id, "user", f"auth-user:{ada.id}"),
            (newest.id, "session", "auth-session:***"),
            (claim.id, "user", WANTED),
            (entry.id, "session", index_stream("u")),
        }
        assert {finding.path for finding in findings if finding.event_id == old.id} == {"$.emailVerified"}
        assert not revealed(f"{checked!r} {checked.findings!r}")
        assert set(findings) <= set(checked.remaining)
    assert len(await stored(store, index_stream(ada.id))) == 1  # the entry of the living session


@pytest.mark.race
async def test_check_during_writes_leaves_a_consistent_store(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock
) -> None:
    writer, first, second = make_adapter(), make_adapter(), make_adapter()
    users = [await writer.users.create(email=f"u{number}@example.org") for number in range(20)]

    async def live(number: int, user: User) -> None:
        session = await writer.sessions.create(user_id=user.id, expires_at=clock() + WEEK)
        await writer.users.update(user.id, email=f"moved{number}@example.org")
        await writer.two_factors.create(user_id=user.id, secret="s")
        await writer.sessions.delete(session.token)
        if number % 2:
            await writer.users.delete(user.id)
        await writer.users.create(email=f"u{number}@example.org")

    work: list[Callable[[], Awaitable[object]]] = [
        lambda: asyncio.gather(*[live(number, user) for number, user in enumerate(users)]),
        lambda: first.check(repair=True),
        lambda: second.check(repair=True),
    ]
    await asyncio.gather(*[one() for one in work])
    await assert_sound(make_adapter())
    await make_adapter().check(repair=True)
    assert (await make_adapter().check()).findings == ()
    assert (await writer.users.list()).total == 30


def append_session(name: str, user_id: str) -> NewEvent:
    moment = START.isoformat()
    session = {
        "id": f"id-of-{name}",
        "token": token(name),
        "userId": user_id,
        "expiresAt": "2027-01-01T00:00:00Z",
        "createdAt": moment,
        "updatedAt": moment,
    }
    return new_event(f"auth-session:{token(name)}", session, type="auth.session.created")


async def _tokens(store: EventStore) -> list[str]:
    found = [event.stream async for page in store.scan("auth.session.") for event in page]
    return [stream.partition(":")[2] for stream in found]
