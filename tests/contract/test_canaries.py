"""Logs, reprs and errors: what they say, and that the watch of this suite would notice a leak."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, Page, Session, User, VersionConflict, audit
from allsource_auth.logs import noticed, observed
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import CANARY, LOGGED, Watch, email, revealed, watched
from tests.support.clocks import ManualClock
from tests.support.wrappers import ContendedStore


async def test_every_call_of_the_store_is_logged_with_four_facts(
    adapter: AllsourceAuthAdapter, watch: Watch, clock: ManualClock
) -> None:
    with audit(actor=CANARY, ip=CANARY, user_agent=CANARY, request_id=CANARY, reason=CANARY):
        user = await adapter.users.create(email=email("a"), username=CANARY, metadata={CANARY: CANARY})
        session = await adapter.sessions.create(user_id=user.id, expires_at=clock() + timedelta(days=1))
    await adapter.load_session(session.token)
    await adapter.users.get_by_email(email("a"))
    await adapter.users.history(user.id)
    await adapter.sessions.list_for_user(user.id)
    await adapter.users.delete(user.id)
    assert len(watch.records) > 10
    for record in watch.records:
        facts = watch.facts(record)
        assert set(facts) == LOGGED
        assert record.levelno == logging.DEBUG
        assert facts["operation"] in ("append", "latest", "read")
        assert facts["outcome"] == "ok"
        assert isinstance(facts["milliseconds"], float)
        assert facts["milliseconds"] >= 0
    kinds = {str(watch.facts(record)["kind"]) for record in watch.records}
    assert {"auth-user", "auth-session", "user.email", "user.username", "session.by_user"} <= kinds


async def test_failed_call_is_logged_with_the_class_of_its_error(
    make_adapter: MakeAdapter, store: EventStore, ada: User, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource_auth.repositories.plans.PATIENCE", 0.0)
    adapter = make_adapter(store=ContendedStore(store, f"auth-user:{ada.id}"))
    watch.records.clear()
    with pytest.raises(VersionConflict):
        await adapter.users.update(ada.id, name="x")
    outcomes = {watch.facts(record)["outcome"] for record in watch.records}
    assert "VersionConflict" in outcomes


async def test_nothing_is_logged_unless_somebody_listens(
    adapter: AllsourceAuthAdapter, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("allsource_auth").setLevel(logging.INFO)
    await adapter.users.create(email=email("a"))
    assert watch.records == []
    assert capsys.readouterr() == ("", "")


async def test_reprs_say_what_identifies_and_hide_the_rest(
    adapter: AllsourceAuthAdapter, ada: User, session: Session
) -> None:
    found = await adapter.load_session(session.token)
    page = await adapter.users.list()
    for shown in (ada, session, found, page, page.items, adapter, await adapter.users.history(ada.id)):
        assert not revealed(repr(shown))
    assert ada.id in repr(ada)
    assert session.id in repr(session)
    assert session.user_id in repr(session)
    assert "name='***'" not in repr(ada)
    assert repr(Page(items=[ada], total=3, limit=1, offset=2)) == "Page(1 items, total=3, limit=1, offset=2)"


async def test_repr_of_raw_events_hides_stream_and_payload(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session
) -> None:
    stream = f"auth-session:{session.token}"
    (event,) = await store.read(stream)
    for shown in (event, await store.latest(stream)):
        assert session.token not in repr(shown)
        assert "auth.session.created" in repr(shown)


async def test_conflict_does_not_repeat_the_value(adapter: AllsourceAuthAdapter, ada: User) -> None:
    with pytest.raises(Conflict) as caught:
        await adapter.users.create(email=email("ada"))
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")


async def test_lost_race_for_a_session_does_not_show_its_token(
    make_adapter: MakeAdapter, store: EventStore, session: Session, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource_auth.repositories.plans.PATIENCE", 0.0)
    adapter = make_adapter(store=ContendedStore(store, f"auth-session:{session.token}"))
    with pytest.raises(VersionConflict) as caught:
        await adapter.sessions.update_expiry(session.token, clock())
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")


async def _leak_into_a_log(watch: Watch) -> None:
    noticed(f"lost {CANARY.upper()}", ValueError())


async def _leak_into_a_fact(watch: Watch) -> None:
    async def nothing() -> None: ...

    await observed("read", f"{CANARY}:x", nothing())


async def _leak_into_a_repr(watch: Watch) -> None:
    watch.look("somewhere", [{"found": ValueError(CANARY)}])


async def _leak_into_an_error(watch: Watch) -> None:
    Conflict("user", CANARY)


async def _leak_into_the_context_of_an_error(watch: Watch) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        with suppress(Conflict):
            raise Conflict("user", "email")  # noqa: B904 - the context is what leaks


@pytest.mark.parametrize(
    "leak",
    [
        _leak_into_a_log,
        _leak_into_a_fact,
        _leak_into_a_repr,
        _leak_into_an_error,
        _leak_into_the_context_of_an_error,
    ],
)
async def test_watch_notices_a_leak(
    monkeypatch: pytest.MonkeyPatch, watch: Watch, leak: Callable[[Watch], Awaitable[None]]
) -> None:
    watching = watched(monkeypatch)
    await leak(watching.__enter__())
    with pytest.raises(AssertionError):
        watching.__exit__(None, None, None)
    watch.records.clear()
