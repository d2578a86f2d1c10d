"""Operations of the ten repositories as values that can be drawn and applied to a store or to the model.

Ids and values are drawn from small pools, so that operations often concern the same entities.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from allsource_auth import Conflict, InvalidInput, NotFound
from tests.model.answers import Answers
from tests.model.machine import HOUR
from tests.model.register import KINDS, Register

__all__ = [
    "CHANGES",
    "CREATE",
    "CREATIONS",
    "LOOK_UPS",
    "MOVED_VALUES",
    "REMOVALS",
    "RETURNS",
    "SWEEPS",
    "TAKES",
    "TRANSACTIONS",
    "Operation",
    "every_look_up",
    "refusal",
]


def refusal(error: Conflict | NotFound | InvalidInput) -> tuple[str, str | None, str | None]:
    """Return the compared facts of an error: its class, its kind and its field."""
    return type(error).__name__, getattr(error, "kind", None), getattr(error, "field", None)


@dataclass(frozen=True)
class Known:
    """A key that a repository knows, by number modulo their count; a living or a deleted one if possible."""

    number: int
    alive: bool | None = None

    def key(self, repository: str, register: Register) -> str:
        known = {key: story[-1] is not None for (other, key), story in register.stories.items() if other == repository}
        keys = [key for key, alive in known.items() if self.alive in (alive, None)] or list(known)
        return keys[self.number % len(keys)] if keys else "nobody"


@dataclass(frozen=True)
class Operation:
    """A call of a repository, or of the adapter if ``repository`` is ``adapter``.

    In the values ``given``, `Known` stands for a key, a timedelta for a time relative to now, and ``to`` and ``when`` for the
    number of a change in the history of the entity. A creation ``like`` an entity takes the last values of that entity, and
    ``limits`` stands for several attributes of an API key.
    """

    repository: str
    name: str
    given: Mapping[str, Any]

    def settled(self, register: Register) -> Operation:
        """Return the operation with the keys, values and times that the draw stands for now."""
        given = {**self.given, **self.given.get("limits", {})}
        given.pop("limits", None)
        if (like := given.pop("like", None)) is not None:
            story = register.stories.get((self.repository, like.key(self.repository, register)), [])
            last = next((state for state in reversed(story) if state is not None), None)
            given |= {name: getattr(last, name) for name in UNIQUE[self.repository] if last is not None}
        for name, value in given.items():
            if isinstance(value, timedelta):
                given[name] = register.clock() + value
            elif isinstance(value, Known):
                given[name] = value.key(self.repository, register)
        return replace(self, given=given)

    def named(self, made: Any) -> Operation:
        """Return the operation with the keys that a store made for it."""
        lacking = {
            name: getattr(made, name) for name, value in self.given.items() if name in ("id", "token") and not value
        }
        return replace(self, given={**self.given, **lacking})

    async def on(self, group: Any) -> Any:
        """Call it on an adapter or in a transaction."""
        repository = group if self.repository == "adapter" else getattr(group, self.repository)
        given = dict(self.given)
        match self.name:
            case "scan":
                return [entity async for entity in repository.scan()]
            case "history":
                return [change.state for change in await repository.history(given.pop("key"), **given)]
            case "revert" | "as_of":
                changes = await repository.history(given["key"])
                moment = "to" if self.name == "revert" else "when"
                given[moment] = changes[given[moment] % len(changes)].event_id if changes else "none"
            case "list":
                page = await repository.list(**given)
                return page.items, page.total
        if not hasattr(repository, self.name):
            repository = repository._collection  # it refuses to restore what cannot be restored
        method = getattr(repository, self.name)
        keys = [given.pop(name) for name in _positional(method) if name in given]
        return await method(*keys, **given)

    def asked_of(self, register: Register) -> Any:
        return Answers(register).call(self.repository, self.name, self.given)

    def __str__(self) -> str:
        return f"{self.repository}.{self.name}({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"


def _positional(method: Callable[..., Any]) -> list[str]:
    """The leading parameters of a method that may be passed by position, such as the key of an entity."""
    parameters = inspect.signature(method).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]


UNIQUE = {
    name: [attribute for _, attributes in kind.unique for attribute in attributes] for name, kind in KINDS.items()
}

Draw = st.SearchStrategy[Operation]


def call(repository: str, name: str, optional: Mapping[str, Any] = {}, /, **given: Any) -> Draw:
    """Draw calls with every one of ``given`` and some of ``optional``."""
    return st.builds(
        Operation, st.just(repository), st.just(name), st.fixed_dictionaries(given, optional=dict(optional))
    )


def pool(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def ids(letter: str) -> st.SearchStrategy[Any]:
    """Draw from a few ids; sometimes none, so that the library makes one."""
    return pool(f"{letter}0", f"{letter}1", f"{letter}0", f"{letter}1", None)


ANY = st.integers(0, 7).map(Known)
LIVING = st.builds(Known, st.integers(0, 7), pool(True, True, True, None))
DEAD = st.builds(Known, st.integers(0, 7), pool(False, False, False, None))
USERS = pool("u0", "u1")
ORGANIZATIONS = pool("o0", "o1")
EMAILS = pool("a@x.org", "A@X.org", "\u00e9@x.org", "E\u0301@x.org")
USERNAMES = pool("a", "A")
NAMES = pool(None, "", "Ada", "ada l.", "\u00c9va")
SLUGS = pool("acme", "Acme")
PROVIDERS = pool("credential", "github")
ACCOUNTS = pool("1", "2")
IDENTIFIERS = pool("reset", "reset", "reset", "verify")
VALUES = pool("v0", "v0", "v0", "v1")
CODES = pool(None, "four codes")
HASHES = pool("h0", "h1")
CREDENTIALS = pool("c0", "c1")
COUNTS = st.integers(0, 2)
ROLES = pool("member", "owner", "admin, owner", "owners")
STATUSES = pool("pending", "pending", "accepted", "rejected", "canceled")
METADATA = pool(None, {}, {"a": [1, None, {"\u00e9": "x"}], "b": {}}, {"theme": "dark"})
LIFETIMES = pool(timedelta(days=30), timedelta(days=2), HOUR, timedelta(microseconds=1), timedelta(0), -HOUR)
MAYBE = pool(None, "x", "y")
LIMITS = pool(
    {},
    {"remaining": 1},
    {"remaining": 2, "expires_at": HOUR},
    {"remaining": 0, "refill_interval": 3_600_000, "refill_amount": 1},
    {"remaining": 1, "refill_interval": 600_000, "refill_amount": 2, "enabled": True},
    {"refill_interval": None, "refill_amount": None, "remaining": None},
    {"refill_interval": 1},
    {"rate_limit_enabled": True, "rate_limit_time_window": 3_600_000, "rate_limit_max": 1},
    {"rate_limit_enabled": True, "rate_limit_time_window": 600_000, "rate_limit_max": 2, "remaining": 3},
    {"rate_limit_enabled": True, "rate_limit_time_window": 0, "rate_limit_max": 0},
    {"enabled": False, "expires_at": timedelta(0)},
    {"expires_at": -HOUR},
)

CREATE = {
    "users": call(
        "users",
        "create",
        {"name": NAMES, "role": MAYBE, "metadata": METADATA, "email_verified": st.booleans(), "like": ANY},
        id=ids("u"),
        email=st.none() | EMAILS,
        username=st.none() | USERNAMES,
    ),
    "sessions": call(
        "sessions",
        "create",
        {"ip_address": MAYBE, "user_agent": MAYBE, "impersonated_by": st.none() | USERS},
        token=pool("t0", "t1", None, None, None),
        id=st.none(),
        user_id=USERS,
        expires_at=LIFETIMES,
    ),
    "accounts": call(
        "accounts",
        "create",
        {"password": MAYBE, "access_token": MAYBE, "access_token_expires_at": st.none() | LIFETIMES, "like": ANY},
        id=ids("a"),
        user_id=USERS,
        provider_id=PROVIDERS,
        account_id=ACCOUNTS,
    ),
    "verifications": call(
        "verifications",
        "create",
        id=pool("v0", None, None, None),
        identifier=IDENTIFIERS,
        value=VALUES,
        expires_at=LIFETIMES,
    ),
    "organizations": call(
        "organizations",
        "create",
        {"logo": MAYBE, "metadata": METADATA, "like": ANY},
        id=ids("o"),
        name=pool("", "Acme"),
        slug=SLUGS,
    ),
    "members": call(
        "members", "create", {"role": ROLES, "like": ANY}, id=ids("m"), organization_id=ORGANIZATIONS, user_id=USERS
    ),
    "invitations": call(
        "invitations",
        "create",
        {"role": ROLES},
        id=ids("i"),
        organization_id=ORGANIZATIONS,
        email=EMAILS,
        inviter_id=USERS,
        expires_at=LIFETIMES,
    ),
    "two_factors": call(
        "two_factors",
        "create",
        {"backup_codes": CODES, "like": ANY},
        id=ids("f"),
        user_id=USERS,
        secret=pool("s0", "s1"),
    ),
    "api_keys": call(
        "api_keys",
        "create",
        {"name": NAMES, "limits": LIMITS, "like": ANY},
        id=ids("k"),
        user_id=USERS,
        key_hash=HASHES,
    ),
    "passkeys": call(
        "passkeys",
        "create",
        {"counter": COUNTS, "name": NAMES, "transports": MAYBE, "backed_up": st.booleans(), "like": ANY},
        id=ids("p"),
        user_id=USERS,
        credential_id=CREDENTIALS,
        public_key=pool("pk0", "pk1"),
    ),
}
CREATIONS: Draw = st.one_of(*CREATE.values())

CHANGES: Draw = st.one_of(
    call(
        "users",
        "update",
        {
            "email": st.none() | EMAILS,
            "username": st.none() | USERNAMES,
            "name": NAMES,
            "metadata": METADATA,
            "two_factor_enabled": st.booleans(),
        },
        id=LIVING,
    ),
    call(
        "users", "update", {"ban_reason": MAYBE, "ban_expires": st.none() | LIFETIMES}, id=LIVING, banned=st.booleans()
    ),
    call("sessions", "update_expiry", token=LIVING, expires_at=LIFETIMES),
    call("sessions", "set_active_organization", token=LIVING, organization_id=st.none() | ORGANIZATIONS),
    call(
        "accounts",
        "update",
        {"password": MAYBE, "refresh_token": MAYBE, "scope": MAYBE, "refresh_token_expires_at": LIFETIMES},
        id=LIVING,
    ),
    call("organizations", "update", {"name": pool("", "Acme"), "slug": SLUGS, "metadata": METADATA}, id=LIVING),
    call("members", "update_role", id=LIVING, role=ROLES),
    call("invitations", "update_status", id=LIVING, status=STATUSES),
    call("two_factors", "update_backup_codes", user_id=USERS, backup_codes=CODES),
    call(
        "api_keys",
        "update",
        {"limits": LIMITS, "metadata": MAYBE},
        id=LIVING,
    ),
    call("passkeys", "update_name", id=LIVING, name=NAMES),
    call("passkeys", "update_counter", id=LIVING, counter=COUNTS),
)

REMOVALS: Draw = st.one_of(
    call("sessions", "delete", token=LIVING),
    call("sessions", "delete_for_user", user_id=USERS),
    call("two_factors", "delete_for_user", user_id=USERS),
    *[call(name, "delete", id=LIVING) for name in KINDS if name not in ("sessions", "invitations", "two_factors")],
    *[call(name, "delete", id=USERS | ORGANIZATIONS) for name in ("users", "organizations")],
)

RETURNS: Draw = st.one_of(
    *[call(name, "restore", key=DEAD) for name in KINDS],
    *[call(name, "revert", key=LIVING, to=st.integers(0, 9)) for name in KINDS if name != "verifications"],
)

TAKES: Draw = st.one_of(
    call("verifications", "consume", identifier=IDENTIFIERS, value=VALUES),
    call(
        "invitations",
        "update_status",
        id=LIVING,
        status=STATUSES,
        expected=pool("pending", "pending", "pending", "accepted"),
    ),
    call("two_factors", "update_backup_codes", user_id=USERS, backup_codes=CODES, expected=CODES),
    call("passkeys", "update_counter", id=LIVING, counter=COUNTS, expected=COUNTS),
    call("api_keys", "use", key_hash=HASHES),
)

EXPIRING = ("sessions", "verifications", "api_keys")
SWEEPS: Draw = st.one_of(*[call(name, "delete_expired", limit=pool(None, None, 0, 1, 2)) for name in EXPIRING])

SINGLE: Draw = (
    CREATIONS | CHANGES | REMOVALS | RETURNS | TAKES | st.one_of(*[call(name, "delete_expired") for name in EXPIRING])
)
"""Operations inside of a transaction."""

GIVE_UP: Draw = REMOVALS | call("users", "update", id=LIVING, email=st.none() | EMAILS, username=st.none() | USERNAMES)
TAKE_OVER: Draw = st.one_of(
    *[call(name, "restore", key=DEAD) for name in ("users", "accounts", "passkeys")],
    *[CREATE[name] for name, attributes in UNIQUE.items() if attributes],
)
TRANSACTIONS = st.lists(SINGLE, min_size=2, max_size=4)
MOVED_VALUES = st.tuples(GIVE_UP, TAKE_OVER, SINGLE).map(list)
"""Transactions in which a value that is given up is likely to be taken by another entity."""

SEARCHED = pool("email", "name")
OPERATORS = pool("contains", "starts_with", "ends_with")

LOOK_UPS: Draw = st.one_of(
    call(
        "users",
        "list",
        {
            "search_value": pool("", "a", "A@", "org", "%"),
            "search_field": SEARCHED,
            "search_operator": OPERATORS,
            "filter_value": pool("a@x.org", "Ada", "x"),
            "filter_field": pool("email", "name", "role"),
            "filter_operator": OPERATORS | pool("eq", "ne"),
            "sort_by": pool("name", "createdAt", "email"),
            "sort_direction": pool("asc", "desc"),
        },
        limit=st.integers(0, 4),
        offset=st.integers(0, 3),
    ),
    *[call(name, "as_of", key=ANY, when=st.integers(0, 9)) for name in KINDS],
    *[call(name, "history", key=ANY) for name in KINDS],
    *[
        call(name, "get_many", keys=st.lists(pool(f"{name[0]}0", f"{name[0]}1", "t0", "f0"), max_size=3))
        for name in KINDS
    ],
)


def every_look_up(register: Register) -> list[Operation]:
    """Return every look-up, list and count of every possible value, and of a missing one."""

    def each(repository: str, name: str, /, **pools: tuple[Any, ...]) -> list[Operation]:
        given: list[dict[str, Any]] = [{}]
        for attribute, values in pools.items():
            given = [{**known, attribute: value} for known in given for value in values]
        return [Operation(repository, name, found) for found in given]

    users, organizations = ("u0", "u1", "u2", "nobody"), ("o0", "o1", "nothing")
    emails = ("A@x.org", "b@x.org", "E\u0301@X.org", "nobody@x.org")
    tokens = tuple(key for repository, key in register.stories if repository == "sessions")
    return [
        *[look for key in register.stories for look in each(key[0], "get", key=(key[1],))],
        *[look for name in KINDS for look in each(name, "scan")],
        *each("users", "get_by_email", email=emails),
        *each("users", "get_by_username", username=("a", "A", "b")),
        *each("users", "list", limit=(100,), offset=(0,)),
        *[
            look
            for name in ("sessions", "accounts", "organizations", "api_keys", "passkeys")
            for look in each(name, "list_for_user", user_id=users)
        ],
        *each("adapter", "load_session", token=tokens),
        *each("accounts", "get_by_provider", provider_id=("credential", "github"), account_id=("1", "2", "3")),
        *each("verifications", "find", identifier=("reset", "verify"), value=("v0", "v1")),
        *each("verifications", "get_by_identifier", identifier=("reset", "verify")),
        *each("verifications", "get_by_value", value=("v0", "v1", "v2")),
        *each("organizations", "get_by_slug", slug=("acme", "Acme", "beta", "ACME")),
        *each("members", "find", organization_id=organizations, user_id=users),
        *each("members", "list_for_organization", organization_id=organizations),
        *each("members", "count", organization_id=organizations),
        *each("members", "count_owners", organization_id=organizations),
        *each("invitations", "list_for_organization", organization_id=organizations),
        *each("invitations", "list_for_email", email=emails),
        *each("invitations", "find_pending", organization_id=organizations, email=emails),
        *each("two_factors", "get_by_user", user_id=users),
        *each("api_keys", "get_by_hash", key_hash=("h0", "h1", "h2", "h3")),
        *each("passkeys", "get_by_credential_id", credential_id=("c0", "c1", "c2", "c3")),
    ]
