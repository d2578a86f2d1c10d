"""``AllsourceAuthAdapter``: the way in. It opens a store and holds the repositories."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

from . import config, values
from .entities import SessionWithUser
from .repositories.base import Core
from .repositories.sessions import Sessions
from .repositories.settings import Settings
from .repositories.streams import Streams
from .repositories.users import Users
from .store.base import EventStore
from .store.sqlite import SqliteLog, SqliteStore
from .wire import nanoseconds

__all__ = ["AllsourceAuthAdapter"]


class AllsourceAuthAdapter:
    """An authentication store: ``users`` and ``sessions``, on one event store.

    Build one with `embedded`, `from_env` or `with_store`; it opens on first use and is closed by ``async with`` or
    `aclose`. It may be shared by all tasks of an event loop. Used after closing, it raises `StoreClosed`.
    """

    users: Users
    sessions: Sessions

    def __init__(self, store: EventStore, *, clock: config.Clock = config.utc_now) -> None:
        self._store = store
        core = Core(Streams(store, Settings()), config.clock(clock))
        self._core = core
        self.users = Users(core)
        self.sessions = Sessions(core)

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
        return cls(SqliteStore(log, config.tenant_id(tenant_id)), clock=now or config.utc_now)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The store that the environment names: ``ALLSOURCE_EMBEDDED_PATH``, and ``ALLSOURCE_TENANT`` (default ``default``).

        Raises `InvalidInput` naming the variable.
        """
        found = config.Environment(os.environ if environment is None else environment)
        return cls.embedded(found.path, tenant_id=found.tenant_id)

    @classmethod
    def with_store(cls, store: EventStore, *, clock: config.Clock | None = None) -> Self:
        """An adapter on any `EventStore`; closing the adapter closes the store."""
        return cls(store, clock=clock or config.utc_now)

    async def load_session(self, token: str) -> SessionWithUser | None:
        """The session with this token and its user, if the session authenticates now, else ``None``.

        It does not when it is missing, revoked or expired, or when its user is missing, deleted or banned (for ever, or
        until a time that has not come). Two reads.
        """
        session = await self.sessions.get(token)
        if session is None or session.expires_at <= self._core.now():
            return None
        user = await self.users.get(session.user_id)
        if user is None or (user.banned and not self._is_over(user.ban_expires)):
            return None
        return SessionWithUser(session=session, user=user)

    def _is_over(self, end: datetime | None) -> bool:
        return end is not None and end <= self._core.now()

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
