"""How long reads of the latest state take on somebody's own store: what ``allsource-auth bench`` measures.

A closed loop: each caller asks again once it has its answer. The operations take turns of a quarter of a second, in an order
that is drawn anew each time, so that all of them meet the same machine. Nothing is shown while something is timed.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import perf_counter_ns
from typing import Any, TypeVar

from allsource_auth import AllsourceAuthAdapter, EventStore, Json, Session, SessionWithUser, audit
from allsource_auth.cli.figures import Figures, Row, Show
from allsource_auth.kinds import SESSION, USER, Kind

__all__ = ["measure"]

SECOND = 1_000_000_000
HOUR = 3600 * SECOND

SPANS = (HOUR, 24 * HOUR, 30 * 24 * HOUR)
"""How far back something to read is looked for, in nanoseconds, before all is: what changed last is most likely alive."""

LOOKED_AT = 5000
"""Events of one kind that are looked at, at most, up to a page of them."""

DRAWN_FROM = 500
"""Entities of one kind that are read."""

TURN = SECOND // 4

PATIENCE = 10
"""Seconds that an answer may take after its turn has ended."""

AT_ONCE = 16

USERS = 20
SESSIONS = 100

SIGN_INS = 500
"""Sign-ins of each number of callers, at most: what they write stays in the log."""

T = TypeVar("T")


@dataclass(frozen=True)
class Operation:
    """What is timed. ``targets``: what may be asked for, each with the id that the answer must have.

    The targets hold tokens and emails. Those that turn out to be gone are taken out. ``most``: calls by each number of callers.
    """

    name: str
    call: Callable[[str], Awaitable[Any]]
    targets: list[tuple[str, str]] = field(repr=False)
    id_of: Callable[[Any], str]
    most: int | None = None


@dataclass
class Lane:
    """An operation at a number of callers, and how many calls it has left."""

    operation: Operation
    row: Row
    left: int

    @property
    def is_open(self) -> bool:
        return self.left > 0 and bool(self.operation.targets)

    async def turn(self, until: int) -> None:
        """Call until a time by ``perf_counter_ns``, or until there are no calls left.

        Raises `TimeoutError` with a sentence if an answer does not come.
        """
        began = perf_counter_ns()
        patience = (until - began) / SECOND + PATIENCE
        took: list[int] = []
        try:
            async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
                for _ in range(self.row.callers):
                    group.create_task(self._caller(until, took))
        except TimeoutError:
            raise TimeoutError(
                f"{self.row.operation} had no answer for {PATIENCE} seconds; is the server overloaded?"
            ) from None
        finally:
            self.row.wall += perf_counter_ns() - began
            for nanoseconds in took:
                self.row.latency.add(nanoseconds)

    async def _caller(self, until: int, took: list[int]) -> None:
        call, id_of = self.operation.call, self.operation.id_of
        while self.is_open and perf_counter_ns() < until:
            self.left -= 1
            asked, expected = target = random.choice(self.operation.targets)  # noqa: S311
            began = perf_counter_ns()
            answer = await call(asked)
            took.append(perf_counter_ns() - began)
            if answer is None:
                await self._missed(target)
            elif id_of(answer) != expected:
                self.row.wrong += 1

    async def _missed(self, target: tuple[str, str]) -> None:
        """Ask again for what was there a moment ago: it may have been deleted meanwhile, but it cannot come back."""
        if await self.operation.call(target[0]) is not None:
            self.row.wrong += 1
            return
        self.row.gone += 1
        with suppress(ValueError):  # somebody else has noticed as well
            self.operation.targets.remove(target)


class Guests:
    """Users and sessions that are made for this and deleted afterwards. ``mark`` is how their emails begin.

    A write that was sent is waited for, also if whoever asked for it is cancelled, so that all of it is there to be deleted.
    """

    def __init__(self, adapter: AllsourceAuthAdapter) -> None:
        self._adapter = adapter
        self._under_way: set[asyncio.Task[Any]] = set()
        self.mark = f"bench-{secrets.token_hex(4)}-"
        self._emails = [f"{self.mark}{number}@bench.invalid" for number in range(USERS)]
        self.users: list[str] = []
        self.tokens: list[str] = []

    async def make(self) -> None:
        """Sign them up, and each of them in a few times."""
        users = await _each(self._sign_up, self._emails)
        self.users = list(users.values())
        for _ in range(SESSIONS // USERS):
            sessions = await _each(self.sign_in, self.users)
            self.tokens += [session.token for session in sessions.values()]

    async def _sign_up(self, email: str) -> str:
        user = await self._to_its_end(self._adapter.users.create(email=email, name="made by allsource-auth bench"))
        return user.id

    async def sign_in(self, user_id: str) -> Session:
        # Whatever happens, it is over in an hour.
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        return await self._to_its_end(self._adapter.sessions.create(user_id=user_id, expires_at=expires_at))

    async def _to_its_end(self, write: Awaitable[T]) -> T:
        task = asyncio.ensure_future(write)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def delete(self) -> None:
        """Delete the users, and with them their sessions. They are looked for by email: an answer may have been lost."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        users = await _each(self._adapter.users.get_by_email, self._emails)
        await _each(self._adapter.users.delete, [user.id for user in users.values()])


