"""Scenarios of two or three concurrent mutations on the same values. The tests explore all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import msgspec

from allsource_auth.audit import encode_metadata
from allsource_auth.engine.store_settings import Settings, StoreSettings
from allsource_auth.engine.streams import Streams
from allsource_auth.kind import CLAIMED
from allsource_auth.kinds import USER
from allsource_auth.store.base import NewEvent
from tests.protocol.core import SECOND
from tests.protocol.promises import LATER, NOW, Auth, check_promises, check_transactions, client
from tests.protocol.scenario import Client, Scenario
from tests.protocol.store import SimStore
from tests.protocol.world import World

__all__ = ["SESSIONS", "SPLIT", "THREE", "TRANSACTIONS", "USERS", "situation"]

Act = Callable[[Auth], Awaitable[object]]
Setup = Callable[[World], Awaitable[Mapping[str, Any] | None]]


def situation(name: str, setup: Setup | None, check: Any = check_promises, **acts: Act) -> Scenario:
    """Return a scenario of clients A, B, ... with one action each."""

    def program(actor: str, act: Act) -> Client:
        return client(actor, lambda auth, world: act(auth))

    return Scenario(name=name, setup=setup, check=check, clients={who: program(who, act) for who, act in acts.items()})


def before(*acts: Act, facts: Mapping[str, Any] | None = None) -> Setup:
    """Return a setup that performs actions one after the other."""

    async def setup(world: World) -> Mapping[str, Any] | None:
        auth = Auth(world.store())
        for act in acts:
            await act(auth)
        return facts

    return setup


def sign_up(**values: Any) -> Act:
    return lambda auth: auth.users.create(**values)


def change(user: str = "u1", **values: Any) -> Act:
    return lambda auth: auth.users.update(user, **values)


def delete(user: str = "u1") -> Act:
    return lambda auth: auth.users.delete(user)


def restore(user: str = "u1") -> Act:
    return lambda auth: auth.users.restore(user)


async def change_email_and_back(auth: Auth) -> object:
    await auth.users.update("u1", email="y@e")
    auth.note(1)
    return await auth.users.update("u1", email="x@e")


async def create_and_delete(auth: Auth) -> None:
    await auth.users.create(id="u2", email="q@e")
    auth.note(1)
    await auth.users.delete("u2")


async def revert_to_first_state(auth: Auth) -> object:
    first = (await auth.users.history("u1"))[0]
    return await auth.users.revert("u1", first.event_id)


def sign_in(user: str = "u1", **values: Any) -> Act:
    return lambda auth: auth.sessions.create(user_id=user, expires_at=LATER, **values)


def sign_out(token: str = "t1") -> Act:
    return lambda auth: auth.sessions.delete(token)


async def list_sessions(auth: Auth) -> None:
    await auth.sessions.list_for_user("u1")


def dead_claim(email: str, owner: str, version: int) -> Setup:
    """Return a setup with the claim of a writer that died before its commit point, and a user u1 with the email y@e."""

    async def setup(world: World) -> None:
        store = world.store()
        await Auth(store).users.create(id="u1", email="y@e")
        unique = USER.unique[0]
        payload = msgspec.json.encode({"v": 1, "owner": f"auth-user:{owner}", "ownerVersion": version})
        stream = USER.claim_stream(store.tenant, unique, (email,))
        metadata = encode_metadata(op="of-a-dead-writer", seq=1)
        await store.append([NewEvent(type=CLAIMED, stream=stream, payload=payload, metadata=metadata, guard=0)])

    return setup


async def check_both_fields(world: World) -> None:
    """Check all promises, and that acknowledged updates of different fields of one user are stored."""
    user = await Auth(world.store()).users.get("u1")
    assert user is not None
    for who, found, wanted in (("A", user.name, "Ada"), ("B", user.role, "admin")):
        if world.outcomes[who].how == "returned":
            assert found == wanted, f"the acknowledged change of {who} is lost"
    await check_promises(world)


ada = sign_up(id="u1", email="X@e", username="n")
eve = sign_up(id="u1", email="x@e")

USERS = [
    situation("two sign-ups with one email", None, A=sign_up(email="X@e"), B=sign_up(email="x@e")),
    situation(
        "two sign-ups that share the second of their values",
        before(facts={"emails": ("x@e", "y@e"), "names": ("n",)}),
        A=sign_up(email="x@e", username="n"),
        B=sign_up(email="y@e", username="n"),
    ),
    situation("two sign-ups with one id", None, A=sign_up(id="u1", email="x@e"), B=sign_up(id="u1", email="y@e")),
    situation(
        "two sign-ups over a tombstone",
        before(ada, delete()),
        A=sign_up(id="u1", email="x@e"),
        B=sign_up(id="u1", email="y@e"),
    ),
    situation(
        "sign-up and change to its email", before(sign_up(id="u1")), A=change(email="x@e"), B=sign_up(email="x@e")
    ),
    situation("sign-up and change away from its email", before(ada), A=change(email="y@e"), B=sign_up(email="x@e")),
    situation(
        "sign-up, and change of the email and back", before(ada), A=change_email_and_back, B=sign_up(email="x@e")
    ),
    situation("sign-up and deletion of the owner", before(ada), A=delete(), B=sign_up(email="x@e")),
    situation("sign-up and restoration of the owner", before(ada, delete()), A=restore(), B=sign_up(email="x@e")),
    situation(
        "sign-up and return to the former email",
        before(ada, change(email="y@e")),
        A=revert_to_first_state,
        B=sign_up(email="x@e"),
    ),
    situation(
        "two sign-ups over the claim of a dead sign-up",
        dead_claim("x@e", "gone", 0),
        A=sign_up(email="x@e"),
        B=sign_up(email="x@e"),
    ),
    situation(
        "sign-up over the claim of a dead change, and another change",
        dead_claim("x@e", "u1", 1),
        A=change(name="Ada"),
        B=sign_up(email="x@e"),
    ),
    situation(
        "two users change to one email",
        before(sign_up(id="u1", email="a@e"), sign_up(id="u2", email="b@e")),
        A=change("u1", email="x@e"),
        B=change("u2", email="x@e"),
    ),
    situation("two changes of one user's email", before(ada), A=change(email="y@e"), B=change(email="z@e")),
    situation("two changes to the same email", before(ada), A=change(email="y@e"), B=change(email="y@e")),
    situation(
        "two changes of different fields",
        before(ada),
        check_both_fields,
        A=change(name="Ada"),
        B=change(role="admin"),
    ),
    situation("change and deletion", before(ada), A=change(email="y@e"), B=delete()),
    situation("two deletions", before(ada), A=delete(), B=delete()),
    situation("deletion and restoration", before(ada, delete()), A=restore(), B=delete()),
    situation("two restorations", before(eve, delete()), A=restore(), B=restore()),
]
"""Two mutations of users each."""


def together(*acts: Act) -> Act:
    """Return an action that performs ``acts`` in one transaction."""

    async def act(auth: Auth) -> None:
        async with auth.transaction() as tx:
            for each in acts:
                await each(cast(Auth, tx))

    return act


both = together(sign_up(id="u1", email="x@e"), sign_up(id="u2", email="y@e"))


def transactional(name: str, *past: Act, **acts: Act) -> Scenario:
    """Return a scenario of transactions, after the actions ``past``."""
    setup = before(*past, facts={"emails": ("x@e", "y@e", "z@e", "q@e")})
    return situation(name, setup, check_transactions, **acts)


TRANSACTIONS = [
    transactional("two sign-ups as one, and one with the first email", A=both, B=sign_up(id="u3", email="x@e")),
    transactional("two sign-ups as one, and one with the second email", A=both, B=sign_up(id="u3", email="y@e")),
    transactional(
        "two sign-ups as one, twice, in the other order",
        A=both,
        B=together(sign_up(id="u3", email="y@e"), sign_up(id="u4", email="x@e")),
    ),
    transactional(
        "two sign-ups as one, and two others with one email in common",
        A=both,
        B=together(sign_up(id="u3", email="z@e"), sign_up(id="u4", email="y@e")),
    ),
    transactional(
        "two changes of one user, each with a sign-up with one email",
        ada,
        A=together(change(name="A"), sign_up(id="u2", email="y@e")),
        B=together(change(name="B"), sign_up(id="u3", email="y@e")),
    ),
    transactional(
        "two sign-ups as one, and deletion of the owner of the second email",
        sign_up(id="u0", email="y@e"),
        A=both,
        B=delete("u0"),
    ),
    transactional(
        "change and sign-up as one, and a sign-up with the new email",
        ada,
        A=together(sign_up(id="u2", email="z@e"), change(email="y@e")),
        B=sign_up(id="u3", email="y@e"),
    ),
    transactional(
        "change and sign-up as one, and another change",
        ada,
        A=together(change(email="y@e"), sign_up(id="u2", email="z@e")),
        B=change(email="q@e"),
    ),
    transactional(
        "two changes as one, and a change of the second",
        ada,
        sign_up(id="u2", email="y@e"),
        A=together(change(name="Ada"), change("u2", email="z@e")),
        B=change("u2", email="q@e"),
    ),
    transactional(
        "two changes as one, and the same change of the second",
        ada,
        sign_up(id="u2", email="y@e"),
        A=together(change(name="Ada"), change("u2", email="z@e")),
        B=change("u2", email="z@e"),
    ),
    transactional(
        "two changes as one, and deletion of the second",
        ada,
        sign_up(id="u2", email="y@e"),
        A=together(change(name="Ada"), change("u2", email="z@e")),
        B=delete("u2"),
    ),
    transactional(
        "changes and sign-up as one, and a change to the email of the sign-up",
        sign_up(id="u1", email="y@e"),
        sign_up(id="u2"),
        A=together(change("u2", name="Eve"), change(name="Ada"), sign_up(id="u3", email="x@e")),
        B=change(email="x@e"),
    ),
    transactional(
        "deletion and sign-up as one, and a sign-up with the freed email",
        ada,
        A=together(delete(), sign_up(id="u2", email="y@e")),
        B=sign_up(id="u3", email="x@e"),
    ),
    transactional(
        "restoration and sign-up as one, and a sign-up with the former email",
        ada,
        delete(),
        A=together(restore(), sign_up(id="u2", email="y@e")),
        B=sign_up(id="u3", email="x@e"),
    ),
    transactional(
        "change and deletion as one, and a change of the deleted user",
        ada,
        sign_up(id="u2", email="y@e"),
        A=together(change(name="Ada"), delete("u2")),
        B=change("u2", email="q@e"),
    ),
    transactional(
        "change and sign-up as one, and a sign-up and deletion with the new id",
        ada,
        A=together(change(name="Ada"), sign_up(id="u2", email="z@e")),
        B=create_and_delete,
    ),
]
"""A transaction and a concurrent mutation or transaction."""

MILLISECOND = SECOND // 1000

some_sessions = before(
    *[act for number in (2, 3, 4) for act in (sign_in(token=f"t{number}"), sign_out(f"t{number}"))],
    sign_in(token="t1"),
    facts={"emails": ()},
)
"""Sessions with index entries before and after the horizon of a snapshot."""


def listed(name: str, **acts: Act) -> Scenario:
    """Return a scenario of one index whose entries may be stored up to a millisecond out of time order."""
    found = situation(name, some_sessions, **acts)
    return replace(found, stamps=True, tick=MILLISECOND, time_skew=MILLISECOND)


SESSIONS = [
    listed("two sign-ins", A=sign_in(), B=sign_in()),
    situation("two sign-ins with one token", before(facts={"emails": ()}), A=sign_in(token="t"), B=sign_in(token="t")),
    listed("sign-in and sign-out", A=sign_in(), B=sign_out()),
    listed("two sign-outs", A=sign_out(), B=sign_out()),
    listed(
        "sign-out and a new expiry",
        A=sign_out(),
        B=lambda auth: auth.sessions.update_expiry("t1", LATER.replace(year=2027)),
    ),
    listed("sign-in and a reader that compacts the index", A=sign_in(), B=list_sessions),
    listed("sign-out and a reader that compacts the index", A=sign_out(), B=list_sessions),
    listed("two readers that compact the index", A=list_sessions, B=list_sessions),
    situation(
        "deletion of the user and sign-out",
        before(sign_up(id="u1", email="x@e"), sign_in(token="t1"), facts={"emails": ("x@e",)}),
        A=delete(),
        B=sign_out(),
    ),
]
"""Two mutations of sessions each. The tests make every entry of the index due for a snapshot."""


async def two_changes(auth: Auth) -> object:
    await auth.users.update("u1", role="admin")
    auth.note(1)
    return await auth.users.update("u1", role="user")


def foreign_user(*roles: str) -> Setup:
    """Return a setup with a user u1 that another program wrote: one event for each role, without sequence numbers."""

    async def setup(world: World) -> None:
        values = {"id": "u1", "created_at": NOW, "updated_at": NOW}
        for role in roles:
            payload = USER.codec.new({**values, "role": role})
            new = NewEvent(type="auth.user.updated", stream=USER.stream("u1"), payload=payload, metadata=b"null")
            await world.store().append([new])

    return setup


async def same_id_in_another_tenant(world: World) -> None:
    await Auth(world.store("elsewhere")).users.create(id="u1")


def configure(hash_key: str) -> Client:
    """Return a client that writes its settings as the first writer of a store does."""

    async def program(store: SimStore, world: World) -> str:
        await StoreSettings(Settings(hash_key=hash_key), store, Streams(store).head).before_append()
        return hash_key

    return program


async def check_settings(world: World) -> None:
    """Check that the store has the settings of the only client that succeeded."""
    keys = {outcome.value for outcome in world.outcomes.values() if outcome.how == "returned"}
    for key in keys:
        await StoreSettings(Settings(hash_key=str(key)), world.store(), Streams(world.store()).head).before_read()
    assert len(keys) < 2, "two writers with different settings"


def known(*names: str) -> list[Scenario]:
    return [scenario for scenario in USERS + SESSIONS if scenario.name in names]


SPLIT = [
    replace(scenario, split=True)
    for scenario in [
        *known(
            "two sign-ups with one id",
            "two sign-ups over a tombstone",
            "two sign-ups with one email",
            "sign-up and change to its email",
            "sign-up and restoration of the owner",
            "two changes of different fields",
            "change and deletion",
            "deletion and restoration",
            "two sign-ins with one token",
        ),
        situation("change and two changes", before(ada), A=change(name="Ada"), B=two_changes),
        replace(
            situation(
                "two sign-ups with one id that another tenant has",
                same_id_in_another_tenant,
                A=sign_up(id="u1", email="x@e"),
                B=sign_up(id="u1", email="y@e"),
            ),
            # After a restart the events of the other tenant are not counted until that tenant is read. A client of this
            # tenant cannot prevent that. See "Restarts" in `docs/reference/allsource-api.md`.
            cold=False,
        ),
        situation(
            "two changes of a user that another program wrote",
            foreign_user("guest"),
            check_both_fields,
            A=change(name="Ada"),
            B=change(role="admin"),
        ),
        situation(
            "two changes of a user that another program wrote and changed",
            foreign_user("guest", "user"),
            check_both_fields,
            A=change(name="Ada"),
            B=change(role="admin"),
        ),
        Scenario(
            name="two first writers with different settings",
            clients={"A": configure("one"), "B": configure("another")},
            check=check_settings,
        ),
    ]
]
"""Scenarios in which an event may be stored between the two steps of a read: newest event and version."""

THREE = [
    situation(
        "three sign-ups with one email", None, A=sign_up(email="x@e"), B=sign_up(email="X@e"), C=sign_up(email="x@E")
    ),
    situation(
        "deletion, restoration and sign-up",
        before(ada),
        A=delete(),
        B=restore(),
        C=sign_up(email="x@e"),
    ),
    situation(
        "change away, sign-up, change to",
        before(ada, sign_up(id="u2", email="b@e")),
        A=change(email="y@e"),
        B=sign_up(email="x@e"),
        C=change("u2", email="x@e"),
    ),
    listed("sign-in, sign-out and a reader", A=sign_in(), B=sign_out(), C=list_sessions),
]
"""Three clients each, for samples."""
