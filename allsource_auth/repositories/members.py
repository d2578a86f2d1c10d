"""Memberships of users in organizations."""

from __future__ import annotations

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Member
from allsource_auth.kinds import MEMBER

__all__ = ["Members"]

OWNER = "owner"


class Members(RestorableRepository[Member]):
    """The memberships of a tenant, by id. Deleting an organization or a user deletes its memberships."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, MEMBER))
        (self._pair,) = MEMBER.unique

    async def create(
        self,
        *,
        organization_id: str,
        user_id: str,
        role: str = "member",
        id: str | None = None,  # noqa: A002
    ) -> Member:
        """Add a user to an organization. It is not checked that the user and the organization exist.

        Args:
            organization_id: id of the organization.
            user_id: id of the user.
            role: one role, or several separated by commas.
            id: the id of the membership; by default a random one.

        Raises:
            Conflict: the user is already a member, or a membership with this id exists.
            InvalidInput: a value is invalid.
        """
        return await self._collection.create(
            {"organization_id": organization_id, "user_id": user_id, "role": role}, key=id
        )

    async def find(self, organization_id: str, user_id: str) -> Member | None:
        """Return the membership of a user in an organization, or ``None``. At most two reads."""
        return await self._collection.find_by_unique(self._pair, (organization_id, user_id))

    async def update_role(self, id: str, /, role: str) -> Member:  # noqa: A002
        """Set the role of a member: one role, or several separated by commas.

        Raises:
            MemberNotFound: the membership does not exist.
            InvalidInput: the role is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        return await self._collection.update(id, {"role": role})

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete a membership. Does nothing if it does not exist."""
        await self._collection.delete(id)

    async def list_for_organization(self, organization_id: str, /) -> list[Member]:
        """Return the memberships of an organization, oldest first. One read, and one for each membership."""
        return await self._collection.list_by_index("organization", organization_id, oldest_first=True)

    async def count(self, organization_id: str, /) -> int:
        """Return the number of members of an organization. It reads each membership, like `list_for_organization`."""
        return len(await self.list_for_organization(organization_id))

    async def count_owners(self, organization_id: str, /) -> int:
        """Return the number of members with the role ``owner``, alone or among other roles. It reads each membership."""
        return sum(OWNER in member.roles for member in await self.list_for_organization(organization_id))
