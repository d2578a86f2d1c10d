"""The demonstration of ``allsource-auth demo``: the main tasks from sign-up to undo, on any store.

It uses the public API only and has one function for each step, so it can serve as an example.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import perf_counter_ns

from allsource_auth import AllsourceAuthAdapter, Conflict, EventStore, Session, SessionWithUser, User, audit
from allsource_auth.cli.demo_report import DemoReport
from allsource_auth.cli.measuring import Latency
from allsource_auth.cli.terminal import Advance

__all__ = ["demonstrate"]

CONCURRENCY = 64
SAME_EMAIL_SIGN_UPS = 200
EXPIRED_SESSIONS = 50
READS = 4000
WEEK = timedelta(days=7)


@dataclass
class Demo:
    """State that the steps share. ``run`` is part of all emails, so that runs on the same store do not conflict."""

    adapter: AllsourceAuthAdapter
    users: int
    report: DemoReport
    advance: Advance
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    signed_up: list[SessionWithUser] = field(default_factory=list[SessionWithUser])

    def email(self, name: str) -> str:
        return f"{name}.{self.run}@example.org"

    @property
    def ada(self) -> SessionWithUser:
        """The user whose history is shown."""
        return self.signed_up[0]


async def demonstrate(store: EventStore, *, users: int, progress: Advance) -> DemoReport:
    """Run all steps with this many users, close the store, and return the results."""
    steps = {
        "signing up": sign_up,
        "signing in": sign_in,
        "looking up": look_up,
        "signing up with one email": sign_up_with_one_email,
        "renaming": rename,
        "updating concurrently": update_concurrently,
        "revoking": revoke,
        "deleting and restoring": delete_and_restore,
        "reverting": revert,
        "sweeping": sweep,
        "reading the history": read_history,
        "timing reads": time_reads,
    }
    report = DemoReport()
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        began, existing = await begin(store)
        demo = Demo(adapter, users, report, progress)
        for name, step in steps.items():
            progress(name, 0)
            await step(demo)
            # The sign-ups are half of the work and report their own progress.
            progress(name, 0 if step is sign_up else 0.5 / (len(steps) - 1))
        report.counts["events_written"] = await count_events(store, since=began) - existing
    return report


async def begin(store: EventStore) -> tuple[int, int]:
    """The time of the store in nanoseconds, up to a second old, and its number of events since then."""
    await store.latest("auth-user:unknown", require_leader=True)
    began = store.server_time()
    return began, await count_events(store, since=began)


async def sign_up(demo: Demo) -> None:
    """Sign up all users, each with a session, 64 at a time."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(number: int) -> SessionWithUser:
        name = "ada" if number == 0 else f"person{number}"
        async with slots:
            user = await demo.adapter.users.create(
                email=demo.email(name), username=f"{name}.{demo.run}", name="Ada Byron"
            )
            session = await demo.adapter.sessions.create(
                user_id=user.id,
                expires_at=datetime.now(UTC) + WEEK,
                ip_address="203.0.113.7",
                user_agent="demo",
            )
        demo.advance("signing up", 0.5 / demo.users)
        return SessionWithUser(session=session, user=user)

    with audit(actor="sign-up form", ip="203.0.113.7", request_id=demo.run):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(demo.users)]
    demo.signed_up = [task.result() for task in tasks]

    demo.report.counts["users_signed_up"] += len(demo.signed_up)
    demo.report.counts["sessions_opened"] += len(demo.signed_up)
    ids = {person.user.id for person in demo.signed_up}
    demo.report.check("every user has a unique id", len(ids) == demo.users)


async def sign_in(demo: Demo) -> None:
    """Load every session, as a web application does on each request."""
    loaded = [await demo.adapter.load_session(person.session.token) for person in demo.signed_up]
    demo.report.check("every session loads its user", loaded == demo.signed_up)
    unknown = await demo.adapter.load_session("session_unknown")
    demo.report.check("an unknown token loads no session", unknown is None)


async def look_up(demo: Demo) -> None:
    """Find users by what they enter in a sign-in form."""
    users = [person.user for person in demo.signed_up]
    by_email = [await demo.adapter.users.get_by_email((user.email or "").upper()) for user in users]
    demo.report.check("every user is found by email in upper case", by_email == users)
    by_username = [await demo.adapter.users.get_by_username(user.username or "") for user in users]
    demo.report.check("every user is found by username", by_username == users)


