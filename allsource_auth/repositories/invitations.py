"""Invitations to organizations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth import values
from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Invitation, InvitationStatus
from allsource_auth.errors import Conflict
from allsource_auth.kinds import INVITATION

__all__ = ["Invitations"]


class Invitations(RestorableRepository[Invitation]):
    """The invitations of a tenant, by id.

    Deleting an organization deletes its invitations; deleting a user deletes the invitations that it sent. Emails are compared
    ignoring case. An invitation is expired when ``expires_at <= now`` by the clock of the adapter.
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
        """Create a pending invitation. Several invitations can have the same email.

        It is not checked that the organization and the inviter exist.

        Args:
            organization_id: id of the organization.
            email: email address of the invited person.
            inviter_id: id of the user who sends the invitation.
            expires_at: a timezone-aware time.
            role: the role that the member will have.
            id: the id; by default a random one.

        Raises:
            Conflict: an invitation with this id exists.
            InvalidInput: a value is invalid.
        """
        given = {
            "organization_id": organization_id,
            "email": email,
            "inviter_id": inviter_id,
            "expires_at": expires_at,
            "role": role,
        }
        return await self._collection.create(given, key=id)

    async def find_pending(self, organization_id: str, email: str) -> Invitation | None:
        """Return the newest pending, unexpired invitation of an email to an organization, or ``None``."""
        values.string("organization_id", organization_id)
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
        """Set the status of an invitation. The expiry is not checked.

        Args:
            id: the invitation.
            status: the new status.
            expected: change the status only if it has this value now. Of concurrent callers that accept and cancel the same
                invitation with ``expected="pending"``, exactly one succeeds.

        Raises:
            Conflict: the status differs from ``expected``.
            InvitationNotFound: the invitation does not exist.
            InvalidInput: a status is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        if expected is not UNSET:
            self._collection.kind.checks["status"]("expected", expected)
        given = self._collection.kind.checked({"status": status})

        def decide(before: Invitation) -> Mapping[str, Any]:
            if expected is not UNSET and before.status != expected:
                raise Conflict(self._collection.kind.name, "status", changed=True)
            return given

        return await self._collection.change(id, decide, state_dependent=expected is not UNSET)

    async def list_for_organization(self, organization_id: str, /) -> list[Invitation]:
        """Return all invitations to an organization, of any status, newest first. One read, and one for each invitation."""
        return await self._collection.list_by_index("organization", organization_id)

    async def list_for_email(self, email: str) -> list[Invitation]:
        """Return the pending, unexpired invitations of an email, newest first. One read, and one for each invitation."""
        now = self._collection.context.now()
        return [
            invitation
            for invitation in await self._collection.list_by_index("email", email)
            if invitation.status == "pending" and invitation.expires_at > now
        ]
