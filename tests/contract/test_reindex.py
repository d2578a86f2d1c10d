"""`reindex`: the entities of the Rust crate become searchable; duplicates and undecodable events are reported."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from allsource_auth import (
    Acknowledged,
    AllsourceAuthAdapter,
    Conflict,
    EventStore,
    Http,
    Latest,
    NewEvent,
    Reindexed,
    StoreClosed,
    VersionConflict,
)
from tests.contract.conftest import MakeAdapter, MakeStore
from tests.support.canaries import email, revealed, token
from tests.support.clocks import ManualClock
from tests.support.events import (
    RUST_EVENTS,
    metadata,
    new_event,
    payload,
    rust_event,
    stored,
    stored_user,
    written_by,
)
from tests.support.names import claim_stream, index_stream
from tests.support.ownership import assert_sound
from tests.support.wrappers import CountingStore, WrappedStore

pytestmark = pytest.mark.tables

WEEK = timedelta(days=7)
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
NOON = datetime(2026, 11, 23, 11, tzinfo=UTC)
U1, U2, U3 = (
    "4c75d1c4-17b8-4073-880e-6b6573af7653",
    "531af6a0-1157-49f6-8590-5ed81d8f76b6",
    "b074a936-c5b2-4a18-9d2b-663cff8484b1",
)
LIVING = 21


async def append_fixture(store: EventStore) -> None:
    """Append all events of the fixture, as the crate sends them."""
    for line in RUST_EVENTS.read_text().splitlines():
        await store.append([rust_event(json.loads(line))])


async def append_user(store: EventStore, user_id: str, **members: object) -> None:
    await store.append([new_event(f"auth-user:{user_id}", stored_user(user_id, **members))])


def append_session(name: str, user_id: str) -> NewEvent:
    session = {
        "id": f"id-of-{name}",
        "token": token(name),
        "userId": user_id,
        "expiresAt": "2027-01-01T00:00:00Z",
        "createdAt": EARLY,
        "updatedAt": EARLY,
    }
    return new_event(f"auth-session:{token(name)}", session, type="auth.session.created")


async def found_by(adapter: AllsourceAuthAdapter) -> dict[str, Any]:
    """The results of every look-up that needs a claim or an index, for the living entities of the fixture."""
    found: dict[str, Any] = {
        "email": await adapter.users.get_by_email("RS-U1-new@example.test"),
        "email that was given up": await adapter.users.get_by_email("rs-u1@example.test"),
        "username": await adapter.users.get_by_username("rs-u1_un"),
        "account": await adapter.accounts.get_by_provider("github", "rs-gh-1"),
        "slug": await adapter.organizations.get_by_slug("rs-org"),
        "member": await adapter.members.find("c4cc1277-d649-4406-9564-57c1d0b5c02f", U1),
        "pending": await adapter.invitations.find_pending(
            "c4cc1277-d649-4406-9564-57c1d0b5c02f", "RS-guest@example.test"
        ),
        "second factor": await adapter.two_factors.get_by_user(U1),
        "api key": await adapter.api_keys.get_by_hash("rs-sha256-of-key"),
        "disabled api key": await adapter.api_keys.get_by_hash("rm-h-upd"),
        "passkey": await adapter.passkeys.get_by_credential_id("rs-cred-1"),
        "verification": await adapter.verifications.find("rs-verify@example.test", "tok-123"),
        "by identifier": await adapter.verifications.get_by_identifier("rs-verify@example.test"),
        "by value": await adapter.verifications.get_by_value("tok-123"),
    }
    lists: dict[str, Sequence[Any]] = {
        "sessions": await adapter.sessions.list_for_user(U1),
        "accounts": await adapter.accounts.list_for_user(U1),
        "members": await adapter.members.list_for_organization("c4cc1277-d649-4406-9564-57c1d0b5c02f"),
        "organizations": await adapter.organizations.list_for_user(U1),
        "invitations": await adapter.invitations.list_for_email("rs-guest@EXAMPLE.test"),
        "sent": await adapter.invitations.list_for_organization("c4cc1277-d649-4406-9564-57c1d0b5c02f"),
        "api keys": await adapter.api_keys.list_for_user(U1),
        "passkeys": await adapter.passkeys.list_for_user(U1),
    }
    return {name: None if entity is None else entity.id for name, entity in found.items()} | {
        name: [entity.id for entity in entities] for name, entities in lists.items()
    }


@pytest.fixture
def adapter(make_adapter: MakeAdapter, clock: ManualClock) -> AllsourceAuthAdapter:
    clock.now = NOON
    return make_adapter(clock=clock)


async def test_everything_of_the_crate_is_found_by_every_look_up(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await append_fixture(store)
    before = await found_by(adapter)
    assert not any(found for found in before.values())
    done = await adapter.reindex()
    assert (done.entities, done.claims, done.entries) == (LIVING, 17, 22)
    assert (done.duplicates, done.undecodable) == ((), ())
    verification = "rs-verify@example.test#fc827340-b9b5-4bfc-abbf-0faebfcd299d"
    assert await found_by(adapter) == {
        "email": U1,
        "email that was given up": U2,
        "username": U1,
        "account": "ffef49b2-4f40-46fd-91a4-9546097bd34d",
        "slug": "c4cc1277-d649-4406-9564-57c1d0b5c02f",
        "member": "ea4bc544-2e13-4d79-ba6c-cc03e00b0fe6",
        "pending": "20aedd52-a371-4a08-8570-22e243dec45a",
        "second factor": "e4c2e1a8-4604-4c0d-b8cd-d6bee667e1fa",
        "api key": "52167b72-32d5-48da-a99a-720f34bc88df",
        "disabled api key": "2afbe1b9-8f48-4c71-aef6-c51e52b986aa",
        "passkey": "71e8a001-16e2-4c84-8fc6-a9ca526cc4bb",
        "verification": verification,
        "by identifier": verification,
        "by value": verification,
        "sessions": ["802aab9e-195d-490a-a6fe-5798c98953b0"],
        "accounts": ["ffef49b2-4f40-46fd-91a4-9546097bd34d"],
        "members": ["ea4bc544-2e13-4d79-ba6c-cc03e00b0fe6"],
        "organizations": ["c4cc1277-d649-4406-9564-57c1d0b5c02f"],
        "invitations": ["20aedd52-a371-4a08-8570-22e243dec45a"],
        "sent": ["20aedd52-a371-4a08-8570-22e243dec45a"],
        "api keys": ["52167b72-32d5-48da-a99a-720f34bc88df"],
        "passkeys": ["71e8a001-16e2-4c84-8fc6-a9ca526cc4bb"],
    }
    await assert_sound(adapter)


async def test_entities_deleted_by_the_crate_free_their_values(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await append_fixture(store)
    await adapter.reindex()
    assert await adapter.users.get_by_email("rs-gone@example.test") is None
    assert await adapter.users.get_by_username("rs-gone_un") is None
    assert await adapter.accounts.get_by_provider("github", "rm-acc-del") is None
    assert await adapter.organizations.get_by_slug("rm-org-del") is None
    assert await adapter.two_factors.get_by_user("rm-2fa-user") is None
    assert await adapter.api_keys.get_by_hash("rm-h-del") is None
    assert await adapter.passkeys.get_by_credential_id("rm-c-del") is None
    assert await adapter.verifications.get_by_value("rm-consume-val") is None
    again = await adapter.users.create(email="RS-gone@example.test", username="rs-gone_un")
    assert await adapter.users.get_by_email("rs-gone@example.test") == again


async def test_values_of_the_crates_users_are_taken(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await append_fixture(store)
    await adapter.reindex()
    with pytest.raises(Conflict):
        await adapter.users.create(email="rs-u1-NEW@example.test")
    await adapter.users.update(U1, email="moved@example.test")
    assert await adapter.users.create(email="rs-u1-new@example.test")
    await adapter.users.delete(U3)
    assert await adapter.sessions.list_for_user(U3) == []
    assert await adapter.users.get_by_email("rm-m1@example.test") is None
    checked = await adapter.check()
    assert checked.findings == ()


async def test_second_run_writes_nothing(
    adapter: AllsourceAuthAdapter, make_adapter: MakeAdapter, store: EventStore
) -> None:
    await append_fixture(store)
    await adapter.reindex()
    async with written_by(store) as written:
        again = await make_adapter().reindex()
    assert written.events == []
    assert again == Reindexed(entities=LIVING, claims=0, entries=0)


async def test_store_written_by_this_library_needs_no_reindex(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    user = await adapter.users.create(email=email("a"), username="a")
    for _ in range(3):
        await adapter.sessions.create(user_id=user.id, expires_at=clock() + WEEK)
    await adapter.users.update(user.id, email=email("b"))
    await adapter.users.delete((await adapter.users.create(email=email("gone"))).id)
    async with written_by(store) as written:
        assert await adapter.reindex() == Reindexed(entities=4, claims=0, entries=0)
    assert written.events == []


async def test_empty_store_stays_empty(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    async with written_by(store) as written:
        assert await adapter.reindex() == Reindexed(entities=0, claims=0, entries=0)
    assert written.events == []


async def test_claims_and_entries_have_the_documented_format(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await append_user(store, "u", email=email("Ada"))
    for name in ("Other name", "Third name"):
        await append_user(store, "u", email=email("Ada"), name=name)
    await store.append([append_session("s", "u")])
    async with written_by(store) as written:
        await adapter.reindex()
    (claim,) = written.of(claim_stream("email", email("ada").lower()))
    assert claim.type == "auth.index.claimed"
    head = await store.latest("auth-user:u", require_leader=True)
    assert payload(claim) == {"v": 1, "owner": "auth-user:u", "ownerVersion": head.version}
    assert metadata(claim)["seq"] == 1
    (entry,) = written.of(index_stream("u"))
    assert (entry.type, payload(entry)) == ("auth.index.added", {"v": 1, "stream": f"auth-session:{token('s')}"})
    assert metadata(entry)["entitySeq"] == 1
    assert {event.type for event in written.events} == {
        "auth.index.configured",
        "auth.index.claimed",
        "auth.index.added",
    }


async def test_revocation_during_the_reindex_outranks_its_entry(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    """Another process revokes a session between the read of it and the index entry."""
    await store.append([append_session("s", "u")])
    await adapter.reindex()
    (entry,) = await stored(store, index_stream("u"))
    await adapter.sessions.delete(token("s"))
    again = NewEvent(type=entry.type, stream=entry.stream, payload=bytes(entry.payload), metadata=bytes(entry.metadata))
    await store.append([again])
    assert (await adapter.check()).findings == ()


@pytest.mark.parametrize("first_met", ["a", "z"])
async def test_oldest_duplicate_gets_the_claim_and_all_are_reported(
    adapter: AllsourceAuthAdapter, store: EventStore, first_met: str
) -> None:
    older = "z" if first_met == "a" else "a"
    await append_user(store, older, email=email("Shared"), createdAt=EARLY)
    await append_user(store, first_met, email=email("shared").upper(), createdAt=LATE)
    await append_user(store, "m", email=email("SHARED"), createdAt=LATE)
    done = await adapter.reindex()
    (finding,) = done.duplicates
    assert (finding.problem, finding.kind, finding.field, finding.repaired) == ("duplicate", "user", "email", False)
    assert finding.keys == (older, *sorted(["m", first_met]))
    assert not revealed(f"{done!r} {finding!r}")
    found = await adapter.users.get_by_email(email("shared"))
    assert found is not None
    assert found.id == older
    assert {user.id async for user in adapter.users.scan()} == {"a", "m", "z"}
    async with written_by(store) as written:
        assert (await adapter.reindex()).duplicates == (finding,)
    assert written.events == []


class DelayingOldest(WrappedStore):
    """Delays the append for the oldest of several duplicates."""

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if U1.encode() in events[-1].payload:
            await asyncio.sleep(0.05)
        return await super().append(events)


async def test_duplicates_do_not_compete_for_the_claim(make_adapter: MakeAdapter, store: EventStore) -> None:
    """One claim is written for all of them, whatever the order of the appends."""
    for user_id, moment in ((U1, EARLY), (U2, LATE), (U3, LATE)):
        await append_user(store, user_id, email=email("Ada"), createdAt=moment)
    found = await make_adapter(store=DelayingOldest(store)).reindex()
    assert (found.claims, len(found.duplicates)) == (1, 1)
    user = await make_adapter(store=store).users.get_by_email(email("Ada"))
    assert user is not None
    assert user.id == U1


async def test_older_user_of_the_crate_takes_over_the_claim_of_a_newer_one(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    ours = await adapter.users.create(email=email("shared"))
    await append_user(store, "theirs", email=email("Shared"), createdAt=EARLY)
    done = await adapter.reindex()
    assert done.duplicates[0].keys == ("theirs", ours.id)
    found = await adapter.users.get_by_email(email("shared"))
    assert found is not None
    assert found.id == "theirs"
    await adapter.users.delete(ours.id)
    assert await adapter.users.get_by_email(email("shared")) == found
    assert (await adapter.reindex()).duplicates == ()


async def test_claim_goes_to_a_living_child_before_one_of_a_deleted_user(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    """An account that was linked again, where the crate left the old one of a deleted user behind."""
    gone = {"_deleted": True, "id": "auth-user:gone"}
    await store.append([new_event("auth-user:gone", gone, type="auth.user.deleted")])
    await append_user(store, "u")
    for account_id, user_id, created_at in (("old", "gone", EARLY), ("new", "u", LATE)):
        account = {
            "id": account_id,
            "userId": user_id,
            "providerId": "github",
            "accountId": "42",
            "createdAt": created_at,
            "updatedAt": created_at,
        }
        await store.append([new_event(f"auth-account:{account_id}", account, type="auth.account.created")])
    done = await adapter.reindex()
    assert done.duplicates[0].keys == ("old", "new")
    found = await adapter.accounts.get_by_provider("github", "42")
    assert found is not None
    assert found.id == "new"


async def test_sign_up_in_progress_loses_its_value_to_the_reindexed_user(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await append_user(store, "u", email=email("wanted"))
    claim = {"v": 1, "owner": "auth-user:slow", "ownerVersion": 0}
    stream = claim_stream("email", email("wanted").lower())
    await store.append([new_event(stream, claim, type="auth.index.claimed", metadata={"op": "f" * 32, "seq": 1})])
    assert (await adapter.reindex()).claims == 1
    found = await adapter.users.get_by_email(email("wanted"))
    assert found is not None
    assert found.id == "u"
    late = new_event("auth-user:slow", stored_user("slow", email=email("wanted")), metadata={"op": "f" * 32}, guard=0)
    with pytest.raises(VersionConflict):
        await store.append([late])


async def test_undecodable_events_are_reported_and_stop_nothing(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await append_user(store, "a", email=email("a"))
    await append_user(store, "b", email=email("b"), emailVerified=email("no flag"))
    await store.append([new_event(f"auth-session:{token('x')}", {"token": token("x")}, type="auth.session.created")])
    await append_user(store, "c", email=email("c"))
    broken = claim_stream("email", email("c").lower())
    [unreadable] = await store.append([new_event(broken, {"owner": 7}, type="auth.index.claimed")])
    await append_user(store, "d", email=email("d"))
    done = await adapter.reindex()
    assert (done.entities, done.claims) == (3, 2)
    assert {(finding.kind, finding.stream, finding.path) for finding in done.undecodable} == {
        ("user", "auth-user:b", "$.emailVerified"),
        ("user", broken, None),
        ("session", "auth-session:***", "$.id"),
    }
    assert unreadable.id in {finding.event_id for finding in done.undecodable}
    assert not revealed(f"{done!r} {done.undecodable!r}")
    assert await adapter.users.get_by_email(email("d")) is not None


async def test_long_index_is_written_in_few_appends(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock
) -> None:
    counting = CountingStore(store)
    names = [f"s{number:04}" for number in range(300)]
    await store.append([append_session(name, "u") for name in names])
    adapter = make_adapter(store=counting)
    assert (await adapter.reindex()).entries == 300
    assert len([batch for batch in counting.appends if batch[0].type == "auth.index.added"]) == 1
    found = await adapter.sessions.list_for_user("u")
    assert sorted(session.token for session in found) == [token(name) for name in names]
    assert (await adapter.reindex()).entries == 0


async def test_progress_is_reported_after_each_page(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    for number in range(3):
        await append_user(store, f"u{number}")
    await store.append([append_session("s", "u0")])
    reported: list[tuple[str, int]] = []
    await adapter.reindex(progress=lambda kind, done: reported.append((kind, done)))
    assert reported == [("user", 3), ("session", 1)]


async def test_each_tenant_is_reindexed_separately(
    make_adapter: MakeAdapter, make_store: MakeStore, store: EventStore
) -> None:
    await append_user(store, "a", email=email("a"))
    await append_user(make_store("other"), "b", email=email("a"))
    mine, other = make_adapter(), make_adapter(tenant_id="other")
    assert await mine.reindex() == Reindexed(entities=1, claims=1, entries=0)
    assert await other.users.get_by_email(email("a")) is None
    assert await other.reindex() == Reindexed(entities=1, claims=1, entries=0)
    found = await other.users.get_by_email(email("a"))
    assert found is not None
    assert found.id == "b"


class Interrupted(WrappedStore):
    """Closes after a given number of appends."""

    def __init__(self, store: EventStore, appends: int) -> None:
        super().__init__(store)
        self._left = appends

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if self._left == 0:
            raise StoreClosed
        self._left -= 1
        return await super().append(events)


@pytest.mark.race
async def test_interrupted_run_is_completed_by_the_next_one(
    make_adapter: MakeAdapter, store: EventStore, clock: ManualClock
) -> None:
    clock.now = NOON
    await append_fixture(store)
    with pytest.raises(StoreClosed):
        await make_adapter(store=Interrupted(store, 9)).reindex()
    rest = await make_adapter().reindex()
    assert 0 < rest.claims < 17
    checked = await make_adapter().check()
    assert checked.findings == ()


class LosingReplies(WrappedStore):
    """Loses the reply to every third append, after it was stored."""

    appends = 0

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        found = await super().append(events)
        self.appends += 1
        if self.appends % 3 == 0:
            raise Http("the reply was lost", ambiguous=True)
        return found


@pytest.mark.race
async def test_lost_replies_are_settled(make_adapter: MakeAdapter, store: EventStore) -> None:
    await append_fixture(store)
    done = await make_adapter(store=LosingReplies(store)).reindex()
    assert (done.claims, done.entries) == (17, 22)
    assert (await make_adapter().check()).findings == ()


async def test_other_values_are_claimed_beside_an_undecodable_claim(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await append_user(store, "u", email=email("u"), username="u")
    broken = new_event(claim_stream("email", email("u").lower()), {"owner": 7}, type="auth.index.claimed")
    [claim] = await store.append([broken])
    done = await adapter.reindex()
    assert [finding.event_id for finding in done.undecodable] == [claim.id]
    assert done.claims == 1
    user = await adapter.users.get_by_username("u")
    assert user is not None
    assert user.id == "u"


class LosingVersions(WrappedStore):
    """Has lost the version of a stream, as Core 0.23 does for archived streams on a restart: its first append is accepted."""

    @property
    def loses_versions_on_restart(self) -> bool:
        return True

    def __init__(self, store: EventStore, forgotten: str) -> None:
        super().__init__(store)
        self._forgotten: str | None = forgotten

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        if require_leader and stream == self._forgotten:
            return Latest(event=None, version=0)
        return await super().latest(stream, require_leader=require_leader)

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        if events[0].stream == self._forgotten:
            self._forgotten = None
            events = [msgspec.structs.replace(events[0], guard=None)]
        return await super().append(events)


async def test_claim_lost_by_a_server_is_written_again(make_adapter: MakeAdapter, store: EventStore) -> None:
    ours = await make_adapter().users.create(email=email("shared"))
    await append_user(store, "younger", email=email("shared"), createdAt="2027-01-01T00:00:00Z")
    stream = claim_stream("email", email("shared").lower())
    done = await make_adapter(store=LosingVersions(store, stream)).reindex()
    assert done.duplicates[0].keys == (ours.id, "younger")
    assert [payload(event)["owner"] for event in await stored(store, stream)] == [
        f"auth-user:{ours.id}",
        "auth-user:younger",
        f"auth-user:{ours.id}",
    ]
    assert await make_adapter().users.get_by_email(email("shared")) == ours


@pytest.mark.race
async def test_reindex_works_during_writes(make_adapter: MakeAdapter, store: EventStore, clock: ManualClock) -> None:
    """Two runs during changes, deletions, revocations and sign-ups of the same entities, then a third run."""
    count = 60
    for number in range(count):
        await append_user(store, f"u{number:02}", email=f"u{number}@example.org", username=f"name-{number}")
        await store.append([append_session(f"s{number:02}", f"u{number % 7:02}")])
    first, second, writer = make_adapter(), make_adapter(), make_adapter()

    async def write() -> None:
        for number in range(0, count, 6):
            await asyncio.gather(
                writer.users.update(f"u{number:02}", email=f"moved{number}@example.org"),
                writer.users.delete(f"u{number + 1:02}"),
                writer.sessions.delete(token(f"s{number + 2:02}")),
                writer.users.update(f"u{number + 3:02}", name="New", username=f"other-{number}"),
                writer.sessions.create(user_id=f"u{number + 4:02}", expires_at=clock() + WEEK),
                writer.users.create(email=f"new{number}@example.org"),
            )

    await asyncio.gather(first.reindex(), write(), second.reindex())
    last = await make_adapter().reindex()
    assert last.duplicates == ()
    await assert_sound(make_adapter())
    await make_adapter().check(repair=True)
    assert (await make_adapter().check()).findings == ()
    again = await first.users.create(email="u1@example.org")
    assert await second.users.get_by_email("u1@example.org") == again
