"""Servers that lose the versions of streams on a restart (Core 0.23 and 0.24).

A guarded append that arrives between the restart and the next read of the tenant is not checked correctly. The tests place a
restart exactly there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Conflict, Http, SqliteLog, User
from allsource_auth.server import LocalAllsource
from allsource_auth.store.allsource import http
from tests.store.allsource.local import Local
from tests.support.canaries import email, token
from tests.support.clocks import START
from tests.support.faults import Faults
from tests.support.names import claim_stream
from tests.support.ownership import assert_sound

pytestmark = [pytest.mark.usefixtures("watch"), pytest.mark.heavy]


@pytest.mark.parametrize("fresh", [False, True], ids=["same-adapter", "fresh-adapter"])
async def test_second_sign_up_after_a_restart_conflicts(older: Local, fresh: bool) -> None:
    adapter = older.adapter()
    first = await adapter.users.create(id="ada", email=email("Ada"), username="ada")
    session = await adapter.sessions.create(user_id="ada", expires_at=START, token=token("given"))
    await adapter.sessions.delete(session.token)
    for _ in range(5):
        for given, field in (
            ({"email": email("ADA")}, "email"),
            ({"username": "ada"}, "username"),
            ({"id": "ada", "email": email("new")}, "id"),
        ):
            older.faults.restart(cold=True)
            late = older.adapter() if fresh else adapter
            with pytest.raises(Conflict) as caught:
                await late.users.create(**given)  # type: ignore[arg-type]
            assert caught.value.field == field
        older.faults.restart(cold=True)
        late = older.adapter() if fresh else adapter
        with pytest.raises(Conflict):
            await late.sessions.create(user_id="ada", expires_at=START, token=session.token)
        assert await late.users.get_by_email(email("Ada")) == first
    assert await older.types("auth-user:") == ["auth.user.created"]
    assert await older.types("auth-session:") == ["auth.session.created", "auth.session.deleted"]


@pytest.mark.parametrize("fresh", [False, True], ids=["same-adapter", "fresh-adapter"])
async def test_mutations_after_a_restart_keep_their_guards(older: Local, fresh: bool) -> None:
    adapter = older.adapter()
    await adapter.users.create(id="ada", email=email("Ada"))

    def restarted() -> AllsourceAuthAdapter:
        older.faults.restart(cold=True)
        return older.adapter() if fresh else adapter

    for turn in range(3):
        user = await restarted().users.update("ada", name=f"turn {turn}", email=email(f"turn{turn}"))
        assert await restarted().users.get_by_email(email(f"turn{turn}")) == user
        await restarted().users.delete("ada")
        assert await restarted().users.get("ada") is None
        assert (await restarted().users.restore("ada")).name == f"turn {turn}"
    await assert_sound(restarted())
    assert len(await older.types("auth-user:ada")) == 10


# A restart between the read that loads the versions and the append


class RestartingServer:
    """A local 0.23 in this process, without connections that a restart would break. Both adapters are connected."""

    def __init__(self, server: LocalAllsource, faults: Faults, client: httpx.AsyncClient) -> None:
        self._faults = faults
        self._client = client
        self.early, self.late = self.adapter(), self.adapter()

    def adapter(self) -> AllsourceAuthAdapter:
        return AllsourceAuthAdapter.with_store(AllsourceStore("http://localhost", http_client=self._client))

    def restart(self) -> None:
        self._faults.restart(cold=True)

    def run_before(self, request: Callable[[str], bool], action: Callable[[], Awaitable[object]]) -> None:
        """Run an action once, directly before the first request of ``late`` with the chosen method is processed."""
        store = self.late._store
        assert isinstance(store, AllsourceStore)
        engine = store._client.engine
        send = engine.request
        done = False

        async def intercepted(method: str, *more: Any) -> http.Reply:
            nonlocal done
            if not done and request(method):
                done = True
                await action()
                self.restart()
            return await send(method, *more)

        engine.request = intercepted  # type: ignore[method-assign, assignment]


@pytest.fixture
async def cold() -> AsyncIterator[RestartingServer]:
    log, faults = SqliteLog(None), Faults()
    server = LocalAllsource(log, generation="0.23", middleware=faults)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.core)) as client:
        opened = RestartingServer(server, faults, client)
        await opened.early.users.create(id="first", email=email("first"))
        await opened.late.users.create(id="second", email=email("second"), username="second")
        yield opened
    await log.close()


def is_append(method: str) -> bool:
    return method == "POST"


async def test_email_claimed_during_a_restart_stays_with_its_first_owner(cold: RestartingServer) -> None:
    cold.run_before(is_append, lambda: cold.early.users.create(id="ada", email=email("Ada")))
    with pytest.raises(Conflict) as caught:
        await cold.late.users.create(id="late", email=email("ADA"), username="late")
    assert caught.value.field == "email"
    for adapter in (cold.early, cold.late, cold.adapter()):
        owner = await adapter.users.get_by_email(email("ada"))
        assert owner is not None
        assert owner.id == "ada"
        assert await adapter.users.get("late") is None
        assert await adapter.users.get_by_username("late") is None
        await assert_sound(adapter)
    claim = await cold.adapter()._store.read(claim_stream("email", email("ada").lower()))
    assert [event.type for event in claim].count("auth.index.claimed") == 3, "the restart did not hit the append"
    with pytest.raises(Conflict):
        await cold.late.users.create(email=email("Ada"))
    assert (await cold.late.users.create(username="late")).username == "late"


async def test_rename_during_a_restart_is_reverted(cold: RestartingServer) -> None:
    before = await cold.late.users.get("second")
    assert before is not None
    cold.run_before(is_append, lambda: cold.early.users.create(id="ada", email=email("Ada")))
    with pytest.raises(Conflict):
        await cold.late.users.update("second", email=email("Ada"), name="changed")
    for adapter in (cold.early, cold.late, cold.adapter()):
        owner = await adapter.users.get_by_email(email("Ada"))
        kept = await adapter.users.get_by_email(email("second"))
        assert owner is not None
        assert kept is not None
        assert (owner.id, kept.id, kept.name, kept.email) == ("ada", "second", before.name, before.email)
        await assert_sound(adapter)


async def test_rename_during_a_restart_reverts_to_the_state_before_its_last_attempt(cold: RestartingServer) -> None:
    """The first attempt gets no reply. Somebody else changes the user before the second attempt."""

    async def change_and_fail() -> None:
        await cold.early.users.update("second", name="theirs")
        raise Http("no reply", ambiguous=True)

    cold.run_before(is_append, lambda: cold.early.users.create(id="ada", email=email("Ada")))
    cold.run_before(is_append, change_and_fail)
    with pytest.raises(Conflict):
        await cold.late.users.update("second", email=email("Ada"), name="changed")
    for adapter in (cold.early, cold.late, cold.adapter()):
        kept = await adapter.users.get("second")
        assert kept is not None
        assert (kept.name, kept.email) == ("theirs", email("second"))
        await assert_sound(adapter)


async def test_transaction_during_a_restart_is_reverted_completely(cold: RestartingServer) -> None:
    early = cold.early
    await early.users.create(id="third", email=email("third"))
    account = await early.accounts.create(id="a3", user_id="third", provider_id="github", account_id="3")
    organization = await early.organizations.create(id="org", name="Acme", slug="acme")
    member = await early.members.create(id="m3", organization_id="org", user_id="third", role="owner")

    cold.run_before(is_append, lambda: early.users.create(id="ada", email=email("Ada")))

    async def transact() -> None:
        async with cold.late.transaction() as tx:
            await tx.users.update("second", name="changed")
            await tx.users.create(id="late", email=email("ADA"), username="late")
            await tx.users.delete("third")
            await tx.users.create(id="alone", username="alone")

    with pytest.raises(Conflict) as caught:
        await transact()
    assert caught.value.field == "email"
    for adapter in (early, cold.late, cold.adapter()):
        owner = await adapter.users.get_by_email(email("ada"))
        second, third = await adapter.users.get("second"), await adapter.users.get_by_email(email("third"))
        assert owner is not None
        assert second is not None
        assert third is not None
        assert (owner.id, second.name, third.id) == ("ada", None, "third")
        assert [await adapter.users.get(key) for key in ("late", "alone")] == [None, None]
        kept = await adapter.accounts.get_by_provider("github", "3")
        assert kept is not None
        assert msgspec.structs.replace(kept, updated_at=account.updated_at) == account
        assert await adapter.members.find("org", "third") == member
        assert await adapter.organizations.get("org") == organization
        await assert_sound(adapter)


async def test_user_created_again_during_a_restart_keeps_its_state(cold: RestartingServer) -> None:
    cold.run_before(is_append, lambda: cold.early.users.create(id="ada", name="first", email=email("Ada")))
    with pytest.raises(Conflict) as caught:
        await cold.late.users.create(id="ada", name="late", email=email("late"))
    assert caught.value.field == "id"
    for adapter in (cold.early, cold.late, cold.adapter()):
        user = await adapter.users.get("ada")
        assert user is not None
        assert (user.name, user.email) == ("first", email("Ada"))
        assert await adapter.users.get_by_email(email("Ada")) == user
        assert await adapter.users.get_by_email(email("late")) is None


async def test_token_revoked_during_a_restart_stays_revoked(cold: RestartingServer) -> None:
    async def sign_in_and_out() -> None:
        await cold.early.sessions.create(user_id="first", expires_at=START, token=token("given"))
        await cold.early.sessions.delete(token("given"))

    cold.run_before(is_append, sign_in_and_out)
    with pytest.raises(Conflict) as caught:
        await cold.late.sessions.create(user_id="second", expires_at=START, token=token("given"))
    assert caught.value.field == "token"
    for adapter in (cold.early, cold.late, cold.adapter()):
        assert await adapter.sessions.get(token("given")) is None
        assert await adapter.sessions.list_for_user("first") == []
        assert await adapter.sessions.list_for_user("second") == []
        with pytest.raises(Conflict):
            await adapter.sessions.create(user_id="second", expires_at=START, token=token("given"))
        assert [session async for session in adapter.sessions.scan()] == []


async def test_scan_shows_the_state_of_a_user_created_during_a_restart(cold: RestartingServer) -> None:
    cold.run_before(is_append, lambda: cold.early.users.create(id="ada", name="first", email=email("Ada")))
    with pytest.raises(Conflict):
        await cold.late.users.create(id="ada", name="late", email=email("late"))
    assert {user.name async for user in cold.early.users.scan()} == {None, "first"}
    assert (await cold.early.users.list(search_value="late")).total == 0
    await assert_sound(cold.early)


async def test_session_created_again_during_a_restart_keeps_its_state(cold: RestartingServer) -> None:
    made = []

    async def sign_in() -> None:
        made.append(await cold.early.sessions.create(user_id="first", expires_at=START, token=token("given")))

    cold.run_before(is_append, sign_in)
    with pytest.raises(Conflict):
        await cold.late.sessions.create(user_id="second", expires_at=START, token=token("given"))
    for adapter in (cold.early, cold.late, cold.adapter()):
        assert [await adapter.sessions.get(token("given"))] == made
        assert await adapter.sessions.list_for_user("first") == made
        assert await adapter.sessions.list_for_user("second") == []


async def test_scan_shows_the_state_of_a_session_created_during_a_restart(cold: RestartingServer) -> None:
    cold.run_before(
        is_append, lambda: cold.early.sessions.create(user_id="first", expires_at=START, token=token("given"))
    )
    with pytest.raises(Conflict):
        await cold.late.sessions.create(user_id="second", expires_at=START, token=token("given"))
    assert [session.user_id async for session in cold.early.sessions.scan()] == ["first"]
    await assert_sound(cold.early)


@pytest.mark.parametrize("place", range(7))
async def test_restart_before_any_request_of_a_sign_up_leaves_one_owner(cold: RestartingServer, place: int) -> None:
    """Another adapter signs up with the same email directly before that request, and the server restarts."""
    others: list[User | Conflict] = []

    async def sign_up() -> None:
        try:
            others.append(await cold.early.users.create(email=email("Ada")))
        except Conflict as error:
            others.append(error)

    seen = iter(range(100))
    cold.run_before(lambda method: next(seen) == place, sign_up)
    mine: User | Conflict
    try:
        mine = await cold.late.users.create(email=email("ada"))
    except Conflict as error:
        mine = error
    owners = [one for one in (mine, *others) if isinstance(one, User)]
    assert len(owners) == 1
    for adapter in (cold.early, cold.late, cold.adapter()):
        assert await adapter.users.get_by_email(email("Ada")) == owners[0]
        await assert_sound(adapter)


@pytest.mark.parametrize("what", ["email", "id"])
async def test_restart_that_breaks_connections_leaves_one_owner(older: Local, what: str) -> None:
    """The restart also breaks the connections; the late sign-up is detected in any case."""
    early, store = older.adapter(), older.store()
    late = older.adapter(store=store)
    await early.users.create(id="first")
    await late.users.create(id="second")
    engine = store._client.engine
    send = engine.request
    restarts = iter([True])

    async def intercepted(method: str, *more: Any) -> http.Reply:
        if method == "POST" and next(restarts, False):
            await early.users.create(id="ada", name="first", email=email("Ada"))
            older.faults.restart(cold=True)
        return await send(method, *more)

    engine.request = intercepted  # type: ignore[method-assign, assignment]
    given: dict[str, Any] = {"email": email("ada")} if what == "email" else {"id": "ada", "name": "late"}
    with pytest.raises(Conflict) as caught:
        await late.users.create(**given)
    assert caught.value.field == what
    for adapter in (early, late, older.adapter()):
        owner = await adapter.users.get_by_email(email("Ada"))
        assert owner is not None
        assert (owner.id, owner.name) == ("ada", "first")
        assert len([user async for user in adapter.users.scan()]) == 3
        await assert_sound(adapter)
