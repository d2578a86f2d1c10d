"""Random sequences of operations on users and sessions, compared with a model."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from allsource_auth import AllsourceAuthAdapter, Conflict, InvalidInput, SessionNotFound, User, UserNotFound
from tests.model.ledger import Ledger
from tests.model.machine import HOUR, LIFETIMES, STEPS, Machine
from tests.model.profiles import OVER_HTTP, PROFILE
from tests.support.clocks import START
from tests.support.ownership import assert_sound
from tests.support.targets import TARGETS, Target

IDS = st.sampled_from(["u0", "u1", "u2"])
EMAILS = st.sampled_from(["a@x.org", "A@X.org", "b@x.org", "B@x.ORG", "\u00e9@x.org", "E\u0301@x.org"])
USERNAMES = st.sampled_from(["a", "A", "b", "c"])
TOKENS = st.sampled_from(["t0", "t1", "t2", "t3"])
TEXTS = st.text(max_size=5)
TIMES = st.sampled_from([START, START + HOUR, START - HOUR, START + timedelta(microseconds=1)])
FRACTIONS = {
    True: st.floats(allow_nan=False, allow_infinity=False),
    False: st.integers(-(2**40), 2**40).map(lambda number: number / 8),
}
"""By whether a store keeps all numbers: Core may change the last bit of one with 16 digits or more."""
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.runner().flatmap(lambda machine: FRACTIONS[machine.target.keeps_text])
    | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "email": st.none() | EMAILS,
        "name": st.none() | TEXTS,
        "image": st.none() | TEXTS,
        "email_verified": st.booleans(),
        "username": st.none() | USERNAMES,
        "display_username": st.none() | TEXTS,
        "role": st.none() | TEXTS,
        "banned": st.booleans(),
        "ban_reason": st.none() | TEXTS,
        "ban_expires": st.none() | TIMES,
        "two_factor_enabled": st.booleans(),
        "metadata": st.none() | st.dictionaries(TEXTS, VALUES, max_size=2),
    },
)


class UsersAndSessions(Machine):
    """One store, two adapters that are used alternately, one model."""

    target: Target

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.turn = 0
        self.adapters = self.adapters_on(self.target)

    @property
    def adapter(self) -> AllsourceAuthAdapter:
        self.turn += 1
        return self.adapters[self.turn % 2]

    async def everything_agrees(self) -> None:
        adapter = self.adapter
        await assert_sound(adapter)
        for user_id, story in self.ledger.stories.items():
            assert [change.state for change in await adapter.users.history(user_id)] == story
        sessions = [session async for session in adapter.sessions.scan()]
        assert sessions == sorted(self.ledger.sessions.values(), key=lambda session: session.token)

    @initialize()
    def begin(self) -> None:
        """Create two users with a session each, so that most operations find one."""
        for name in ("u0", "u1"):
            self.sign_up(name, f"{name}@x.org", name, None)
            self.sign_in(name, None, HOUR)

    # Users

    @rule(user_id=st.none() | IDS, email=st.none() | EMAILS, username=st.none() | USERNAMES, name=st.none() | TEXTS)
    def sign_up(self, user_id: str | None, email: str | None, username: str | None, name: str | None) -> None:
        call = self.adapter.users.create(id=user_id, email=email, username=username, name=name)
        was_dead = self._is_dead(user_id)
        if (user_id is not None and self.ledger.user(user_id)) or self.ledger.taken(user_id, email, username):
            with pytest.raises(Conflict):
                self.run(call)
            if user_id is not None and was_dead:
                self._sign_out_the_dead(user_id)
        else:
            user = self.run(call)
            now = self.clock()
            expected = User(id=user.id, created_at=now, updated_at=now, email=email, username=username, name=name)
            assert user == expected
            assert user_id in (None, user.id)
            self.ledger.record(user.id, user)
            if was_dead:
                self.ledger.sign_out(user.id)

    @rule(user_id=IDS, changes=CHANGES)
    def update(self, user_id: str, changes: dict[str, Any]) -> None:
        call = self.adapter.users.update(user_id, **changes)
        user = self.ledger.user(user_id)
        if user is None:
            with pytest.raises(UserNotFound):
                self.run(call)
        elif not changes:
            assert self.run(call) == user
        elif self.ledger.taken(user_id, changes.get("email"), changes.get("username")):
            with pytest.raises(Conflict):
                self.run(call)
        else:
            changed = self.run(call)
            assert changed == msgspec.structs.replace(self.ledger.changed(user, changes), updated_at=self.clock())
            self.ledger.record(user_id, changed)

    @rule(user_id=IDS)
    def respell_email(self, user_id: str) -> None:
        user = self.ledger.user(user_id)
        if user is not None and user.email is not None:
            self.update(user_id, {"email": user.email.swapcase()})

    @rule(user_id=IDS)
    def delete(self, user_id: str) -> None:
        self.run(self.adapter.users.delete(user_id))
        if self.ledger.user(user_id) is not None:
            self.ledger.record(user_id, None)
        if user_id in self.ledger.stories:
            self.ledger.sign_out(user_id)

    @rule(user_id=IDS)
    def restore(self, user_id: str) -> None:
        call = self.adapter.users.restore(user_id)
        user, lived = self.ledger.user(user_id), self.ledger.last_life(user_id)
        if lived is None:
            with pytest.raises(UserNotFound):
                self.run(call)
        elif user is not None:
            assert self.run(call) == user
        elif self.ledger.taken(user_id, lived.email, lived.username):
            with pytest.raises(Conflict):
                self.run(call)
            self._sign_out_the_dead(user_id)
        else:
            back = self.run(call)
            assert back == msgspec.structs.replace(lived, updated_at=self.clock())
            self.ledger.sign_out(user_id)
            self.ledger.record(user_id, back)

    @rule(user_id=IDS, place=st.integers(0, 20))
    def revert(self, user_id: str, place: int) -> None:
        story = self.ledger.stories.get(user_id)
        if not story:
            return
        place %= len(story)
        changes = self.run(self.adapter.users.history(user_id))
        call = self.adapter.users.revert(user_id, to=changes[place].event_id)
        former = story[place]
        if story[-1] is None:
            with pytest.raises(UserNotFound):
                self.run(call)
        elif former is None:
            with pytest.raises(InvalidInput):
                self.run(call)
        elif self.ledger.taken(user_id, former.email, former.username):
            with pytest.raises(Conflict):
                self.run(call)
        else:
            reverted = self.run(call)
            assert reverted == msgspec.structs.replace(former, updated_at=self.clock())
            self.ledger.record(user_id, reverted)

    @rule(user_id=IDS, lifetimes=st.lists(LIFETIMES, min_size=1, max_size=3), restored=st.booleans())
    def outlive(self, user_id: str, lifetimes: list[timedelta], restored: bool) -> None:
        """Create sessions for a deleted user; they must not be valid after it is restored."""
        self.delete(user_id)
        for lifetime in lifetimes:
            self.sign_in(user_id, None, lifetime)
        if restored:
            self.restore(user_id)
        else:
            self.sign_up(user_id, None, None, None)

    def _is_dead(self, user_id: str | None) -> bool:
        return user_id in self.ledger.stories and self.ledger.user(user_id) is None

    def _sign_out_the_dead(self, user_id: str) -> None:
        """A refused creation or restore may or may not have deleted the sessions of the deleted user."""
        for session in self.ledger.sessions_of(user_id):
            if self.run(self.adapter.sessions.get(session.token)) is None:
                del self.ledger.sessions[session.token]

    # Sessions

    @rule(user_id=IDS, token=st.none() | TOKENS, lifetime=LIFETIMES)
    def sign_in(self, user_id: str, token: str | None, lifetime: timedelta) -> None:
        call = self.adapter.sessions.create(user_id=user_id, expires_at=self.clock() + lifetime, token=token)
        if token in self.ledger.tokens:
            with pytest.raises(Conflict):
                self.run(call)
        else:
            session = self.run(call)
            assert (session.user_id, session.expires_at) == (user_id, self.clock() + lifetime)
            self.ledger.sign_in(session)

    def _drawn(self, number: int) -> str:
        return sorted(self.ledger.tokens)[number % len(self.ledger.tokens)] if self.ledger.tokens else "none"

    @rule(number=st.integers(0, 30), lifetime=LIFETIMES)
    def extend(self, number: int, lifetime: timedelta) -> None:
        self._change(number, {"expires_at": self.clock() + lifetime})

    @rule(number=st.integers(0, 30), organization=st.none() | TEXTS)
    def act_for(self, number: int, organization: str | None) -> None:
        self._change(number, {"active_organization_id": organization})

    def _change(self, number: int, changes: dict[str, Any]) -> None:
        token = self._drawn(number)
        sessions = self.adapter.sessions
        if "expires_at" in changes:
            call = sessions.update_expiry(token, changes["expires_at"])
        else:
            call = sessions.set_active_organization(token, changes["active_organization_id"])
        session = self.ledger.sessions.get(token)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.run(call)
        else:
            changed = self.run(call)
            assert changed == msgspec.structs.replace(session, updated_at=self.clock(), **changes)
            self.ledger.sessions[token] = changed

    @rule(number=st.integers(0, 30))
    def sign_out(self, number: int) -> None:
        token = self._drawn(number)
        self.run(self.adapter.sessions.delete(token))
        self.ledger.sessions.pop(token, None)

    @rule(user_id=IDS)
    def sign_out_everywhere(self, user_id: str) -> None:
        assert self.run(self.adapter.sessions.delete_for_user(user_id)) == self.ledger.sign_out(user_id)

    @rule(sweeps=st.lists(st.tuples(STEPS, st.none() | st.integers(0, 3)), min_size=1, max_size=4), lifetime=LIFETIMES)
    def sweep(self, sweeps: list[tuple[timedelta, int | None]], lifetime: timedelta) -> None:
        """Sweep repeatedly, with a new session and a step of time in between."""
        for step, limit in sweeps:
            self.sign_in("u0", None, lifetime)
            self.clock.move(step)
            self._sweep(limit)

    def _sweep(self, limit: int | None) -> None:
        due = {token for token, session in self.ledger.sessions.items() if session.expires_at <= self.clock()}
        count = self.run(self.adapter.sessions.delete_expired(limit=limit))
        assert count == (len(due) if limit is None else min(len(due), limit))
        left = self.run(self.adapter.sessions.get_many(due))
        assert len(left) == len(due) - count
        for token in due - set(left):
            del self.ledger.sessions[token]

    @rule(step=STEPS)
    def time_passes(self, step: timedelta) -> None:
        self.clock.move(step)

    # Reading

    @rule(
        email=EMAILS,
        username=USERNAMES,
        user_id=IDS,
        limit=st.integers(0, 4),
        offset=st.integers(0, 4),
        place=st.integers(0, 20),
    )
    def read(self, email: str, username: str, user_id: str, limit: int, offset: int, place: int) -> None:
        self._look_up(email, username)
        assert self.run(self.adapter.sessions.list_for_user(user_id)) == self.ledger.sessions_of(user_id)
        self._list_users(limit, offset)
        self._visit(user_id, place)

    def _look_up(self, email: str, username: str) -> None:
        assert self.run(self.adapter.users.get_by_email(email)) == self.ledger.by_email(email)
        assert self.run(self.adapter.users.get_by_username(username)) == self.ledger.by_username(username)

    def _list_users(self, limit: int, offset: int) -> None:
        page = self.run(self.adapter.users.list(limit=limit, offset=offset))
        expected = sorted(self.ledger.users(), key=lambda user: (user.created_at, user.id), reverse=True)
        assert (page.items, page.total) == (expected[offset : offset + limit], len(expected))

    def _visit(self, user_id: str, place: int) -> None:
        """Compare the state after any event, and at the time of any event."""
        story = self.ledger.stories.get(user_id, [])
        changes = self.run(self.adapter.users.history(user_id))
        assert [change.state for change in changes] == story
        if changes:
            change = changes[place % len(changes)]
            assert self.run(self.adapter.users.as_of(user_id, change.event_id)) == change.state
            last = [other for other in changes if other.at <= change.at][-1]
            assert self.run(self.adapter.users.as_of(user_id, change.at)) == last.state

    @invariant()
    def exactly_the_good_sessions_authenticate(self) -> None:
        for token in self.ledger.tokens:
            self._load(token)

    def _load(self, token: str) -> None:
        session = self.ledger.sessions.get(token)
        user = None if session is None else self.ledger.user(session.user_id)
        now = self.clock()
        good = (
            session is not None
            and session.expires_at > now
            and user is not None
            and not (user.banned and (user.ban_expires is None or user.ban_expires > now))
        )
        found = self.run(self.adapter.load_session(token))
        assert (found is not None) == good
        if found is not None:
            assert (found.session, found.user) == (session, user)

    @invariant()
    def living_users_are_read(self) -> None:
        for user_id in self.ledger.stories:
            assert self.run(self.adapter.users.get(user_id)) == self.ledger.user(user_id)


def _machine(target: Target) -> type[RuleBasedStateMachine]:
    return type(f"On_{target.name}", (UsersAndSessions,), {"target": target})


MODELLED = ("sqlite-memory", "sqlite-file", "local", "core-0.23.0", "core-0.27.0")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "target",
    [pytest.param(target, id=target.name, marks=target.marks) for target in TARGETS if target.name in MODELLED],
)
def test_random_operations_agree_with_the_model(target: Target) -> None:
    run_state_machine_as_test(_machine(target), settings=PROFILE if target.dates_events else OVER_HTTP)
