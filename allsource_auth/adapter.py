"""`AllsourceAuthAdapter`, the entry point of the library: a store with its repositories."""

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
    """An authentication store: ten repositories on one event store.

    The constructor uses an Allsource over HTTP. `embedded` uses a SQLite file, `from_env` reads the settings from environment
    variables, and `with_store` uses any `EventStore`.

    The store is opened on first use, so an adapter can be created outside a running event loop. Close it with ``async with`` or
    `aclose`. All tasks of an event loop can share one adapter, and one event loop after another can use it. Over HTTP, several
    event loops can use it at the same time, in threads; embedded, that raises `WrongLoop`. A closed one raises `StoreClosed`.

    Args:
        core_url: URL of Core, such as ``http://localhost:3900``. Writes, and the reads they depend on, go there.
        query_url: URL of a Query Service for the other reads, or several URLs, which are used round-robin. A URL that fails is
            skipped for 1 to 30 seconds. Core answers if all of them fail. Without the option, Core serves all reads.
        api_key: sent as ``X-API-Key`` with each request to Core and the Query Services.
        tenant_id: the tenant whose data is read and written: 1 to 64 letters, digits, ``-`` and ``_``.
        clock: returns the current time as a timezone-aware datetime. Expiry is compared with it.
        **options: timeouts, TLS, request queue and read consistency, see `ConnectionOptions`.

    Raises:
        InvalidInput: an option is invalid; the error names it.
        TypeError: an option is unknown.
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
        """Create an adapter on an embedded SQLite file, or in memory.

        Several processes can use one file. It must be on a local disk.

        Args:
            path: the file, which is created with mode 0600 if it does not exist. Without a path the data is in memory.
            tenant_id: the tenant whose data is read and written: 1 to 64 letters, digits, ``-`` and ``_``.
            durability: with ``"full"`` acknowledged writes survive a power failure, with ``"normal"`` a crash of the process.
            clock: returns the current time as a timezone-aware datetime. It dates the events, and expiry is compared with it.

        Raises:
            InvalidInput: an option is invalid; the error names it. A file that cannot be used raises `Storage` on first use.
        """
        now = config.clock(clock) if clock is not None else None
        clock_ns = time.time_ns if now is None else lambda: nanoseconds(values.instant("clock", now()))
        log = SqliteLog(config.path(path), durability=config.durability(durability), clock_ns=clock_ns)
        return cls.with_store(SqliteStore(log, config.tenant_id(tenant_id)), clock=now)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Create an adapter from environment variables.

        If ``ALLSOURCE_CORE_URL`` is set, the store is an Allsource; ``ALLSOURCE_QUERY_URL`` (several URLs are separated by
        commas) and ``ALLSOURCE_API_KEY`` are optional. Otherwise the store is the file ``ALLSOURCE_EMBEDDED_PATH``.
        ``ALLSOURCE_TENANT`` is the tenant, ``default`` by default. An empty variable counts as unset.

        Args:
            environment: the variables, by default those of the process.

        Raises:
            InvalidInput: a variable is invalid, or neither a URL nor a file is set. The error names the variable.
        """
        found = config.Environment(os.environ if environment is None else environment)
        if found.core_url is None:
            return cls.embedded(found.path, tenant_id=found.tenant_id)
        return cls(found.core_url, found.query_url, found.api_key, tenant_id=found.tenant_id)

    @classmethod
    def with_store(cls, store: EventStore, *, clock: config.Clock | None = None) -> Self:
        """Create an adapter on an existing store.

        Args:
            store: the store. Closing the adapter closes it.
            clock: returns the current time as a timezone-aware datetime. Expiry is compared with it.

        Raises:
            InvalidInput: ``clock`` does not return a timezone-aware datetime.
        """
        adapter = cls.__new__(cls)
        adapter._assemble(store, clock)
        return adapter

    @property
    def http(self) -> httpx.AsyncClient:
        """An HTTP client on the connection pool of the store, for requests of the application.

        Relative URLs refer to Core. The API key is not added to requests. The client is closed with the adapter. If the option
        ``http_client`` was given, it is that client, and the caller closes it.

        Raises:
            InvalidInput: the store is not an Allsource over HTTP.
        """
        if not isinstance(self._store, AllsourceStore):
            raise InvalidInput("http", "the store of this adapter does not use HTTP")
        return self._store.http

    async def info(self) -> Info:
        """Return information about the store: its location, the HTTP engine, the server and its version.

        Over HTTP, it asks Core for its health and version.

        Raises:
            Http: the server cannot be reached.
            Api: the server replied with an error status.
        """
        return await self._store.info()

    def transaction(self) -> Transaction:
        """Begin a transaction: several mutations that are stored together or not at all.

        ``async with adapter.transaction() as tx`` gives the ten repositories of ``tx``. Reads inside the block see the writes
        of the block. All writes are sent in one append at the end of the block. With SQLite, other readers see all of them at
        once. With Allsource, they can see the events one after another. `Transaction` describes the exceptions.
        """
        return Transaction(self.context)

    async def load_session(self, token: str, /) -> SessionWithUser | None:
        """Return the session with this token and its user, or ``None`` if the token is not valid now.

        A token is not valid if the session does not exist, was deleted or is expired, or if the user does not exist, was
        deleted or is banned (permanently, or until a time in the future).

        Both reads are current. With SQLite they are one statement. With Allsource they are sent one after the other the first
        time, and at the same time for a session that this adapter has loaded before.

        Args:
            token: the token of the session.

        Raises:
            Json: the state of the session or of the user cannot be decoded.
        """
        return await load_session(self.context, token)

    async def reindex(self, *, progress: Callable[[str, int], None] | None = None) -> Reindexed:
        """Write missing claims and index entries, for entities that other programs have stored.

        The Rust crate, for example, writes neither. Such entities are found by key only, not by unique value or index.
        Each living entity gets a claim for each unique value and an entry in each index, where one is missing. If several
        living entities have the same unique value, the oldest (by time of creation, then by id) gets the claim, and all of
        them are reported. Events that cannot be decoded are reported. Nothing is deleted.

        It can run while the store is in use, in several processes, can be interrupted, and is idempotent. Entities that other
        programs write later need another run. It reads every living entity; do not call it while serving a request.

        Args:
            progress: called after each page, with the name of a kind and the number of its entities that are done.

        Returns:
            What was written and what was found, see `Reindexed`.

        Raises:
            AllsourceAuthError: a read or a write of the store failed.
        """
        return await reindex(self.context, progress)

    async def check(self, *, repair: bool = False, progress: Callable[[str, int], None] | None = None) -> Checked:
        """Check the consistency of the store, and optionally repair it. `Finding` lists the problems that are detected.

        A consistent store has no findings and is not written to. A claim or an index entry of a mutation that may still be in
        progress is not a finding. It can run while the store is in use, and can be interrupted. A deletion in progress may be
        reported as an unfinished cascade; repairing that is harmless. It reads every event, and each entity several times; do
        not call it while serving a request.

        Args:
            repair: repair the problems that need no decision: write missing claims and index entries, release claims without an
                owner, remove index entries without an entity, complete cascades and transactions. Duplicates, and events that
                cannot be decoded, are only reported.
            progress: called after each page, with ``"events"``, ``"entities"`` or ``"index streams"`` and the number of them
                that are done.

        Returns:
            The findings, and how much was read, see `Checked`.

        Raises:
            AllsourceAuthError: a read or a write of the store failed.
        """
        return await check(self.context, repair=repair, progress=progress)

    async def upgrade(self, *, dry_run: bool = False) -> Upgraded:
        """Raise the event format of the store to the newest one that this version writes.

        Call it only when no process of an older version uses the store. Such a process stops writing within a minute, but could
        misinterpret newer events until then. A store with the newest format is not changed. The file format of an embedded file
        is upgraded when the file is opened.

        Args:
            dry_run: only report the formats, and write nothing.

        Returns:
            The event format before and after the upgrade.

        Raises:
            InvalidInput: the store has a newer format, or a setting that this version does not know.
        """
        settings = self.context.streams.settings
        assert settings is not None
        before, after = await settings.upgrade(dry_run=dry_run)
        return Upgraded(before=before, after=after)

    async def aclose(self) -> None:
        """Close the store and its connections. Closing twice does nothing.

        Waits for writes that were accepted and for HTTP requests that were sent. Requests that are still queued raise
        `StoreClosed`.
        """
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AllsourceAuthAdapter({self._store!r})"
