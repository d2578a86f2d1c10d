"""Organizations."""

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
    """The organizations of a tenant, by id."""

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
        """Create an organization.

        Args:
            name: the name; not unique.
            slug: a unique short name, compared exactly.
            logo: URL of a picture.
            metadata: a JSON object.
            id: the id; by default a random one.

        Raises:
            Conflict: an organization with this slug or id exists.
            InvalidInput: a value is invalid.
        """
        return await self._collection.create({"name": name, "slug": slug, "logo": logo, "metadata": metadata}, key=id)

    async def get_by_slug(self, slug: str) -> Organization | None:
        """Return the organization with this slug, or ``None``. At most two reads."""
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
        """Change fields of an organization, and set ``updated_at`` even if no field is given.

        Updates are partial: omitted fields are unchanged, ``None`` clears a field. `create` describes the fields.

        Raises:
            OrganizationNotFound: the organization does not exist.
            Conflict: another organization has this slug.
            InvalidInput: a value is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        given = {"name": name, "slug": slug, "logo": logo, "metadata": metadata}
        return await self._collection.update(id, given, empty_counts=True)

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete an organization with its memberships and invitations, and free its slug.

        Restoring the organization does not restore them. Sessions keep its id as ``active_organization_id``. Does nothing if
        the organization does not exist. Deleting again completes an interrupted deletion.
        """
        await self._collection.delete(id)

    async def list_for_user(self, user_id: str, /) -> list[Organization]:
        """Return the organizations of which a user is a member, newest first.

        One read, and two for each organization. Organizations whose state cannot be decoded are skipped.
        """
        members: list[Member] = await self._collection.context.collections[MEMBER.name].list_by_index("user", user_id)
        streams = (self._collection.kind.find_stream(member.organization_id) for member in members)
        newest = await self._collection.context.streams.newest_many(stream for stream in streams if stream is not None)
        states = (self._collection.kind.decode_if_readable(event) for event in newest.values() if event is not None)
        found = [state for state in states if state is not None]
        return sorted(found, key=lambda organization: (organization.created_at, organization.id), reverse=True)
