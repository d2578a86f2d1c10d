"""The operations of the ten repositories on a `Register`, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import UNSET

from allsource_auth import ApiKey, ApiKeyUse, Conflict, InvalidInput, SessionWithUser, TwoFactorNotFound, User
from tests.model.register import Place, Register, compared

__all__ = ["Answers"]

INSTANT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, wanted: wanted.lower() in text.lower(),
    "starts_with": lambda text, wanted: text.lower().startswith(wanted.lower()),
    "ends_with": lambda text, wanted: text.lower().endswith(wanted.lower()),
    "eq": lambda text, wanted: text == wanted,
    "ne": lambda text, wanted: text != wanted,
}
SORTED = {"name": "name", "createdAt": "created_at"}


class Answers:
    """The operations, named after those of the library: ``{repository}_{operation}`` for the operations of one kind."""

    def __init__(self, register: Register) -> None:
        self.register = register

    def call(self, repository: str, operation: str, given: Mapping[str, Any]) -> Any:
        """Return the result of an operation. Raises what the library should raise."""
        if (special := getattr(self, f"{repository}_{operation}", None)) is not None:
            return special(**given)
        return getattr(self, operation)(repository, **given)

    def now(self) -> datetime:
        return self.register.clock()

    # All kinds

    def create(self, repository: str, **given: Any) -> Any:
        return self.register.create(repository, given.pop("id"), given)

    def get(self, repository: str, key: str) -> Any:
        return self.register.state((repository, key))

    def exists(self, repository: str, key: str) -> bool:
        return self.get(repository, key) is not None

    def get_many(self, repository: str, keys: list[str]) -> dict[str, Any]:
        return {key: state for key in keys if (state := self.get(repository, key)) is not None}

    def scan(self, repository: str) -> list[Any]:
        return [state for _, state in sorted(self.register.living(repository))]

    def history(self, repository: str, key: str) -> list[Any]:
        return self.register.stories.get((repository, key), [])

    def delete(self, repository: str, id: str) -> None:  # noqa: A002
        self.register.remove(repository, id)

    def restore(self, repository: str, key: str) -> Any:
        return self.register.restore(repository, key)

    def revert(self, repository: str, key: str, to: int) -> Any:
        return self.register.revert(repository, key, to)

    def as_of(self, repository: str, key: str, when: int) -> Any:
        story = self.register.stories.get((repository, key))
        if story is None:
            raise InvalidInput("when", "no such event")
        return story[when % len(story)]

    def list_for_user(self, repository: str, user_id: str) -> list[Any]:
        return self.register.where(repository, lambda entity: bool(entity.user_id == user_id))

    def delete_expired(self, repository: str, limit: int | None = None) -> int:
        """Entities whose last change is oldest are deleted first."""
        due: list[Place] = [place for place in self.register.order if place[0] == repository and self._is_due(place)]
        for place in due[:limit]:
            self.register.remove(*place)
        return len(due[:limit])

    def _is_due(self, place: Place) -> bool:
        state = self.register.state(place)
        return state is not None and state.expires_at is not None and bool(state.expires_at <= self.now())

    # Users

    def users_update(self, id: str, **given: Any) -> User:  # noqa: A002
        cleared = {"ban_reason": None, "ban_expires": None} if given.get("banned") is False else {}
        changed: User = self.register.update("users", id, lambda before: {**given, **cleared} if given else None)
        return changed

    def users_get_by_email(self, email: str) -> User | None:
        return self.register.owner("users", 0, email)  # type: ignore[no-any-return]

    def users_get_by_username(self, username: str) -> User | None:
        return self.register.owner("users", 1, username)  # type: ignore[no-any-return]

    def users_list(
        self,
        limit: int,
        offset: int,
        search_value: str | None = None,
        search_field: str = "email",
        search_operator: str = "contains",
        filter_value: str | None = None,
        filter_field: str = "email",
        filter_operator: str = "eq",
        sort_by: str | None = None,
        sort_direction: str = "asc",
    ) -> tuple[list[User], int]:
        """Return the page and the total."""
        found = self.register.where("users", lambda user: True)
        for field, operator, wanted in (
            (search_field, search_operator, search_value),
            (filter_field, filter_operator, filter_value),
        ):
            if wanted is not None:
                texts = ((user, getattr(user, field)) for user in found)
                found = [user for user, text in texts if text is not None and MATCHES[operator](text, wanted)]
        if sort_by is not None:
            field = SORTED.get(sort_by, "email")
            having = [user for user in found if getattr(user, field) is not None]
            lacking = [user for user in found if getattr(user, field) is None]
            having.sort(key=lambda user: (getattr(user, field), user.id))
            found = having + sorted(lacking, key=lambda user: str(user.id))
            if sort_direction == "desc":
                found.reverse()
        return found[offset : offset + limit], len(found)

    # Sessions

    def sessions_create(self, token: str | None, **given: Any) -> Any:
        return self.register.create("sessions", token, {name: value for name, value in given.items() if value})

    def sessions_update_expiry(self, token: str, expires_at: datetime) -> Any:
        return self.register.update("sessions", token, lambda before: {"expires_at": expires_at})

    def sessions_set_active_organization(self, token: str, organization_id: str | None) -> Any:
        return self.register.update("sessions", token, lambda before: {"active_organization_id": organization_id})

    def sessions_delete(self, token: str) -> None:
        self.register.remove("sessions", token)

    def sessions_delete_for_user(self, user_id: str) -> int:
        gone = self.list_for_user("sessions", user_id)
        for session in gone:
            self.register.remove("sessions", session.token)
        return len(gone)

    def adapter_load_session(self, token: str) -> SessionWithUser | None:
        session = self.get("sessions", token)
        user = None if session is None else self.get("users", session.user_id)
        if session is None or user is None or session.expires_at <= self.now():
            return None
        if user.banned and (user.ban_expires is None or user.ban_expires > self.now()):
            return None
        return SessionWithUser(session=session, user=user)

    # Accounts

    def accounts_get_by_provider(self, provider_id: str, account_id: str) -> Any:
        return self._authenticated("accounts", provider_id, account_id)

    def accounts_update(self, id: str, **given: Any) -> Any:  # noqa: A002
        return self.register.update("accounts", id, lambda before: given)

    def _authenticated(self, repository: str, *values: str) -> Any:
        """Return the owner of these values, or ``None`` if its user was deleted."""
        found = self.register.owner(repository, 0, *values)
        return None if found is None or self.register.deleted_parent(repository, found) else found

    # Verifications

    def _valid(self, **wanted: str) -> list[Any]:
        return self.register.where(
            "verifications",
            lambda entity: (
                entity.expires_at > self.now() and all(getattr(entity, name) == wanted[name] for name in wanted)
            ),
        )

    def verifications_find(self, identifier: str, value: str) -> Any:
        return next(iter(self._valid(identifier=identifier, value=value)), None)

    def verifications_get_by_value(self, value: str) -> Any:
        return next(iter(self._valid(value=value)), None)

    def verifications_get_by_identifier(self, identifier: str) -> Any:
        return next(iter(self._valid(identifier=identifier)), None)

    def verifications_consume(self, identifier: str, value: str) -> Any:
        found = self.verifications_find(identifier, value)
        if found is not None:
            self.register.state_dependent.add(("verifications", found.id))
            self.register.remove("verifications", found.id)
        return found

    # Organizations and members

    def organizations_update(self, id: str, **given: Any) -> Any:  # noqa: A002
        return self.register.update("organizations", id, lambda before: given)

    def organizations_get_by_slug(self, slug: str) -> Any:
        return self.register.owner("organizations", 0, slug)

    def organizations_list_for_user(self, user_id: str) -> list[Any]:
        joined = {member.organization_id for member in self.list_for_user("members", user_id)}
        return self.register.where("organizations", lambda organization: organization.id in joined)

    def members_update_role(self, id: str, role: str) -> Any:  # noqa: A002
        return self.register.update("members", id, lambda before: {"role": role})

    def members_find(self, organization_id: str, user_id: str) -> Any:
        return self.register.owner("members", 0, organization_id, user_id)

    def members_list_for_organization(self, organization_id: str) -> list[Any]:
        return self.register.where(
            "members", lambda member: bool(member.organization_id == organization_id), oldest_first=True
        )

    def members_count(self, organization_id: str) -> int:
        return len(self.members_list_for_organization(organization_id))

    def members_count_owners(self, organization_id: str) -> int:
        roles = [member.role.split(",") for member in self.members_list_for_organization(organization_id)]
        return sum("owner" in map(str.strip, several) for several in roles)

    # Invitations

    def invitations_update_status(self, id: str, status: str, expected: Any = UNSET) -> Any:  # noqa: A002
        def decide(before: Any) -> dict[str, Any]:
            if expected is not UNSET and before.status != expected:
                raise Conflict("invitation", "status")
            return {"status": status}

        return self.register.update("invitations", id, decide, state_dependent=expected is not UNSET)

    def invitations_list_for_organization(self, organization_id: str) -> list[Any]:
        return self.register.where("invitations", lambda sent: bool(sent.organization_id == organization_id))

    def invitations_list_for_email(self, email: str) -> list[Any]:
        return self.register.where(
            "invitations",
            lambda sent: (
                compared(sent.email) == compared(email) and sent.status == "pending" and sent.expires_at > self.now()
            ),
        )

    def invitations_find_pending(self, organization_id: str, email: str) -> Any:
        open_ones = self.invitations_list_for_email(email)
        return next((sent for sent in open_ones if sent.organization_id == organization_id), None)

    # Second factors

    def two_factors_get_by_user(self, user_id: str) -> Any:
        return self.register.owner("two_factors", 0, user_id)

    def two_factors_update_backup_codes(self, user_id: str, backup_codes: str | None, expected: Any = UNSET) -> Any:
        def decide(before: Any) -> dict[str, Any]:
            if expected is not UNSET and before.backup_codes != expected:
                raise Conflict("two_factor", "backup_codes")
            return {"backup_codes": backup_codes}

        if (found := self.two_factors_get_by_user(user_id)) is None:
            raise TwoFactorNotFound
        return self.register.update("two_factors", found.id, decide, state_dependent=expected is not UNSET)

    def two_factors_delete_for_user(self, user_id: str) -> None:
        if (found := self.two_factors_get_by_user(user_id)) is not None:
            self.register.remove("two_factors", found.id)

    # API keys

    def api_keys_create(self, id: str | None, **given: Any) -> Any:  # noqa: A002
        _refuse_half_a_refill(given.get("refill_interval"), given.get("refill_amount"))
        return self.register.create("api_keys", id, {**given, "request_count": 0})

    def api_keys_update(self, id: str, **given: Any) -> Any:  # noqa: A002
        def decide(before: ApiKey) -> dict[str, Any]:
            _refuse_half_a_refill(
                given.get("refill_interval", before.refill_interval), given.get("refill_amount", before.refill_amount)
            )
            return given

        return self.register.update("api_keys", id, decide)

    def api_keys_get_by_hash(self, key_hash: str) -> Any:
        return self.register.owner("api_keys", 0, key_hash)

    def api_keys_use(self, key_hash: str) -> ApiKeyUse:
        key, now = self._authenticated("api_keys", key_hash), self.now()
        if key is None:
            return ApiKeyUse(allowed=False, reason="not_found")
        changes = _used(key, now)
        if isinstance(changes, str):
            ends = [end for end in _ends(key) if end > now and not isinstance(_used(key, end), str)]
            wait = min(ends) - now if ends and changes in ("usage_exceeded", "rate_limited") else None
            return ApiKeyUse(allowed=False, reason=changes, api_key=key, remaining=key.remaining, try_again_in=wait)  # type: ignore[arg-type]
        after = (
            self.register.update("api_keys", key.id, lambda before: changes, state_dependent=True) if changes else key
        )
        return ApiKeyUse(allowed=True, api_key=after, remaining=after.remaining)

    # Passkeys

    def passkeys_get_by_credential_id(self, credential_id: str) -> Any:
        return self._authenticated("passkeys", credential_id)

    def passkeys_update_name(self, id: str, name: str | None) -> Any:  # noqa: A002
        return self.register.update("passkeys", id, lambda before: {"name": name})

    def passkeys_update_counter(self, id: str, counter: int, expected: Any = UNSET) -> Any:  # noqa: A002
        def decide(before: Any) -> dict[str, Any]:
            grows = expected is UNSET or counter > expected or counter == expected == 0
            if not grows or (expected is not UNSET and before.counter != expected):
                raise Conflict("passkey", "counter")
            return {"counter": counter}

        return self.register.update("passkeys", id, decide, state_dependent=expected is not UNSET)


def _refuse_half_a_refill(interval: int | None, amount: int | None) -> None:
    if (interval is None) != (amount is None):
        raise InvalidInput("refill_interval", "without the other")


def _ends(key: ApiKey) -> list[datetime]:
    """The times at which the refill interval and the rate window of a key end."""
    ends = []
    if key.refill_interval is not None:
        since = key.last_refill_at or key.created_at
        ends.append(since + timedelta(milliseconds=key.refill_interval) + INSTANT)
    if key.last_request is not None and key.rate_limit_time_window is not None:
        ends.append(key.last_request + timedelta(milliseconds=key.rate_limit_time_window) + INSTANT)
    return ends


def _used(key: ApiKey, now: datetime) -> str | dict[str, Any]:
    """Return the changes of one use (none if it is not recorded), or the reason of its denial."""
    if not key.enabled:
        return "disabled"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    changes: dict[str, Any] = {"last_request": now}
    remaining = key.remaining
    if remaining is not None:
        if key.refill_interval is not None and key.refill_amount:
            since = key.last_refill_at or key.created_at
            if now - since > timedelta(milliseconds=key.refill_interval):
                remaining = key.refill_amount
                changes["last_refill_at"] = now
        if remaining == 0:
            return "usage_exceeded"
        changes["remaining"] = remaining - 1
    window = key.rate_limit_time_window
    if key.rate_limit_enabled and window is not None and key.rate_limit_max is not None:
        inside = key.last_request is not None and now - key.last_request <= timedelta(milliseconds=window)
        count = (key.request_count or 0) if inside else 0
        if count >= key.rate_limit_max:
            return "rate_limited"
        changes["request_count"] = count + 1
    elif remaining is None and key.last_request is not None and now - key.last_request < MINUTE:
        return {}
    return changes
