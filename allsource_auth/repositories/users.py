"""Users."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Page, User
from allsource_auth.kinds import USER
from allsource_auth.repositories.user_search import (
    FilterField,
    FilterOperator,
    SearchField,
    SearchOperator,
    SortDirection,
    SortField,
    UserSearch,
)

__all__ = ["Users"]


class Users(RestorableRepository[User]):
    """The users of a tenant, by id."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, USER))
        self._email, self._username = USER.unique

    async def create(
        self,
        *,
        email: str | None = None,
        name: str | None = None,
        image: str | None = None,
        email_verified: bool = False,
        username: str | None = None,
        display_username: str | None = None,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002
    ) -> User:
        """Create a user.

        Args:
            email: a unique email address, compared ignoring case.
            name: the name; not unique.
            image: URL of a picture.
            email_verified: whether the email address is verified.
            username: a unique username, compared exactly.
            display_username: the username as it is displayed; not unique.
            role: one role, or several separated by commas.
            metadata: a JSON object. It must not contain passwords; those belong in an account.
            id: the id; by default a random one.

        Raises:
            Conflict: a user with this email, username or id exists.
            InvalidInput: a value is invalid.
        """
        given = {
            "email": email,
            "name": name,
            "image": image,
            "email_verified": email_verified,
            "username": username,
            "display_username": display_username,
            "role": role,
            "metadata": metadata,
        }
        return await self._collection.create(given, key=id)

    async def get_by_email(self, email: str) -> User | None:
        """Return the user with this email, compared ignoring case, or ``None``. At most two reads."""
        return await self._collection.find_by_unique(self._email, (email,))

    async def get_by_username(self, username: str) -> User | None:
        """Return the user with this username, compared exactly, or ``None``. At most two reads."""
        return await self._collection.find_by_unique(self._username, (username,))

    async def update(
        self,
        id: str,  # noqa: A002
        /,
        *,
        email: str | UnsetType | None = UNSET,
        name: str | UnsetType | None = UNSET,
        image: str | UnsetType | None = UNSET,
        email_verified: bool | UnsetType = UNSET,
        username: str | UnsetType | None = UNSET,
        display_username: str | UnsetType | None = UNSET,
        role: str | UnsetType | None = UNSET,
        banned: bool | UnsetType = UNSET,
        ban_reason: str | UnsetType | None = UNSET,
        ban_expires: datetime | UnsetType | None = UNSET,
        two_factor_enabled: bool | UnsetType = UNSET,
        metadata: Mapping[str, Any] | UnsetType | None = UNSET,
    ) -> User:
        """Change fields of a user.

        Updates are partial: omitted fields are unchanged, ``None`` clears a field. Without any field nothing is written.
        Concurrent updates of different fields are merged. `create` describes the other fields.

        Args:
            id: the user.
            banned: whether the user is banned. ``False`` also clears ``ban_reason`` and ``ban_expires``.
            ban_reason: why the user is banned.
            ban_expires: the end of the ban, a timezone-aware time; ``None`` for a permanent ban.
            two_factor_enabled: whether the application requires the second factor.

        Raises:
            UserNotFound: the user does not exist.
            Conflict: another user has this email or username.
            InvalidInput: a value is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        given = {
            "email": email,
            "name": name,
            "image": image,
            "email_verified": email_verified,
            "username": username,
            "display_username": display_username,
            "role": role,
            "banned": banned,
            "ban_reason": ban_reason,
            "ban_expires": ban_expires,
            "two_factor_enabled": two_factor_enabled,
            "metadata": metadata,
        }
        return await self._collection.update(id, given, rule=_unbanned)

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete a user, and free its email and username.

        Its sessions, accounts, memberships, second factor, API keys and passkeys are deleted too, and the invitations that it
        sent. Restoring the user does not restore them. From the first write on, its sessions are not valid. Does nothing if the
        user does not exist. Deleting again completes an interrupted deletion.
        """
        await self._collection.delete(id)

    async def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        search_value: str | None = None,
        search_field: SearchField = "email",
        search_operator: SearchOperator = "contains",
        filter_value: str | None = None,
        filter_field: FilterField = "email",
        filter_operator: FilterOperator = "eq",
        sort_by: SortField | None = None,
        sort_direction: SortDirection = "asc",
    ) -> Page[User]:
        """Return a page of users, optionally searched, filtered and sorted, with the number of all matches.

        It reads every user of the tenant, and is not a snapshot. Users whose state cannot be decoded are skipped.

        Args:
            limit: the maximum number of users on the page.
            offset: the number of matching users to skip.
            search_value: the text to search for, ignoring case; ``None`` for no search.
            search_field: the attribute to search in.
            search_operator: how the text must match.
            filter_value: the text to filter by; ``None`` for no filter. A user must match the search and the filter.
            filter_field: the attribute to filter by.
            filter_operator: how the text must match. ``"eq"`` and ``"ne"`` compare exactly, the others ignore case. A user
                without a value never matches.
            sort_by: the attribute to sort by; ``None`` sorts by creation, newest first. Users without a value come last in
                ascending order.
            sort_direction: ascending or descending, if ``sort_by`` is given.

        Raises:
            InvalidInput: ``limit`` or ``offset`` is negative, or an operator is unknown.
        """
        search = UserSearch(
            limit=limit,
            offset=offset,
            search=(search_field, search_operator, search_value),
            filter=(filter_field, filter_operator, filter_value),
            sort_by=sort_by,
            direction=sort_direction,
        )
        async with aclosing(self._collection.context.streams.newest_of_each(USER.prefix, USER.types)) as pages:
            return await search.page(pages, USER)


def _unbanned(changes: dict[str, Any], before: User) -> None:
    if changes.get("banned") is False:
        changes |= {"ban_reason": None, "ban_expires": None}
