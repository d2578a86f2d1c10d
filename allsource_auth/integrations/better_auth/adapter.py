"""``AllsourceDatabaseAdapter``: the database of a ``BetterAuth`` that keeps everything as events.

It turns what the framework asks for into what the repositories do; see `models` for how models become kinds and `where` for
how they are found. Nothing of it is known below: claims, lists, cascades, transactions and the history are the library's own.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import anyio.to_thread
from better_auth.adapters.base import BaseAdapter, SortBy, Where, check_increment
from better_auth.adapters.transform import Caps
from better_auth.config import AdvancedDatabase
from better_auth.schema import Schema
from better_auth.types import APIError, BetterAuthError
from msgspec import json

from allsource_auth.adapter import AllsourceAuthAdapter
from allsource_auth.engine.collection import Collection, EngineContext, declare
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.repository import Repository, RestorableRepository
from allsource_auth.entities import Entity
from allsource_auth.errors import Conflict, InvalidInput, NotFound, VersionConflict
from allsource_auth.integrations.better_auth.models import TEXTS, Table, tables
from allsource_auth.integrations.better_auth.where import AccessPath, access_path, matcher
from allsource_auth.kinds import VERIFICATION, Kind
from allsource_auth.store.base import Event
from allsource_auth.transactions.transaction import Transaction

__all__ = ["AllsourceDatabaseAdapter", "UniqueViolation"]

_log = logging.getLogger("allsource_auth.integrations.better_auth")

T = TypeVar("T")

NO_INDEXES: Mapping[str, Sequence[str]] = {}

AT_ONCE = 50
"""Events of a scan that are looked at on the event loop; more of them in a worker thread."""

ATTEMPTS = 20
"""Times that a transaction is run, or a step taken, which others keep from happening."""

REFUSED: Mapping[tuple[str, str], tuple[int, str, str | None]] = {
    ("user", "email"): (422, "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL", None),
    ("user", "username"): (400, "USERNAME_IS_ALREADY_TAKEN", "username"),
    ("user", "phone_number"): (400, "PHONE_NUMBER_EXIST", "phone_number"),
    ("organization", "slug"): (400, "ORGANIZATION_ALREADY_EXISTS", "organization"),
}
"""By model and unique value: the status and the code with which the framework itself refuses a value that it finds taken, and
the plugin that has the words for it."""


class UniqueViolation(Conflict, APIError):
    """A unique value is taken: `Conflict` for the application, and for the framework the refusal that it sends itself.

    The framework looks first and writes then. Of several requests at the same time all may find an email free, and all but one
    meet this; with it their clients get the answer of those who come a moment later.
    """

    def __init__(self, model: str, conflict: Conflict) -> None:
        status, code, plugin = REFUSED.get((model, conflict.field), (409, "UNIQUE_CONSTRAINT_VIOLATION", None))
        message = _words(code, plugin) or f"unique constraint: this {conflict.field} of a {model} is taken"
        Exception.__init__(self, message)
        self.kind: str = conflict.kind
        self.field: str = conflict.field
        self.status: int = status
        self.code: str = code
        self.message: str = message
        self.extra: dict[str, Any] | None = None
        self.headers: list[tuple[str, str]] | None = None


def _words(code: str, plugin: str | None) -> str | None:
    """The framework's own words for a refusal."""
    if plugin is not None:
        module = import_module(f"better_auth.plugins_ext.{plugin}")
        found: str | None = getattr(module, "ERROR_CODES", {}).get(code)
        return found
    return "User already exists. Use another email." if code == "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL" else None


