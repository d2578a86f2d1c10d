"""All routes of fastapi-users over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest

from allsource_auth import AllsourceAuthAdapter, Http, Overloaded, RateLimited, Storage, Unavailable, VersionConflict
from allsource_auth.integrations.fastapi_users import AllsourceAccessTokenDatabase, AllsourceUserDatabase
from tests.integrations.fastapi_users.application import LIFETIME, Mail, application, quick_hashes
from tests.integrations.fastapi_users.people import AccessToken, User
from tests.support.canaries import CANARY
from tests.support.clocks import ManualClock
from tests.support.targets import Site
from tests.support.wrappers import CountingStore

pytestmark = pytest.mark.integrations


def email(name: str) -> str:
    """Return an email as pydantic normalizes it."""
    return f"{name}.{CANARY}@example.org"


PASSWORD = f"a long password {CANARY}"
ADA = {"email": email("Ada"), "password": PASSWORD, "first_name": "Ada"}


@pytest.fixture
def clock() -> ManualClock:
    """The strategy compares the age of a session with the system clock."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def mail() -> Mail:
    return []


@pytest.fixture
async def client(adapter: AllsourceAuthAdapter, mail: Mail) -> AsyncIterator[httpx.AsyncClient]:
    async with over(application(adapter, mail)) as client:
        yield client


