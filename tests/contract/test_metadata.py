"""The metadata of events: format, operation id, sequence number, audit fields."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, InvalidInput, __version__, audit
from tests.support.canaries import email
from tests.support.clocks import ManualClock
from tests.support.events import metadata, new_event, stored, stored_user, written_by

WHO = {
    "actor": "admin-1",
    "impersonator": "root",
    "ip": "203.0.113.7",
    "user_agent": "agent/1.0",
    "request_id": "r-1",
    "reason": "asked by mail",
}
WRITTEN = {
    "actor": "admin-1",
    "impersonator": "root",
    "ip": "203.0.113.7",
    "userAgent": "agent/1.0",
    "requestId": "r-1",
    "reason": "asked by mail",
}


async def test_every_event_of_a_mutation_has_its_operation(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    operations = []
    async with written_by(store) as settings:
        user = await adapter.users.create()
    operations.append({metadata(event)["op"] for event in settings.events if event.stream.startswith("auth-user:")})
    async with written_by(store) as updated:
        await adapter.users.update(user.id, email=email("a"), username="a")
    async with written_by(store) as moved:
        await adapter.users.update(user.id, email=email("b"))
    async with written_by(store) as signed_in:
        session = await adapter.sessions.create(user_id=user.id, expires_at=clock() + timedelta(days=1))
    async with written_by(store) as revoked:
        await adapter.sessions.delete(session.token)
    for written, count in ((updated, 3), (moved, 3), (signed_in, 2), (revoked, 2)):
        assert len(written.events) == count
        operations.append({metadata(event)["op"] for event in written.events})
    assert all(len(operation) == 1 for operation in operations)
    assert len(set.union(*operations)) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", text) for operation in operations for text in operation)


async def test_metadata_has_exactly_the_documented_keys(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    async with written_by(store) as written:
        user = await adapter.users.create(email=email("a"))
        await adapter.users.update(user.id, email=email("b"))
        await adapter.users.delete(user.id)
    assert len(written.events) > 6
    for event in written.events:
        found = metadata(event)
        assert set(found) == {"v", "op", "seq", "lib"}
        assert (found["v"], found["lib"]) == (1, f"allsource_auth/{__version__}")


async def test_sequence_counts_every_stream(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    user = await adapter.users.create()
    for number in range(3):
        await adapter.users.update(user.id, name=str(number))
    await adapter.users.delete(user.id)
    events = await stored(store, f"auth-user:{user.id}")
    assert [metadata(event)["seq"] for event in events] == [1, 2, 3, 4, 5]


async def test_sequence_after_foreign_events_follows_the_length_of_the_stream(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    await store.append([new_event("auth-user:x", stored_user("x")) for _ in range(3)])
    await adapter.users.update("x", name="ours")
    await adapter.users.update("x", name="ours again")
    assert [metadata(event) and metadata(event)["seq"] for event in await stored(store, "auth-user:x")] == [
        None,
        None,
        None,
        4,
        5,
    ]


async def test_index_entries_have_no_sequence(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    await adapter.users.get("warm")
    async with written_by(store) as written:
        session = await adapter.sessions.create(user_id="u", expires_at=clock() + timedelta(days=1))
        await adapter.sessions.delete(session.token)
    entries = [event for event in written.events if event.type in ("auth.index.added", "auth.index.removed")]
    assert len(entries) == 2
    assert all("seq" not in metadata(event) for event in entries)


async def test_events_written_inside_have_the_audit_fields(
    adapter: AllsourceAuthAdapter, store: EventStore, clock: ManualClock
) -> None:
    async with written_by(store) as written:
        with audit(**WHO):
            user = await adapter.users.create(email=email("a"))
            await adapter.sessions.create(user_id=user.id, expires_at=clock() + timedelta(days=1))
            await adapter.users.delete(user.id)
    assert len(written.events) > 6
    for event in written.events:
        found = metadata(event)
        assert {name: found.get(name) for name in WRITTEN} == WRITTEN
    for change in await adapter.users.history(user.id):
        assert {name: getattr(change, name) for name in WHO} == WHO


async def test_events_written_outside_have_no_audit_fields(adapter: AllsourceAuthAdapter) -> None:
    with audit(**WHO):
        user = await adapter.users.create()
    await adapter.users.update(user.id, name="x")
    change = (await adapter.users.history(user.id))[-1]
    assert all(getattr(change, name) is None for name in WHO)


async def test_inner_context_adds_and_overrides(adapter: AllsourceAuthAdapter) -> None:
    with audit(actor="outer", reason="outer"):
        with audit(actor="inner", ip="203.0.113.9"):
            user = await adapter.users.create()
        await adapter.users.update(user.id, name="x")
    inner, outer = await adapter.users.history(user.id)
    assert (inner.actor, inner.reason, inner.ip) == ("inner", "outer", "203.0.113.9")
    assert (outer.actor, outer.reason, outer.ip) == ("outer", "outer", None)


async def test_context_belongs_to_its_task(adapter: AllsourceAuthAdapter) -> None:
    async def sign_up(actor: str) -> str | None:
        with audit(actor=actor):
            await asyncio.sleep(0)
            user = await adapter.users.create()
            await asyncio.sleep(0)
            await adapter.users.update(user.id, name=actor)
        changes = await adapter.users.history(user.id)
        assert {change.actor for change in changes} == {actor}
        return changes[0].actor

    actors = [f"actor-{number}" for number in range(20)]
    assert await asyncio.gather(*map(sign_up, actors)) == actors


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("x" * 512, "x" * 512),
        ("x" * 513, "x" * 509 + "…"),
        ("é" * 256, "é" * 256),
        ("é" * 257, "é" * 254 + "…"),
        ("😀" * 200, "😀" * 127 + "…"),
    ],
    ids=["fits", "one-more", "fits-in-bytes", "cut-inside-a-letter", "four-byte-letters"],
)
async def test_long_text_is_cut_at_512_bytes(adapter: AllsourceAuthAdapter, given: str, kept: str) -> None:
    with audit(reason=given):
        user = await adapter.users.create()
    (change,) = await adapter.users.history(user.id)
    assert change.reason == kept
    assert len(kept.encode()) <= 512


@pytest.mark.parametrize("name", WHO)
@pytest.mark.parametrize("value", [7, b"x", "\ud800"], ids=repr)
def test_audit_field_that_is_not_text_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught, audit(**{name: value}):
        pass
    assert caught.value.field == name


async def test_foreign_metadata_reads_as_empty(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    foreign: list[Any] = [None, [], "text", {"op": 7}, {"seq": "many"}, {"actor": "them", "more": {"x": 1}}]
    for value in foreign:
        await store.append([new_event("auth-user:x", stored_user("x"), metadata=value)])
    changes = await adapter.users.history("x")
    assert [change.actor for change in changes] == [None, None, None, None, None, "them"]
    assert (await adapter.users.update("x", name="ours")).name == "ours"
