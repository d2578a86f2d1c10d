"""Passkeys: WebAuthn credentials."""

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
    """The passkeys of a tenant, by id. Deleting a user deletes its passkeys."""

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
        """Create a passkey from a registered credential. It is not checked that the user exists.

        Args:
            user_id: id of the user.
            credential_id: the credential id of the authenticator, as text.
            public_key: the public key, as text.
            name: a name for users.
            counter: the signature counter of the authenticator.
            device_type: ``singleDevice`` or ``multiDevice``, as in WebAuthn.
            backed_up: whether the authenticator reports the credential as backed up.
            transports: the transports of the authenticator, separated by commas.
            id: the id; by default a random one.

        Raises:
            Conflict: a passkey with this credential id or id exists.
            InvalidInput: a value is invalid.
        """
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
        """Return the passkey with this credential id, or ``None`` if there is none or its user was deleted.

        At most three reads.
        """
        return await self._collection.authenticate_by_unique(self._credential, (credential_id,))

    async def list_for_user(self, user_id: str, /) -> list[Passkey]:
        """Return the passkeys of a user, newest first. One read, and one for each passkey."""
        return await self._collection.list_by_index("user", user_id)

    async def update_counter(self, id: str, /, counter: int, *, expected: int | UnsetType = UNSET) -> Passkey:  # noqa: A002
        """Set the signature counter after an authentication.

        Args:
            id: the passkey.
            counter: the counter that the authenticator reported.
            expected: change the counter only if it has this value now and ``counter`` is larger. Of concurrent callers that
                present the same assertion, exactly one succeeds. If both are 0, all succeed, because many authenticators do not
                count.

        Raises:
            Conflict: the counter differs from ``expected``, or ``counter`` is not larger.
            PasskeyNotFound: the passkey does not exist.
            InvalidInput: a counter is invalid.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        if expected is not UNSET:
            self._collection.kind.checks["counter"]("expected", expected)
        given = self._collection.kind.checked({"counter": counter})

        def decide(before: Passkey) -> Mapping[str, Any]:
            if expected is not UNSET and (
                before.counter != expected or not (counter > expected or counter == expected == 0)
            ):
                raise Conflict(self._collection.kind.name, "counter", changed=True)
            return given

        return await self._collection.change(id, decide, state_dependent=expected is not UNSET)

    async def update_name(self, id: str, /, name: str | None) -> Passkey:  # noqa: A002
        """Set the name of a passkey; ``None`` clears it.

        Raises:
            PasskeyNotFound: the passkey does not exist.
            InvalidInput: the name is not text.
            VersionConflict: other writers changed the entity for ten seconds. Nothing was written.
        """
        return await self._collection.update(id, {"name": name})

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete a passkey and free its credential id. Does nothing if it does not exist."""
        await self._collection.delete(id)