def over(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test")


async def register(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    reply = await client.post("/auth/register", json=ADA | changes)
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def log_in(client: httpx.AsyncClient, name: str = ADA["email"], password: str = PASSWORD) -> dict[str, str]:
    """Return the headers of an authenticated request."""
    reply = await client.post("/auth/bearer/login", data={"username": name, "password": password})
    assert reply.status_code == 200, reply.text
    return {"Authorization": f"Bearer {reply.json()['access_token']}"}


def status_and_detail(reply: httpx.Response) -> tuple[int, Any]:
    return reply.status_code, reply.json()["detail"]


async def test_register_log_in_and_out(client: httpx.AsyncClient, adapter: AllsourceAuthAdapter, mail: Mail) -> None:
    made = await register(client)
    assert made == {
        "id": made["id"],
        "email": ADA["email"],
        "is_active": True,
        "is_superuser": False,
        "is_verified": False,
        "first_name": "Ada",
        "oauth_accounts": [],
    }
    assert mail == [("welcome", ADA["email"], "")]
    headers = await log_in(client, ADA["email"].upper())
    assert (await client.get("/users/me", headers=headers)).json() == made
    assert (await client.get("/hello", headers=headers)).json() == "hello Ada"
    (session,) = await adapter.sessions.list_for_user(made["id"])
    assert headers["Authorization"] == f"Bearer {session.token}"
    assert (session.expires_at - session.created_at) == timedelta(seconds=LIFETIME)
    assert (await adapter.load_session(session.token)) is not None

    assert (await client.post("/auth/bearer/logout", headers=headers)).status_code == 204
    assert (await client.get("/users/me", headers=headers)).status_code == 401
    assert await adapter.sessions.list_for_user(made["id"]) == []
    assert not (await adapter.check()).findings


async def test_unknown_user_or_wrong_password_is_refused(client: httpx.AsyncClient) -> None:
    await register(client)
    for name, password in ((ADA["email"], "another password"), ("nobody@example.org", PASSWORD), (" ", PASSWORD)):
        reply = await client.post("/auth/bearer/login", data={"username": name, "password": password})
        assert status_and_detail(reply) == (400, "LOGIN_BAD_CREDENTIALS")
    assert (await client.get("/users/me")).status_code == 401
    for unknown in ("unknown", "session_" + "x" * 43, "x" * 500):
        assert (await client.get("/users/me", headers={"Authorization": f"Bearer {unknown}"})).status_code == 401


async def test_a_second_registration_is_refused(client: httpx.AsyncClient, mail: Mail) -> None:
    await register(client)
    reply = await client.post("/auth/register", json=ADA | {"email": ADA["email"].upper()})
    assert status_and_detail(reply) == (400, "REGISTER_USER_ALREADY_EXISTS")
    reply = await client.post("/auth/register", json=ADA | {"password": "short", "email": "b@example.org"})
    assert reply.json()["detail"]["code"] == "REGISTER_INVALID_PASSWORD"
    assert len(mail) == 1


async def test_nobody_registers_as_a_superuser(client: httpx.AsyncClient, adapter: AllsourceAuthAdapter) -> None:
    made = await register(client, is_superuser=True, is_verified=True, is_active=False)
    assert (made["is_superuser"], made["is_verified"], made["is_active"]) == (False, False, True)
    user = await adapter.users.get(made["id"])
    assert user is not None
    assert (user.role, user.email_verified, user.banned) == (None, False, False)


async def test_an_email_is_verified(client: httpx.AsyncClient, mail: Mail) -> None:
    await register(client)
    login = {"username": ADA["email"], "password": PASSWORD}
    assert status_and_detail(await client.post("/auth/cookie/login", data=login)) == (400, "LOGIN_USER_NOT_VERIFIED")
    assert (await client.post("/auth/request-verify-token", json={"email": ADA["email"]})).status_code == 202
    subject, to, token = mail[-1]
    assert (subject, to) == ("verify", ADA["email"])
    assert status_and_detail(await client.post("/auth/verify", json={"token": token + "x"})) == (
        400,
        "VERIFY_USER_BAD_TOKEN",
    )
    assert (await client.post("/auth/verify", json={"token": token})).json()["is_verified"] is True
    reply = await client.post("/auth/verify", json={"token": token})
    assert status_and_detail(reply) == (400, "VERIFY_USER_ALREADY_VERIFIED")
    assert (await client.post("/auth/cookie/login", data=login)).status_code == 204
    assert (await client.get("/users/me")).json()["is_verified"] is True  # by the cookie
    assert (await client.post("/auth/cookie/logout")).status_code == 204
    assert (await client.get("/users/me")).status_code == 401


async def test_verification_applies_to_the_email_it_was_sent_to(client: httpx.AsyncClient, mail: Mail) -> None:
    await register(client)
    headers = await log_in(client)
    await client.post("/auth/request-verify-token", json={"email": ADA["email"]})
    token = mail[-1][2]
    changed = await client.patch("/users/me", headers=headers, json={"email": email("Grace")})
    assert changed.json()["email"] == email("Grace")
    assert status_and_detail(await client.post("/auth/verify", json={"token": token})) == (400, "VERIFY_USER_BAD_TOKEN")


async def test_a_password_is_reset_once(client: httpx.AsyncClient, mail: Mail) -> None:
    await register(client)
    assert (await client.post("/auth/forgot-password", json={"email": "nobody@example.org"})).status_code == 202
    assert (await client.post("/auth/forgot-password", json={"email": ADA["email"]})).status_code == 202
    (token,) = (token for subject, _, token in mail if subject == "reset")
    reply = await client.post("/auth/reset-password", json={"token": token, "password": "short"})
    assert reply.json()["detail"]["code"] == "RESET_PASSWORD_INVALID_PASSWORD"
    new = f"another password {CANARY}"
    assert (await client.post("/auth/reset-password", json={"token": token, "password": new})).status_code == 200
    reply = await client.post("/auth/reset-password", json={"token": token, "password": PASSWORD})
    assert status_and_detail(reply) == (400, "RESET_PASSWORD_BAD_TOKEN")
    await log_in(client, password=new)
    reply = await client.post("/auth/bearer/login", data={"username": ADA["email"], "password": PASSWORD})
    assert status_and_detail(reply) == (400, "LOGIN_BAD_CREDENTIALS")


async def test_one_of_200_resets_with_one_token_succeeds(client: httpx.AsyncClient, mail: Mail) -> None:
    await register(client)
    await client.post("/auth/forgot-password", json={"email": ADA["email"]})
    token = mail[-1][2]

    async def reset(number: int) -> httpx.Response:
        return await client.post("/auth/reset-password", json={"token": token, "password": f"new password {number}"})

    replies = await asyncio.gather(*map(reset, range(200)))
    won = [number for number, reply in enumerate(replies) if reply.status_code == 200]
    assert len(won) == 1
    assert {status_and_detail(reply) for reply in replies if reply.status_code != 200} == {
        (400, "RESET_PASSWORD_BAD_TOKEN")
    }
    await log_in(client, password=f"new password {won[0]}")


async def test_user_changes_its_own_fields(client: httpx.AsyncClient) -> None:
    made = await register(client)
    await register(client, email=email("Grace"))
    headers = await log_in(client)
    reply = await client.patch("/users/me", headers=headers, json={"first_name": "A.", "is_superuser": True})
    assert reply.json() == made | {"first_name": "A."}
    reply = await client.patch("/users/me", headers=headers, json={"email": email("Grace").upper()})
    assert status_and_detail(reply) == (400, "UPDATE_USER_EMAIL_ALREADY_EXISTS")
    changes = {"email": email("Countess"), "password": "one more password"}
    reply = await client.patch("/users/me", headers=headers, json=changes)
    assert reply.json()["email"] == email("Countess")
    await log_in(client, email("Countess"), "one more password")


async def test_superuser_manages_other_users(
    client: httpx.AsyncClient, adapter: AllsourceAuthAdapter, mail: Mail
) -> None:
    ada, grace = await register(client), await register(client, email=email("Grace"), first_name="Grace")
    headers = await log_in(client)
    theirs = f"/users/{grace['id']}"
    assert (await client.get(theirs, headers=headers)).status_code == 403
    await adapter.users.update(ada["id"], role="admin")
    assert (await client.get(theirs, headers=headers)).json() == grace
    for missing in ("nobody", "00000000-0000-4000-8000-000000000000"):
        assert (await client.get(f"/users/{missing}", headers=headers)).status_code == 404
    reply = await client.patch(theirs, headers=headers, json={"is_verified": True, "is_superuser": True})
    assert reply.json() == grace | {"is_verified": True, "is_superuser": True}

    hers = await log_in(client, email("Grace"))
    assert (await client.patch(theirs, headers=headers, json={"is_active": False})).json()["is_active"] is False
    assert (await client.get("/users/me", headers=hers)).status_code == 401
    login = {"username": email("Grace"), "password": PASSWORD}
    assert status_and_detail(await client.post("/auth/bearer/login", data=login)) == (400, "LOGIN_BAD_CREDENTIALS")
    assert (await client.post("/auth/forgot-password", json={"email": email("Grace")})).status_code == 202
    assert [subject for subject, _, _ in mail] == ["welcome", "welcome"]

    assert (await client.delete(theirs, headers=headers)).status_code == 204
    assert (await client.get(theirs, headers=headers)).status_code == 404
    assert (await client.delete(theirs, headers=headers)).status_code == 404
    assert await adapter.sessions.list_for_user(grace["id"]) == []
    assert not (await adapter.check()).findings


async def test_session_ends_with_its_lifetime_or_its_user(
    client: httpx.AsyncClient, adapter: AllsourceAuthAdapter, clock: ManualClock
) -> None:
    made = await register(client)
    headers = await log_in(client)
    clock.move(timedelta(seconds=LIFETIME))
    assert (await client.get("/users/me", headers=headers)).status_code == 401
    headers = await log_in(client)
    assert (await client.get("/users/me", headers=headers)).status_code == 200
    await adapter.users.delete(made["id"])
    assert (await client.get("/users/me", headers=headers)).status_code == 401


async def test_an_old_hash_is_renewed_at_login(adapter: AllsourceAuthAdapter, mail: Mail) -> None:
    async with over(application(adapter, mail, quick_hashes(time_cost=1))) as client:
        made = await register(client)
    before = await adapter.accounts.get_by_provider("credential", made["id"])
    async with over(application(adapter, mail, quick_hashes(time_cost=2))) as client:
        await log_in(client)
        await log_in(client)
    after = await adapter.accounts.get_by_provider("credential", made["id"])
    assert before is not None
    assert after is not None
    assert before.password != after.password
    assert len(await adapter.accounts.history(after.id)) == 2


class Elsewhere:
    """Reads the hashes of another framework: ``salt:scrypt``, both in hexadecimal."""

    @classmethod
    def identify(cls, hash: str | bytes) -> bool:  # noqa: A002
        return not str(hash).startswith("$")

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        salt = salt or b"0123456789abcdef"
        key = hashlib.scrypt(str(password).encode(), salt=salt, n=2**4, r=8, p=1, dklen=64)
        return f"{salt.hex()}:{key.hex()}"

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:  # noqa: A002
        salt = bytes.fromhex(str(hash).partition(":")[0])
        return hmac.compare_digest(str(hash), self.hash(password, salt=salt))

    def check_needs_rehash(self, hash: str | bytes) -> bool:  # noqa: A002
        return False


async def test_user_created_by_other_code_logs_in(adapter: AllsourceAuthAdapter, mail: Mail) -> None:
    user = await adapter.users.create(email=ADA["email"], metadata={"first_name": "Ada"})
    theirs = Elsewhere().hash(PASSWORD)
    await adapter.accounts.create(user_id=user.id, provider_id="credential", account_id=user.id, password=theirs)
    helper = quick_hashes(also=Elsewhere())
    async with over(application(adapter, mail, helper)) as client:
        for _ in range(2):
            assert (await client.get("/hello", headers=await log_in(client))).json() == "hello Ada"
    (account,) = await adapter.accounts.list_for_user(user.id)
    assert account.password is not None
    assert account.password.startswith("$argon2id$")


# OAuth


async def callback(
    client: httpx.AsyncClient, path: str, code: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    reply = await client.get(f"{path}/authorize", headers=headers)
    assert reply.status_code == 200, reply.text
    (state,) = parse_qs(urlsplit(reply.json()["authorization_url"]).query)["state"]
    return await client.get(f"{path}/callback", headers=headers, params={"code": code, "state": state})


async def test_register_and_log_in_by_oauth(
    client: httpx.AsyncClient, adapter: AllsourceAuthAdapter, mail: Mail
) -> None:
    for _ in range(2):
        reply = await callback(client, "/auth/service", "ada")
        assert reply.status_code == 200, reply.text
        headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}
        me = (await client.get("/users/me", headers=headers)).json()
        (linked,) = me["oauth_accounts"]
        assert (me["email"], linked["account_email"]) == ("ada.private@example.org", "ada.private@example.org")
        assert (linked["oauth_name"], linked["account_id"], linked["expires_at"]) == (
            "service",
            "service-ada",
            1_900_000_000,
        )
    assert mail == [("welcome", "ada.private@example.org", "")]
    assert (await adapter.users.list()).total == 1
    assert status_and_detail(await callback(client, "/auth/service", "ghost")) == (400, "OAUTH_NOT_AVAILABLE_EMAIL")
    assert not (await adapter.check()).findings


async def test_taken_email_does_not_log_in_by_oauth(client: httpx.AsyncClient) -> None:
    await register(client, email="Ada.Private@example.org")
    assert status_and_detail(await callback(client, "/auth/service", "ada")) == (400, "OAUTH_USER_ALREADY_EXISTS")


async def test_an_account_is_linked_to_one_user(client: httpx.AsyncClient) -> None:
    await register(client)
    headers = await log_in(client)
    for _ in range(2):
        reply = await callback(client, "/auth/associate/service", "ada", headers)
        assert reply.status_code == 200, reply.text
        assert [one["account_id"] for one in reply.json()["oauth_accounts"]] == ["service-ada"]
    await register(client, email=email("Grace"))
    hers = await log_in(client, email("Grace"))
    reply = await callback(client, "/auth/associate/service", "ada", hers)
    assert status_and_detail(reply) == (400, "OAUTH_USER_ALREADY_EXISTS")
    reply = await callback(client, "/auth/service", "ada")
    me = await client.get("/users/me", headers={"Authorization": f"Bearer {reply.json()['access_token']}"})
    assert me.json()["email"] == ADA["email"]


# Races, and a store in trouble


async def test_one_of_200_registrations_gets_the_email(
    client: httpx.AsyncClient, adapter: AllsourceAuthAdapter, mail: Mail
) -> None:
    replies = await asyncio.gather(*(client.post("/auth/register", json=ADA) for _ in range(200)))
    won = [reply for reply in replies if reply.status_code == 201]
    assert len(won) == 1
    refused = [status_and_detail(reply) for reply in replies if reply.status_code != 201]
    assert refused == [(400, "REGISTER_USER_ALREADY_EXISTS")] * 199
    assert [user.id async for user in adapter.users.scan()] == [won[0].json()["id"]]
    assert [account.user_id async for account in adapter.accounts.scan()] == [won[0].json()["id"]]
    assert len(mail) == 1
    assert not (await adapter.check()).findings
    await log_in(client)


async def test_authenticated_request_takes_three_reads(site: Site, clock: ManualClock, mail: Mail) -> None:
    store = CountingStore(site.store("default"))
    adapter = AllsourceAuthAdapter.with_store(store, clock=clock)
    users = AllsourceUserDatabase[User, UUID](adapter, User)
    tokens = AllsourceAccessTokenDatabase(adapter, AccessToken, lifetime_seconds=LIFETIME)
    ada = await users.create({"email": email("Ada"), "hashed_password": "hash"})
    made = await tokens.create({"user_id": ada.id})
    store.forget()
    found = await tokens.get_by_token(made.token)
    assert found is not None
    assert await users.get(found.user_id) == ada
    assert len(store.reads) == 3


class Failing(CountingStore):
    """Raises ``failure`` on every call, if it is set."""

    failure: Exception | None = None

    async def append(self, events: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return await super().append(events)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Any:
        if self.failure is not None:
            raise self.failure
        return await super().latest(stream, require_leader=require_leader)


@pytest.mark.parametrize(
    ("failure", "answer", "retry_after"),
    [
        (Unavailable("the server is not there"), (503, "STORE_UNAVAILABLE"), "1"),
        (Http("no connection"), (503, "STORE_UNAVAILABLE"), "1"),
        (Overloaded("too many"), (503, "STORE_UNAVAILABLE"), "1"),
        (RateLimited("slowly", retry_after=7.2), (503, "STORE_UNAVAILABLE"), "7"),
        (Storage("the file is locked", reason="locked"), (503, "STORE_UNAVAILABLE"), "1"),
        (VersionConflict(expected=1, actual=2), (409, "CONFLICT"), None),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_unavailable_store_is_a_503(failure: Exception, answer: tuple[int, str], retry_after: str | None) -> None:
    async with AllsourceAuthAdapter.embedded() as beneath:
        store = Failing(beneath._store)
        adapter = AllsourceAuthAdapter.with_store(store)
        async with over(application(adapter, [])) as client:
            await register(client)
            headers = await log_in(client)
            store.failure = failure
            reply = await client.get("/users/me", headers=headers)
            assert status_and_detail(reply) == answer
            assert reply.headers.get("Retry-After") == retry_after
            store.failure = None
            assert (await client.get("/users/me", headers=headers)).status_code == 200


async def test_error_that_a_retry_cannot_fix_stays_a_500() -> None:
    async with AllsourceAuthAdapter.embedded() as beneath:
        store = Failing(beneath._store)
        async with over(application(AllsourceAuthAdapter.with_store(store), [])) as client:
            await register(client)
            for failure in (Storage("the disk is full", reason="full"), RuntimeError("a bug")):
                store.failure = failure
                with pytest.raises(type(failure)):
                    await client.post("/auth/bearer/login", data={"username": ADA["email"], "password": PASSWORD})


async def test_invalid_value_is_a_422(client: httpx.AsyncClient) -> None:
    made = await register(client)
    headers = await log_in(client)
    content = b'{"first_name": "\\ud800"}'
    reply = await client.patch("/users/me", headers={**headers, "Content-Type": "application/json"}, content=content)
    assert status_and_detail(reply) == (422, "INVALID_INPUT")
    assert (await client.get("/users/me", headers=headers)).json() == made


async def test_concurrently_deleted_user_is_a_404(adapter: AllsourceAuthAdapter, mail: Mail) -> None:
    app = application(adapter, mail)
    async with over(app) as client:
        ada, grace = await register(client), await register(client, email=email("Grace"))
        await adapter.users.update(ada["id"], role="admin")
        headers = await log_in(client)
        ours = adapter.users.get

        async def get(key: str) -> Any:
            found = await ours(key)
            if key == grace["id"]:
                await adapter.users.delete(key)
            return found

        adapter.users.get = get  # type: ignore[method-assign]
        reply = await client.patch(f"/users/{grace['id']}", headers=headers, json={"first_name": "G."})
        assert status_and_detail(reply) == (404, "USER_GONE")
