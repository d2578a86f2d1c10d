"""The real repositories on a simulated Core, and the promises that every schedule must keep.

A client acts in an audit context with its own name as the actor, so that what it did can be told from the events.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from allsource_auth import Conflict, NotFound, User, VersionConflict, audit
from allsource_auth.audit import metadata_of
from allsource_auth.engine.collection import EngineContext, delete_orphan
from allsource_auth.engine.context import Context
from allsource_auth.engine.ordering import in_order
from allsource_auth.engine.roll_forward import remaining, roll_forward
from allsource_auth.engine.streams import Streams
from allsource_auth.entities import Entity, Session
from allsource_auth.errors import InvalidInput
from allsource_auth.kinds import FENCED, SESSION, USER, Kind
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.users import Users
from allsource_auth.store.base import Event, EventStore
from allsource_auth.transactions.transaction import Transaction
from tests.protocol.scenario import Client
from tests.protocol.store import SimStore
from tests.protocol.world import World

__all__ = [
    "LATER",
    "NOW",
    "Auth",
    "client",
    "happens_whole_or_not_at_all",
    "keeps_its_promises",
    "outlives_forgotten_versions",
]

E = TypeVar("E", bound=Entity)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EMAILS = ("x@e", "y@e")
"""What is wanted in most situations."""

LATER = NOW + timedelta(days=7)

REFUSALS = (Conflict, NotFound, VersionConflict, InvalidInput)
"""Errors after which nothing has happened."""


class SmallTransaction(Transaction):
    """A transaction with the kinds of `Auth` only: every other one would add reads to each deletion."""

    def _open(self, context: EngineContext) -> None:
        self.context = context
        self.users = Users(context)
        self.sessions = Sessions(context)


class Auth:
    """Users and sessions on a store, with a time of its own: a retry takes so long that there is only one."""

    def __init__(self, store: EventStore, note: Callable[[object], None] = lambda value: None) -> None:
        self.note = note
        self._seconds = 0.0
        context: EngineContext = Context(Streams(store), lambda: NOW, delete_orphan)
        context.mutations.pause = self._pause
        context.mutations.now = lambda: self._seconds
        self._context = context
        self.users = Users(context)
        self.sessions = Sessions(context)

    async def want(self, email: str) -> None:
        """Settle who has an email, without taking it. Raises `Conflict` if somebody has it."""
        unique, value = USER.unique[0], (folded(email),)
        stream = USER.claim_stream(self._context.tenant, unique, value)
        await self._context.claims._free_head(USER, unique, value, stream, "nobody")

    async def complete(self, decisions: list[Event]) -> None:
        """Write what remains of transactions that are decided."""
        for decision in decisions:
            await roll_forward(self._context.streams, metadata_of(decision).op or "", remaining(decision))

    def transaction(self) -> Transaction:
        return SmallTransaction(self._context)

    async def _pause(self, attempt: int) -> None:
        self._seconds += 11
        await asyncio.sleep(0)


def client(name: str, act: Callable[[Auth, World], Awaitable[object]]) -> Client:
    """A client program that acts under its name."""

    async def program(store: SimStore, world: World) -> object:
        with audit(actor=name):
            result = await act(Auth(store, world.note), world)
        if isinstance(result, Session):
            return result.token
        return result.id if isinstance(result, User) else result

    return program


def states(world: World, kind: Kind[E]) -> dict[str, E]:
    """The living entities as the log has them, by key: the truth that reads are held against."""
    newest = {stream: in_order(events)[-1] for stream, events in stored(world, kind.prefix).items()}
    decoded = {kind.key_of(stream): kind.decode(event) for stream, event in newest.items()}
    return {key: state for key, state in decoded.items() if state is not None}


def stored(world: World, *prefixes: str) -> dict[str, list[Event]]:
    """The events of every stream of the tenant whose name starts so, in stored order."""
    tenant = world.store().tenant
    found = {
        stream: world.core.events(stream, tenant=tenant)
        for stream in world.core.streams()
        if stream.startswith(prefixes)
    }
    return {stream: events for stream, events in found.items() if events}


def folded(email: str) -> str:
    return unicodedata.normalize("NFC", email).lower()


async def keeps_its_promises(world: World) -> None:
    """What must hold at the end of every schedule, whatever the clients tried."""
    users = states(world, USER)
    no_value_has_two_owners(users)
    a_refused_mutation_has_no_effect(world)
    an_acknowledged_mutation_happened_once(world)
    nothing_is_decided_on_the_past(world)
    auth = Auth(world.store())
    await reads_agree(auth, users)
    await lists_agree(auth, states(world, SESSION))
    await nothing_is_blocked(auth, world, users)
    no_value_has_two_owners(states(world, USER))


async def happens_whole_or_not_at_all(world: World) -> None:
    """Beside all other promises: what a decision says remains has happened, once somebody has met its claims."""
    auth = Auth(world.store())
    for email in world.facts.get("emails", EMAILS):
        with suppress(Conflict):
            await auth.want(email)
    await auth.complete(decisions(world))  # those that have no claim, as a check with repair does
    await keeps_its_promises(world)
    log = stored(world, USER.prefix, SESSION.prefix)
    for decision in decisions(world):
        for each in remaining(decision):
            ops = [metadata_of(event).op for event in log.get(each.stream, [])]
            removed = any(event.type.endswith(".deleted") for event in log.get(each.stream, []))
            assert metadata_of(decision).op in ops or removed, f"decided, but {each.stream} was never written"


def decisions(world: World) -> list[Event]:
    """The events that decided a transaction."""
    log = stored(world, USER.prefix, SESSION.prefix)
    return [event for events in log.values() for event in events if remaining(event)]


async def outlives_forgotten_versions(world: World) -> None:
    """What reading back keeps where a cold server accepted a guard, and nothing else went wrong.

    A sign-up that is refused then was stored and is taken back. One that was acknowledged may be undone, by a fence that the
    cold server stored on top of it: only a server that has loaded the tenant before keeps the other promises.
    """
    users = states(world, USER)
    no_value_has_two_owners(users)
    an_acknowledged_mutation_happened_once(world)
    for name, outcome in world.outcomes.items():
        if isinstance(outcome.error, REFUSALS):
            alive = {event.stream for event in written_by(world, name)} & {USER.stream(key) for key in users}
            assert not alive, f"{name} was refused, but its user is alive"
    auth = Auth(world.store())
    await reads_agree(auth, users)
    await nothing_is_blocked(auth, world, users)
    no_value_has_two_owners(states(world, USER))


def no_value_has_two_owners(users: dict[str, User]) -> None:
    emails = Counter(folded(user.email) for user in users.values() if user.email is not None)
    names = Counter(user.username for user in users.values() if user.username is not None)
    for found in (emails, names):
        twice = [value for value, owners in found.items() if owners > 1]
        assert not twice, f"two living owners of {twice[0]!r}"


def written_by(world: World, name: str) -> list[Event]:
    """The events of entities that a client's mutations wrote, fences left out."""
    return [
        event
        for events in stored(world, USER.prefix, SESSION.prefix).values()
        for event in events
        if event.type != FENCED and metadata_of(event).actor == name
    ]


