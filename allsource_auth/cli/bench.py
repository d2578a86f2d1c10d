"""The measurement of ``allsource-auth bench``: reads of the latest state on an existing store.

Each operation at each number of callers is a closed loop. The loops alternate in rounds of a quarter of a second, so that load
on the machine affects all of them alike. Nothing is shown during a round.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter_ns
from typing import Any, TypeVar

from allsource_auth import AllsourceAuthAdapter, EventStore, Json, Session, SessionWithUser, audit
from allsource_auth.cli.bench_report import BenchReport, Row, Show
from allsource_auth.cli.measuring import Call, Check, Round, alternating, closed_loop
from allsource_auth.kind import Kind
from allsource_auth.kinds import SESSION, USER

__all__ = ["measure"]

SECOND = 1_000_000_000
HOUR = 3600 * SECOND

AGES = (HOUR, 24 * HOUR, 30 * 24 * HOUR)
"""Maximum ages of the events to scan, in nanoseconds; events of any age come last. New entities most likely still exist."""

MAX_SCANNED = 5000
"""Maximum number of events of one kind to scan, rounded up to a whole page."""

SAMPLE_SIZE = 500
"""Maximum number of entities of one kind to read."""

ROUND = SECOND // 4

REPLY_TIMEOUT = 10
"""Seconds to wait for replies after the end of a round."""

CONCURRENCY = 16
"""Concurrent calls outside the measurement."""

USERS = 20
SESSIONS = 100

MAX_SIGN_INS = 500
"""Maximum number of sign-ins for each number of callers, because their events stay in the log."""

T = TypeVar("T")

Target = tuple[str, str]
"""The argument of a call, and the id that its reply must have."""


@dataclass(frozen=True)
class Operation:
    """An operation to measure.

    ``targets``: arguments that contain tokens and emails; those that turn out to be deleted are removed. ``id_of``: the id in a
    reply. ``max_calls``: for each number of callers.
    """

    name: str
    call: Callable[[str], Awaitable[Any]]
    targets: list[Target] = field(repr=False)
    id_of: Callable[[Any], str]
    max_calls: int | None = None


@dataclass
class Loop:
    """The closed loop of one operation at one number of callers, and the number of calls that it may still make."""

    operation: Operation
    row: Row
    remaining: int

    @property
    def has_calls(self) -> bool:
        return self.remaining > 0 and bool(self.operation.targets)

    async def run_round(self, end: int) -> None:
        """Make calls until ``perf_counter_ns`` reaches ``end`` or no calls remain.

        Raises `TimeoutError` if a reply takes longer than `REPLY_TIMEOUT`.
        """
        measured = Round()
        timeout = (end - perf_counter_ns()) / SECOND + REPLY_TIMEOUT
        try:
            async with asyncio.timeout(timeout):
                await closed_loop(self._calls(end), callers=self.row.callers, measured=measured)
        except TimeoutError:
            raise TimeoutError(
                f"{self.row.operation} had no reply for {REPLY_TIMEOUT} seconds; is the server overloaded?"
            ) from None
        finally:
            self.row.add(measured)

    def _calls(self, end: int) -> Iterator[tuple[Call, Check]]:
        while self.has_calls and perf_counter_ns() < end:
            self.remaining -= 1
            target = random.choice(self.operation.targets)  # noqa: S311
            yield partial(self.operation.call, target[0]), partial(self._check, target)

    def _check(self, target: Target, reply: Any) -> Awaitable[None] | None:
        if reply is None:
            return self._read_again(target)
        if self.operation.id_of(reply) != target[1]:
            self.row.wrong += 1
        return None

    async def _read_again(self, target: Target) -> None:
        """Read an entity again that was not found. If it is deleted, this read does not find it either."""
        if await self.operation.call(target[0]) is not None:
            self.row.wrong += 1
            return
        self.row.deleted += 1
        with suppress(ValueError):  # another caller has removed it
            self.operation.targets.remove(target)


class TemporaryUsers:
    """Users and sessions for the measurement. Their emails begin with ``prefix``.

    A write that was sent is completed even if its caller is cancelled, so that `delete` finds what it wrote.
    """

    def __init__(self, adapter: AllsourceAuthAdapter) -> None:
        self._adapter = adapter
        self._pending: set[asyncio.Task[Any]] = set()
        self.prefix: str = f"bench-{secrets.token_hex(4)}-"
        self._emails = [f"{self.prefix}{number}@bench.invalid" for number in range(USERS)]
        self.users: list[str] = []
        self.tokens: list[str] = []

    async def create(self) -> None:
        """Sign the users up, and sign each of them in several times."""
        users = await _each(self._sign_up, self._emails)
        self.users = list(users.values())
        for _ in range(SESSIONS // USERS):
            sessions = await _each(self.sign_in, self.users)
            self.tokens += [session.token for session in sessions.values()]

    async def _sign_up(self, email: str) -> str:
        user = await self._completed(self._adapter.users.create(email=email, name="made by allsource-auth bench"))
        return user.id

    async def sign_in(self, user_id: str) -> Session:
        # A session that is not deleted expires in an hour.
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        return await self._completed(self._adapter.sessions.create(user_id=user_id, expires_at=expires_at))

    async def _completed(self, write: Awaitable[T]) -> T:
        task = asyncio.ensure_future(write)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return await asyncio.shield(task)

    async def delete(self) -> None:
        """Delete the users and with them their sessions. Finds them by email, because a reply with an id may have been lost."""
        await asyncio.gather(*self._pending, return_exceptions=True)
        users = await _each(self._adapter.users.get_by_email, self._emails)
        await _each(self._adapter.users.delete, [user.id for user in users.values()])


async def measure(store: EventStore, report: BenchReport, *, show: Show) -> None:
    """Measure with the options of ``report``, fill in the results, and close the store.

    ``report`` has no rows if the store has nothing to read. Raises `TimeoutError` and the errors of reads and writes.
    """
    options = report.options
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        show("connecting", 0)
        report.info = await adapter.info()
        show("finding sessions and users", 0)
        tokens = await _existing(store, SESSION, report)
        users = await _existing(store, USER, report)
        if not options["write"]:
            await _measure(await _reads(adapter, report, tokens, users), report, show)
            return
        async with _temporary_users(adapter, report, show) as temporary:
            operations = await _reads(adapter, report, tokens + temporary.tokens, users + temporary.users)
            targets = [(user, user) for user in temporary.users]
            sign_in = Operation(
                "sessions.create", temporary.sign_in, targets, lambda session: session.user_id, MAX_SIGN_INS
            )
            await _measure([*operations, sign_in], report, show)


@asynccontextmanager
async def _temporary_users(
    adapter: AllsourceAuthAdapter, report: BenchReport, show: Show
) -> AsyncGenerator[TemporaryUsers]:
    with audit(actor="allsource-auth bench"):
        users = TemporaryUsers(adapter)
        report.undeleted = users.prefix
        try:
            show("creating temporary users", 0)
            await users.create()
            yield users
        finally:
            show("deleting temporary users", 1)
            await users.delete()
            report.undeleted = None


async def _existing(store: EventStore, kind: Kind[Any], report: BenchReport) -> list[str]:
    """Keys of entities that are not deleted according to the events scanned."""
    now = store.server_time()
    exists: dict[str, bool] = {}
    remaining, until = MAX_SCANNED, None
    for since in (*(now - age for age in AGES), None):
        newest: dict[str, bool] = {}
        async with aclosing(store.scan(kind.types, since=since, until=until)) as pages:
            async for events in pages:
                newest |= {event.stream: not event.type.endswith(".deleted") for event in events}
                remaining -= len(events)
                report.scanned += len(events)
                if remaining <= 0 or sum(newest.values()) >= SAMPLE_SIZE:
                    break
        exists = newest | exists
        if since is None or remaining <= 0 or sum(exists.values()) >= SAMPLE_SIZE:
            break
        until = since - 1
    keys = [kind.key_of(stream) for stream, found in exists.items() if found and stream.startswith(kind.prefix)]
    return random.sample(keys, min(len(keys), SAMPLE_SIZE))


async def _reads(
    adapter: AllsourceAuthAdapter, report: BenchReport, tokens: Sequence[str], user_ids: Sequence[str]
) -> list[Operation]:
    """The reads with their targets. Targets that are not found now are left out, and so are reads without targets."""
    sessions = await _each(adapter.sessions.get, tokens)
    users = await _each(adapter.users.get, user_ids)
    owners = {user.email: user.id for user in users.values() if user.email is not None}
    found = await _each(adapter.users.get_by_email, owners)
    signed_in = await _each(adapter.load_session, sessions)
    # Other programs can write two users with one email. Either of them is a correct reply.
    emails = [
        (email, user.id if (user.email or "").lower() == email.lower() else owners[email])
        for email, user in found.items()
    ]
    report.sample = {
        "sessions": len(sessions),
        "sessions that sign in": len(signed_in),
        "users": len(users),
        "users found by email": len(emails),
    }
    operations = [
        Operation(
            "sessions.get",
            adapter.sessions.get,
            [(token, session.id) for token, session in sessions.items()],
            lambda session: session.id,
        ),
        Operation("users.get", adapter.users.get, [(key, key) for key in users], lambda user: user.id),
        Operation("users.get_by_email", adapter.users.get_by_email, emails, lambda user: user.id),
        Operation(
            "load_session",
            adapter.load_session,
            [(token, _ids(loaded)) for token, loaded in signed_in.items()],
            _ids,
        ),
    ]
    return [operation for operation in operations if operation.targets]


def _ids(loaded: SessionWithUser) -> str:
    return f"{loaded.session.id} {loaded.user.id}"


async def _each(call: Callable[[str], Awaitable[T | None]], keys: Iterable[str]) -> dict[str, T]:
    """The results of concurrent calls by key, without ``None`` and without entities that cannot be decoded."""
    results: dict[str, T] = {}
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(key: str) -> None:
        async with slots:
            with suppress(Json):
                result = await call(key)
                if result is not None:
                    results[key] = result

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(one(key))
    return results


async def _measure(operations: Sequence[Operation], report: BenchReport, show: Show) -> None:
    """Run the loops of all operations in alternating rounds until the time is over or no calls remain."""
    if not operations:
        return
    options = report.options
    pairs = [(operation, callers) for callers in options["callers"] for operation in operations]
    share, rest = divmod(options["count"], len(pairs))
    loops: list[Loop] = []
    for number, (operation, callers) in enumerate(pairs):
        calls = share + (number < rest)
        if operation.max_calls is not None:
            calls = min(calls, operation.max_calls)
        loops.append(Loop(operation, Row(operation.name, callers), calls))
    report.rows = [loop.row for loop in loops]
    total = sum(loop.remaining for loop in loops)

    # Opens the connections, so that the measured calls need not.
    first = operations[0]
    await asyncio.gather(*(first.call(first.targets[0][0]) for _ in range(max(options["callers"]))))
    began = perf_counter_ns()
    duration = options["seconds"] * SECOND
    end, length = began + duration, min(ROUND, duration // len(loops))
    for loop in alternating(loops):
        if perf_counter_ns() >= end or not any(loop.has_calls for loop in loops):
            break
        if loop.has_calls:
            await loop.run_round(min(perf_counter_ns() + length, end))
            show("measuring", max((perf_counter_ns() - began) / duration, report.calls / total))
    report.complete = True
