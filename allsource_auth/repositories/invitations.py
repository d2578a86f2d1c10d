"""Invitations to organizations (sections A.7 and B.7 of the model)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Invitation, InvitationStatus
from allsource_auth.errors import Conflict, InvalidInput
from allsource_auth.kinds import INVITATION

__all__ = ["Invitations"]


class Invitations(RestorableRepository[Invitation]):
    """The invitations of one tenant. Their key is the id. Deleting the organization or the inviter deletes them.

    Emails are compared ignoring case. Expired means ``expires_at <= now`` by the adapter's clock.
    """

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, INVITATION))

    async def create(
        self,
        *,
        organization_id: str,
        email: str,
        inviter_id: str,
        expires_at: datetime,
        role: str = "member",
        id: str | None = None,  # noqa: A002
    ) -> Invitation:
        """Invite somebody; a person may have several invitations. Raises `Conflict` for an id that is taken; `InvalidInput`."""
        given = {
            "organization_id": organization_id,
            "email": email,
            "inviter_id": inviter_id,
            "expires_at": expires_at,
            "role": role,
        }
        return await self._collection.create(given, key=id)

    async def find_pending(self, organization_id: str, email: str) -> Invitation | None:
        """The newest pending and unexpired invitation of this email to an organization."""
        if not isinstance(organization_id, str):
            raise InvalidInput("organization_id", f"must be text, not {type(organization_id).__name__}")
        found = await self.list_for_email(email)
        return next((invitation for invitation in found if invitation.organization_id == organization_id), None)

    async def update_status(
        self,
        id: str,  # noqa: A002
        /,
        status: InvitationStatus,
        *,
        expected: InvitationStatus | UnsetType = UNSET,
    ) -> Invitation:
        """Set the status: ``pending``, ``accepted``, ``rejected`` or ``canceled``.

        With ``expected`` only if that is the status now, else `Conflict`: of those who accept and cancel at once, one wins.
        Raises `InvitationNotFound`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
        """
        if expected is not UNSET:
            self._collection.kind.checks["status"]("expected", expected)
        given = self._collection.kind.checked({"status": status})

        def wish(before: Invitation) -> Mapping[str, Any]:
            if expected is not UNSET and before.status != expected:
                raise Conflict(self._collection.kind.name, "status", changed=True)
            return given

        return await self._collection.change(id, wish, state_dependent=expected is not UNSET)

    async def list_for_organization(self, organization_id: str) -> list[Invitation]:
        """All invitations to an organization, whatever their status, newest first."""
        return await self._collection.list_by_index("organization", organization_id)

    async def list_for_email(self, email: str) -> list[Invitation]:
        """The pending and unexpired invitations of an email, newest first."""
        now = self._collection.context.now()
        return [
            invitation
            for invitation in await self._collection.list_by_index("email", email)
            if invitation.status == "pending" and invitation.expires_at > now
        ]
