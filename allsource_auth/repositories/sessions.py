"""Sessions of users."""

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
    """The sessions of a tenant, by token. Deleting a user deletes its sessions.

    A deleted session cannot be restored, and its token cannot be used again. To check whether a session is valid, use
    `AllsourceAuthAdapter.load_session`.
    """

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
        """Create a session. It is not checked that the user exists.

        Args:
            user_id: id of the user.
            expires_at: a timezone-aware time.
            ip_address: the IP address of the client.
            user_agent: the user agent of the client.
            impersonated_by: id of the user who acts in the name of the user.
            active_organization_id: id of the organization that the user has selected.
            token: the token; by default one of 256 random bits.
            id: the id; by default a random one. Sessions are looked up by token, not by id.

        Raises:
            Conflict: a session with this token exists or has existed.
            InvalidInput: a value is invalid.
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

    async def list_for_user(self, user_id: str, /) -> list[Session]:
        """Return the sessions of a user, newest first. One read, and one for each session.

        Expired sessions are included until `delete_expired` deletes them.
        """
        return await self._collection.list_by_index("user", user_id)

    async def update_expiry(self, token: str, /, expires_at: datetime) -> Session:
        """Set the expiry of a session, a timezone-aware time.

        Raises:
            SessionNotFound: the session does not exist.
            InvalidInput: the time is naive.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        return await self._collection.update(token, {"expires_at": expires_at}, verb="expiry_updated")

    async def set_active_organization(self, token: str, /, organization_id: str | None) -> Session:
        """Set the id of the organization that the user has selected; ``None`` clears it. It is not checked that it exists.

        Raises:
            SessionNotFound: the session does not exist.
            InvalidInput: the id is not text.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        return await self._collection.update(token, {"active_organization_id": organization_id})

    async def delete(self, token: str, /) -> None:
        """Revoke a session permanently. Does nothing if it does not exist."""
        await self._collection.delete(token)

    async def delete_for_user(self, user_id: str, /) -> int:
        """Revoke all sessions of a user.

        A session that is created at the same time may remain.

        Returns:
            The number of sessions that this call revoked.
        """
        return await self._collection.delete_by_index(SESSION.indexes[0], user_id)

    async def delete_expired(self, *, limit: int | None = None) -> int:
        """Delete expired sessions.

        It reads the events since the oldest session that was alive in the previous call, in pages. It can run in
        several processes at the same time, and can be interrupted.

        Args:
            limit: the maximum number of sessions to delete; by default all.

        Returns:
            The number of sessions that this call deleted.

        Raises:
            InvalidInput: ``limit`` is negative or not an integer.
        """
        return await sweep(self._collection, limit=limit)
