"""Claims, index entries, fences and settings: the events that other programs read, byte for byte."""

from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, Session, User
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import metadata, new_event, payload, stored, written_by
from tests.support.names import claim_stream, index_stream, settings_stream

WEEK = timedelta(days=7)


async def test_sign_up_claims_its_values_before_the_user(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await adapter.users.create(id="warm")
    async with written_by(store) as written:
        await adapter.users.create(id="u", email=email("Ada"), username="Ada")
    assert [(event.type, event.stream) for event in written.events] == [
        ("auth.index.claimed", claim_stream("email", email("Ada").lower())),
        ("auth.index.claimed", claim_stream("username", "Ada")),
        ("auth.user.created", "auth-user:u"),
    ]
    for claim in written.events[:2]:
        assert payload(claim) == {"v": 1, "owner": "auth-user:u", "ownerVersion": 0}
        assert claim.version == 1


async def test_change_of_email_claims_the_new_and_releases_the_old(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with written_by(store) as written:
        await adapter.users.update(ada.id, email=email("new"))
    owner = f"auth-user:{ada.id}"
    assert [(event.type, event.stream) for event in written.events] == [
        ("auth.index.claimed", claim_stream("email", email("new").lower())),
        ("auth.user.updated", owner),
        ("auth.index.released", claim_stream("email", email("ada").lower())),
    ]
    assert payload(written.events[0]) == {"v": 1, "owner": owner, "ownerVersion": 1}
    assert payload(written.events[2]) == {"v": 1, "owner": owner}


async def test_deletion_releases_after_the_tombstone(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with written_by(store) as written:
        await adapter.users.delete(ada.id)
    assert written.types == ["auth.user.deleted", "auth.index.released", "auth.index.released"]


async def test_restore_claims_again(adapter: AllsourceAuthAdapter, store: EventStore, ada: User) -> None:
    await adapter.users.delete(ada.id)
    async with written_by(store) as written:
        await adapter.users.restore(ada.id)
    assert written.types == ["auth.index.claimed", "auth.index.claimed", "auth.user.updated"]
    assert payload(written.events[0])["ownerVersion"] == 2


async def test_session_is_listed_before_it_is_created_and_delisted_after_its_tombstone(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, clock: ManualClock
) -> None:
    async with written_by(store) as written:
        session = await adapter.sessions.create(user_id=ada.id, expires_at=clock() + WEEK)
        await adapter.sessions.delete(session.token)
    own, listed = f"auth-session:{session.token}", index_stream(ada.id)
    assert [(event.type, event.stream) for event in written.events] == [
        ("auth.index.added", listed),
        ("auth.session.created", own),
        ("auth.session.deleted", own),
        ("auth.index.removed", listed),
    ]
    assert payload(written.events[0]) == payload(written.events[3]) == {"v": 1, "stream": own}


async def test_snapshot_covers_the_living(adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock) -> None:
    living = []
    for number in range(80):
        session = await adapter.sessions.create(user_id="u", expires_at=dated() + WEEK)
        if number % 2:
            await adapter.sessions.delete(session.token)
        else:
            living.append(f"auth-session:{session.token}")
    await adapter.sessions.list_for_user("u")
    events = await stored(store, index_stream("u"))
    snapshots = [event for event in events if event.type == "auth.index.snapshot"]
    assert snapshots
    newest = payload(snapshots[-1])
    assert set(newest) == {"v", "until", "streams", "part", "parts"}
    assert (newest["v"], newest["part"], newest["parts"]) == (1, 1, 1)
    known = [event for event in events if event.time <= int(newest["until"])]
    folded: dict[str, None] = {}
    for event in known:
        if event.type == "auth.index.added":
            folded[payload(event)["stream"]] = None
        elif event.type == "auth.index.removed":
            folded.pop(payload(event)["stream"], None)
    assert isinstance(newest["until"], str)
    assert set(newest["streams"]) == set(folded)
    assert set(folded) <= set(living)


async def test_index_is_the_newest_complete_snapshot_and_later_entries(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    """Snapshots of other writers count, too. Incomplete ones are ignored."""
    sessions = [await adapter.sessions.create(user_id="u", expires_at=clock() + WEEK) for _ in range(4)]
    own = [f"auth-session:{session.token}" for session in sessions]
    listed = index_stream("u")
    until = str((await stored(store, listed))[2].time)

    async def snapshot(streams: list[str], part: int, parts: int, op: str) -> None:
        content = {"v": 1, "until": until, "streams": streams, "part": part, "parts": parts}
        await store.append([new_event(listed, content, type="auth.index.snapshot", metadata={"v": 1, "op": op})])

    await snapshot([], 1, 2, "incomplete")
    assert len(await adapter.sessions.list_for_user("u")) == 4
    await snapshot(own[:1], 1, 2, "complete")
    await snapshot(own[1:2], 2, 2, "complete")
    found = await adapter.sessions.list_for_user("u")
    assert {session.token for session in found} == {sessions[number].token for number in (0, 1, 3)}


async def test_index_entry_without_its_session_is_ignored(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, session: Session
) -> None:
    entry = {"v": 1, "stream": "auth-session:never"}
    await store.append([new_event(index_stream(ada.id), entry, type="auth.index.added")])
    assert await adapter.sessions.list_for_user(ada.id) == [session]


async def test_recent_claim_without_its_owner_conflicts(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await _claim(store, owner="auth-user:slow", version=0)
    with pytest.raises(Conflict):
        await adapter.users.create(email="lost@example.org")


async def test_old_claim_is_fenced_and_its_writer_fails(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock
) -> None:
    await _claim(store, owner="auth-user:slow", version=0)
    dated.move(timedelta(hours=1))
    await adapter.users.create(id="warm")
    user = await adapter.users.create(email="Lost@example.org")
    assert await adapter.users.get_by_email("lost@example.org") == user
    (fence,) = await stored(store, "auth-user:slow")
    assert (fence.type, payload(fence)) == ("auth.index.fenced", {"_deleted": True, "id": "slow"})
    assert metadata(fence)["seq"] == 1
    assert await adapter.users.get("slow") is None
    assert await adapter.users.history("slow") == []


async def test_fence_of_a_living_owner_repeats_its_state(
    adapter: AllsourceAuthAdapter, store: EventStore, dated: ManualClock, ada: User
) -> None:
    await _claim(store, owner=f"auth-user:{ada.id}", version=1)
    dated.move(timedelta(hours=1))
    await adapter.users.create(id="warm")
    await adapter.users.create(email="lost@example.org")
    created, fence = await stored(store, f"auth-user:{ada.id}")
    assert fence.type == "auth.index.fenced"
    assert bytes(fence.payload) == bytes(created.payload)
    assert metadata(fence)["seq"] == 2
    assert await adapter.users.get(ada.id) == ada
    assert len(await adapter.users.history(ada.id)) == 1


async def test_claim_of_an_owner_with_another_value_is_free(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    await _claim(store, owner=f"auth-user:{ada.id}", version=0)
    user = await adapter.users.create(email="lost@example.org")
    assert await adapter.users.get_by_email("lost@example.org") == user
    assert len(await stored(store, f"auth-user:{ada.id}")) == 1


async def test_first_write_stores_the_settings(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    await adapter.users.create()
    await adapter.users.create()
    (settings,) = await stored(store, settings_stream())
    assert settings.type == "auth.index.configured"
    assert payload(settings) == {
        "v": 1,
        "format": 1,
        "hashKey": None,
        "sessionTokens": "plain",
        "encryption": None,
    }


async def test_reads_store_nothing(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    async with written_by(store) as written:
        await adapter.users.get("x")
        await adapter.users.get_by_email("x")
        await adapter.users.list()
        await adapter.sessions.list_for_user("x")
    assert written.events == []


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("event_format", "format", 2),
        ("hash_key", "hashKey", "k1"),
        ("session_tokens", "sessionTokens", "hashed"),
        ("encryption", "encryption", "k1"),
    ],
)
async def test_store_with_other_settings_is_refused(
    make_adapter: MakeAdapter, store: EventStore, setting: str, key: str, value: object
) -> None:
    theirs = {"v": 1, "format": 1, "hashKey": None, "sessionTokens": "plain", "encryption": None, key: value}
    await store.append([new_event(settings_stream(), theirs, type="auth.index.configured")])
    adapter = make_adapter()
    for call in (adapter.users.get("x"), adapter.users.get("x"), adapter.users.create(), adapter.users.list()):
        async with written_by(store) as written:
            with pytest.raises(InvalidInput) as caught:
                await call
        assert caught.value.field == setting
        assert written.events == []


async def _claim(store: EventStore, *, owner: str, version: int) -> None:
    """Append the claim of lost@example.org alone, as a writer that crashed right after it."""
    claim = {"v": 1, "owner": owner, "ownerVersion": version}
    stream = claim_stream("email", "lost@example.org")
    await store.append([new_event(stream, claim, type="auth.index.claimed", metadata={"op": "f" * 32, "seq": 1})])
