"""Users (sections A.1 and B.1 of the model)."""

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
    """The users of one tenant. Their key is the id."""

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
        """Sign a user up. An id is made unless one is given.

        Raises `Conflict` for an email (in any capitals), a username or an id that somebody has; `InvalidInput`.
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
        """The user with this email, in any capitals; at most two reads, however many users there are."""
        return await self._collection.find_by_unique(self._email, (email,))

    async def get_by_username(self, username: str) -> User | None:
        """The user with exactly this username; at most two reads, however many users there are."""
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
        """Change the given fields; ``None`` clears one. Changes of other fields at the same time survive.

        ``banned=False`` clears the reason and the end of the ban. Without any field nothing is written.
        Raises `UserNotFound`, `Conflict`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
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
        """Delete a user and its sessions; its email and username are free again. It can be restored.

        A missing one stays missing; deleting again finishes what an interrupted deletion left.
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
        """A page of the users that match, and how many match in all (section B.1 of the model).

        The search (``contains``, ``starts_with``, ``ends_with``, in ``email`` or ``name``) ignores capitals. The filter (the
        same and ``eq``, ``ne``, on ``email``, ``name`` or ``role``) ignores them too, but for ``eq`` and ``ne``. Sorted by
        ``name``, ``createdAt`` or ``email``; without ``sort_by`` newest first. Raises `InvalidInput`.
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
