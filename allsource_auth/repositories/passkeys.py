"""Passkeys (sections A.10, B.10 and D.7 of the model)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.repository import RestorableRepository
from allsource_auth.entities import Passkey
from allsource_auth.errors import Conflict
from allsource_auth.kinds import PASSKEY

__all__ = ["Passkeys"]


class Passkeys(RestorableRepository[Passkey]):
    """The passkeys of one tenant. Their key is the id. Deleting the user deletes them."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, PASSKEY))
        (self._credential,) = PASSKEY.unique

    async def create(
        self,
        *,
        user_id: str,
        credential_id: str,
        public_key: str,
        name: str | None = None,
        counter: int = 0,
        device_type: str = "singleDevice",
        backed_up: bool = False,
        transports: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Passkey:
        """Keep a credential. The user is not looked at. Raises `Conflict` if one has this credential id; `InvalidInput`."""
        given = {
            "user_id": user_id,
            "credential_id": credential_id,
            "public_key": public_key,
            "name": name,
            "counter": counter,
            "device_type": device_type,
            "backed_up": backed_up,
            "transports": transports,
        }
        return await self._collection.create(given, key=id)

    async def get_by_credential_id(self, credential_id: str) -> Passkey | None:
        """The passkey with this credential id, or ``None``; also where its user was deleted. At most three reads."""
        return await self._collection.authenticate_by_unique(self._credential, (credential_id,))

    async def list_for_user(self, user_id: str) -> list[Passkey]:
        """The passkeys of a user, newest first."""
        return await self._collection.list_by_index("user", user_id)

    async def update_counter(self, id: str, /, counter: int, *, expected: int | UnsetType = UNSET) -> Passkey:  # noqa: A002
        """Set the authenticator's counter.

        With ``expected`` only if that is the counter now and the new one is larger, or both are 0, as many authenticators
        always say 0 (section D.7); else `Conflict`: of those who present one assertion at once, one wins where counters count.
        Raises `PasskeyNotFound`, `InvalidInput`; `VersionConflict` if others were faster for ten seconds.
        """
        if expected is not UNSET:
            self._collection.kind.checks["counter"]("expected", expected)
        given = self._collection.kind.checked({"counter": counter})

        def wish(before: Passkey) -> Mapping[str, Any]:
            if expected is not UNSET and (
                before.counter != expected or not (counter > expected or counter == expected == 0)
            ):
                raise Conflict(self._collection.kind.name, "counter", changed=True)
            return given

        return await self._collection.change(id, wish, state_dependent=expected is not UNSET)

    async def update_name(self, id: str, /, name: str | None) -> Passkey:  # noqa: A002
        """Set or clear the name. Raises `PasskeyNotFound`, `InvalidInput`, `VersionConflict`."""
        return await self._collection.update(id, {"name": name})

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Remove a passkey; its credential id is free again. A missing one stays missing."""
        await self._collection.delete(id)
