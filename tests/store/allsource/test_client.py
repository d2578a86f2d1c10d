"""Retries: which requests are sent again, how often and after which pause, and which are not."""

from __future__ import annotations

import httpx
import pytest
from pytest_httpx import HTTPXMock

from allsource_auth import (
    AllsourceAuthAdapter,
    AllsourceStore,
    Api,
    NewEvent,
    RateLimited,
    Unauthorized,
    Unavailable,
    VersionConflict,
)
from allsource_auth.store.allsource import client as allsource_client
from tests.store.allsource.error_bodies import ADMISSION, PAGE, UNCERTAIN, error_body
from tests.store.allsource.local import Local, Pauses
from tests.support.canaries import CANARY, email, revealed
from tests.support.clocks import START
from tests.support.events import new_event

pytestmark = pytest.mark.usefixtures("watch")

URL = "http://localhost:3900"


async def changed(adapter: AllsourceAuthAdapter) -> None:
    """Perform one mutation of each kind and check the results."""
    user = await adapter.users.create(email=email("Ada"), username="ada")
    session = await adapter.sessions.create(user_id=user.id, expires_at=START)
    await adapter.users.update(user.id, email=email("new"))
    assert (await adapter.users.get_by_email(email("new"))) is not None
    assert [found.token for found in await adapter.sessions.list_for_user(user.id)] == [session.token]
    await adapter.sessions.delete(session.token)
    await adapter.users.delete(user.id)
    assert await adapter.users.get_by_email(email("new")) is None


CHANGES = ["auth.user.created", "auth.user.updated", "auth.user.deleted"]


async def test_mutations_succeed_if_every_third_request_is_rejected(either: Local, pauses: Pauses) -> None:
    # Not every second one: before each write an older server may be read, so that the write would always be the rejected one.
    either.faults.refuse(429, headers={"Retry-After": "1"}, count=10_000, every=3)
    await changed(either.adapter())
    assert await either.types("auth-user:") == CHANGES
    assert await either.types("auth-session:") == ["auth.session.created", "auth.session.deleted"]
    claims = ["auth.index.claimed", "auth.index.released"]
    assert sorted(await either.types("auth-idx:user.")) == [claim for claim in claims for _ in range(3)]
    assert len(pauses.made) > 5
    assert all(1.0 <= pause <= 1.5 for pause in pauses.made)


@pytest.mark.parametrize("on", ["POST", ""])
async def test_temporary_rejections_are_retried_for_ten_seconds(newer: Local, pauses: Pauses, on: str) -> None:
    adapter = newer.adapter()
    newer.faults.refuse(429, headers={"Retry-After": "2"}, count=10_000, on=on)
    with pytest.raises(RateLimited) as caught:
        await adapter.users.create(email=email("Ada"))
    assert (caught.value.retry_after, caught.value.ambiguous) == (2.0, False)
    assert 8 <= sum(pauses.made) <= allsource_client.MAX_RETRY_TIME * 2
    assert await newer.events() == []


async def test_retry_after_of_zero_still_pauses(newer: Local, pauses: Pauses) -> None:
    newer.faults.refuse(429, headers={"Retry-After": "0"}, count=10_000)
    with pytest.raises(RateLimited):
        await newer.adapter().users.get("ada")
    assert min(pauses.made) > 0
    assert len(pauses.made) < 50


async def test_pauses_grow_without_retry_after(newer: Local, pauses: Pauses) -> None:
    newer.faults.refuse(502, count=10_000)
    with pytest.raises(Unavailable):
        await newer.adapter().users.get("ada")
    assert pauses.made[0] < 0.1
    assert 1.0 <= max(pauses.made) <= 1.5
    assert sorted(pauses.made[:4]) == pauses.made[:4]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (503, ADMISSION, {}),
        (503, b'{"error":"Queue full: archive workers unavailable"}', {}),
        (503, b'{"error":"archive_index_incomplete","remaining_files":3}', {"Retry-After": "1"}),
    ],
)
async def test_temporarily_rejected_write_is_retried(
    newer: Local, pauses: Pauses, status: int, body: bytes, headers: dict[str, str]
) -> None:
    newer.faults.refuse(status, body, headers, count=1000, every=2)
    await changed(newer.adapter())
    assert await newer.types("auth-user:") == CHANGES
    assert pauses.made


@pytest.mark.parametrize("stored", [False, True], ids=["not-stored", "stored"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error":"Internal error: worker gone"}'),
        (502, PAGE),
        (503, UNCERTAIN),
        (503, PAGE),
        (504, b""),
    ],
    ids=["500", "502", "503-uncertain", "503-page", "504"],
)
async def test_write_with_ambiguous_outcome_has_one_effect(
    newer: Local, status: int, body: bytes, stored: bool
) -> None:
    adapter = newer.adapter()
    await adapter.users.create(id="first")
    newer.faults.refuse(status, body, count=1000, every=3, stored=stored, on="POST")
    await changed(adapter)
    created, *others = await newer.types("auth-user:")
    assert (created, others) == ("auth.user.created", CHANGES)
    assert (await newer.types("auth-session:")).count("auth.session.created") == 1
    assert await adapter.sessions.list_for_user("first") == []


