"""What a ``where`` asks for, and the shortest way to it.

A ``where`` is a list of conditions, folded from the left: each one joins what came before by AND or OR. So it is a handful
of alternatives, each a list of conditions that hold together (`alternatives`). For each alternative there is a `Way` to the
entities that may match: by the streams of their keys, by a claim, or by a list; whoever goes it verifies the whole ``where`` on
the states that are found. If one alternative has none, every entity of the kind must be looked at.

Where the framework's two adapters disagree (see ARCHITECTURE.md), a null is treated as in SQL, and text as in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from better_auth.adapters.base import Where

from allsource_auth import values
from allsource_auth.errors import InvalidInput
from allsource_auth.integrations.better_auth.models import ID, TEXTS, Column, Table
from allsource_auth.kinds import Index, Unique

__all__ = ["AccessPath", "access_path", "alternatives", "matcher"]

Row = dict[str, Any]
Test = Callable[[Any], bool]

MOST_KEYS = 1000
"""Values of one condition that are looked up one by one; more of them, and looking at all entities costs less."""


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """A value as rows have it: a time without a zone is in UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.utcoffset() is None else value


def _fitted(column: Column, value: Any) -> Any:
    """A value as rows of this column have it: of a number or a time its text will do, and of a text the number.

    What comes in the query of a URL is text; databases do the same.
    """
    value = _plain(value)
    if isinstance(value, str) and column.type in FROM_TEXT:
        try:
            return _plain(FROM_TEXT[column.type](value))
        except ValueError:
            return value
    if column.type in TEXTS and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


FROM_TEXT: dict[str, Callable[[str], Any]] = {"number": float, "datetime": datetime.fromisoformat}


def _one_of(column: Column, clause: Where) -> list[Any]:
    wanted: object = clause.value
    if not isinstance(wanted, list | tuple | set | frozenset):
        # What the framework's own adapters raise.
        raise ValueError(f"{clause.field}: the operator {clause.operator!r} takes a list")
    return [_fitted(column, value) for value in cast("Iterable[object]", wanted)]


def _ordered(column: Column, value: Any) -> Any:
    """A value that those of a column can be held against. Raises `InvalidInput`."""
    comparable = {"datetime": datetime, "number": int | float, "boolean": int, "string": str, "text": str}.get(
        column.type
    )
    if comparable is None or not isinstance(value, comparable):
        raise InvalidInput(column.field, f"a {type(value).__name__} cannot be compared with a {column.type}")
    return value


def _test(column: Column, clause: Where) -> Test:
    operator, fold = clause.operator, _lowered if clause.mode == "insensitive" else _same
    if operator in ("in", "not_in"):
        given = _one_of(column, clause)
        wanted = [fold(value) for value in given if value is not None]
        if operator == "in":
            return lambda found: found is not None and fold(found) in wanted
        if not given:
            return lambda found: True
        if len(wanted) < len(given):
            return lambda found: False  # nothing is known to differ from a null
        return lambda found: found is not None and fold(found) not in wanted
    value = _fitted(column, clause.value)
    if operator == "eq":
        if value is None:
            return lambda found: found is None
        wanted = fold(value)
        return lambda found: found is not None and bool(fold(found) == wanted)
    if operator == "ne":
        if value is None:
            return lambda found: found is not None
        wanted = fold(value)
        return lambda found: found is not None and bool(fold(found) != wanted)
    if operator in PARTS:
        value = clause.value
        if not isinstance(value, str):
            return lambda found: False
        part, inner = PARTS[operator], fold(value)
        return lambda found: isinstance(found, str) and part(fold(found), inner)
    if operator in ORDERS:
        order, wanted = ORDERS[operator], _ordered(column, value)
        return lambda found: found is not None and bool(order(found, wanted))
    raise ValueError(f"{clause.field}: there is no operator {operator!r}")


def _same(value: Any) -> Any:
    return value


PARTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda found, wanted: wanted in found,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
}
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda found, wanted: found > wanted,
    "gte": lambda found, wanted: found >= wanted,
    "lt": lambda found, wanted: found < wanted,
    "lte": lambda found, wanted: found <= wanted,
}


