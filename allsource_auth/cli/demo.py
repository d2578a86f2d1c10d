"""The main job, from sign-up to undo, on any store: what ``allsource-auth demo`` runs.

Everything here is done through the public API, a step per function, so that it can serve as an example.
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
from allsource_auth.cli.report import Latency, Report
from allsource_auth.cli.screen import Advance

__all__ = ["demonstrate"]

AT_ONCE = 64
RACERS = 200
SHORT_LIVED = 50
READS = 4000
WEEK = timedelta(days=7)


@dataclass
class Job:
    """What the steps share. ``run`` makes the emails of this run its own, so that a store can be used again."""

    adapter: AllsourceAuthAdapter
    users: int
    report: Report
    advance: Advance
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    people: list[SessionWithUser] = field(default_factory=list)

    def email(self, name: str) -> str:
        return f"{name}.{self.run}@example.org"

    @property
    def ada(self) -> SessionWithUser:
        """The person whose story the timeline tells."""
        return self.people[0]


async def demonstrate(store: EventStore, *, users: int, progress: Advance) -> Report:
    """Do the job with this many users, and close the store; what it found out."""
    steps = {
        "signing up": sign_up,
        "signing in": sign_in,
        "looking up": look_up,
        "racing for one email": race_for_one_email,
        "renaming": rename,
        "updating together": update_together,
        "revoking": revoke,
        "deleting and restoring": delete_and_restore,
        "reverting": revert,
        "sweeping": sweep,
        "reading the history": tell_the_story,
        "timing reads": time_reads,
    }
    report = Report()
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        began, there = await begin(store)
        job = Job(adapter, users, report, progress)
        for doing, step in steps.items():
            progress(doing, 0)
            await step(job)
            # The sign-ups are half of the work, and say themselves how far they are.
            progress(doing, 0 if step is sign_up else 0.5 / (len(steps) - 1))
        report.counts["events_written"] = await count_events(store, since=began) - there
    return report


async def begin(store: EventStore) -> tuple[int, int]:
    """The store's time, in nanoseconds and maybe a second old, and how many events it has since then."""
    await store.latest("auth-user:nobody", require_leader=True)
    began = store.server_time()
    return began, await count_events(store, since=began)


