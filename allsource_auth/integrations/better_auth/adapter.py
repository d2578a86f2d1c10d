"""``AllsourceDatabaseAdapter``: the framework's database interface, implemented on an `AllsourceAuthAdapter`.

Calls of the framework are translated to calls of the library's collections. `models` maps models to kinds, `where` chooses
how to find rows, and `reading` reads them. Uniqueness, indexes, cascades, transactions and history are those of the library.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

from better_auth.adapters.base import BaseAdapter, SortBy, Where, check_increment
from better_auth.adapters.transform import Caps
from better_auth.config import AdvancedDatabase
from better_auth.schema import Schema
from better_auth.types import BetterAuthError
from msgspec import json

from allsource_auth.adapter import AllsourceAuthAdapter
from allsource_auth.engine.collection import Collection, EngineContext, declare
from allsource_auth.engine.concurrency import concurrently
from allsource_auth.engine.repository import Repository, RestorableRepository
from allsource_auth.entities import Entity
from allsource_auth.errors import Conflict, InvalidInput, NotFound, VersionConflict
from allsource_auth.integrations.better_auth.models import Table, tables
from allsource_auth.integrations.better_auth.reading import advice_for, fetch, scan, shape_of
from allsource_auth.integrations.better_auth.unique_violation import UniqueViolation
from allsource_auth.integrations.better_auth.where import access_path, matcher
from allsource_auth.kinds import VERIFICATION
from allsource_auth.transactions.transaction import Transaction

__all__ = ["AllsourceDatabaseAdapter"]

_log = logging.getLogger("allsource_auth.integrations.better_auth")

T = TypeVar("T")

NO_INDEXES: Mapping[str, Sequence[str]] = {}

MAX_ATTEMPTS = 20
"""Maximum attempts of a transaction or a write that fails with `VersionConflict`."""


class AllsourceDatabaseAdapter(BaseAdapter):
    """The framework's database on an `AllsourceAuthAdapter`: ``BetterAuth(adapter=AllsourceDatabaseAdapter(store))``.

    The application can use the store directly as well. The repositories (``store.users``), the history and the audit context
    cover all writes of the framework, and the framework reads what the repositories write. The application closes the store.

    Args:
        store: the adapter that stores all rows.
        indexes: by model, additional fields to index, such as ``{"walletAddress": ["address"]}``. Unique fields and references
            are always indexed. A warning in the log names fields that are worth an index. To index existing rows, run
            ``store.reindex()`` once.
        advanced: the framework's database options, such as the generation of ids and the default limit of `find_many`.

    Every method raises `InvalidInput` for a model or a field that is not in the schema and for a value that cannot be stored.
    Errors of the store are raised unchanged.
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
        self._warned: set[str] = set()
        self._transactions: ContextVar[Sequence[Transaction]] = ContextVar("allsource_auth.better_auth", default=())
        """The open transaction of this context, if any.

        The list is emptied when the transaction ends. So a task that was started inside and outlives it writes outside of it.
        """

    def init(self, schema: Schema) -> None:
        """Declare the kinds of a schema. Called by the framework. Raises `InvalidInput` if the schema is not supported."""
        super().init(schema)
        context = self.store.context
        self._tables |= tables(schema, context.declared, self._indexes)
        for table in self._tables.values():
            declare(context, table.kind)

    async def check_schema(self) -> None:
        """Do nothing: the store has no schema that could differ from the declared kinds."""

    def repository(self, model: str) -> Repository[Any]:
        """Return the repository of a model, for ``history``, ``as_of``, ``restore`` and ``scan``.

        The ten repositories of the library are also attributes of the store. Raises `InvalidInput` if the schema
        does not have the model.
        """
        collection = self._collection(self._table(model))
        return RestorableRepository(collection) if collection.kind.restorable else Repository(collection)

    def __repr__(self) -> str:
        return f"AllsourceDatabaseAdapter({self.store!r}, {len(self._tables)} models)"

    # The framework's interface: reads

    async def find_one(
        self, model: str, where: list[Where], *, select: list[str] | None = None
    ) -> dict[str, Any] | None:
        """Return the oldest matching row, or ``None``."""
        table = self._table(model)
        found = await self._matching(table, where)
        return self._selected(model, table.row(found[0]), select) if found else None

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
        """Return the matching rows, oldest first unless ``sort_by`` is given. Nulls sort before all other values.

        ``limit`` defaults to the limit in ``advanced``. Raises `InvalidInput` if ``limit`` or ``offset`` is negative.
        """
        table = self._table(model)
        first, most = offset or 0, self._limit(limit)
        if first < 0 or most < 0:
            raise InvalidInput("limit" if most < 0 else "offset", "must be at least 0")
        sort = None if sort_by is None else table.column(sort_by["field"]).field
        rows = [table.row(entity) for entity in await self._matching(table, where)]
        if sort is not None and sort_by is not None:
            rows.sort(key=lambda row: _sort_key(row[sort]), reverse=sort_by.get("direction") == "desc")
        return [self._selected(model, row, select) for row in rows[first : first + most]]

    async def count(self, model: str, where: list[Where] | None = None) -> int:
        """Return the number of matching rows. No limit applies."""
        return len(await self._matching(self._table(model), where))

    # The framework's interface: writes

    async def create(
        self,
        model: str,
        data: dict[str, Any],
        *,
        select: list[str] | None = None,
        force_allow_id: bool = False,
    ) -> dict[str, Any]:
        """Add a row. Return its id, the given fields and the defaults of the schema. A given id is used.

        Raises `UniqueViolation` if another row has the id or a unique value, `InvalidInput` if a required field is missing.
        """
        table = self._table(model)
        row = self._in(model, data, "create")
        key, given = table.new(row)
        collection = self._collection(table)
        with self._unique_violations(table):
            entity = await self._retried(lambda: collection.create(given, key=key, reuse_key=True))
        found = {name: value for name, value in table.row(entity).items() if name in row or name == "id"}
        return self._selected(model, found, select)

    async def update(self, model: str, where: list[Where], data: dict[str, Any]) -> dict[str, Any] | None:
        """Update all matching rows. Return the oldest of them with its new values.

        Returns ``None`` if no row matched or ``where`` is empty.
        """
        if not where:
            return None
        table = self._table(model)
        changed = await self._change_all(table, where, self._in(model, data, "update"))
        return self._selected(model, table.row(changed[0])) if changed else None

    async def update_many(self, model: str, where: list[Where], data: dict[str, Any]) -> int:
        """Update the matching rows, or all rows if ``where`` is empty. Return the number of updated rows.

        ``where`` is evaluated again in the guarded write of each row. Each row is a separate write, unless the call is inside
        a transaction.
        """
        table = self._table(model)
        return len(await self._change_all(table, where, self._in(model, data, "update")))

    async def delete(self, model: str, where: list[Where]) -> None:
        """Delete the oldest matching row. Do nothing if ``where`` is empty."""
        if where:
            await self._remove_one(self._table(model), where)

    async def delete_many(self, model: str, where: list[Where]) -> int:
        """Delete the matching rows, or all rows if ``where`` is empty. Return the number of deleted rows.

        Rows that belong to a deleted row are deleted with it.
        """
        table = self._table(model)
        found = await self._matching(table, where)
        keys = [getattr(entity, table.kind.key) for entity in found]
        return await self._collection(table).delete_where(keys, _entity_test(table, where))

    async def consume_one(self, model: str, where: list[Where]) -> dict[str, Any] | None:
        """Delete one matching row and return it. Of any number of concurrent callers, exactly one receives a given row."""
        table = self._table(model)
        verb = "consumed" if table.kind.name == VERIFICATION.name else "deleted"
        taken = await self._remove_one(table, where, verb=verb, state_dependent=True)
        return None if taken is None else self._selected(model, table.row(taken))

    async def increment_one(
        self,
        model: str,
        where: list[Where],
        increment: dict[str, Any] | None = None,
        set: dict[str, Any] | None = None,  # noqa: A002
    ) -> dict[str, Any] | None:
        """Add to number fields of one matching row, and set other fields, in one atomic write. Return the new row.

        A null counts as 0. Returns ``None`` if no row matches. Raises ``BetterAuthError`` if a field to increment is not a
        number.
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
                    raise BetterAuthError(f"{model}.{column.field} is not a number and cannot be incremented")
                grown[column.attribute] = (now or 0) + delta
            return grown | absolute

        tried: list[str] = []
        while (entity := await self._next_match(table, where, tried)) is not None:
            changed = await self._change(table, entity, where, changes, state_dependent=True)
            if changed is not None:
                return self._selected(model, table.row(changed))
        return None

    async def transaction(self, callback: Callable[[BaseAdapter], Awaitable[Any]]) -> Any:
        """Run ``callback`` with this adapter in a transaction of the library.

        All writes are one append at the end; see `Transaction`. If a concurrent write changes a row on which the transaction
        depends, ``callback`` is run again, up to 20 times in all. Its effects outside the store are repeated, too. A nested
        transaction joins the outer one.

        Raises what ``callback`` raises, `Conflict` if a unique value is taken, and the errors of a commit of `Transaction`.
        """
        if self._transactions.get():
            return await callback(self)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.store.transaction() as inside:
                    current = [inside]
                    token = self._transactions.set(current)
                    try:
                        result = await callback(self)
                    finally:
                        current.clear()
                        self._transactions.reset(token)
            except VersionConflict as conflict:
                if attempt == MAX_ATTEMPTS or conflict.ambiguous:
                    raise
            else:
                return result

    # Implementation

    def _selected(self, model: str, row: dict[str, Any], select: list[str] | None = None) -> dict[str, Any]:
        selected: dict[str, Any] = self._out(model, row, select)
        return selected

    def _table(self, model: str) -> Table:
        found = self._tables.get(model)
        if found is None:
            raise InvalidInput("model", f"the schema has no model {model!r}; BetterAuth gives it to `init`")
        return found

    @property
    def _context(self) -> EngineContext:
        return next(iter(self._transactions.get()), self.store).context

    def _collection(self, table: Table) -> Collection[Any]:
        return self._context.collections[table.kind.name]

    @contextmanager
    def _unique_violations(self, table: Table) -> Generator[None]:
        """Convert `Conflict` to `UniqueViolation`, except inside a transaction.

        There the framework turns its own errors into redirects and passes others on.
        """
        try:
            yield
        except Conflict as conflict:
            if self._transactions.get():
                raise
            raise UniqueViolation(table.model, conflict) from None

    async def _retried(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run a write and retry it on `VersionConflict`, up to `MAX_ATTEMPTS` attempts.

        A mutation of the library stops after ten seconds. That can be as few as two attempts, because the framework hashes
        passwords on the event loop, which delays all concurrent requests.
        """
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await step()
            except VersionConflict as conflict:
                if conflict.ambiguous:
                    raise
        return await step()

    async def _matching(self, table: Table, where: Sequence[Where] | None) -> list[Any]:
        """Return the matching entities, oldest first."""
        matches = matcher(table, where)
        path = access_path(table, where) if where else None
        if path is None:
            if where:
                self._warn_of_scan(table, where)
            found = await scan(self._context, table, matches)
        else:
            found = [entity for entity in await fetch(self._context, table.kind, path) if matches(table.row(entity))]
        if len(found) > 1:
            found.sort(key=lambda entity: (entity.created_at, entity.id))
        return found

    async def _next_match(self, table: Table, where: Sequence[Where], tried: list[str]) -> Any | None:
        """Return the oldest matching entity whose key is not in ``tried``, and add its key to ``tried``.

        Each entity is tried once: stale reads could return the same non-matching entity repeatedly.
        """
        for entity in await self._matching(table, where):
            key = getattr(entity, table.kind.key)
            if key not in tried:
                tried.append(key)
                return entity
        return None

    def _warn_of_scan(self, table: Table, where: Sequence[Where]) -> None:
        """Log a warning that a condition scans all rows, once per shape of the condition. Values are not logged."""
        shape = shape_of(table, where)
        if shape not in self._warned and len(self._warned) < 1000:
            self._warned.add(shape)
            _log.warning("a query scans all rows (%s)%s", shape, advice_for(table, where))

    async def _change_all(self, table: Table, where: Sequence[Where], row: Mapping[str, Any]) -> list[Any]:
        """Change all matching entities. Return the new states of those that were changed, oldest first."""
        changes = table.changes(row)
        for fixed in ("id", table.kind.key):
            if fixed in changes:
                where = [*where, Where(self._field(table, fixed), changes.pop(fixed))]
        found = {getattr(entity, table.kind.key): entity for entity in await self._matching(table, where)}

        async def one(key: str) -> Any:
            return await self._change(table, found[key], where, lambda row: changes)

        done = await concurrently(found, one)
        return [entity for entity in done.values() if entity is not None]

    async def _change(
        self,
        table: Table,
        entity: Entity,
        where: Sequence[Where],
        changes: Callable[[dict[str, Any]], Mapping[str, Any]],
        *,
        state_dependent: bool = False,
    ) -> Any | None:
        """Change an entity in one guarded write if it still matches. Return its new state, or ``None`` if it does not match."""
        collection, matches = self._collection(table), matcher(table, where)
        has_update_time = "updatedAt" in table.columns
        matched = False

        def changes_of(before: Any) -> Mapping[str, Any] | None:
            nonlocal matched
            row = table.row(before)
            matched = matches(row)
            if not matched:
                return None
            found = collection.kind.checked(changes(row))
            # If the schema has the field, the framework sets it itself; otherwise the library does.
            return {"updated_at": before.updated_at, **found} if has_update_time else found

        try:
            with self._unique_violations(table):
                key = getattr(entity, table.kind.key)
                changed = await self._retried(
                    lambda: collection.change(key, changes_of, state_dependent=state_dependent)
                )
        except NotFound:
            return None
        return changed if matched else None

    async def _remove_one(
        self, table: Table, where: Sequence[Where], *, verb: str = "deleted", state_dependent: bool = False
    ) -> Any | None:
        """Delete the oldest matching entity. Return its last state, or ``None`` if none matches."""
        collection, test = self._collection(table), _entity_test(table, where)
        tried: list[str] = []
        while (entity := await self._next_match(table, where, tried)) is not None:
            key = getattr(entity, table.kind.key)
            if state_dependent:
                collection.context.depend_on_state(table.kind.stream(key))
            taken = await self._retried(partial(collection.remove, key, verb=verb, only_if=test))
            if taken is not None:
                return taken
        return None

    @staticmethod
    def _field(table: Table, attribute: str) -> str:
        return next(column.field for column in table.columns.values() if column.attribute == attribute)


def _entity_test(table: Table, where: Sequence[Where] | None) -> Callable[[Any], bool]:
    matches = matcher(table, where)
    return lambda entity: matches(table.row(entity))


def _sort_key(value: Any) -> tuple[bool, Any]:
    """The sort key of a value in its column. Nulls sort first; lists and objects sort by their JSON text."""
    if value is None:
        return False, 0
    return True, json.encode(value) if isinstance(value, list | dict) else value
