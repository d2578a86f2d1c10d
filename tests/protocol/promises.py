"""The real repositories on a simulated Core, and the promises that every run must keep.

A client runs in an audit context with its name as the actor. So the events show which client wrote them.
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
from allsource_auth.kind import FENCED, Kind
from allsource_auth.kinds import SESSION, USER
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
    "check_promises",
    "check_promises_after_lost_versions",
    "check_transactions",
    "client",
]

E = TypeVar("E", bound=Entity)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EMAILS = ("x@e", "y@e")
"""The emails that most situations use."""

LATER = NOW + timedelta(days=7)

REFUSALS = (Conflict, NotFound, VersionConflict, InvalidInput)
"""Errors that mean that nothing was stored."""


class SmallTransaction(Transaction):
    """A transaction with the kinds of `Auth` only. Each further kind would add reads to each deletion."""

    def _open(self, context: EngineContext) -> None:
        self.context = context
        self.users = Users(context)
        self.sessions = Sessions(context)


class Auth:
    """Users and sessions on a store. A pause before a retry takes longer than a mutation may, so there is only one retry."""

    def __init__(self, store: EventStore, note: Callable[[object], None] = lambda value: None) -> None:
        self.note = note
        self._seconds = 0.0
        context: EngineContext = Context(Streams(store), lambda: NOW, delete_orphan)
        context.mutations.pause = self._pause
        context.mutations.now = lambda: self._seconds
        self._context = context
        self.users = Users(context)
        self.sessions = Sessions(context)

    async def settle(self, email: str) -> None:
        """Settle the claims of an email without taking it. Raises `Conflict` if it is taken."""
        unique, value = USER.unique[0], (folded(email),)
        stream = USER.claim_stream(self._context.tenant, unique, value)
        await self._context.claims._free_head(USER, unique, value, stream, "nobody")

    async def complete(self, decisions: list[Event]) -> None:
        """Roll decided transactions forward."""
        for decision in decisions:
            await roll_forward(self._context.streams, metadata_of(decision).op or "", remaining(decision))

    def transaction(self) -> Transaction:
        return SmallTransaction(self._context)

    async def _pause(self, attempt: int) -> None:
        self._seconds += 11
        await asyncio.sleep(0)


def client(name: str, act: Callable[[Auth, World], Awaitable[object]]) -> Client:
    """Return a client program that runs ``act`` with its name as the actor."""

    async def program(store: SimStore, world: World) -> object:
        with audit(actor=name):
            result = await act(Auth(store, world.note), world)
        if isinstance(result, Session):
            return result.token
        return result.id if isinstance(result, User) else result

    return program


def states(world: World, kind: Kind[E]) -> dict[str, E]:
    """Return the living entities in the log, by key. Reads are compared with them."""
    newest = {stream: in_order(events)[-1] for stream, events in stored(world, kind.prefix).items()}
    decoded = {kind.key_of(stream): kind.decode(event) for stream, event in newest.items()}
    return {key: state for key, state in decoded.items() if state is not None}


def stored(world: World, *prefixes: str) -> dict[str, list[Event]]:
    """Return the events of every stream of the tenant with one of ``prefixes``, in stored order."""
    tenant = world.store().tenant
    found = {
        stream: world.core.events(stream, tenant=tenant)
        for stream in world.core.streams()
        if stream.startswith(prefixes)
    }
    return {stream: events for stream, events in found.items() if events}


def folded(email: str) -> str:
    return unicodedata.normalize("NFC", email).lower()


async def check_promises(world: World) -> None:
    """Check what must hold at the end of every run, whatever the clients did."""
    users = states(world, USER)
    check_no_value_has_two_owners(users)
    check_refused_mutations_have_no_effect(world)
    check_acknowledged_mutations_are_stored_once(world)
    check_no_two_events_have_one_base(world)
    auth = Auth(world.store())
    await check_reads(auth, users)
    await check_indexes(auth, states(world, SESSION))
    await check_values_are_free_or_taken(auth, world, users)
    check_no_value_has_two_owners(states(world, USER))


async def check_transactions(world: World) -> None:
    """Check all promises, and that the remaining events of each decision are stored after its claims were settled."""
    auth = Auth(world.store())
    for email in world.facts.get("emails", EMAILS):
        with suppress(Conflict):
            await auth.settle(email)
    await auth.complete(decisions(world))  # transactions without claims are completed by a check with repair
    await check_promises(world)
    log = stored(world, USER.prefix, SESSION.prefix)
    for decision in decisions(world):
        for each in remaining(decision):
            events = log.get(each.stream, [])
            ops = [metadata_of(event).op for event in events]
            written = metadata_of(decision).op in ops
            if each.after is None:
                # A creation. It is dropped if somebody else has used the id since the decision.
                before = events[: ops.index(metadata_of(decision).op)] if written else events
                used = any(event.type != FENCED for event in before)
                assert not (written and used), f"{each.stream} was created over another entity"
                assert written or used, f"decided, but {each.stream} was never written"
                continue
            removed = any(event.type.endswith(".deleted") for event in events)
            assert written or removed, f"decided, but {each.stream} was never written"


def decisions(world: World) -> list[Event]:
    """Return the decisions of transactions."""
    log = stored(world, USER.prefix, SESSION.prefix)
    return [event for events in log.values() for event in events if remaining(event)]


async def check_promises_after_lost_versions(world: World) -> None:
    """Check the promises that read-back keeps if a cold server accepted a wrong guard, without a further fault.

    A sign-up that is refused then was stored and is undone. An acknowledged sign-up may be undone too, by a fence that the cold
    server stored after it. The other promises need a server that has loaded the tenant.
    """
    users = states(world, USER)
    check_no_value_has_two_owners(users)
    check_acknowledged_mutations_are_stored_once(world)
    for name, outcome in world.outcomes.items():
        if isinstance(outcome.error, REFUSALS):
            alive = {event.stream for event in written_by(world, name)} & {USER.stream(key) for key in users}
            assert not alive, f"{name} was refused, but its user is alive"
    auth = Auth(world.store())
    await check_reads(auth, users)
    await check_values_are_free_or_taken(auth, world, users)
    check_no_value_has_two_owners(states(world, USER))


def check_no_value_has_two_owners(users: dict[str, User]) -> None:
    emails = Counter(folded(user.email) for user in users.values() if user.email is not None)
    names = Counter(user.username for user in users.values() if user.username is not None)
    for found in (emails, names):
        twice = [value for value, owners in found.items() if owners > 1]
        assert not twice, f"two living owners of {twice[0]!r}"


def written_by(world: World, name: str) -> list[Event]:
    """Return the events of entities that the mutations of a client wrote, without fences."""
    return [
        event
        for events in stored(world, USER.prefix, SESSION.prefix).values()
        for event in events
        if event.type != FENCED and metadata_of(event).actor == name
    ]


def check_refused_mutations_have_no_effect(world: World) -> None:
    for name, outcome in world.outcomes.items():
        if isinstance(outcome.error, REFUSALS) and not getattr(outcome.error, "ambiguous", False):
            done = world.notes.get(name, [0])[-1]
            found = [event for event in written_by(world, name) if not event.type.startswith("auth.session.")]
            assert len(found) == done, f"{name} was refused, but wrote {found[-1].type}"


def check_acknowledged_mutations_are_stored_once(world: World) -> None:
    """Check that no operation is stored twice on a stream, and that returned entities are stored."""
    for name, outcome in world.outcomes.items():
        written = [(event.stream, metadata_of(event).op) for event in written_by(world, name)]
        assert len(written) == len(set(written)), f"an operation of {name} was stored twice"
        if outcome.how == "returned" and isinstance(outcome.value, str):
            streams = world.core.streams()
            stored_key = any(stream.endswith(":" + outcome.value) for stream in streams)
            assert stored_key, f"the entity that {name} got is not stored"


def check_no_two_events_have_one_base(world: World) -> None:
    """Check that no two events of an entity were decided on the same event: that would lose an update."""
    for stream, events in stored(world, USER.prefix, SESSION.prefix).items():
        numbers = [seq for event in events if (seq := metadata_of(event).seq) is not None]
        assert len(numbers) == len(set(numbers)), f"two events of {stream} were decided on the same one"


async def check_reads(auth: Auth, users: dict[str, User]) -> None:
    for user in users.values():
        assert await auth.users.get(user.id) == user, "a read by id shows another state than the log"
        if user.email is not None:
            assert await auth.users.get_by_email(user.email.upper()) == user, "a living user is not found by its email"
        if user.username is not None:
            assert await auth.users.get_by_username(user.username) == user, "a living user is not found by its name"


async def check_indexes(auth: Auth, sessions: dict[str, Session]) -> None:
    for token, session in sessions.items():
        assert await auth.sessions.get(token) == session, "a read by token shows another state than the log"
    for owner in {session.user_id for session in sessions.values()} | {"u1"}:
        listed = {session.token for session in await auth.sessions.list_for_user(owner)}
        living = {token for token, session in sessions.items() if session.user_id == owner}
        assert listed == living, f"the index of a user has {len(listed)} sessions, {len(living)} are alive"


async def check_values_are_free_or_taken(auth: Auth, world: World, users: dict[str, User]) -> None:
    """Check that a value without an owner can be taken, and one with an owner cannot, whatever dead writers left."""
    emails = {folded(user.email) for user in users.values() if user.email is not None}
    names = {user.username for user in users.values()}
    for email in world.facts.get("emails", EMAILS):
        found = await auth.users.get_by_email(email)
        assert (found is not None) == (email in emails), f"{email} is found although it has no owner"
        try:
            await auth.users.create(email=email, id=f"probe-{email}")
        except Conflict:
            assert email in emails, f"{email} is blocked although it has no owner"
        else:
            assert email not in emails, f"{email} could be taken although it has an owner"
    for name in world.facts.get("names", ()):
        try:
            await auth.users.create(username=name, id=f"probe-{name}")
        except Conflict:
            assert name in names, f"{name} is blocked although it has no owner"
        else:
            assert name not in names, f"{name} could be taken although it has an owner"