async def sign_up(job: Job) -> None:
    """Sign everybody up, each with a session, 64 at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> SessionWithUser:
        name = "ada" if number == 0 else f"person{number}"
        async with turn:
            user = await job.adapter.users.create(email=job.email(name), username=f"{name}.{job.run}", name="Ada Byron")
            session = await job.adapter.sessions.create(
                user_id=user.id,
                expires_at=datetime.now(UTC) + WEEK,
                ip_address="203.0.113.7",
                user_agent="demo",
            )
        job.advance("signing up", 0.5 / job.users)
        return SessionWithUser(session=session, user=user)

    with audit(actor="sign-up form", ip="203.0.113.7", request_id=job.run):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(job.users)]
    job.people = [task.result() for task in tasks]

    job.report.counts["users_signed_up"] += len(job.people)
    job.report.counts["sessions_opened"] += len(job.people)
    different = {person.user.id for person in job.people}
    job.report.check("everybody who signed up has an id of their own", len(different) == job.users)


async def sign_in(job: Job) -> None:
    """Load every session as a web application does for every request."""
    loaded = [await job.adapter.load_session(person.session.token) for person in job.people]
    job.report.check("every session signs its user in", loaded == job.people)
    stranger = await job.adapter.load_session("session_of_nobody")
    job.report.check("a token that nobody was given signs nobody in", stranger is None)


async def look_up(job: Job) -> None:
    """Find users by what they type into a form."""
    users = [person.user for person in job.people]
    by_email = [await job.adapter.users.get_by_email((user.email or "").upper()) for user in users]
    job.report.check("everybody is found by email, in capitals too", by_email == users)
    by_username = [await job.adapter.users.get_by_username(user.username or "") for user in users]
    job.report.check("everybody is found by username", by_username == users)


async def race_for_one_email(job: Job) -> None:
    """Let many callers sign up with one email at the same time, each in capitals of its own."""
    email = job.email("everybody")

    async def one(number: int) -> User | None:
        capitals = "".join(c.upper() if number >> place & 1 else c for place, c in enumerate(email))
        try:
            return await job.adapter.users.create(email=capitals)
        except Conflict:
            return None

    with audit(actor="sign-up form", reason="race"):
        outcomes = await asyncio.gather(*(one(number) for number in range(RACERS)))
    winners = [user for user in outcomes if user is not None]

    job.report.counts["users_signed_up"] += len(winners)
    job.report.counts["conflicts"] += RACERS - len(winners)
    job.report.check(f"one of {RACERS} racing sign-ups won", len(winners) == 1)
    found = await job.adapter.users.get_by_email(email)
    job.report.check("the email belongs to the winner of the race", [found] == winners)


async def rename(job: Job) -> None:
    """Change the name and the email of one user in ten."""
    renamed, moved, gone = [], [], []
    for number, person in enumerate(job.people[: job.users // 10]):
        email = job.email("lovelace" if number == 0 else f"renamed{number}")
        with audit(actor=person.user.id, reason="profile form"):
            renamed.append(await job.adapter.users.update(person.user.id, email=email, name="Lady Lovelace"))
        moved.append(await job.adapter.users.get_by_email(email))
        gone.append(await job.adapter.users.get_by_email(person.user.email or ""))
    job.report.check("a user is found by the new email", moved == renamed)
    job.report.check("nobody is found by the old email", not any(gone))


async def update_together(job: Job) -> None:
    """Change different fields of one user at the same time; no update undoes another."""
    users, person = job.adapter.users, job.people[1].user
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
    survived = after is not None and (
        after.image == "https://example.org/portrait.png"
        and after.display_username == "Countess"
        and after.role == "editor"
        and after.email_verified
        and after.two_factor_enabled
        and after.metadata == {"theme": "dark"}
    )
    job.report.check("six updates of one user at the same time all survived", survived)
    untouched = after is not None and before is not None and (after.email, after.name) == (before.email, before.name)
    job.report.check("the fields that no update named stayed", untouched)


async def revoke(job: Job) -> None:
    """Sign one device out, then all devices of a user."""
    adapter, person = job.adapter, job.people[2]
    second = await adapter.sessions.create(user_id=person.user.id, expires_at=datetime.now(UTC) + WEEK)
    third = await adapter.sessions.create(user_id=person.user.id, expires_at=datetime.now(UTC) + WEEK)

    await adapter.sessions.delete(person.session.token)
    job.report.check("a revoked session signs nobody in", await adapter.load_session(person.session.token) is None)
    job.report.check("another session of that user goes on", await adapter.load_session(second.token) is not None)

    revoked = await adapter.sessions.delete_for_user(person.user.id)
    left = [await adapter.load_session(session.token) for session in (second, third)]
    job.report.check("all other sessions of a user are revoked at once", revoked == 2 and not any(left))
    job.report.counts["sessions_opened"] += 2
    job.report.counts["sessions_revoked"] += 1 + revoked


async def delete_and_restore(job: Job) -> None:
    """Delete a user, let somebody else have the email for a while, and bring the user back."""
    users, token = job.adapter.users, job.ada.session.token
    ada = await users.get(job.ada.user.id)
    if ada is None or ada.email is None or ada.username is None:
        job.report.check("the user to delete is there", False)
        return

    with audit(actor="support", request_id=job.run, reason="asked by the user"):
        await users.delete(ada.id)
    job.report.check("a deleted user is gone", await users.get(ada.id) is None)
    job.report.check("a deleted user's session signs nobody in", await job.adapter.load_session(token) is None)
    job.report.check("a deleted user's email belongs to nobody", await users.get_by_email(ada.email) is None)
    job.report.counts["sessions_revoked"] += 1

    # Somebody else may have the email now, and then the user cannot come back.
    other = await users.create(email=ada.email.upper(), name="Somebody else")
    job.report.counts["users_signed_up"] += 1
    story = await users.history(ada.id)
    refused = await conflicts(users.restore(ada.id))
    job.report.check("restoring says Conflict while somebody else has the email", refused)
    job.report.counts["conflicts"] += refused
    unchanged = await users.get(ada.id) is None and await users.history(ada.id) == story
    unchanged = unchanged and await users.get_by_email(ada.email) == other
    job.report.check("the refused restore changed nothing", unchanged)

    await users.delete(other.id)
    with audit(actor="support", request_id=job.run, reason="changed their mind"):
        back = await users.restore(ada.id)
    job.report.check("the restored user has email and name again", (back.email, back.name) == (ada.email, ada.name))
    job.report.check("the restored user is found by email", await users.get_by_email(ada.email) == back)
    job.report.check("the restored user is found by username", await users.get_by_username(ada.username) == back)
    job.report.check("no session came back with the user", await job.adapter.load_session(token) is None)


async def revert(job: Job) -> None:
    """Make a mistake, and go back to the event before it."""
    users, ada = job.adapter.users, job.ada.user
    good = await users.get(ada.id)
    with audit(actor="support", reason="typing mistake"):
        await users.update(ada.id, name="Xda", role="administrator")
    mistake, before = await users.history(ada.id, newest_first=True, limit=2)
    with audit(actor="support", reason="undo"):
        reverted = await users.revert(ada.id, to=before.event_id)
    undone = good is not None and (reverted.name, reverted.role) == (good.name, good.role)
    job.report.check("a reverted user has its former name and role", undone and mistake.event == "UserUpdated")


async def sweep(job: Job) -> None:
    """Remove the sessions that have ended."""
    sessions = job.adapter.sessions

    async def ended() -> Session:
        return await sessions.create(user_id=job.people[3].user.id, expires_at=datetime.now(UTC))

    over = await asyncio.gather(*(ended() for _ in range(SHORT_LIVED)))
    job.report.counts["sessions_opened"] += len(over)
    asleep = [await job.adapter.load_session(session.token) for session in over]
    job.report.check("an expired session signs nobody in", not any(asleep))
    with audit(actor="nightly sweep"):
        job.report.counts["sessions_swept"] += await sessions.delete_expired()
    left = await sessions.get_many(session.token for session in over)
    job.report.check("the sweep removed every expired session", not left)
    live = await sessions.get_many(person.session.token for person in job.people[3:])
    job.report.check("the sweep left every other session alone", len(live) == job.users - 3)


async def tell_the_story(job: Job) -> None:
    """Read one user's history, and its state right before the first change."""
    users, ada = job.adapter.users, job.ada.user
    job.report.timeline = await users.history(ada.id)
    changed = next((change for change in job.report.timeline if change.event == "UserUpdated"), None)
    if changed is not None:
        job.report.before = await users.as_of(ada.id, changed.at - timedelta(microseconds=1))
    job.report.check("the state before the first change is the one that signed up", job.report.before == ada)
    told = [str(change.event) for change in job.report.timeline]
    expected = ["UserCreated", "UserUpdated", "UserDeleted", "UserUpdated", "UserUpdated", "UserUpdated"]
    job.report.check("the history tells every change in order", told == expected)
    job.report.check("every change says who made it", all(change.actor for change in job.report.timeline))
    job.report.counts["users_in_store"] = (await users.list(limit=0)).total


