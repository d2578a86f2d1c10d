"""Sessions (sections A.2 and B.2 of the model)."""

from __future__ import annotations

from datetime import datetime

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.expiry import sweep
from allsource_auth.engine.repository import Repository
from allsource_auth.entities import Session
from allsource_auth.ids import uuid_text
from allsource_auth.kinds import SESSION

__all__ = ["Sessions"]


class Sessions(Repository[Session]):
    """The sessions of one tenant. Their key is the token. A removal is final."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, SESSION))

    async def create(
        self,
        *,
        user_id: str,
        expires_at: datetime,
        ip_address: str | None = None,
        user_agent: str | None = None,
        impersonated_by: str | None = None,
        active_organization_id: str | None = None,
        token: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Session:
        """Sign a user in. A token of 256 random bits is made unless one is given. The user is not looked at.

        Raises `Conflict` for a given token that exists or existed; `InvalidInput`.
        """
        given = {
            "id": uuid_text() if id is None else id,
            "user_id": user_id,
            "expires_at": expires_at,
            "ip_address": ip_address,
            "user_agent": user_agent,
            "impersonated_by": impersonated_by,
            "active_organization_id": active_organization_id,
        }
        return await self._collection.create(given, key=token)

    async def list_for_user(self, user_id: str) -> list[Session]:
        """The sessions of a user, newest first; expired ones that were not swept yet are among them."""
        return await self._collection.list_by_index("user", user_id)

    async def update_expiry(self, token: str, /, expires_at: datetime) -> Session:
        """Move the expiry of a session. Raises `SessionNotFound`, `InvalidInput`."""
        return await self._collection.update(token, {"expires_at": expires_at}, verb="expiry_updated")

    async def set_active_organization(self, token: str, /, organization_id: str | None) -> Session:
        """Set the organization that a session acts for; ``None`` clears it. Raises `SessionNotFound`, `InvalidInput`."""
        return await self._collection.update(token, {"active_organization_id": organization_id})

    async def delete(self, token: str, /) -> None:
        """Revoke a session, for good. A missing one stays missing."""
        await self._collection.delete(token)

    async def delete_for_user(self, user_id: str) -> int:
        """Revoke all sessions of a user; how many this call revoked."""
        return await self._collection.delete_by_index(SESSION.indexes[0], user_id)

    async def delete_expired(self, *, limit: int | None = None) -> int:
        """Remove expired sessions, at most ``limit``; how many this call removed.

        Reads the events since the oldest session that was alive at the last sweep, in pages. Can run in several processes
        at once, and can be interrupted.
        """
        return await sweep(self._collection, limit=limit)