class AllsourceDatabaseAdapter(BaseAdapter):
    """The framework's database on an `AllsourceAuthAdapter`: ``BetterAuth(adapter=AllsourceDatabaseAdapter(store))``.

    The store stays yours: its repositories (``store.users``), history and audit context see and cover everything that the
    framework writes, and the framework sees what they write. Close it when the application ends.

    Args:
        store: where everything is kept.
        indexes: fields by which rows are looked up and that are neither unique nor references, by model, such as
            ``{"walletAddress": ["address"]}``. A log entry says which are worth it. For rows that are there already, run
            ``store.reindex()`` once.
        advanced: the framework's options for databases: how ids are made, how many rows `find_many` returns at most.

    Every method raises `InvalidInput` for a model or a field that is not in the schema and for a value that cannot be stored,
    and what reads and writes of the store raise.
    """

    CAPS = Caps(booleans=True, dates=True, json=True, arrays=True)

    def __init__(
        self,
        store: AllsourceAuthAdapter,
        *,
        indexes: Mapping[str, Sequence[str]] = NO_INDEXES,
        advanced: AdvancedDatabase | None = None,
    ) -> None:
        super().__init__(advanced)
        self.store = store
        self._indexes = indexes
        self._tables: dict[str, Table] = {}
        self._told: set[str] = set()
        self._inside: ContextVar[Sequence[Transaction]] = ContextVar("allsource_auth.better_auth", default=())
        """The open transaction, if there is one. A task that outlives it finds it gone, and writes by itself."""

    def init(self, schema: Schema) -> None:
        """Make the kinds of a schema; the framework calls it. Raises `InvalidInput` for what cannot be kept."""
        super().init(schema)
        context = self.store.context
        self._tables |= tables(schema, context.declared, self._indexes)
        for table in self._tables.values():
            declare(context, table.kind)

    async def check_schema(self) -> None:
        """Every schema fits: kinds are declared, not created."""

    def repository(self, model: str) -> Repository[Any]:
        """The repository of a model, for its history, ``as_of``, ``restore`` and ``scan``. The ten are attributes of the store.

        Raises `InvalidInput` for a model that the schema does not have.
        """
        collection = self._collection(self._table(model))
        return RestorableRepository(collection) if collection.kind.restorable else Repository(collection)

    def __repr__(self) -> str:
        return f"AllsourceDatabaseAdapter({self.store!r}, {len(self._tables)} models)"

    # The contract: reading

    async def find_one(
        self, model: str, where: list[Where], *, select: list[str] | None = None
    ) -> dict[str, Any] | None:
        """The row that matches, of several the oldest; ``None`` if there is none."""
        table = self._table(model)
        found = await self._found(table, where)
        return self._shown(model, table.row(found[0]), select) if found else None

    async def find_many(
        self,
        model: str,
        where: list[Where] | None = None,
        *,
        limit: int | None = None,
        sort_by: SortBy | None = None,
        offset: int | None = None,
        select: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """The rows that match, the oldest first unless they are sorted; a null is less than any value.

        ``limit`` is by default the one of ``advanced``. Raises `InvalidInput` for a negative one or a negative ``offset``.
        """
        table = self._table(model)
        first, most = offset or 0, self._limit(limit)
        if first < 0 or most < 0:
            raise InvalidInput("limit" if most < 0 else "offset", "must be at least 0")
        sort = None if sort_by is None else table.column(sort_by["field"]).field
        rows = [table.row(entity) for entity in await self._found(table, where)]
        if sort is not None and sort_by is not None:
            rows.sort(key=lambda row: _place(row[sort]), reverse=sort_by.get("direction") == "desc")
        return [self._shown(model, row, select) for row in rows[first : first + most]]

    async def count(self, model: str, where: list[Where] | None = None) -> int:
        """How many rows match, however many there are."""
        return len(await self._found(self._table(model), where))

    # The contract: writing

    async def create(
        self,
        model: str,
        data: dict[str, Any],
        *,
        select: list[str] | None = None,
        force_allow_id: bool = False,
    ) -> dict[str, Any]:
        """Add a row and return it as it was given, with what the schema adds; an id that is given is kept.

        Raises `UniqueViolation` for an id or a unique value that another row has; `InvalidInput` for a required field that is
        missing.
        """
        table = self._table(model)
        row = self._in(model, data, "create")
        key, given = table.new(row)
        collection = self._collection(table)
        with self._refusing(table):
            entity = await self._decided(lambda: collection.create(given, key=key, reuse_key=True))
        found = {name: value for name, value in table.row(entity).items() if name in row or name == "id"}
        return self._shown(model, found, select)

    async def update(self, model: str, where: list[Where], data: dict[str, Any]) -> dict[str, Any] | None:
        """Change the rows that match; the oldest of them as it is then, ``None`` if there was none or ``where`` is empty."""
        if not where:
            return None
        table = self._table(model)
        changed = await self._change_all(table, where, self._in(model, data, "update"))
        return self._shown(model, table.row(changed[0])) if changed else None

    async def update_many(self, model: str, where: list[Where], data: dict[str, Any]) -> int:
        """Change the rows that match, without conditions all; how many this call changed.

        Each is held against ``where`` in the step that changes it. Several are several steps, outside of a transaction.
        """
        table = self._table(model)
        return len(await self._change_all(table, where, self._in(model, data, "update")))

    async def delete(self, model: str, where: list[Where]) -> None:
        """Delete the row that matches, of several the oldest; nothing if ``where`` is empty."""
        if where:
            await self._remove_one(self._table(model), where)

    async def delete_many(self, model: str, where: list[Where]) -> int:
        """Delete the rows that match, without conditions all, with what belongs to them; how many this call deleted."""
        table = self._table(model)
        found = await self._found(table, where)
        keys = [getattr(entity, table.kind.key) for entity in found]
        return await self._collection(table).delete_where(keys, _entity_test(table, where))

    async def consume_one(self, model: str, where: list[Where]) -> dict[str, Any] | None:
        """Delete one row that matches, and return it; of concurrent callers, in any processes, a row is one's only."""
        table = self._table(model)
        verb = "consumed" if table.kind.name == VERIFICATION.name else "deleted"
        taken = await self._remove_one(table, where, verb=verb, state_dependent=True)
        return None if taken is None else self._shown(model, table.row(taken))

    async def increment_one(
        self,
        model: str,
        where: list[Where],
        increment: dict[str, Any] | None = None,
        set: dict[str, Any] | None = None,  # noqa: A002
    ) -> dict[str, Any] | None:
        """Add to numbers of one row that matches, and set other fields, in one step; the row as it is then.

        A null counts as 0. ``None`` if no row matches, or none does any more. Raises the framework's error for a field that is
        no number.
        """
        steps = check_increment(increment, set)
        table = self._table(model)
        absolute = {} if set is None else table.changes(self._in(model, set, "update"))
        columns = [(table.column(name), delta) for name, delta in steps.items()]

        def changes(row: dict[str, Any]) -> dict[str, Any]:
            grown: dict[str, Any] = {}
            for column, delta in columns:
                now = row[column.field]
                if isinstance(now, bool) or not isinstance(now, int | float | None):
                    raise BetterAuthError(f"{model}.{column.field} is no number, so nothing can be added to it")
                grown[column.attribute] = (now or 0) + delta
            return grown | absolute

        passed: list[str] = []
        while (entity := await self._next(table, where, passed)) is not None:
            changed = await self._changed(table, entity, where, changes, state_dependent=True)
            if changed is not None:
                return self._shown(model, table.row(changed))
        return None

    async def transaction(self, callback: Callable[[BaseAdapter], Awaitable[Any]]) -> Any:
        """Run ``callback`` with this adapter, and make all that it writes happen together, or nothing.

        Everything is one append at its end (see `Transaction` of the library). If others write in the meantime to the very row
        that something inside depended on, it runs again, up to 20 times, and so does what it does elsewhere. Inside of one,
        another is a part of it. Raises what ``callback`` raises, `Conflict` for a unique value that was taken, and what the end
        of a transaction raises.
        """
        if self._inside.get():
            return await callback(self)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.store.transaction() as inside:
                    current = [inside]
                    token = self._inside.set(current)
                    try:
                        result = await callback(self)
                    finally:
                        current.clear()
                        self._inside.reset(token)
            except VersionConflict as conflict:
                if attempt == ATTEMPTS or conflict.ambiguous:
                    raise
            else:
                return result

    # How

    def _shown(self, model: str, row: dict[str, Any], select: list[str] | None = None) -> dict[str, Any]:
        shown: dict[str, Any] = self._out(model, row, select)
        return shown

    def _table(self, model: str) -> Table:
        found = self._tables.get(model)
        if found is None:
            raise InvalidInput("model", f"the schema has no model {model!r}; BetterAuth gives it to `init`")
        return found

    @property
    def _context(self) -> EngineContext:
        return next(iter(self._inside.get()), self.store).context

    def _collection(self, table: Table) -> Collection[Any]:
        return self._context.collections[table.kind.name]

    @contextmanager
    def _refusing(self, table: Table) -> Generator[None]:
        """Raise what the framework sends for a value that is taken; in a transaction it expects no answer to a request."""
        try:
            yield
        except Conflict as conflict:
            if self._inside.get():
                raise
            raise UniqueViolation(table.model, conflict) from None

    async def _decided(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step that others may be faster than, until it is known what it comes to.

        The library gives up after ten seconds. These may hold two attempts only: the framework hashes passwords on the
        event loop, and the requests of many sign-ups wait for one another there.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return await step()
            except VersionConflict as conflict:
                if conflict.ambiguous:
                    raise
        return await step()

    async def _found(self, table: Table, where: Sequence[Where] | None) -> list[Any]:
        """The entities that match, the oldest first."""
        matches = matcher(table, where)
        shortest = access_path(table, where) if where else None
        if shortest is None:
            found = await self._scanned(table, where, matches)
        else:
            found = [entity for entity in await self._along(table.kind, shortest) if matches(table.row(entity))]
        if len(found) > 1:
            found.sort(key=lambda entity: (entity.created_at, entity.id))
        return found

    async def _next(self, table: Table, where: Sequence[Where], passed: list[str]) -> Any | None:
        """The oldest entity that matches, and was not ``passed`` before; others may have been faster with those that were.

        Each is decided upon once: a read that is behind offers for ever what does not match any more.
        """
        for entity in await self._found(table, where):
            key = getattr(entity, table.kind.key)
            if key not in passed:
                passed.append(key)
                return entity
        return None

    async def _along(self, kind: Kind[Any], to: AccessPath) -> Iterable[Any]:
        """The entities that a way leads to, each once."""
        context, collection = self._context, self._context.collections[kind.name]
        if len(to.keys) == 1 and not to.claims and not to.indexes:
            only = await collection.get(to.keys[0])
            return () if only is None else (only,)
        found: dict[str, Any] = await collection.get_many(to.keys)
        for unique, value in to.claims:
            owner = await context.claims.owner(kind, unique, value)
            if owner is not None:
                found[getattr(owner, kind.key)] = owner
        for index, text in to.indexes:
            for member in await collection.members_of(index, text):
                found[getattr(member, kind.key)] = member
        return found.values()

    async def _scanned(
        self, table: Table, where: Sequence[Where] | None, matches: Callable[[dict[str, Any]], bool]
    ) -> list[Any]:
        """The entities that match, out of all of the kind."""
        if where:
            self._tell(table, where)
        kind = self._collection(table).kind

        def look(events: list[Event]) -> list[Any]:
            states = map(kind.decode_if_readable, events)
            return [state for state in states if state is not None and matches(table.row(state))]

        found: list[Any] = []
        async with aclosing(self._context.streams.newest_of_each(kind.prefix, kind.types)) as pages:
            async for events in pages:
                found += look(events) if len(events) <= AT_ONCE else await anyio.to_thread.run_sync(look, events)
        return found

    def _tell(self, table: Table, where: Sequence[Where]) -> None:
        """Say, once for each shape, that all rows of a model are looked at, and what helps. No value is told."""
        shape = " ".join(f"{clause.connector} {clause.field} {clause.operator}" for clause in where)
        shape = f"{table.model}: {shape.removeprefix('AND ').removeprefix('OR ')}"
        if shape in self._told or len(self._told) >= 1000:
            return
        self._told.add(shape)
        found = {table.kind.key, "id", *(index.attribute for index in table.kind.indexes)}
        found |= {unique.attributes[0] for unique in table.kind.unique if len(unique.attributes) == 1}
        worth = [
            clause.field
            for clause in where
            if clause.operator in ("eq", "in") and clause.value is not None and clause.mode != "insensitive"
            if table.columns[clause.field].type in TEXTS and table.columns[clause.field].attribute not in found
        ]
        advice = f"; with indexes={{{table.model!r}: [{worth[0]!r}]}} it would not be" if worth else ""
        _log.warning("every row is looked at for (%s)%s", shape, advice)

    async def _change_all(self, table: Table, where: Sequence[Where], row: Mapping[str, Any]) -> list[Any]:
        """Change all entities that match, the oldest first; those that were changed, as they are then."""
        changes = table.changes(row)
        for fixed in ("id", table.kind.key):
            if fixed in changes:
                where = [*where, Where(self._field(table, fixed), changes.pop(fixed))]
        found = {getattr(entity, table.kind.key): entity for entity in await self._found(table, where)}

        async def one(key: str) -> Any:
            return await self._changed(table, found[key], where, lambda row: changes)

        done = await concurrently(found, one)
        return [entity for entity in done.values() if entity is not None]

    async def _changed(
        self,
        table: Table,
        entity: Entity,
        where: Sequence[Where],
        changes: Callable[[dict[str, Any]], Mapping[str, Any]],
        *,
        state_dependent: bool = False,
    ) -> Any | None:
        """Change an entity in one guarded step if it still matches; as it is then, ``None`` if it does not."""
        collection, matches = self._collection(table), matcher(table, where)
        kept = "updatedAt" in table.columns
        hit = False

        def wish(before: Any) -> Mapping[str, Any] | None:
            nonlocal hit
            row = table.row(before)
            hit = matches(row)
            if not hit:
                return None
            found = collection.kind.checked(changes(row))
            # Where the schema has it, the framework says when it moves.
            return {"updated_at": before.updated_at, **found} if kept else found

        try:
            with self._refusing(table):
                key = getattr(entity, table.kind.key)
                changed = await self._decided(lambda: collection.change(key, wish, state_dependent=state_dependent))
        except NotFound:
            return None
        return changed if hit else None

    async def _remove_one(
        self, table: Table, where: Sequence[Where], *, verb: str = "deleted", state_dependent: bool = False
    ) -> Any | None:
        """Delete one entity that matches, the oldest; its last state, ``None`` if there is none, or none any more."""
        collection, test = self._collection(table), _entity_test(table, where)
        passed: list[str] = []
        while (entity := await self._next(table, where, passed)) is not None:
            key = getattr(entity, table.kind.key)
            if state_dependent:
                collection.context.depend_on_state(table.kind.stream(key))
            taken = await self._decided(partial(collection.remove, key, verb=verb, only_if=test))
            if taken is not None:
                return taken
        return None

    @staticmethod
    def _field(table: Table, attribute: str) -> str:
        return next(column.field for column in table.columns.values() if column.attribute == attribute)


def _entity_test(table: Table, where: Sequence[Where] | None) -> Callable[[Any], bool]:
    matches = matcher(table, where)
    return lambda entity: matches(table.row(entity))


def _place(value: Any) -> tuple[bool, Any]:
    """Where a value stands among others of its column; lists and objects by their JSON text."""
    if value is None:
        return False, 0
    return True, json.encode(value) if isinstance(value, list | dict) else value
