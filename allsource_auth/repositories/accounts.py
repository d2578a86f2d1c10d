"""Accounts: passwords, and accounts at identity providers."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Account
from allsource_auth.kinds import ACCOUNT

__all__ = ["Accounts"]


class Accounts(RestorableRepository[Account]):
    """The accounts of a tenant, by id. Deleting a user deletes its accounts."""

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
        """Create an account. It is not checked that the user exists.

        Args:
            user_id: id of the user.
            provider_id: name of the provider; ``credential`` for passwords.
            account_id: id of the user at the provider. For passwords, the id of the user here.
            access_token: token of the provider.
            refresh_token: token of the provider.
            id_token: token of the provider.
            access_token_expires_at: a timezone-aware time.
            refresh_token_expires_at: a timezone-aware time.
            scope: the scopes that the provider has granted.
            password: a password hash.
            id: the id; by default a random one.

        Raises:
            Conflict: an account with this provider and account id, or with this id, exists.
            InvalidInput: a value is invalid.
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
        """Return the account with this provider and account id, or ``None`` if there is none or its user was deleted.

        At most three reads.
        """
        return await self._collection.authenticate_by_unique(self._provider_account, (provider_id, account_id))

    async def list_for_user(self, user_id: str, /) -> list[Account]:
        """Return the accounts of a user, newest first. One read, and one for each account."""
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
        """Change fields of an account, and set ``updated_at`` even if no field is given.

        Updates are partial: omitted fields are unchanged, ``None`` clears a field. `create` describes the fields.

        Raises:
            AccountNotFound: the account does not exist.
            InvalidInput: a value is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
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
        """Delete an account, even if it is the last one of its user. Does nothing if it does not exist."""
        await self._collection.delete(id)