def a_refused_mutation_has_no_effect(world: World) -> None:
    for name, outcome in world.outcomes.items():
        if isinstance(outcome.error, REFUSALS) and not getattr(outcome.error, "ambiguous", False):
            done = world.notes.get(name, [0])[-1]
            found = [event for event in written_by(world, name) if not event.type.startswith("auth.session.")]
            assert len(found) == done, f"{name} was refused, but wrote {found[-1].type}"


def an_acknowledged_mutation_happened_once(world: World) -> None:
    """No operation is stored twice on a stream, and one that returned an entity is on that entity's stream."""
    for name, outcome in world.outcomes.items():
        written = [(event.stream, metadata_of(event).op) for event in written_by(world, name)]
        assert len(written) == len(set(written)), f"an operation of {name} was stored twice"
        if outcome.how == "returned" and isinstance(outcome.value, str):
            streams = world.core.streams()
            assert any(stream.endswith(":" + outcome.value) for stream in streams), f"what {name} got is not stored"


def nothing_is_decided_on_the_past(world: World) -> None:
    """Every event of an entity was decided on another one: none was stored over something unseen."""
    for stream, events in stored(world, USER.prefix, SESSION.prefix).items():
        numbers = [seq for event in events if (seq := metadata_of(event).seq) is not None]
        assert len(numbers) == len(set(numbers)), f"two events of {stream} were decided on the same one"


async def reads_agree(auth: Auth, users: dict[str, User]) -> None:
    for user in users.values():
        assert await auth.users.get(user.id) == user, "a read by id shows another state than the log"
        if user.email is not None:
            assert await auth.users.get_by_email(user.email.upper()) == user, "a living user is not found by its email"
        if user.username is not None:
            assert await auth.users.get_by_username(user.username) == user, "a living user is not found by its name"


async def lists_agree(auth: Auth, sessions: dict[str, Session]) -> None:
    for token, session in sessions.items():
        assert await auth.sessions.get(token) == session, "a read by token shows another state than the log"
    for owner in {session.user_id for session in sessions.values()} | {"u1"}:
        listed = {session.token for session in await auth.sessions.list_for_user(owner)}
        living = {token for token, session in sessions.items() if session.user_id == owner}
        assert listed == living, f"the list of a user has {len(listed)} sessions, {len(living)} are alive"


async def nothing_is_blocked(auth: Auth, world: World, users: dict[str, User]) -> None:
    """A value that nobody has can be taken, one that somebody has cannot: whatever dead writers left behind."""
    emails = {folded(user.email) for user in users.values() if user.email is not None}
    names = {user.username for user in users.values()}
    for email in world.facts.get("emails", EMAILS):
        found = await auth.users.get_by_email(email)
        assert (found is not None) == (email in emails), f"{email} is found although nobody has it"
        try:
            await auth.users.create(email=email, id=f"probe-{email}")
        except Conflict:
            assert email in emails, f"{email} is blocked although nobody has it"
        else:
            assert email not in emails, f"{email} was given away although somebody has it"
    for name in world.facts.get("names", ()):
        try:
            await auth.users.create(username=name, id=f"probe-{name}")
        except Conflict:
            assert name in names, f"{name} is blocked although nobody has it"
        else:
            assert name not in names, f"{name} was given away although somebody has it"
