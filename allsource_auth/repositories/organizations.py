"""Organizations (sections A.5 and B.5 of the model)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Member, Organization
from allsource_auth.kinds import MEMBER, ORGANIZATION

__all__ = ["Organizations"]


class Organizations(RestorableRepository[Organization]):
    """The organizations of one tenant. Their key is the id."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, ORGANIZATION))
        (self._slug,) = ORGANIZATION.unique

    async def create(
        self,
        *,
        name: str,
        slug: str,
        logo: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Organization:
        """Found an organization. Raises `Conflict` for a slug or an id that one has; `InvalidInput`."""
        return await self._collection.create({"name": name, "slug": slug, "logo": logo, "metadata": metadata}, key=id)

    async def get_by_slug(self, slug: str) -> Organization | None:
        """The organization with exactly this slug; at most two reads."""
        return await self._collection.find_by_unique(self._slug, (slug,))

    async def update(
        self,
        id: str,  # noqa: A002
        /,
        *,
        name: str | UnsetType = UNSET,
        slug: str | UnsetType = UNSET,
        logo: str | UnsetType | None = UNSET,
        metadata: Mapping[str, Any] | UnsetType | None = UNSET,
    ) -> Organization:
        """Change the given fields; ``None`` clears one. ``updated_at`` moves even if none is given (section B.5).

        Raises `OrganizationNotFound`, `Conflict` for a slug that another one has, `InvalidInput`; `VersionConflict` if others
        were faster for ten seconds.
        """
        given = {"name": name, "slug": slug, "logo": logo, "metadata": metadata}
        return await self._collection.update(id, given, empty_counts=True)

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete an organization with its members and invitations; its slug is free again. It can be restored, without them.

        Sessions for which it was the active one keep its id. A missing one stays missing; deleting again finishes what an
        interrupted deletion left.
        """
        await self._collection.delete(id)

    async def list_for_user(self, user_id: str) -> list[Organization]:
        """The organizations that a user is a member of, newest first; without one whose state cannot be decoded."""
        members: list[Member] = await self._collection.context.collections[MEMBER.name].list_by_index("user", user_id)
        streams = (self._collection.kind.find_stream(member.organization_id) for member in members)
        newest = await self._collection.context.streams.newest_many(stream for stream in streams if stream is not None)
        states = (self._collection.kind.decode_if_readable(event) for event in newest.values() if event is not None)
        found = [state for state in states if state is not None]
        return sorted(found, key=lambda organization: (organization.created_at, organization.id), reverse=True)
