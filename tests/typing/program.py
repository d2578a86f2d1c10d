"""A program on the public interface. Type checkers read it in strict mode and nothing runs it.

`nox -s types` checks it against the checkout, `nox -s dist` against the installed wheel. `assert_type` fails if a result has
another type, `Any` included. A comment that ignores an error becomes an error once the checkers accept the mistake.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from allsource_auth import (
    UNSET,
    Account,
    AllsourceAuthAdapter,
    AllsourceAuthError,
    AllsourceStore,
    ApiKeyUse,
    Change,
    Checked,
    Conflict,
    Event,
    EventStore,
    Finding,
    Http,
    Info,
    InvalidInput,
    Invitation,
    Json,
    Latest,
    Member,
    NewEvent,
    NotFound,
    Organization,
    Page,
    Passkey,
    Reindexed,
    Session,
    SessionWithUser,
    SqliteLog,
    SqliteStore,
    Storage,
    Timeouts,
    Tls,
    Transaction,
    TwoFactor,
    User,
    UserNotFound,
    Verification,
    VersionConflict,
    __version__,
    audit,
)


def now() -> datetime:
    return datetime.now(UTC)


def open_adapters(environment: Mapping[str, str]) -> list[AllsourceAuthAdapter]:
    log = SqliteLog("auth.db", durability="normal")
    tls = Tls(ca_file="ca.pem", client_cert="client.pem", client_key="client.key")
    return [
        assert_type(AllsourceAuthAdapter.embedded(), AllsourceAuthAdapter),
        AllsourceAuthAdapter.embedded("auth.db", tenant_id="shop", durability="full", clock=now),
        AllsourceAuthAdapter.from_env(environment),
        AllsourceAuthAdapter.with_store(SqliteStore(log), clock=now),
        AllsourceAuthAdapter.with_store(AllsourceStore("http://127.0.0.1:3900")),
        AllsourceAuthAdapter("http://127.0.0.1:3900", ["http://127.0.0.1:3902"], "ask_example", timeout=5, tls=tls),
        AllsourceAuthAdapter("http://127.0.0.1:3900", timeout=Timeouts(connect=1), read_consistency="eventual"),
    ]


def mistakes(log: SqliteLog) -> None:
    AllsourceAuthAdapter.embedded(durability="fast")  # type: ignore[arg-type]
    AllsourceAuthAdapter("http://127.0.0.1:3900", read_consistency="weak")  # type: ignore[arg-type]
    AllsourceAuthAdapter.with_store(log)  # type: ignore[arg-type]


async def use_store(store: EventStore) -> None:
    new = NewEvent(type="app.example", stream="app:1", payload=b"{}", metadata=b"", guard=0)
    for acknowledged in await store.append([new]):
        assert_type(acknowledged.version, int)
    latest = assert_type(await store.latest("app:1"), Latest)
    assert_type(latest.event, Event | None)
    assert_type(await store.read("app:1", limit=10), list[Event])
    async for page in store.scan("app."):
        assert_type(page, list[Event])
    assert_type(await store.info(), Info)


async def use_users(adapter: AllsourceAuthAdapter) -> User:
    with audit(actor="sign-up form", ip="203.0.113.7", request_id="r-1", reason="example"):
        user = assert_type(await adapter.users.create(email="ada@example.org", metadata={"plan": "free"}), User)
    assert_type(await adapter.users.get(user.id), User | None)
    assert_type(await adapter.users.get_by_email("ada@example.org"), User | None)
    assert_type(await adapter.users.get_many([user.id]), dict[str, User])
    assert_type(await adapter.users.exists(user.id), bool)
    assert_type(await adapter.users.update(user.id, name=None, role=UNSET), User)
    page = assert_type(await adapter.users.list(search_value="ada", sort_by="email", sort_direction="desc"), Page[User])
    assert_type(page.items, list[User])
    assert_type(page.total, int)
    async for found in adapter.users.scan():
        assert_type(found.email, str | None)
    return user


async def use_history(adapter: AllsourceAuthAdapter, user: User) -> None:
    history = assert_type(await adapter.users.history(user.id, limit=10, newest_first=True), list[Change[User]])
    for change in history:
        assert_type(change.state, User | None)
        assert_type(change.diff, dict[str, tuple[Any, Any]])
        assert_type(change.actor, str | None)
    async for change in adapter.users.iter_history(user.id):
        assert_type(change, Change[User])
    assert_type(await adapter.users.as_of(user.id, now()), User | None)
    assert_type(await adapter.users.revert(user.id, to=history[0].event_id), User)
    await adapter.users.delete(user.id)
    assert_type(await adapter.users.restore(user.id), User)


async def use_sessions(adapter: AllsourceAuthAdapter, user: User) -> None:
    in_a_week = now() + timedelta(days=7)
    session = assert_type(await adapter.sessions.create(user_id=user.id, expires_at=in_a_week), Session)
    assert_type(session.expires_at, datetime)
    assert_type(await adapter.sessions.list_for_user(user.id), list[Session])
    assert_type(await adapter.sessions.update_expiry(session.token, in_a_week), Session)
    assert_type(await adapter.sessions.delete_for_user(user.id), int)
    loaded = assert_type(await adapter.load_session(session.token), SessionWithUser | None)
    if loaded is not None:
        assert_type(loaded.user, User)
        assert_type(loaded.session, Session)


async def use_other_kinds(adapter: AllsourceAuthAdapter, user: User) -> None:
    later = now() + timedelta(hours=1)
    account = await adapter.accounts.create(user_id=user.id, provider_id="credential", account_id=user.id)
    assert_type(account, Account)
    await adapter.verifications.create(identifier="ada@example.org", value="code", expires_at=later)
    assert_type(await adapter.verifications.consume("ada@example.org", "code"), Verification | None)
    organization = assert_type(await adapter.organizations.create(name="Engines", slug="engines"), Organization)
    member = await adapter.members.create(organization_id=organization.id, user_id=user.id, role="owner")
    assert_type(member, Member)
    invitation = await adapter.invitations.create(
        organization_id=organization.id, email="eve@example.org", inviter_id=user.id, expires_at=later
    )
    assert_type(await adapter.invitations.update_status(invitation.id, "accepted", expected="pending"), Invitation)
    assert_type(await adapter.two_factors.create(user_id=user.id, secret="secret"), TwoFactor)
    await adapter.api_keys.create(user_id=user.id, key_hash="hash", remaining=10)
    use = assert_type(await adapter.api_keys.use("hash"), ApiKeyUse)
    assert_type(use.allowed, bool)
    passkey = await adapter.passkeys.create(user_id=user.id, credential_id="credential", public_key="key")
    assert_type(await adapter.passkeys.update_counter(passkey.id, 1, expected=0), Passkey)


async def use_transaction(adapter: AllsourceAuthAdapter) -> User:
    async with adapter.transaction() as tx:
        assert_type(tx, Transaction)
        user = assert_type(await tx.users.create(email="bob@example.org"), User)
        assert_type(await tx.sessions.create(user_id=user.id, expires_at=now() + timedelta(days=7)), Session)
    return user


async def use_maintenance(adapter: AllsourceAuthAdapter) -> None:
    def progress(what: str, done: int) -> None:
        print(what, done)

    assert_type(await adapter.reindex(progress=progress), Reindexed)
    checked = assert_type(await adapter.check(repair=True, progress=progress), Checked)
    for finding in checked.findings:
        assert_type(finding, Finding)


async def use_errors(adapter: AllsourceAuthAdapter) -> str:
    try:
        await adapter.users.update("missing", name="Ada")
    except UserNotFound as error:
        missing: NotFound = error
        return missing.kind
    except Conflict as error:
        return f"{error.kind} {error.field}"
    except VersionConflict as error:
        assert_type(error.expected, int)
        return "changed meanwhile"
    except InvalidInput as error:
        invalid: ValueError = error
        return f"{error.field}: {error.reason}, {invalid}"
    except Storage as error:
        return error.reason
    except (Http, Json) as error:
        return str(error)
    except AllsourceAuthError as error:
        assert_type(error.ambiguous, bool)
        return "other"
    return __version__


async def main() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        user = await use_users(adapter)
        await use_history(adapter, user)
        await use_sessions(adapter, user)
        await use_other_kinds(adapter, user)
        await use_transaction(adapter)
        await use_maintenance(adapter)
        print(await use_errors(adapter))