async def measure(store: EventStore, figures: Figures, *, show: Show) -> None:
    """Measure as the options of ``figures`` say, fill them in, and close the store.

    Without anything to read ``figures`` has no rows. Raises what reads and writes of the store raise; `TimeoutError`.
    """
    options = figures.options
    async with AllsourceAuthAdapter.with_store(store) as adapter:
        show("connecting", 0)
        figures.info = await adapter.info()
        show("looking for something to read", 0)
        tokens = await _living(store, SESSION, figures)
        users = await _living(store, USER, figures)
        if not options["write"]:
            await _time(await _reads(adapter, figures, tokens, users), figures, show)
            return
        async with _guests(adapter, figures, show) as guests:
            operations = await _reads(adapter, figures, tokens + guests.tokens, users + guests.users)
            targets = [(user, user) for user in guests.users]
            sign_in = Operation("sessions.create", guests.sign_in, targets, lambda session: session.user_id, SIGN_INS)
            await _time([*operations, sign_in], figures, show)


@asynccontextmanager
async def _guests(adapter: AllsourceAuthAdapter, figures: Figures, show: Show) -> AsyncGenerator[Guests]:
    with audit(actor="allsource-auth bench"):
        guests = Guests(adapter)
        figures.left = guests.mark
        try:
            show("signing up", 0)
            await guests.make()
            yield guests
        finally:
            show("deleting what was made for this", 1)
            await guests.delete()
            figures.left = None


async def _living(store: EventStore, kind: Kind[Any], figures: Figures) -> list[str]:
    """Keys of entities that were alive by their last events, as far as a bounded look at them tells."""
    now = store.server_time()
    alive: dict[str, bool] = {}
    left, until = LOOKED_AT, None
    for since in (*(now - span for span in SPANS), None):
        of_span: dict[str, bool] = {}
        async with aclosing(store.scan(kind.types, since=since, until=until)) as pages:
            async for events in pages:
                of_span |= {event.stream: not event.type.endswith(".deleted") for event in events}
                left -= len(events)
                figures.looked_at += len(events)
                if left <= 0 or sum(of_span.values()) >= DRAWN_FROM:
                    break
        alive = of_span | alive
        if since is None or left <= 0 or sum(alive.values()) >= DRAWN_FROM:
            break
        until = since - 1
    keys = [kind.key_of(stream) for stream, lives in alive.items() if lives and stream.startswith(kind.prefix)]
    return random.sample(keys, min(len(keys), DRAWN_FROM))


async def _reads(
    adapter: AllsourceAuthAdapter, figures: Figures, tokens: Sequence[str], user_ids: Sequence[str]
) -> list[Operation]:
    """The reads, each with what it finds now; without those that find nothing."""
    sessions = await _each(adapter.sessions.get, tokens)
    users = await _each(adapter.users.get, user_ids)
    owners = {user.email: user.id for user in users.values() if user.email is not None}
    found = await _each(adapter.users.get_by_email, owners)
    signed_in = await _each(adapter.load_session, sessions)
    # Of several owners of an email, which only others can have written, the one that is found is right.
    emails = [
        (email, user.id if (user.email or "").lower() == email.lower() else owners[email])
        for email, user in found.items()
    ]
    figures.sample = {
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
    """What each call answers, some at a time; without what is not there or cannot be decoded."""
    found: dict[str, T] = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> None:
        async with places:
            with suppress(Json):
                answer = await call(key)
                if answer is not None:
                    found[key] = answer

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(one(key))
    return found


async def _time(operations: Sequence[Operation], figures: Figures, show: Show) -> None:
    """Let the operations take turns until the time is over or the calls are used up."""
    if not operations:
        return
    options = figures.options
    pairs = [(operation, callers) for callers in options["callers"] for operation in operations]
    share, rest = divmod(options["count"], len(pairs))
    lanes = []
    for place, (operation, callers) in enumerate(pairs):
        left = share + (place < rest)
        lanes.append(
            Lane(operation, Row(operation.name, callers), left if operation.most is None else min(left, operation.most))
        )
    figures.rows = [lane.row for lane in lanes]
    calls = sum(lane.left for lane in lanes)

    # Connections are made here, outside of what is timed.
    first = operations[0]
    await asyncio.gather(*(first.call(first.targets[0][0]) for _ in range(max(options["callers"]))))
    began = perf_counter_ns()
    length = options["seconds"] * SECOND
    turn = min(TURN, length // len(lanes))
    while perf_counter_ns() - began < length and (open_lanes := [lane for lane in lanes if lane.is_open]):
        for lane in random.sample(open_lanes, len(open_lanes)):
            await lane.turn(min(perf_counter_ns() + turn, began + length))
            show("measuring", max((perf_counter_ns() - began) / length, figures.calls / calls))
    figures.complete = True