@pytest.mark.parametrize(("status", "body"), [(500, b""), (502, PAGE), (503, UNCERTAIN), (503, PAGE), (504, b"")])
async def test_append_with_ambiguous_outcome_is_not_retried(newer: Local, status: int, body: bytes) -> None:
    """The mutation must look for the event first."""
    newer.faults.refuse(status, body, stored=True, on="POST")
    with pytest.raises(Api) as caught:
        await newer.store().append([new_event("auth-user:ada")])
    assert (caught.value.status, caught.value.ambiguous) == (status, True)
    assert newer.requests() == ["POST core"]
    assert len(await newer.events()) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_reads_survive_gateway_errors(newer: Local, pauses: Pauses, status: int) -> None:
    adapter = newer.adapter()
    user = await adapter.users.create(email=email("Ada"))
    newer.faults.refuse(status, PAGE, count=6, on="GET")
    assert await adapter.users.get(user.id) == user
    assert len(pauses.made) == 5, "Core answers at once if the Query Service fails"


@pytest.mark.parametrize(
    ("word", "wait", "setting"),
    [
        ("archive_hydration_refused", "30", "ALLSOURCE_MEMORY_RESERVE_BYTES"),
        ("archive_budget_exceeded", "5", "ALLSOURCE_STRICT_ARCHIVE_MAX_DECODED_BYTES"),
    ],
)
async def test_condition_that_needs_an_operator_is_raised_at_once(
    newer: Local, pauses: Pauses, word: str, wait: str, setting: str
) -> None:
    adapter = newer.adapter()
    await adapter.users.create(id="first")
    newer.arrived.clear()
    newer.faults.refuse(503, error_body(error=word), {"Retry-After": wait}, count=1000)
    for call in (adapter.users.get("first"), adapter.users.update("first", name="x")):
        with pytest.raises(Unavailable, match=setting) as caught:
            await call
        assert not caught.value.ambiguous
        assert newer.requests() in (["GET query"], ["GET core"])
    assert pauses.made == []


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, error_body(error=f"Invalid input: Entity ID 'auth-user:{CANARY}' no"), Api),
        (401, b"Invalid API key", Unauthorized),
        (403, b"Admin permission required", Unauthorized),
        (404, b"", Api),
        (409, error_body(error="read_only", message="a follower"), Api),
        (409, error_body(error="Already exists: it"), Api),
        (413, b"length limit exceeded", Api),
        (422, error_body(error=f"Serialization error: {CANARY}"), Api),
        (422, error_body(error={"code": "schema_violation", "message": CANARY, "details": {}}), Api),
        (422, f"Failed to deserialize the JSON body: {CANARY}".encode(), Api),
    ],
)
async def test_permanent_error_is_raised_without_retry(
    newer: Local, pauses: Pauses, status: int, body: bytes, error: type[Api]
) -> None:
    adapter = newer.adapter()
    await adapter.users.create(id="first")
    for on, call in (
        ("GET", adapter.users.get("first")),
        ("POST", adapter.users.create(email=email("Ada"))),
    ):
        newer.arrived.clear()
        newer.faults.refuse(status, body, count=1000, on=on)
        with pytest.raises(Api) as caught:
            await call
        newer.faults.clear()
        assert (type(caught.value), caught.value.status, caught.value.ambiguous) == (error, status, False)
        assert sum(request.method == on for request in newer.arrived) == 1
    assert pauses.made == []
    assert await newer.types("auth-user:") == ["auth.user.created"]
    assert await newer.types("auth-idx:user.") == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(newer: Local, status: int) -> None:
    """It could send the credential and the events to another server."""
    adapter = newer.adapter()
    await adapter.users.create(id="first")
    newer.arrived.clear()
    newer.faults.refuse(status, headers={"Location": f"{newer.core_url}/elsewhere"}, count=1000)
    for call in (adapter.users.get("first"), adapter.users.update("first", name="x")):
        with pytest.raises(Api) as caught:
            await call
        assert caught.value.status == status
    assert "/elsewhere" not in {request.path for request in newer.arrived}


async def test_mutation_is_ambiguous_if_every_append_fails_with_500(newer: Local) -> None:
    adapter = newer.adapter()
    await adapter.users.create(id="first")
    turns = iter(range(10_000))
    adapter.context.mutations.now = lambda: float(next(turns))
    newer.faults.refuse(500, PAGE, count=10_000, on="POST")
    with pytest.raises(Api) as caught:
        await adapter.users.update("first", name=CANARY)
    assert (caught.value.status, caught.value.ambiguous) == (500, True)
    assert not revealed(str(caught.value))


async def test_version_conflict_of_a_batch_names_the_stream(httpx_mock: HTTPXMock) -> None:
    """The reply of Core contains both versions but not the stream."""
    httpx_mock.add_response(
        method="POST",
        status_code=409,
        json={"error": "version_conflict", "expected_version": 2, "current_version": 5},
        is_reusable=True,
    )
    strict = {"events": [], "has_more": False, "archive_integrity": {"protocol": "retained-entity-v1"}}
    httpx_mock.add_response(method="GET", json=strict, is_reusable=True)
    async with httpx.AsyncClient() as client:
        store = AllsourceStore(URL, http_client=client)

        async def refused(*guards: int) -> VersionConflict:
            events: list[NewEvent] = [new_event(f"s{place}", guard=guard) for place, guard in enumerate(guards)]
            with pytest.raises(VersionConflict) as caught:
                await store.append(events)
            return caught.value

        assert (await refused(1, 2)).stream == "s1"
        assert (await refused(2, 2)).stream is None
