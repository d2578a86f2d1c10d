"""``AtomicSignUp``: user, account and session in one append, with the framework's regular responses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import httpx
import pytest
from better_auth import BetterAuth, EmailAndPassword
from better_auth.adapters.base import Where
from better_auth.adapters.memory import MemoryAdapter
from better_auth.config import EmailVerification, RateLimit
from better_auth.plugins_ext.username import UsernamePlugin

from allsource_auth import AllsourceAuthAdapter, InvalidInput
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, AtomicSignUp
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from tests.integrations.better_auth.flows import FLOWS
from tests.integrations.better_auth.site import PASSWORD, Options, Site, differences, opened
from tests.integrations.better_auth.test_flows import sqlite
from tests.support.wrappers import CountingStore, CrashingStore, PatientStore

pytestmark = pytest.mark.integrations

COUNT = {"count": -1}
ADA = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}


def atomic_batches(options: Options) -> Options:
    """The same application with the plugin."""

    def found(site: Site) -> dict[str, Any]:
        given = options(site)
        return {**given, "plugins": [*given.get("plugins", []), AtomicSignUp()]}

    return found


def nothing(site: Site) -> dict[str, Any]:
    return {}


def verifying(site: Site) -> dict[str, Any]:
    """An application that verifies emails and does not disclose which emails are registered."""
    letter = site.post_office("user", "url", "token")
    return {
        "email_and_password": EmailAndPassword(enabled=True, require_email_verification=True),
        "email_verification": EmailVerification(send_verification_email=letter),
    }


@asynccontextmanager
async def served(store: AllsourceAuthAdapter, options: Options = nothing) -> AsyncIterator[Site]:
    async with opened(AllsourceDatabaseAdapter(store), atomic_batches(options)) as site:
        yield site


async def left(store: AllsourceAuthAdapter) -> list[int]:
    """Return the numbers of users, accounts and sessions."""
    return [len([one async for one in kept.scan()]) for kept in (store.users, store.accounts, store.sessions)]


@pytest.mark.parametrize("flow", FLOWS)
async def test_responses_match_the_plain_sign_up(flow: str) -> None:
    options, steps = FLOWS[flow]
    async with AllsourceAuthAdapter.embedded() as store, sqlite() as theirs:
        began = monotonic()
        async with opened(theirs, options) as site:
            await steps(site)
            expected = site.transcript
        async with served(store, options) as site:
            await steps(site)
            assert differences(site.transcript, expected, apart=monotonic() - began) == []
        assert not (await store.check()).findings


async def test_sign_up_is_one_append(counted: CountingStore, store: AllsourceAuthAdapter) -> None:
    async with served(store) as site:
        await (await site.browser()).sign_up("first")  # which writes the settings of a new store
        counted.forget()
        await (await site.browser()).post("/sign-up/email", **ADA)
    assert len(counted.appends) == 1
    written = [event.type for event in counted.appends[0]]
    assert [kind for kind in written if not kind.startswith("auth.index.")] == [
        "auth.user.created",
        "auth.account.created",
        "auth.session.created",
    ]
    looked_at = Counter(stream.partition(":")[0] for stream in counted.reads)
    # An email is looked at by the framework, and when it is taken.
    assert looked_at == {"auth-idx": 3, "auth-user": 1, "auth-account": 1, "auth-session": 1}
    assert await left(store) == [2, 2, 2]


@pytest.mark.parametrize("kept", range(9))
async def test_interrupted_sign_up_stores_all_or_nothing(kept: int) -> None:
    """On a store without atomic batches: a prefix of two claims, two index entries, the user, the account and the session."""
    store = SqliteStore(SqliteLog(None))
    async with served(AllsourceAuthAdapter.with_store(CrashingStore(store, kept))) as site:
        await (await site.browser()).post("/sign-up/email", 500, **ADA)
    after = AllsourceAuthAdapter.with_store(PatientStore(store))
    await after.check(repair=True)
    happened = kept > 4
    assert await left(after) == ([1, 1, 1] if happened else [0, 0, 0])
    async with served(after) as site:
        again = await site.browser()
        await again.post("/sign-up/email", 422 if happened else 200, **ADA)
        await again.post("/sign-in/email", email="ada@example.org", password=PASSWORD)


async def test_hooks_and_emails_run_after_the_append(counted: CountingStore, store: AllsourceAuthAdapter) -> None:
    seen: list[Any] = []

    async def hook(row: dict[str, Any], ctx: Any) -> None:
        seen.append(("after", row["email"], await left(store), ctx.auth is site.auth))

    async def before(row: dict[str, Any], ctx: Any) -> dict[str, Any]:
        seen.append(("before", await left(store)))
        return {"data": {"image": "https://example.org/a.png"}}

    async def letter(user: dict[str, Any], url: str, token: str) -> None:
        seen.append(("letter", user["email"], await left(store)))

    def options(site: Site) -> dict[str, Any]:
        return {
            "database_hooks": {"user": {"create": {"before": before, "after": hook}}},
            "email_verification": EmailVerification(send_verification_email=letter, send_on_sign_up=True),
        }

    async with served(store, options) as site:
        answer = await (await site.browser()).post("/sign-up/email", **ADA)
    assert answer["user"]["image"] == "https://example.org/a.png"
    email = "ada@example.org"
    assert seen == [("before", [0, 0, 0]), ("after", email, [1, 1, 1], True), ("letter", email, [1, 1, 1])]


async def test_refused_sign_up_sends_no_email(store: AllsourceAuthAdapter) -> None:
    async def refused(row: dict[str, Any], ctx: Any) -> bool:
        return False

    def options(site: Site) -> dict[str, Any]:
        return {**verifying(site), "database_hooks": {"account": {"create": {"before": refused}}}}

    def failing(site: Site) -> dict[str, Any]:
        async def broken(row: dict[str, Any], ctx: Any) -> None:
            raise RuntimeError("a hook is broken")

        return {**verifying(site), "database_hooks": {"account": {"create": {"before": broken}}}}

    async with served(store, failing) as site:
        await (await site.browser()).post("/sign-up/email", 500, **ADA)
        assert site.sent == []
        assert await left(store) == [0, 0, 0]
    async with served(store, options) as site:
        await (await site.browser()).post("/sign-up/email", **ADA)
        assert [letter["user"]["email"] for letter in site.sent] == ["ada@example.org"]


async def test_writes_of_before_hooks_are_part_of_the_transaction(store: AllsourceAuthAdapter) -> None:
    """A hook counts down an invitation. A concurrent write changes it, so the sign-up runs again."""
    others = AllsourceDatabaseAdapter(store)
    attempts = 0

    async def before(row: dict[str, Any], ctx: Any) -> None:
        nonlocal attempts
        attempts += 1
        taken = await ctx.adapter.increment_one("rateLimit", [Where("key", "code"), Where("count", 0, "gt")], COUNT)
        assert taken is not None
        if attempts == 1:
            await others.increment_one("rateLimit", [Where("key", "code")], COUNT)

    def options(site: Site) -> dict[str, Any]:
        return {
            **verifying(site),
            "rate_limit": RateLimit(enabled=False, storage="database"),
            "database_hooks": {"user": {"create": {"before": before}}},
        }

    async with served(store, options) as site:
        others.init(site.auth.schema)
        await others.create("rateLimit", {"key": "code", "count": 5, "lastRequest": 0})
        await (await site.browser()).post("/sign-up/email", **ADA)
        assert (attempts, len(site.sent)) == (2, 1)
    row = await others.find_one("rateLimit", [Where("key", "code")])
    assert row is not None
    assert row["count"] == 3
    assert await left(store) == [1, 1, 0]


async def test_task_started_by_a_hook_writes_outside_the_transaction(store: AllsourceAuthAdapter) -> None:
    """A task that is started in the transaction and writes after the commit."""
    begun: list[asyncio.Task[Any]] = []
    stored = asyncio.Event()

    async def before(row: dict[str, Any], ctx: Any) -> None:
        async def welcome() -> Any:
            await stored.wait()
            given = {"identifier": "welcome", "value": row["email"], "expiresAt": datetime.now(UTC) + timedelta(1)}
            return await ctx.adapter.transaction(lambda inside: inside.create("verification", given))

        begun.append(asyncio.create_task(welcome()))

    def options(site: Site) -> dict[str, Any]:
        return {"database_hooks": {"user": {"create": {"before": before}}}}

    async with served(store, options) as site:
        await (await site.browser()).post("/sign-up/email", **ADA)
        stored.set()
        await begun[0]
    found = await store.verifications.get_by_identifier("welcome")
    assert found is not None
    assert found.value == "ada@example.org"


@pytest.mark.parametrize("gives_up", [True, False])
async def test_sign_up_that_loses_a_username_runs_once_more(
    counted: CountingStore, store: AllsourceAuthAdapter, gives_up: bool
) -> None:
    """The username is taken while the sign-up runs. With ``gives_up`` it is free again in the second run."""
    attempts = 0

    async def before(row: dict[str, Any], ctx: Any) -> dict[str, Any]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await store.users.create(id="rival", username="ada")
        elif gives_up:
            await store.users.delete("rival")
        return {"data": {"username": "ada"}}

    def options(site: Site) -> dict[str, Any]:
        return {"plugins": [UsernamePlugin()], "database_hooks": {"user": {"create": {"before": before}}}}

    async with served(store, options) as site:
        answer = await (await site.browser()).post("/sign-up/email", 200 if gives_up else 400, **ADA)
    assert attempts == 2
    types = [[event.type for event in batch if not event.type.startswith("auth.index.")] for batch in counted.appends]
    whole = ["auth.user.created", "auth.account.created", "auth.session.created"]
    assert [batch for batch in types if "auth.account.created" in batch] == ([whole] if gives_up else [])
    if not gives_up:
        assert answer["code"] == "USERNAME_IS_ALREADY_TAKEN"
        assert await left(store) == [1, 0, 0]


async def test_conflict_in_an_after_hook_is_not_retried(store: AllsourceAuthAdapter) -> None:
    """The sign-up is already committed and must not run again."""
    runs = 0

    async def after(row: dict[str, Any], ctx: Any) -> None:
        nonlocal runs
        runs += 1
        await store.users.create(email=row["email"])

    def options(site: Site) -> dict[str, Any]:
        return {"database_hooks": {"user": {"create": {"after": after}}}}

    async with served(store, options) as site:
        await (await site.browser()).post("/sign-up/email", 500, **ADA)
    assert runs == 1
    assert await left(store) == [1, 1, 1]


async def test_concurrent_sign_ups_with_one_email_get_equal_responses(store: AllsourceAuthAdapter) -> None:
    """If the application does not disclose registered emails, the response to the losers of a race does not either."""
    async with served(store, verifying) as site:
        browsers = [await site.browser() for _ in range(50)]
        answers = await asyncio.gather(*(browser.post("/sign-up/email", **ADA) for browser in browsers))
        assert {(answer["token"], answer["user"]["email"]) for answer in answers} == {(None, "ada@example.org")}
        assert len(site.sent) == 1
    assert await left(store) == [1, 1, 0]


async def test_session_of_a_failed_attempt_is_not_returned(store: AllsourceAuthAdapter) -> None:
    """Only the successful response sets cookies."""
    async with served(store) as site:
        browsers = [await site.browser() for _ in range(50)]

        async def sign_up(browser: Any) -> httpx.Response:
            found: httpx.Response = await browser.ask("POST", "/sign-up/email", json=ADA)
            return found

        answers = await asyncio.gather(*map(sign_up, browsers))
        assert sorted(answer.status_code for answer in answers) == [200] + [422] * 49
        assert [answer.status_code for answer in answers if "set-cookie" in answer.headers] == [200]
    assert await left(store) == [1, 1, 1]


def test_other_database_adapter_is_refused() -> None:
    with pytest.raises(InvalidInput, match="AllsourceDatabaseAdapter"):
        BetterAuth(secret="x" * 32, adapter=MemoryAdapter(), plugins=[AtomicSignUp()])
