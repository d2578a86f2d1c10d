"""The model of all ten kinds: every state of every entity, in plain dictionaries, and the rules that change it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from allsource_auth import (
    Account,
    AccountNotFound,
    ApiKey,
    ApiKeyNotFound,
    Conflict,
    InvalidInput,
    Invitation,
    InvitationNotFound,
    Member,
    MemberNotFound,
    NotFound,
    Organization,
    OrganizationNotFound,
    Passkey,
    PasskeyNotFound,
    Session,
    SessionNotFound,
    TwoFactor,
    TwoFactorNotFound,
    User,
    UserNotFound,
    Verification,
    VerificationNotFound,
)
from tests.support.clocks import ManualClock

__all__ = ["KINDS", "Kind", "Place", "Register", "compared"]


def compared(email: str) -> str:
    """Return an email in the form in which it is compared."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).lower())


@dataclass(frozen=True)
class Kind:
    """A kind in the model, declared independently of the library.

    ``unique`` has the field that a conflict names, with the attributes that must be unique together. ``parents`` has the
    parent kinds, with the attributes that refer to them. Deletions of ``final`` kinds cannot be undone. ``kept`` has the
    attributes that a revert does not change.
    """

    name: str
    entity: type[Any]
    not_found: type[NotFound]
    unique: tuple[tuple[str, tuple[str, ...]], ...] = ()
    parents: tuple[tuple[str, str], ...] = ()
    final: bool = False
    kept: tuple[str, ...] = ()
    key: str = "id"

    @property
    def dated(self) -> bool:
        """Whether the kind has the attribute ``updated_at``."""
        return "updated_at" in self.entity.__struct_fields__

    def value(self, attributes: tuple[str, ...], entity: Any) -> tuple[str, ...] | None:
        """Return the unique values of ``entity``, or ``None``."""
        found = [getattr(entity, name, None) for name in attributes]
        if None in found:
            return None
        return tuple(compared(text) if attributes == ("email",) else text for text in found if text is not None)


OF_USER = ("user", "user_id")
OF_ORGANIZATION = ("org", "organization_id")

KINDS = {
    "users": Kind("user", User, UserNotFound, unique=(("email", ("email",)), ("username", ("username",)))),
    "sessions": Kind("session", Session, SessionNotFound, parents=(OF_USER,), final=True, key="token"),
    "accounts": Kind(
        "account",
        Account,
        AccountNotFound,
        unique=(("provider_account", ("provider_id", "account_id")),),
        parents=(OF_USER,),
        kept=(
            "user_id",
            "provider_id",
            "account_id",
            "access_token",
            "refresh_token",
            "id_token",
            "access_token_expires_at",
            "refresh_token_expires_at",
            "password",
        ),
    ),
    "verifications": Kind("verification", Verification, VerificationNotFound, final=True),
    "organizations": Kind("org", Organization, OrganizationNotFound, unique=(("slug", ("slug",)),)),
    "members": Kind(
        "member",
        Member,
        MemberNotFound,
        unique=(("organization_user", ("organization_id", "user_id")),),
        parents=(OF_ORGANIZATION, OF_USER),
        kept=("organization_id", "user_id"),
    ),
    "invitations": Kind(
        "invitation",
        Invitation,
        InvitationNotFound,
        parents=(OF_ORGANIZATION, ("user", "inviter_id")),
        kept=("organization_id", "inviter_id", "status"),
    ),
    "two_factors": Kind(
        "two_factor",
        TwoFactor,
        TwoFactorNotFound,
        unique=(("user", ("user_id",)),),
        parents=(OF_USER,),
        kept=("user_id", "secret", "backup_codes"),
    ),
    "api_keys": Kind(
        "api_key",
        ApiKey,
        ApiKeyNotFound,
        unique=(("key", ("key_hash",)),),
        parents=(OF_USER,),
        kept=("user_id", "key_hash", "remaining", "request_count", "last_request", "last_refill_at"),
    ),
    "passkeys": Kind(
        "passkey",
        Passkey,
        PasskeyNotFound,
        unique=(("credential", ("credential_id",)),),
        parents=(OF_USER,),
        kept=("user_id", "credential_id", "public_key", "counter"),
    ),
}
"""The kinds, by the name of the repository."""

REPOSITORIES = {kind.name: repository for repository, kind in KINDS.items()}

Place = tuple[str, str]
"""The name of a repository and a key in it."""


