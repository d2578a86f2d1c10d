"""Members of organizations (sections A.6 and B.6 of the model)."""

from __future__ import annotations

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Member
from allsource_auth.kinds import MEMBER

__all__ = ["Members"]

OWNER = "owner"


class Members(RestorableRepository[Member]):
    """The memberships of one tenant. Their key is the id. Deleting the organization or the user deletes them."""

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
        """Make a user a member. Neither the user nor the organization is looked at; ``role`` may name several with commas.

        Raises `Conflict` if the user is a member already; `InvalidInput`.
        """
        return await self._collection.create(
            {"organization_id": organization_id, "user_id": user_id, "role": role}, key=id
        )

    async def find(self, organization_id: str, user_id: str) -> Member | None:
        """The membership of a user in an organization; at most two reads."""
        return await self._collection.find_by_unique(self._pair, (organization_id, user_id))

    async def update_role(self, id: str, /, role: str) -> Member:  # noqa: A002
        """Set the role. Raises `MemberNotFound`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds."""
        return await self._collection.update(id, {"role": role})

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """End a membership. A missing one stays missing."""
        await self._collection.delete(id)

    async def list_for_organization(self, organization_id: str) -> list[Member]:
        """The members of an organization, oldest first; one read for each."""
        return await self._collection.list_by_index("organization", organization_id, oldest_first=True)

    async def count(self, organization_id: str) -> int:
        """How many members an organization has; costs what listing them costs, since each is looked at."""
        return len(await self.list_for_organization(organization_id))

    async def count_owners(self, organization_id: str) -> int:
        """How many members have the role ``owner``, alone or among others (section B.6); costs what listing them costs."""
        return sum(OWNER in member.roles for member in await self.list_for_organization(organization_id))
