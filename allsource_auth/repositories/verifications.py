"""Verifications: values that prove something once (sections A.4 and B.4 of the model)."""

from __future__ import annotations

from datetime import datetime
from hmac import compare_digest

from allsource_auth.engine.collection import Collection, EngineContext
from allsource_auth.engine.expiry import sweep
from allsource_auth.engine.repository import Repository
from allsource_auth.entities import Verification
from allsource_auth.errors import InvalidInput
from allsource_auth.kinds import VERIFICATION

__all__ = ["Verifications"]


class Verifications(Repository[Verification]):
    """The verifications of one tenant. Their key is the id. A removal is final.

    Several may have one identifier, or one value; the newest one that has not expired is found. Expired means
    ``expires_at <= now`` by the adapter's clock.
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
        """Keep a value until it is consumed or expires. Older ones with the identifier stay.

        Raises `Conflict` for a given id that exists or existed; `InvalidInput`.
        """
        return await self._collection.create(
            {"identifier": identifier, "value": value, "expires_at": expires_at}, key=id
        )

    async def find(self, identifier: str, value: str) -> Verification | None:
        """The newest unexpired verification with this identifier and value. One read of a list, one for each in it."""
        return next(iter(await self._live(identifier, value)), None)

    async def get_by_value(self, value: str) -> Verification | None:
        """The newest unexpired verification with this value."""
        return self._newest_live(await self._collection.list_by_index("value", value))

    async def get_by_identifier(self, identifier: str) -> Verification | None:
        """The newest unexpired verification with this identifier."""
        return self._newest_live(await self._collection.list_by_index("identifier", identifier))

    async def consume(self, identifier: str, value: str) -> Verification | None:
        """Take the newest unexpired verification with this identifier and value, for good; ``None`` if there is none.

        Of any number of concurrent callers, in any number of processes, each verification is taken by one.
        """
        for found in await self._live(identifier, value):
            taken = await self._collection.remove(found.id, verb="consumed", only_if=self._is_live)
            if taken is not None:
                return taken
        return None

    async def delete(self, id: str, /) -> None:  # noqa: A002
        """Remove a verification, for good. A missing one stays missing."""
        await self._collection.delete(id)

    async def delete_expired(self, *, limit: int | None = None) -> int:
        """Remove expired verifications, at most ``limit``; how many this call removed.

        Reads the events since the oldest verification that was alive at the last sweep, in pages. Can run in several
        processes at once, and can be interrupted.
        """
        return await sweep(self._collection, limit=limit)

    async def _live(self, identifier: str, value: str) -> list[Verification]:
        """The unexpired ones with this identifier and value, newest first."""
        index = await self._collection.list_by_index("identifier", identifier)
        if not isinstance(value, str):
            raise InvalidInput("value", f"must be text, not {type(value).__name__}")
        wanted = value.encode(errors="surrogatepass")
        return [found for found in index if self._is_live(found) and compare_digest(found.value.encode(), wanted)]

    def _newest_live(self, newest_first: list[Verification]) -> Verification | None:
        return next(filter(self._is_live, newest_first), None)

    def _is_live(self, verification: Verification) -> bool:
        return verification.expires_at > self._collection.context.now()