class Register:
    """The state of the model.

    ``stories`` has all states of every entity, oldest first, ``None`` for a deletion. ``order`` has the entities by their
    last change. ``state_dependent`` has those with a change that depends on their exact state. ``claimed`` has the values
    that were claimed.
    """

    def __init__(self, clock: ManualClock, outside: Register | None = None) -> None:
        """``outside`` is the state outside of the transaction of this register."""
        self.clock = clock
        self.outside = outside
        known: Mapping[Place, list[Any]] = outside.stories if outside else {}
        self.stories: dict[Place, list[Any]] = {place: list(story) for place, story in known.items()}
        self.order: dict[Place, None] = dict.fromkeys(self.stories)
        self.written: dict[Place, None] = {}
        self.state_dependent: set[Place] = set()
        self.claimed: set[tuple[str, str, tuple[str, ...]]] = set()

    # Reading

    def state(self, place: Place) -> Any:
        story = self.stories.get(place)
        return story[-1] if story else None

    def living(self, repository: str) -> Iterator[tuple[str, Any]]:
        """Return the living entities with their keys."""
        for place, story in list(self.stories.items()):
            if place[0] == repository and story[-1] is not None:
                yield place[1], story[-1]

    def where(self, repository: str, test: Callable[[Any], bool], *, oldest_first: bool = False) -> list[Any]:
        """Return the living entities that pass ``test``, newest first."""
        found = [state for _, state in self.living(repository) if test(state)]
        return sorted(found, key=lambda entity: (entity.created_at, entity.id), reverse=not oldest_first)

    def owner(self, repository: str, number: int, *values: str) -> Any:
        """Return the living entity with these unique values."""
        kind = KINDS[repository]
        _, attributes = kind.unique[number]
        wanted = tuple(compared(value) if attributes == ("email",) else value for value in values)
        found = [state for _, state in self.living(repository) if kind.value(attributes, state) == wanted]
        assert len(found) <= 1, "the model itself has two owners of one value"
        return found[0] if found else None

    def deleted_parent(self, repository: str, entity: Any) -> Kind | None:
        """Return the kind of the first deleted parent of ``entity``."""
        for parent, attribute in KINDS[repository].parents:
            place = REPOSITORIES[parent], getattr(entity, attribute)
            if place in self.stories and self.state(place) is None:
                return KINDS[place[0]]
        return None

    def orphans(self) -> list[Place]:
        """Return the living children of deleted parents, created after the deletion."""
        found = [(repository, key, state) for repository in KINDS for key, state in self.living(repository)]
        return [(repository, key) for repository, key, state in found if self.deleted_parent(repository, state)]

    # Writing

    def record(self, place: Place, state: Any) -> Any:
        self.stories.setdefault(place, []).append(state)
        self.order.pop(place, None)
        self.order[place] = None
        self.written.setdefault(place)
        return state

    def create(self, repository: str, key: str | None, given: Mapping[str, Any]) -> Any:
        """Create an entity.

        With ``key`` ``None`` the library chose a key; the entity is created only if its unique values are free.
        """
        kind, now = KINDS[repository], self.clock()
        if key is not None and (repository, key) in self.stories:
            if kind.final or self.state((repository, key)) is not None:
                raise Conflict(kind.name, kind.key)
            self.state_dependent.add((repository, key))
            self.cascade(repository, key)
        times = {"created_at": now, "updated_at": now} if kind.dated else {"created_at": now}
        entity = kind.entity(**{"id": "new", **given, **times, kind.key: "new" if key is None else key})
        self._take(repository, key, None, entity)
        assert key is not None, "a store refused a creation for which the model knows no reason"
        return self.record((repository, key), entity)

    def update(
        self,
        repository: str,
        key: str,
        decide: Callable[[Any], Mapping[str, Any] | None],
        *,
        state_dependent: bool = False,
    ) -> Any:
        """Change an entity. ``decide`` returns the changes or raises; ``None`` means that nothing is written."""
        kind, place = KINDS[repository], (repository, key)
        if state_dependent:
            self.state_dependent.add(place)
        before = self.state(place)
        if before is None:
            raise kind.not_found
        changes = decide(before)
        return before if changes is None else self._rewrite(place, before, before, changes)

    def _rewrite(self, place: Place, before: Any, state: Any, changes: Mapping[str, Any]) -> Any:
        kind = KINDS[place[0]]
        touched = {"updated_at": self.clock()} if kind.dated else {}
        after = msgspec.structs.replace(state, **{**changes, **touched})
        self._take(*place, before, after)
        return self.record(place, after)

    def _take(self, repository: str, key: str | None, before: Any, after: Any) -> None:
        """Raise `Conflict` for values of another entity, unless that is a child of a deleted parent."""
        kind = KINDS[repository]
        for field, attributes in kind.unique:
            wanted = kind.value(attributes, after)
            if wanted is None or wanted == kind.value(attributes, before):
                continue
            for other, state in self.living(repository):
                if other != key and kind.value(attributes, state) == wanted:
                    self._remove_orphan(repository, field, wanted, other)
            self.claimed.add((repository, field, wanted))

    def _remove_orphan(self, repository: str, field: str, wanted: tuple[str, ...], holder: str) -> None:
        """Delete an orphan whose value is wanted. One from before a transaction is deleted even if the transaction fails."""
        older = self.outside is not None and (repository, field, wanted) not in self.claimed
        judge = self.outside if older and self.outside is not None else self
        place = repository, holder
        if judge.deleted_parent(repository, judge.state(place)) is None:
            raise Conflict(KINDS[repository].name, field)
        judge.remove(repository, holder)
        if judge is not self:
            self.stories[place].append(None)
            self.written.pop(place, None)

    def remove(self, repository: str, key: str) -> Any:
        """Delete an entity with its children; return its last state, or ``None`` if it did not exist."""
        last = self.state((repository, key))
        if last is not None:
            self.record((repository, key), None)
        if (repository, key) in self.stories:
            self.cascade(repository, key)
        return last

    def cascade(self, repository: str, key: str) -> None:
        owner = KINDS[repository].name
        for child, kind in KINDS.items():
            for parent, attribute in kind.parents:
                for child_key, state in self.living(child):
                    if parent == owner and getattr(state, attribute) == key:
                        self.remove(child, child_key)

    def restore(self, repository: str, key: str) -> Any:
        kind, place = KINDS[repository], (repository, key)
        if kind.final:
            raise InvalidInput(kind.key, "final")
        self.state_dependent.add(place)
        if place not in self.stories:
            raise kind.not_found
        if (alive := self.state(place)) is not None:
            return alive
        lived = next(state for state in reversed(self.stories[place]) if state is not None)
        if (parent := self.deleted_parent(repository, lived)) is not None:
            raise parent.not_found
        self.cascade(repository, key)
        return self._rewrite(place, None, lived, {})

    def revert(self, repository: str, key: str, number: int) -> Any:
        """``number`` counts the states of the story, modulo their number."""
        kind, place = KINDS[repository], (repository, key)
        if kind.final:
            raise InvalidInput(kind.key, "final")
        self.state_dependent.add(place)
        before = self.state(place)
        if before is None:
            raise kind.not_found
        story = self.stories[place]
        former = story[number % len(story)]
        if former is None:
            raise InvalidInput("to", "not alive then")
        return self._rewrite(place, before, former, {name: getattr(before, name) for name in kind.kept})

    # Transactions

    def begin(self) -> Register:
        """Return the state inside a transaction; `commit` applies its changes to this register."""
        inside = Register(self.clock, self)
        inside.order = dict(self.order)
        return inside

    def commit(self, inside: Register) -> None:
        """Apply the changes of a transaction, one for each entity. Raises what the end of a transaction raises."""
        changed = [
            place for place in inside.written if self.state(place) is not None or inside.state(place) is not None
        ]
        state_dependent = [place for place in changed if place in inside.state_dependent and place in self.stories]
        if len(state_dependent) > 1:
            raise InvalidInput("transaction", "more than one thing depends on the very state of an entity")
        changed.sort(key=lambda place: (place not in state_dependent, place not in self.stories))
        for place in changed:
            self._refuse_moved_values(changed, place, inside.state(place))
        for place in changed:
            self.record(place, inside.state(place))
        for place in changed:
            if inside.state(place) is None:
                self.cascade(*place)

    def _refuse_moved_values(self, changed: list[Place], place: Place, after: Any) -> None:
        """A unique value cannot move between entities inside a transaction."""
        kind = KINDS[place[0]]
        for field, attributes in kind.unique:
            wanted = kind.value(attributes, after)
            if wanted is None or wanted == kind.value(attributes, self.state(place)):
                continue
            for other in changed:
                if other[0] == place[0] and other != place and kind.value(attributes, self.state(other)) == wanted:
                    raise Conflict(kind.name, field)