def matcher(table: Table, where: Sequence[Where] | None) -> Callable[[Row], bool]:
    """Whether a row is what is asked for; without conditions every row is.

    Raises `InvalidInput` for a field that the schema does not have and for values that cannot be ordered; `ValueError` for an
    operator that there is not.
    """
    if not where:
        return lambda row: True
    tests = [(clause.field, clause.connector == "OR", _test(table.column(clause.field), clause)) for clause in where]
    first, _, first_test = tests[0]
    if len(tests) == 1:
        return lambda row: first_test(row[first])

    def matches(row: Row) -> bool:
        result = first_test(row[first])
        for name, either, test in tests[1:]:
            if result is either:  # true OR ..., false AND ...: decided
                continue
            result = test(row[name])
        return result

    return matches


def alternatives(where: Iterable[Where]) -> list[list[Where]]:
    """The conditions as alternatives of conditions that hold together: ``((a or b) and c)`` is ``a and c`` or ``b and c``."""
    found: list[list[Where]] = []
    for clause in where:
        if found and clause.connector == "OR":
            found.append([clause])
        elif found:
            for each in found:
                each.append(clause)
        else:
            found.append([clause])
    return found


@dataclass(slots=True)
class AccessPath:
    """Where the entities are that may match: by key, by the claim of unique values, in the list of a value."""

    keys: list[str]
    claims: list[tuple[Unique, tuple[str, ...]]]
    indexes: list[tuple[Index, str]]


def access_path(table: Table, where: Sequence[Where]) -> AccessPath | None:
    """The shortest way to all entities that may match; ``None`` if every entity of the kind has to be looked at."""
    found = AccessPath([], [], [])
    for conditions in alternatives(where):
        step = _step(table, conditions)
        if step is None:
            return None
        found.keys += step.keys
        found.claims += step.claims
        found.indexes += step.indexes
    return found


def _step(table: Table, conditions: Iterable[Where]) -> AccessPath | None:
    """The best way that the conditions of one alternative allow: a key, else a claim, else the list that is named first.

    Lists that only come from an index are the last that are gone to.
    """
    kind = table.kind
    exact: dict[str, list[str]] = {}
    loose: dict[str, list[str]] = {}
    for clause in conditions:
        column = table.columns.get(clause.field)
        sought = None if column is None else _sought(column, clause)
        if column is None or sought is None:
            continue
        if not sought:
            return AccessPath([], [], [])  # no value of this field is what is asked for
        if clause.mode != "insensitive":
            exact.setdefault(column.attribute, sought)
        loose.setdefault(column.attribute, sought)
    if kind.key in exact:
        return AccessPath(exact[kind.key], [], [])
    for unique in kind.unique:
        # A value is found in any capitals where that is how it is compared.
        values_of = loose if unique.normalize is values.normalize_email else exact
        held = [values_of.get(attribute) for attribute in unique.attributes]
        if None in held or any(len(each or ()) != 1 for each in held[1:]) or not held:
            continue
        rest = tuple(each[0] for each in held[1:] if each)
        return AccessPath([], [(unique, _normal(unique, (first, *rest))) for first in held[0] or ()], [])
    indexes = {index.attribute: index for index in kind.indexes}
    for attribute, sought in sorted(loose.items(), key=lambda named: named[0] in table.indexed):
        index = indexes.get(attribute)
        if index is not None and (attribute in exact or index.normalize is values.normalize_email):
            return AccessPath([], [], [(index, value) for value in sought])
    return None


def _normal(unique: Unique, wanted: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(unique.normalize(value) for value in wanted)


def _sought(column: Column, clause: Where) -> list[Any] | None:
    """The only values that a field can have where a condition holds; ``None`` if the condition does not name them."""
    if clause.operator == "eq":
        if clause.value is None:
            return [] if column.field == ID else None
        given = [_fitted(column, clause.value)]
    elif clause.operator == "in":
        given = [value for value in _one_of(column, clause) if value is not None]
        if len(given) > MOST_KEYS:
            return None
    else:
        return None
    if column.type in TEXTS:
        return [value for value in given if isinstance(value, str) and values.is_unicode(value)]
    return given if column.type == "number" else None
