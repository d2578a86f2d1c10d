"""Incomplete writes of crashed or foreign writers are detected on reading and never trusted."""

from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, InvalidInput, Json, User
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import new_event
from tests.support.names import claim_stream


async def test_creation_over_a_fenced_tombstone_first_completes_the_deletion(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, clock: ManualClock
) -> None:
    left = await adapter.sessions.create(user_id=ada.id, expires_at=clock() + timedelta(days=1))
    gone = {"_deleted": True, "id": ada.id}
    stream = f"auth-user:{ada.id}"
    await store.append([new_event(stream, gone, type="auth.user.deleted", metadata={"op": "a", "seq": 2}, guard=1)])
    await store.append([new_event(stream, gone, type="auth.index.fenced", metadata={"op": "b", "seq": 3}, guard=2)])
    assert await adapter.users.get(ada.id) is None
    await adapter.users.create(id=ada.id)
    assert await adapter.load_session(left.token) is None
    assert await adapter.sessions.get(left.token) is None


async def test_claim_of_a_completed_operation_is_free(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    """Even if the version of the owner suggests that it is pending, as after a crash of a server."""
    [created] = await adapter.users.history(ada.id)
    claim = {"v": 1, "owner": f"auth-user:{ada.id}", "ownerVersion": 2}
    stream = claim_stream("email", email("was-hers").lower())
    await store.append([new_event(stream, claim, type="auth.index.claimed", metadata={"op": created.op, "seq": 1})])
    await adapter.users.update(ada.id, name="Other")
    other = await adapter.users.create(email=email("was-hers"))
    assert await adapter.users.get_by_email(email("was-hers")) == other


async def test_recent_claim_of_a_pending_write_conflicts_and_an_old_one_is_fenced(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, dated: ManualClock
) -> None:
    claim = {"v": 1, "owner": f"auth-user:{ada.id}", "ownerVersion": 1}
    stream = claim_stream("email", email("wanted").lower())
    await store.append([new_event(stream, claim, type="auth.index.claimed", metadata={"op": "x", "seq": 1})])
    with pytest.raises(Conflict):
        await adapter.users.create(email=email("wanted"))
    assert await adapter.users.get_by_email(email("wanted")) is None
    dated.move(timedelta(minutes=1))
    winner = await adapter.users.create(email=email("wanted"))
    assert await adapter.users.get_by_email(email("wanted")) == winner
    history = await adapter.users.history(ada.id, fences=True)
    assert [change.event for change in history] == ["UserCreated", "Fenced"]
    assert await adapter.users.get(ada.id) == ada


async def test_undecodable_claim_raises_json_error_with_its_event(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    stream = claim_stream("email", email("broken").lower())
    [stored] = await store.append([new_event(stream, {"owner": 7}, type="auth.index.claimed")])
    for call in (adapter.users.get_by_email(email("broken")), adapter.users.create(email=email("broken"))):
        with pytest.raises(Json) as caught:
            await call
        assert caught.value.event_id == stored.id


async def test_list_of_an_invalid_user_id_is_empty(adapter: AllsourceAuthAdapter) -> None:
    assert await adapter.sessions.list_for_user("\ud800") == []
    assert await adapter.sessions.delete_for_user("\ud800") == 0
    assert await adapter.sessions.list_for_user("") == []


@pytest.mark.parametrize("value", [None, 7, b"u"])
async def test_list_of_other_than_text_is_refused(adapter: AllsourceAuthAdapter, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        await adapter.sessions.list_for_user(value)
    assert caught.value.field == "user_id"
