"""``AllsourceAuthAdapter``: the way in. It opens a store and holds the repositories."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from allsource_auth import config, values
from allsource_auth.codec import nanoseconds
from allsource_auth.engine.collection import EngineContext, delete_orphan
from allsource_auth.engine.context import Context
from allsource_auth.engine.store_settings import Settings
from allsource_auth.engine.streams import Streams
from allsource_auth.entities import SessionWithUser
from allsource_auth.errors import InvalidInput
from allsource_auth.maintenance.check import check
from allsource_auth.maintenance.findings import Checked, Reindexed, Upgraded
from allsource_auth.maintenance.reindex import reindex
from allsource_auth.repositories import Repositories
from allsource_auth.repositories.load_session import load_session
from allsource_auth.store.allsource.store import AllsourceStore
from allsource_auth.store.base import EventStore, Info
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from allsource_auth.transactions.transaction import Transaction

if TYPE_CHECKING:
    import httpx

__all__ = ["AllsourceAuthAdapter"]


class AllsourceAuthAdapter(Repositories):
    """An authentication store: ten repositories on one event store: an Allsource over HTTP, or a SQLite file.

    It opens on first use, so building one outside a running event loop is fine, and is closed by ``async with`` or `aclose`.
    It may be shared by all tasks of an event loop. Used after closing, it raises `StoreClosed`.

    Args:
        core_url: the Core, ``http://localhost:3900``.
        query_url: the Query Service for plain reads, by default the Core; or several, which take turns. One that fails is left
            out for 1 to 30 s, and the Core answers when none is left.
        api_key: travels as ``X-API-Key`` to all of them.
        tenant_id: whose users these are: letters, digits, ``-`` and ``_``.
        clock: returns the current time as a timezone-aware datetime. Expiry is compared with it.
        options: `ConnectionOptions`: time limits, TLS, a client of your own, the sizes of the request queue, read consistency.

    Raises `InvalidInput` naming the option. `embedded` needs no server; `from_env` and `with_store` are further ways.
    """

    def __init__(
        self,
        core_url: str,
        query_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        *,
        tenant_id: str = "default",
        clock: config.Clock | None = None,
        **options: Unpack[config.ConnectionOptions],
    ) -> None:
        store = AllsourceStore(core_url, query_url, api_key, tenant_id=tenant_id, **options)
        self._assemble(store, clock)

    def _assemble(self, store: EventStore, clock: config.Clock | None) -> None:
        self._store = store
        context: EngineContext = Context(
            Streams(store, Settings()), config.utc_now if clock is None else config.clock(clock), delete_orphan
        )
        self._open(context)

    @classmethod
    def embedded(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        tenant_id: str = "default",
        durability: config.Durability = "full",
        clock: config.Clock | None = None,
    ) -> Self:
        """A store in the file ``path``, which is made if it is missing (mode 0600); without a path in memory.

        ``durability``: with ``full`` an acknowledged write survives a power cut, with ``normal`` a crash of the process.
        ``clock`` returns the present as an aware datetime: what expiry is held against, and what dates the events.
        Several processes may use one file. Raises `InvalidInput` naming the option; `Storage` on first use.
        """
        now = config.clock(clock) if clock is not None else None
        clock_ns = time.time_ns if now is None else lambda: nanoseconds(values.instant("clock", now()))
        log = SqliteLog(config.path(path), durability=config.durability(durability), clock_ns=clock_ns)
        return cls.with_store(SqliteStore(log, config.tenant_id(tenant_id)), clock=now)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The store that the environment names.

        ``ALLSOURCE_CORE_URL``, and with it ``ALLSOURCE_QUERY_URL`` (several: separated by commas) and
        ``ALLSOURCE_API_KEY``; without a URL the file ``ALLSOURCE_EMBEDDED_PATH``. ``ALLSOURCE_TENANT`` (default
        ``default``) for both. Raises `InvalidInput` naming the variable.
        """
        found = config.Environment(os.environ if environment is None else environment)
        if found.core_url is None:
            return cls.embedded(found.path, tenant_id=found.tenant_id)
        return cls(found.core_url, found.query_url, found.api_key, tenant_id=found.tenant_id)

    @classmethod
    def with_store(cls, store: EventStore, *, clock: config.Clock | None = None) -> Self:
        """An adapter on any `EventStore`; closing the adapter closes the store."""
        adapter = cls.__new__(cls)
        adapter._assemble(store, clock)
        return adapter

    @property
    def http(self) -> httpx.AsyncClient:
        """The pooled client of a store over HTTP, for requests of your own; your own client if you gave one.

        Relative URLs go to Core; the API key is not added. It is closed with the adapter. Raises `InvalidInput` for another
        store.
        """
        if not isinstance(self._store, AllsourceStore):
            raise InvalidInput("http", "the store of this adapter is not reached over HTTP")
        return self._store.http

    async def info(self) -> Info:
        """What the store is: where it is, which engine sends the requests, which server answers. Raises `Http`, `Api`."""
        return await self._store.info()

    def transaction(self) -> Transaction:
        """Several mutations as one: ``async with adapter.transaction() as tx``, and the ten repositories of ``tx``.

        What is read inside shows what was written inside; it all happens at the end of the block, in one append, or not at
        all. On SQLite everybody sees all of it at once; on Allsource readers may see its events arrive one after another.
        See `Transaction` for what the end of the block raises.
        """
        return Transaction(self.context)

    async def load_session(self, token: str) -> SessionWithUser | None:
        """The session with this token and its user, if the session authenticates now, else ``None``.

        It does not when it is missing, revoked or expired, or when its user is missing, deleted or banned (for ever, or
        until a time that has not come). Two reads, in one statement of SQLite; on Allsource at the same time, from the second
        time on that this adapter is asked for the session. Each of the two is current.
        """
        return await load_session(self.context, token)

    async def reindex(self, *, progress: Callable[[str, int], None] | None = None) -> Reindexed:
        """Make what others wrote searchable, such as the Rust crate, which writes neither claims nor lists.

        Every living entity gets a claim for each of its unique values and an entry in each of its lists, where it lacks one.
        Of several living entities with one value the oldest (by its time of creation, then by id) gets the claim; they are
        reported, and nothing is hidden or deleted. What cannot be decoded is reported and left alone.

        It may run while the store is in use and in several processes, may be interrupted, and may be run again: then it
        writes only what is still missing. What others write after it has looked is not searchable until the next run. It reads
        every living entity, so it belongs off the request path.

        ``progress`` is called after each page, with a kind and how many of its entities are done. Raises what reads and writes
        of the store raise.
        """
        return await reindex(self.context, progress)

    async def check(self, *, repair: bool = False, progress: Callable[[str, int], None] | None = None) -> Checked:
        """Find what is not as it should be: see `Finding` for the problems. A sound store has none, and is not written to.

        ``repair`` puts right what needs no guessing: writes the missing claims and list entries, releases claims that lead to
        nobody, removes list entries that lead nowhere, finishes cascades. Duplicates and events that cannot be decoded are left
        for people. A claim, or a list entry, of a mutation that may be under way is no finding.

        It reads every event, and each entity several times, so it belongs off the request path. It may run while the store is
        in use, and may be interrupted; a deletion that is under way may be found as half a cascade, and repairing
        that is harmless.

        ``progress`` is called after each page, with ``"events"``, ``"entities"`` or ``"index streams"`` and how many of them
        were looked at so far. Raises what reads and writes of the store raise.
        """
        return await check(self.context, repair=repair, progress=progress)

    async def upgrade(self, *, dry_run: bool = False) -> Upgraded:
        """Raise the event format of the store to the newest one that this version writes.

        Only call it when no process of an older version uses the store: such a process stops writing within a minute, but it
        could misjudge newer events until then. A store that has the newest format is not changed. An embedded file is
        brought to the newest file format when it is opened. With ``dry_run`` nothing is written.

        Raises:
            InvalidInput: the store has a newer format, or a setting that this version does not know.
        """
        settings = self.context.streams.settings
        assert settings is not None
        before, after = await settings.upgrade(dry_run=dry_run)
        return Upgraded(before=before, after=after)

    async def aclose(self) -> None:
        """Finish what was accepted and close the store. Closing twice does nothing."""
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AllsourceAuthAdapter({self._store!r})"
