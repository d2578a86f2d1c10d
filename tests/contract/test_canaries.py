"""Logs, reprs and errors contain no secrets, and the watch of this suite would detect a leak."""

import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import msgspec
import pytest

from allsource_auth import (
    AllsourceAuthAdapter,
    Conflict,
    EventStore,
    InvalidInput,
    Json,
    Page,
    Session,
    User,
    Verification,
    VersionConflict,
    audit,
)
from allsource_auth.kinds import KINDS
from allsource_auth.logs import log_suppressed, timed
from tests.contract.conftest import MakeAdapter
from tests.support.canaries import CANARY, LOGGED, Watch, email, repository_classes, revealed, watched
from tests.support.clocks import START, ManualClock
from tests.support.credentials import CREDENTIALS, Credential
from tests.support.events import new_event
from tests.support.wrappers import ContendedStore


async def test_every_call_of_the_store_is_logged_with_four_fields(
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
    monkeypatch.setattr("allsource_auth.engine.mutations.PATIENCE", 0.0)
    adapter = make_adapter(store=ContendedStore(store, f"auth-user:{ada.id}"))
    watch.records.clear()
    with pytest.raises(VersionConflict):
        await adapter.users.update(ada.id, name="x")
    outcomes = {watch.facts(record)["outcome"] for record in watch.records}
    assert "VersionConflict" in outcomes


async def test_nothing_is_logged_without_debug_level(
    adapter: AllsourceAuthAdapter, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("allsource_auth").setLevel(logging.INFO)
    await adapter.users.create(email=email("a"))
    assert watch.records == []
    assert capsys.readouterr() == ("", "")


async def test_reprs_show_ids_and_hide_other_text(adapter: AllsourceAuthAdapter, ada: User, session: Session) -> None:
    found = await adapter.load_session(session.token)
    page = await adapter.users.list()
    for shown in (ada, session, found, page, page.items, adapter, await adapter.users.history(ada.id)):
        assert not revealed(repr(shown))
    assert ada.id in repr(ada)
    assert session.id in repr(session)
    assert session.user_id in repr(session)
    assert "name='***'" not in repr(ada)
    assert repr(Page(items=[ada], total=3, limit=1, offset=2)) == "Page(1 items, total=3, limit=1, offset=2)"


IDENTIFIER = f"reset-password:{CANARY}"


@pytest.fixture
async def verification(adapter: AllsourceAuthAdapter, clock: ManualClock) -> Verification:
    """A verification whose id contains the identifier, as those of the Rust crate do."""
    return await adapter.verifications.create(
        identifier=IDENTIFIER, value=CANARY, expires_at=clock() + timedelta(days=1), id=f"{IDENTIFIER}#7"
    )


@pytest.mark.parametrize("sort", CREDENTIALS, ids=lambda credential: credential.kind)
async def test_reprs_of_credentials_hide_secrets(
    adapter: AllsourceAuthAdapter, ada: User, watch: Watch, sort: Credential
) -> None:
    repository = sort.of(adapter)
    given = {**sort.optional, **sort.unique(0), "user_id": ada.id}
    made = await sort.make(adapter, **given)
    changed = await sort.change(adapter, made)
    assert revealed(str(msgspec.structs.asdict(changed)))
    for shown in (made, changed, await sort.find(adapter, made), await repository.history(made.id)):
        assert not revealed(repr(shown))
    assert made.id in repr(made)
    assert ada.id in repr(made)
    with pytest.raises(Conflict) as caught:
        await sort.make(adapter, **given)
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")
    kinds = {str(watch.facts(record)["kind"]) for record in watch.records}
    assert {sort.prefix.removesuffix(":"), f"{sort.kind}.{sort.field}"} <= kinds


async def test_use_of_a_key_does_not_show_its_hash(adapter: AllsourceAuthAdapter, clock: ManualClock) -> None:
    await adapter.api_keys.create(user_id="u", key_hash=CANARY, remaining=1, metadata=CANARY, permissions=CANARY)
    uses = [await adapter.api_keys.use(CANARY) for _ in range(2)]
    assert [used.reason for used in uses] == [None, "usage_exceeded"]
    assert not any(revealed(repr(used)) for used in uses)


async def test_conflict_with_expected_does_not_repeat_values(adapter: AllsourceAuthAdapter) -> None:
    await adapter.two_factors.create(user_id="u", secret=CANARY, backup_codes=f"{CANARY}-1")
    with pytest.raises(Conflict) as caught:
        await adapter.two_factors.update_backup_codes("u", f"{CANARY}-2", expected=f"{CANARY}-3")
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")


async def test_repr_of_a_verification_hides_id_identifier_and_value(
    adapter: AllsourceAuthAdapter, verification: Verification, watch: Watch
) -> None:
    consumed = await adapter.verifications.consume(IDENTIFIER, CANARY)
    assert consumed == verification
    for shown in (verification, consumed, await adapter.verifications.history(verification.id)):
        assert not revealed(repr(shown))
    assert "expires_at=2026" in repr(verification)
    with pytest.raises(InvalidInput) as caught:
        await adapter.context.collections["verification"].restore(verification.id)
    assert not revealed(f"{caught.value!r} {vars(caught.value)}")
    kinds = {str(watch.facts(record)["kind"]) for record in watch.records}
    assert {"auth-verification", "verification.by_identifier", "verification.by_value"} <= kinds


async def test_lost_race_for_a_verification_does_not_show_its_id(
    make_adapter: MakeAdapter, store: EventStore, verification: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource_auth.engine.mutations.PATIENCE", 0.0)
    adapter = make_adapter(store=ContendedStore(store, f"auth-verification:{verification.id}"))
    with pytest.raises(VersionConflict) as caught:
        await adapter.verifications.consume(IDENTIFIER, CANARY)
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")


async def test_undecodable_verification_does_not_show_its_id(adapter: AllsourceAuthAdapter, store: EventStore) -> None:
    broken = {"id": f"{CANARY}#1", "identifier": CANARY, "value": 5}
    await store.append([new_event(f"auth-verification:{CANARY}#1", broken, type="auth.verification.created")])
    for call in (adapter.verifications.get, adapter.verifications.history, adapter.verifications.delete):
        with pytest.raises(Json) as caught:
            await call(f"{CANARY}#1")
        assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")
    with pytest.raises(Conflict):
        await adapter.verifications.create(identifier=CANARY, value=CANARY, expires_at=START, id=f"{CANARY}#1")


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
    monkeypatch.setattr("allsource_auth.engine.mutations.PATIENCE", 0.0)
    adapter = make_adapter(store=ContendedStore(store, f"auth-session:{session.token}"))
    with pytest.raises(VersionConflict) as caught:
        await adapter.sessions.update_expiry(session.token, clock())
    assert not revealed(f"{caught.value!r} {caught.value} {vars(caught.value)}")


def test_every_public_call_of_every_repository_is_watched() -> None:
    classes = repository_classes()
    assert len(classes) == len(KINDS) + 2
    for repository in classes:
        calls = [
            call for name, call in vars(repository).items() if not name.startswith("_") and inspect.isroutine(call)
        ]
        assert calls
        assert all(hasattr(call, "__wrapped__") for call in calls)


async def _leak_into_a_log(watch: Watch) -> None:
    log_suppressed(f"lost {CANARY.upper()}", ValueError())


async def _leak_into_a_fact(watch: Watch) -> None:
    async def nothing() -> None: ...

    await timed("read", f"{CANARY}:x", nothing())


async def _leak_into_a_repr(watch: Watch) -> None:
    watch.inspect("somewhere", [{"found": ValueError(CANARY)}])


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