async def sign_up_with_one_email(demo: Demo) -> None:
    """Sign up many users with one email at the same time, each with a different mix of upper and lower case."""
    email = demo.email("same")

    async def one(number: int) -> User | None:
        spelling = "".join(c.upper() if number >> index & 1 else c for index, c in enumerate(email))
        try:
            return await demo.adapter.users.create(email=spelling)
        except Conflict:
            return None

    with audit(actor="sign-up form", reason="race"):
        outcomes = await asyncio.gather(*(one(number) for number in range(SAME_EMAIL_SIGN_UPS)))
    winners = [user for user in outcomes if user is not None]

    demo.report.counts["users_signed_up"] += len(winners)
    demo.report.counts["conflicts"] += SAME_EMAIL_SIGN_UPS - len(winners)
    demo.report.check(f"exactly one of {SAME_EMAIL_SIGN_UPS} concurrent sign-ups succeeded", len(winners) == 1)
    found = await demo.adapter.users.get_by_email(email)
    demo.report.check("the email belongs to the user whose sign-up succeeded", [found] == winners)


async def rename(demo: Demo) -> None:
    """Change the name and the email of one user in ten."""
    renamed: list[User] = []
    by_new: list[User | None] = []
    by_old: list[User | None] = []
    for number, person in enumerate(demo.signed_up[: demo.users // 10]):
        email = demo.email("lovelace" if number == 0 else f"renamed{number}")
        with audit(actor=person.user.id, reason="profile form"):
            renamed.append(await demo.adapter.users.update(person.user.id, email=email, name="Lady Lovelace"))
        by_new.append(await demo.adapter.users.get_by_email(email))
        by_old.append(await demo.adapter.users.get_by_email(person.user.email or ""))
    demo.report.check("a user is found by the new email", by_new == renamed)
    demo.report.check("no user is found by the old email", not any(by_old))


async def update_concurrently(demo: Demo) -> None:
    """Change different fields of one user at the same time. No update overwrites another."""
    users, person = demo.adapter.users, demo.signed_up[1].user
    before = await users.get(person.id)
    with audit(actor="import"):
        await asyncio.gather(
            users.update(person.id, image="https://example.org/portrait.png"),
            users.update(person.id, display_username="Countess"),
            users.update(person.id, role="editor"),
            users.update(person.id, email_verified=True),
            users.update(person.id, two_factor_enabled=True),
            users.update(person.id, metadata={"theme": "dark"}),
        )
    after = await users.get(person.id)
    applied = after is not None and (
        after.image == "https://example.org/portrait.png"
        and after.display_username == "Countess"
        and after.role == "editor"
        and after.email_verified
        and after.two_factor_enabled
        and after.metadata == {"theme": "dark"}
    )
    demo.report.check("six concurrent updates of one user were all applied", applied)
    unchanged = after is not None and before is not None and (after.email, after.name) == (before.email, before.name)
    demo.report.check("fields that no update names are unchanged", unchanged)


async def revoke(demo: Demo) -> None:
    """Revoke one session of a user, then all of them."""
    adapter, person = demo.adapter, demo.signed_up[2]
    second = await adapter.sessions.create(user_id=person.user.id, expires_at=datetime.now(UTC) + WEEK)
    third = await adapter.sessions.create(user_id=person.user.id, expires_at=datetime.now(UTC) + WEEK)

    await adapter.sessions.delete(person.session.token)
    demo.report.check("a revoked session is not loaded", await adapter.load_session(person.session.token) is None)
    demo.report.check(
        "another session of that user is still valid", await adapter.load_session(second.token) is not None
    )

    revoked = await adapter.sessions.delete_for_user(person.user.id)
    loaded = [await adapter.load_session(session.token) for session in (second, third)]
    demo.report.check("all other sessions of a user are revoked with one call", revoked == 2 and not any(loaded))
    demo.report.counts["sessions_opened"] += 2
    demo.report.counts["sessions_revoked"] += 1 + revoked


async def delete_and_restore(demo: Demo) -> None:
    """Delete a user, give the email to another user for a while, and restore the first user."""
    users, token = demo.adapter.users, demo.ada.session.token
    ada = await users.get(demo.ada.user.id)
    if ada is None or ada.email is None or ada.username is None:
        demo.report.check("the user to delete exists", False)
        return

    with audit(actor="support", request_id=demo.run, reason="asked by the user"):
        await users.delete(ada.id)
    demo.report.check("a deleted user is not found", await users.get(ada.id) is None)
    demo.report.check("the session of a deleted user is not loaded", await demo.adapter.load_session(token) is None)
    demo.report.check("the email of a deleted user has no owner", await users.get_by_email(ada.email) is None)
    demo.report.counts["sessions_revoked"] += 1

    # Another user may take the email now. While that user has it, the first one cannot be restored.
    other = await users.create(email=ada.email.upper(), name="Another user")
    demo.report.counts["users_signed_up"] += 1
    history = await users.history(ada.id)
    refused = await conflicts(users.restore(ada.id))
    demo.report.check("restoring raises Conflict while another user has the email", refused)
    demo.report.counts["conflicts"] += refused
    unchanged = await users.get(ada.id) is None and await users.history(ada.id) == history
    unchanged = unchanged and await users.get_by_email(ada.email) == other
    demo.report.check("the refused restore changed nothing", unchanged)

    await users.delete(other.id)
    with audit(actor="support", request_id=demo.run, reason="changed their mind"):
        restored = await users.restore(ada.id)
    demo.report.check(
        "the restored user has its email and name again", (restored.email, restored.name) == (ada.email, ada.name)
    )
    demo.report.check("the restored user is found by email", await users.get_by_email(ada.email) == restored)
    demo.report.check("the restored user is found by username", await users.get_by_username(ada.username) == restored)
    demo.report.check("the sessions of the user are not restored", await demo.adapter.load_session(token) is None)


async def revert(demo: Demo) -> None:
    """Make a mistake, and revert to the event before it."""
    users, ada = demo.adapter.users, demo.ada.user
    good = await users.get(ada.id)
    with audit(actor="support", reason="typing mistake"):
        await users.update(ada.id, name="Xda", role="administrator")
    mistake, before = await users.history(ada.id, newest_first=True, limit=2)
    with audit(actor="support", reason="undo"):
        reverted = await users.revert(ada.id, to=before.event_id)
    undone = good is not None and (reverted.name, reverted.role) == (good.name, good.role)
    demo.report.check("a reverted user has its previous name and role", undone and mistake.event == "UserUpdated")


async def sweep(demo: Demo) -> None:
    """Remove expired sessions."""
    sessions = demo.adapter.sessions

    async def expired() -> Session:
        return await sessions.create(user_id=demo.signed_up[3].user.id, expires_at=datetime.now(UTC))

    short = await asyncio.gather(*(expired() for _ in range(EXPIRED_SESSIONS)))
    demo.report.counts["sessions_opened"] += len(short)
    loaded = [await demo.adapter.load_session(session.token) for session in short]
    demo.report.check("an expired session is not loaded", not any(loaded))
    with audit(actor="nightly sweep"):
        demo.report.counts["sessions_swept"] += await sessions.delete_expired()
    left = await sessions.get_many(session.token for session in short)
    demo.report.check("the sweep removed every expired session", not left)
    live = await sessions.get_many(person.session.token for person in demo.signed_up[3:])
    demo.report.check("the sweep removed no other session", len(live) == demo.users - 3)


async def read_history(demo: Demo) -> None:
    """Read the history of one user, and its state right before the first change."""
    users, ada = demo.adapter.users, demo.ada.user
    demo.report.timeline = await users.history(ada.id)
    changed = next((change for change in demo.report.timeline if change.event == "UserUpdated"), None)
    if changed is not None:
        demo.report.before = await users.as_of(ada.id, changed.at - timedelta(microseconds=1))
    demo.report.check("the state before the first change is that of the sign-up", demo.report.before == ada)
    events = [str(change.event) for change in demo.report.timeline]
    expected = ["UserCreated", "UserUpdated", "UserDeleted", "UserUpdated", "UserUpdated", "UserUpdated"]
    demo.report.check("the history has every change in order", events == expected)
    demo.report.check("every change has an actor", all(change.actor for change in demo.report.timeline))
    demo.report.counts["users_in_store"] = (await users.list(limit=0)).total


async def time_reads(demo: Demo) -> None:
    """Measure reads of the latest state, one at a time, of users and sessions in random order."""
    reads = {"sessions.get": Latency(), "users.get_by_email": Latency()}
    complete = True
    for _ in range(READS):
        # The sessions of the first three were revoked, and the emails of the first tenth were changed.
        token = random.choice(demo.signed_up[3:]).session.token  # noqa: S311
        email = random.choice(demo.signed_up[demo.users // 10 :]).user.email or ""  # noqa: S311
        began = perf_counter_ns()
        session = await demo.adapter.sessions.get(token)
        reads["sessions.get"].add(perf_counter_ns() - began)
        began = perf_counter_ns()
        user = await demo.adapter.users.get_by_email(email)
        reads["users.get_by_email"].add(perf_counter_ns() - began)
        complete = complete and session is not None and user is not None
    demo.report.latencies = reads
    demo.report.check("every measured read found its session or user", complete)


async def conflicts(call: Awaitable[object]) -> bool:
    """Whether a call raises `Conflict`, because another entity has a unique value."""
    try:
        await call
    except Conflict:
        return True
    return False


async def count_events(store: EventStore, *, since: int) -> int:
    """The number of events since a time in nanoseconds: those of sessions and users, and those that make values unique."""
    async with aclosing(store.scan("auth.", since=since)) as pages:
        return sum([len(events) async for events in pages])
