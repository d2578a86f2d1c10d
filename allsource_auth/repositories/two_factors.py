"""Second factors of users."""

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
    """The second factors of a tenant, by id; at most one for each user. Deleting a user deletes its second factor.

    The attribute ``two_factor_enabled`` of the user is not changed; the application sets it.
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
        """Create the second factor of a user. It is not checked that the user exists.

        Args:
            user_id: id of the user.
            secret: the shared secret, for example of TOTP.
            backup_codes: the backup codes, as text in a format of the application.
            id: the id; by default a random one.

        Raises:
            Conflict: the user has a second factor, or one with this id exists.
            InvalidInput: a value is invalid.
        """
        return await self._collection.create(
            {"user_id": user_id, "secret": secret, "backup_codes": backup_codes}, key=id
        )

    async def get_by_user(self, user_id: str, /) -> TwoFactor | None:
        """Return the second factor of a user, or ``None``. At most two reads."""
        return await self._collection.find_by_unique(self._user, (user_id,))

    async def update_backup_codes(
        self, user_id: str, /, backup_codes: str | None, *, expected: str | UnsetType | None = UNSET
    ) -> TwoFactor:
        """Replace the backup codes of a user.

        Args:
            user_id: id of the user.
            backup_codes: the new codes; ``None`` clears them.
            expected: replace the codes only if they have this value now. Of concurrent callers that use the same code, exactly
                one succeeds.

        Raises:
            Conflict: the codes differ from ``expected``.
            TwoFactorNotFound: the user has no second factor.
            InvalidInput: a value is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        if expected is not UNSET and expected is not None:
            values.text("expected", expected)
        given = self._collection.kind.checked({"backup_codes": backup_codes})

        def decide(before: TwoFactor) -> Mapping[str, Any]:
            if expected is not UNSET and not _same(before.backup_codes, expected):
                raise Conflict(self._collection.kind.name, "backup_codes", changed=True)
            return given

        while True:
            found = await self._collection.find_by_unique(self._user, (user_id,), require_leader=True)
            if found is None:
                raise self._collection.kind.not_found
            try:
                return await self._collection.change(found.id, decide, state_dependent=expected is not UNSET)
            except TwoFactorNotFound:
                continue  # deleted after it was read; the user may have a new one

    async def delete_for_user(self, user_id: str, /) -> None:
        """Delete the second factor of a user. Does nothing if the user has none."""
        found = await self._collection.find_by_unique(self._user, (user_id,), require_leader=True)
        if found is not None:
            await self._collection.delete(found.id)


def _same(codes: str | None, expected: str | None) -> bool:
    """Compare codes in constant time."""
    if codes is None or expected is None:
        return codes is expected
    return compare_digest(codes.encode(), expected.encode())
