"""Accounts: the ways in which users sign in (sections A.3 and B.3 of the model)."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Account
from allsource_auth.kinds import ACCOUNT

__all__ = ["Accounts"]


class Accounts(RestorableRepository[Account]):
    """The accounts of one tenant. Their key is the id. Deleting a user deletes its accounts."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, ACCOUNT))
        (self._provider_account,) = ACCOUNT.unique

    async def create(
        self,
        *,
        user_id: str,
        provider_id: str,
        account_id: str,
        access_token: str | None = None,
        refresh_token: str | None = None,
        id_token: str | None = None,
        access_token_expires_at: datetime | None = None,
        refresh_token_expires_at: datetime | None = None,
        scope: str | None = None,
        password: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Account:
        """Give a user a way to sign in. The user is not looked at; ``password`` is a hash.

        Raises `Conflict` if a living account has this provider and account id; `InvalidInput`.
        """
        given = {
            "user_id": user_id,
            "provider_id": provider_id,
            "account_id": account_id,
            "access_token": access_token,
            "refresh_token": refresh_token,
            "id_token": id_token,
            "access_token_expires_at": access_token_expires_at,
            "refresh_token_expires_at": refresh_token_expires_at,
            "scope": scope,
            "password": password,
        }
        return await self._collection.create(given, key=id)

    async def get_by_provider(self, provider_id: str, account_id: str) -> Account | None:
        """The account that a provider knows by this id, or ``None``; also where its user was deleted. At most three reads."""
        return await self._collection.authenticate_by_unique(self._provider_account, (provider_id, account_id))

    async def list_for_user(self, user_id: str) -> list[Account]:
        """The accounts of a user, newest first."""
        return await self._collection.list_by_index("user", user_id)

    async def update(
        self,
        id: str,  # noqa: A002
        /,
        *,
        access_token: str | UnsetType | None = UNSET,
        refresh_token: str | UnsetType | None = UNSET,
        id_token: str | UnsetType | None = UNSET,
        access_token_expires_at: datetime | UnsetType | None = UNSET,
        refresh_token_expires_at: datetime | UnsetType | None = UNSET,
        scope: str | UnsetType | None = UNSET,
        password: str | UnsetType | None = UNSET,
    ) -> Account:
        """Change the given fields; ``None`` clears one. ``updated_at`` moves even if none is given (section B.3).

        Raises `AccountNotFound`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
        """
        given = {
            "access_token": access_token,
            "refresh_token": refresh_token,
            "id_token": id_token,
            "access_token_expires_at": access_token_expires_at,
            "refresh_token_expires_at": refresh_token_expires_at,
            "scope": scope,
            "password": password,
        }
        return await self._collection.update(id, given, empty_counts=True)

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Take a way to sign in away, were it the user's last one. A missing one stays missing."""
        await self._collection.delete(id)