async def time_reads(job: Job) -> None:
    """Time reads of the latest state, one at a time, of users and sessions drawn at random."""
    reads = {"sessions.get": Latency(), "users.get_by_email": Latency()}
    complete = True
    for _ in range(READS):
        # The first three were signed out on the way; one in ten has another email by now.
        token = random.choice(job.people[3:]).session.token  # noqa: S311
        email = random.choice(job.people[job.users // 10 :]).user.email or ""  # noqa: S311
        began = perf_counter_ns()
        session = await job.adapter.sessions.get(token)
        reads["sessions.get"].record(began)
        began = perf_counter_ns()
        user = await job.adapter.users.get_by_email(email)
        reads["users.get_by_email"].record(began)
        complete = complete and session is not None and user is not None
    job.report.latencies = reads
    job.report.check("every timed read found what it looked for", complete)


async def conflicts(call: Awaitable[object]) -> bool:
    """Whether a call is refused because somebody else has a unique value."""
    try:
        await call
    except Conflict:
        return True
    return False


async def count_events(store: EventStore, *, since: int) -> int:
    """How many events there are since a time, in nanoseconds: sessions, users, and what keeps them unique."""
    async with aclosing(store.scan("auth.", since=since)) as pages:
        return sum([len(events) async for events in pages])
