"""Verifications: single-use proofs, such as codes sent by email."""

from __future__ import annotations

from datetime import datetime
from hmac import compare_digest

from allsource_auth import values
from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.expiry import sweep
from allsource_auth.engine.repository import Repository
from allsource_auth.entities import Verification
from allsource_auth.kinds import VERIFICATION

__all__ = ["Verifications"]


class Verifications(Repository[Verification]):
    """The verifications of a tenant, by id.

    Several verifications can have the same identifier or value; look-ups return the newest one that is not expired. A
    verification is expired when ``expires_at <= now`` by the clock of the adapter. A deleted or consumed verification cannot be
    restored, and its id cannot be used again.
    """

    def __init__(self, context: EngineContext) -> None:
        super().__init__(Collection(context, VERIFICATION))

    async def create(
        self,
        *,
        identifier: str,
        value: str,
        expires_at: datetime,
        id: str | None = None,  # noqa: A002
    ) -> Verification:
        """Create a verification. Existing ones with the same identifier are kept.

        Args:
            identifier: what is verified, such as an email address.
            value: the value that proves it, such as a code.
            expires_at: a timezone-aware time.
            id: the id; by default a random one.

        Raises:
            Conflict: a verification with this id exists or has existed.
            InvalidInput: a value is invalid.
        """
        return await self._collection.create(
            {"identifier": identifier, "value": value, "expires_at": expires_at}, key=id
        )

    async def find(self, identifier: str, value: str) -> Verification | None:
        """Return the newest unexpired verification with this identifier and value, or ``None``.

        It does not consume the verification. One read, and one for each verification with this identifier.
        """
        return next(iter(await self._live(identifier, value)), None)

    async def get_by_value(self, value: str) -> Verification | None:
        """Return the newest unexpired verification with this value, or ``None``. Costs are those of `find`."""
        return self._newest_live(await self._collection.list_by_index("value", value))

    async def get_by_identifier(self, identifier: str) -> Verification | None:
        """Return the newest unexpired verification with this identifier, or ``None``. Costs are those of `find`."""
        return self._newest_live(await self._collection.list_by_index("identifier", identifier))

    async def consume(self, identifier: str, value: str) -> Verification | None:
        """Consume the newest unexpired verification with this identifier and value, and return it; ``None`` if there is none.

        Verifications are single-use: of any number of concurrent callers, in any number of processes, exactly one consumes it.

        Raises:
            VersionConflict: other writers changed the verification for ten seconds.
        """
        for found in await self._live(identifier, value):
            taken = await self._collection.remove(found.id, verb="consumed", only_if=self._is_live)
            if taken is not None:
                return taken
        return None

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Delete a verification permanently. Does nothing if it does not exist."""
        await self._collection.delete(id)

    async def delete_expired(self, *, limit: int | None = None) -> int:
        """Delete expired verifications.

        It reads the events since the oldest verification that was alive in the previous call, in pages. It can run in
        several processes at the same time, and can be interrupted.

        Args:
            limit: the maximum number of verifications to delete; by default all.

        Returns:
            The number of verifications that this call deleted.

        Raises:
            InvalidInput: ``limit`` is negative or not an integer.
        """
        return await sweep(self._collection, limit=limit)

    async def _live(self, identifier: str, value: str) -> list[Verification]:
        """Return the unexpired verifications with this identifier and value, newest first."""
        index = await self._collection.list_by_index("identifier", identifier)
        wanted = values.string("value", value).encode(errors="surrogatepass")
        return [found for found in index if self._is_live(found) and compare_digest(found.value.encode(), wanted)]

    def _newest_live(self, newest_first: list[Verification]) -> Verification | None:
        return next(filter(self._is_live, newest_first), None)

    def _is_live(self, verification: Verification) -> bool:
        return verification.expires_at > self._collection.context.now()
