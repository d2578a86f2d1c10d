"""The model of all ten kinds: what every entity has ever been, in plain dictionaries, and the rules that change it."""

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
    """An email as emails are compared."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).lower())


@dataclass(frozen=True)
class Kind:
    """A kind as the model sees it; what the library says of its kinds is not read.

    ``unique``: the field that a conflict names, with the attributes whose values nobody else may have. ``parents``: kinds,
    with the attributes that name the parent. Of ``final`` ones a removal is for good. ``kept``: what a revert leaves alone.
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
        """Whether its entities say when they were changed."""
        return "updated_at" in self.entity.__struct_fields__

    def value(self, attributes: tuple[str, ...], entity: Any) -> tuple[str, ...] | None:
        """What ``entity`` has that nobody else may have; ``None`` if nothing."""
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
"""By the name of the repository."""

REPOSITORIES = {kind.name: repository for repository, kind in KINDS.items()}

Place = tuple[str, str]
"""A repository and a key in it."""


class Register:
    """``stories`` has every state of every entity that ever was, oldest first, ``None`` for a removal.

    ``order``: the entities by their last change. ``once``: those of which something was decided that holds for their very
    state only. ``claimed``: the values that were taken.
    """

    def __init__(self, clock: ManualClock, outside: Register | None = None) -> None:
        """``outside``: what there is before the transaction that this one is of."""
        self.clock = clock
        self.outside = outside
        known: Mapping[Place, list[Any]] = outside.stories if outside else {}
        self.stories: dict[Place, list[Any]] = {place: list(story) for place, story in known.items()}
        self.order: dict[Place, None] = dict.fromkeys(self.stories)
        self.written: dict[Place, None] = {}
        self.once: set[Place] = set()
        self.claimed: set[tuple[str, str, tuple[str, ...]]] = set()

    # What there is

    def state(self, place: Place) -> Any:
        story = self.stories.get(place)
        return story[-1] if story else None

    def living(self, repository: str) -> Iterator[tuple[str, Any]]:
        """The keys and the states of those that live, as they are now."""
        for place, story in list(self.stories.items()):
            if place[0] == repository and story[-1] is not None:
                yield place[1], story[-1]

    def where(self, repository: str, test: Callable[[Any], bool], *, oldest_first: bool = False) -> list[Any]:
        """The living entities that pass ``test``, newest first."""
        found = [state for _, state in self.living(repository) if test(state)]
        return sorted(found, key=lambda entity: (entity.created_at, entity.id), reverse=not oldest_first)

    def owner(self, repository: str, number: int, *values: str) -> Any:
        """The living entity that has these values, which only one may have."""
        kind = KINDS[repository]
        _, attributes = kind.unique[number]
        wanted = tuple(compared(value) if attributes == ("email",) else value for value in values)
        found = [state for _, state in self.living(repository) if kind.value(attributes, state) == wanted]
        assert len(found) <= 1, "the model itself has two owners of one value"
        return found[0] if found else None

    def dead_parent(self, repository: str, entity: Any) -> Kind | None:
        """The kind of the first parent of ``entity`` that was deleted."""
        for parent, attribute in KINDS[repository].parents:
            place = REPOSITORIES[parent], getattr(entity, attribute)
            if place in self.stories and self.state(place) is None:
                return KINDS[place[0]]
        return None

    def orphans(self) -> list[Place]:
        """The living children of deleted parents: made after the deletion."""
        found = [(repository, key, state) for repository in KINDS for key, state in self.living(repository)]
        return [(repository, key) for repository, key, state in found if self.dead_parent(repository, state)]

    # What changes it

    def tell(self, place: Place, state: Any) -> Any:
        self.stories.setdefault(place, []).append(state)
        self.order.pop(place, None)
        self.order[place] = None
        self.written.setdefault(place)
        return state

    def create(self, repository: str, key: str | None, given: Mapping[str, Any]) -> Any:
        """``key`` ``None``: a new one, of an entity that is only made if nobody has its values; the caller knows its key."""
        kind, now = KINDS[repository], self.clock()
        if key is not None and (repository, key) in self.stories:
            if kind.final or self.state((repository, key)) is not None:
                raise Conflict(kind.name, kind.key)
            self.once.add((repository, key))
            self.cascade(repository, key)
        times = {"created_at": now, "updated_at": now} if kind.dated else {"created_at": now}
        entity = kind.entity(**{"id": "new", **given, **times, kind.key: "new" if key is None else key})
        self._take(repository, key, None, entity)
        assert key is not None, "a store refused a creation for which the model knows no reason"
        return self.tell((repository, key), entity)

    def update(
        self,
        repository: str,
        key: str,
        wish: Callable[[Any], Mapping[str, Any] | None],
        *,
        once: bool = False,
    ) -> Any:
        """``wish`` says what changes, or refuses; ``None``: nothing is to be written."""
        kind, place = KINDS[repository], (repository, key)
        if once:
            self.once.add(place)
        before = self.state(place)
        if before is None:
            raise kind.not_found
        changes = wish(before)
        return before if changes is None else self._rewrite(place, before, before, changes)

    def _rewrite(self, place: Place, before: Any, state: Any, changes: Mapping[str, Any]) -> Any:
        kind = KINDS[place[0]]
        touched = {"updated_at": self.clock()} if kind.dated else {}
        after = msgspec.structs.replace(state, **{**changes, **touched})
        self._take(*place, before, after)
        return self.tell(place, after)

    def _take(self, repository: str, key: str | None, before: Any, after: Any) -> None:
        """Refuse what somebody else has; a child of a deleted parent gives way."""
        kind = KINDS[repository]
        for field, attributes in kind.unique:
            wanted = kind.value(attributes, after)
            if wanted is None or wanted == kind.value(attributes, before):
                continue
            for other, state in self.living(repository):
                if other != key and kind.value(attributes, state) == wanted:
                    self._give_way(repository, field, wanted, other)
            self.claimed.add((repository, field, wanted))

    def _give_way(self, repository: str, field: str, wanted: tuple[str, ...], holder: str) -> None:
        """Remove an orphan whose value somebody wants; one from before a transaction is gone whatever comes of that."""
        older = self.outside is not None and (repository, field, wanted) not in self.claimed
        judge = self.outside if older and self.outside is not None else self
        place = repository, holder
        if judge.dead_parent(repository, judge.state(place)) is None:
            raise Conflict(KINDS[repository].name, field)
        judge.remove(repository, holder)
        if judge is not self:
            self.stories[place].append(None)
            self.written.pop(place, None)

    def remove(self, repository: str, key: str) -> Any:
        """Delete an entity with all that is its own; its last state, ``None`` if it was not there."""
        last = self.state((repository, key))
        if last is not None:
            self.tell((repository, key), None)
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
        self.once.add(place)
        if place not in self.stories:
            raise kind.not_found
        if (alive := self.state(place)) is not None:
            return alive
        lived = next(state for state in reversed(self.stories[place]) if state is not None)
        if (parent := self.dead_parent(repository, lived)) is not None:
            raise parent.not_found
        self.cascade(repository, key)
        return self._rewrite(place, None, lived, {})

    def revert(self, repository: str, key: str, number: int) -> Any:
        """``number`` counts the states of the story, around and around."""
        kind, place = KINDS[repository], (repository, key)
        if kind.final:
            raise InvalidInput(kind.key, "final")
        self.once.add(place)
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
        """What a transaction sees; it can be changed, and `commit` tells this register of it."""
        inside = Register(self.clock, self)
        inside.order = dict(self.order)
        return inside

    def commit(self, inside: Register) -> None:
        """All that was changed inside, one change for each entity. Raises what the end of a transaction raises."""
        changed = [
            place for place in inside.written if self.state(place) is not None or inside.state(place) is not None
        ]
        once = [place for place in changed if place in inside.once and place in self.stories]
        if len(once) > 1:
            raise InvalidInput("transaction", "more than one thing depends on the very state of an entity")
        changed.sort(key=lambda place: (place not in once, place not in self.stories))
        for place in changed:
            self._refuse_handing_over(changed, place, inside.state(place))
        for place in changed:
            self.tell(place, inside.state(place))
        for place in changed:
            if inside.state(place) is None:
                self.cascade(*place)

    def _refuse_handing_over(self, changed: list[Place], place: Place, after: Any) -> None:
        """A value does not go from one entity to another inside."""
        kind = KINDS[place[0]]
        for field, attributes in kind.unique:
            wanted = kind.value(attributes, after)
            if wanted is None or wanted == kind.value(attributes, self.state(place)):
                continue
            for other in changed:
                if other[0] == place[0] and other != place and kind.value(attributes, self.state(other)) == wanted:
                    raise Conflict(kind.name, field)
