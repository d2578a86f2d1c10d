"""Second factors (sections A.8 and B.8 of the model)."""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth import values
from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import TwoFactor
from allsource_auth.errors import Conflict, TwoFactorNotFound
from allsource_auth.kinds import TWO_FACTOR

__all__ = ["TwoFactors"]


class TwoFactors(RestorableRepository[TwoFactor]):
    """The second factors of one tenant, at most one for each user. Their key is the id. Deleting the user deletes it.

    ``User.two_factor_enabled`` is the caller's business.
    """

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, TWO_FACTOR))
        (self._user,) = TWO_FACTOR.unique

    async def create(
        self,
        *,
        user_id: str,
        secret: str,
        backup_codes: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> TwoFactor:
        """Give a user a second factor. The user is not looked at. Raises `Conflict` if it has one; `InvalidInput`."""
        return await self._collection.create(
            {"user_id": user_id, "secret": secret, "backup_codes": backup_codes}, key=id
        )

    async def get_by_user(self, user_id: str) -> TwoFactor | None:
        """The second factor of a user; at most two reads."""
        return await self._collection.find_by_unique(self._user, (user_id,))

    async def update_backup_codes(
        self, user_id: str, /, backup_codes: str | None, *, expected: str | UnsetType | None = UNSET
    ) -> TwoFactor:
        """Replace the backup codes of a user.

        With ``expected`` only if these are the codes now, else `Conflict`: of those who use one code at once, one wins.
        Raises `TwoFactorNotFound`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
        """
        if expected is not UNSET and expected is not None:
            values.text("expected", expected)
        given = self._collection.kind.checked({"backup_codes": backup_codes})

        def wish(before: TwoFactor) -> Mapping[str, Any]:
            if expected is not UNSET and not _same(before.backup_codes, expected):
                raise Conflict(self._collection.kind.name, "backup_codes", changed=True)
            return given

        while True:
            found = await self._collection.find_by_unique(self._user, (user_id,), require_leader=True)
            if found is None:
                raise self._collection.kind.not_found
            try:
                return await self._collection.change(found.id, wish, state_dependent=expected is not UNSET)
            except TwoFactorNotFound:
                continue  # it was removed just now; perhaps the user has another one

    async def delete_for_user(self, user_id: str, /) -> None:
        """Take a user's second factor away. A missing one stays missing."""
        found = await self._collection.find_by_unique(self._user, (user_id,), require_leader=True)
        if found is not None:
            await self._collection.delete(found.id)


def _same(codes: str | None, expected: str | None) -> bool:
    if codes is None or expected is None:
        return codes is expected
    return compare_digest(codes.encode(), expected.encode())
