"""Evaluation of a ``where``, and the choice of an access path for it.

* A ``where`` is a list of conditions, folded from the left: each is joined to the result of those before it by AND or OR.
* `alternatives` brings it into disjunctive form: a list of alternatives, each a list of conditions joined by AND.
* `access_path` chooses an access path for each alternative: keys, unique claims or index lookups. If an alternative has none,
  all entities of the kind are read.
* An access path leads only to candidates. The caller evaluates the whole ``where`` on each of them (`matcher`).

The framework's SQL adapter and its in-memory adapter disagree in places. Here nulls behave as in SQL and text behaves as in
memory; see ``docs/explanation/integrations.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from better_auth.adapters.base import Where

from allsource_auth import values
from allsource_auth.errors import InvalidInput
from allsource_auth.integrations.better_auth.models import ID, TEXT_TYPES, Column, Table
from allsource_auth.kind import Index, Unique

__all__ = ["AccessPath", "access_path", "alternatives", "matcher"]

Row = dict[str, Any]
Test = Callable[[Any], bool]

MAX_LOOKUPS = 1000
"""Maximum values of one condition that are looked up individually. For more of them a scan of all entities is cheaper."""


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _aware(value: Any) -> Any:
    """Return a value with a naive datetime taken as UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.utcoffset() is None else value


def _coerced(column: Column, value: Any) -> Any:
    """Convert a value to the type of a column, as databases do: text to a number or a time, a number to text.

    Values from the query string of a URL are text. A value that cannot be converted is returned unchanged.
    """
    value = _aware(value)
    if isinstance(value, str) and column.type in PARSERS:
        try:
            return _aware(PARSERS[column.type](value))
        except ValueError:
            return value
    if column.type in TEXT_TYPES and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


PARSERS: dict[str, Callable[[str], Any]] = {"number": float, "datetime": datetime.fromisoformat}


def _coerced_list(column: Column, clause: Where) -> list[Any]:
    given: object = clause.value
    if not isinstance(given, list | tuple | set | frozenset):
        # The framework's own adapters raise the same error.
        raise ValueError(f"{clause.field}: the operator {clause.operator!r} requires a list")
    return [_coerced(column, value) for value in cast("Iterable[object]", given)]


def _comparable(column: Column, value: Any) -> Any:
    """Return ``value`` if it can be ordered against values of a column. Raises `InvalidInput` if it cannot."""
    comparable = {"datetime": datetime, "number": int | float, "boolean": int, "string": str, "text": str}.get(
        column.type
    )
    if comparable is None or not isinstance(value, comparable):
        raise InvalidInput(column.field, f"a {type(value).__name__} cannot be compared with a {column.type}")
    return value


def _test(column: Column, clause: Where) -> Test:
    operator, fold = clause.operator, _lower if clause.mode == "insensitive" else _unchanged
    if operator in ("in", "not_in"):
        given = _coerced_list(column, clause)
        wanted = [fold(value) for value in given if value is not None]
        if operator == "in":
            return lambda found: found is not None and fold(found) in wanted
        if not given:
            return lambda found: True
        if len(wanted) < len(given):
            return lambda found: False  # in SQL a comparison with null is never true
        return lambda found: found is not None and fold(found) not in wanted
    value = _coerced(column, clause.value)
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
    if operator in SUBSTRING_OPERATORS:
        value = clause.value
        if not isinstance(value, str):
            return lambda found: False
        part, inner = SUBSTRING_OPERATORS[operator], fold(value)
        return lambda found: isinstance(found, str) and part(fold(found), inner)
    if operator in ORDER_OPERATORS:
        order, wanted = ORDER_OPERATORS[operator], _comparable(column, value)
        return lambda found: found is not None and bool(order(found, wanted))
    raise ValueError(f"{clause.field}: unknown operator {operator!r}")


def _unchanged(value: Any) -> Any:
    return value


SUBSTRING_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda found, wanted: wanted in found,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
}
ORDER_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda found, wanted: found > wanted,
    "gte": lambda found, wanted: found >= wanted,
    "lt": lambda found, wanted: found < wanted,
    "lte": lambda found, wanted: found <= wanted,
}


def matcher(table: Table, where: Sequence[Where] | None) -> Callable[[Row], bool]:
    """Return a predicate that evaluates ``where`` on a row. Without conditions it is true for every row.

    Raises `InvalidInput` for a field that is not in the schema and for a value that cannot be ordered, `ValueError` for an
    unknown operator.
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
            if result is either:  # short circuit: true OR ..., false AND ...
                continue
            result = test(row[name])
        return result

    return matches


def alternatives(where: Iterable[Where]) -> list[list[Where]]:
    """Return the disjunctive form: ``((a or b) and c)`` becomes ``[[a, c], [b, c]]``."""
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
    """How to find the candidates of a query: by keys, by claims of unique values, by index lookups."""

    keys: list[str]
    claims: list[tuple[Unique, tuple[str, ...]]]
    indexes: list[tuple[Index, str]]


def access_path(table: Table, where: Sequence[Where]) -> AccessPath | None:
    """Return the access path to all candidates, or ``None`` if all entities of the kind must be read."""
    found = AccessPath([], [], [])
    for conditions in alternatives(where):
        step = _path_of(table, conditions)
        if step is None:
            return None
        found.keys += step.keys
        found.claims += step.claims
        found.indexes += step.indexes
    return found


def _path_of(table: Table, conditions: Iterable[Where]) -> AccessPath | None:
    """Return the best access path of one alternative: a key, else a claim, else the first index that is named.

    Indexes of plain fields come after indexes of references, because many rows may share a value, such as a role.
    """
    kind = table.kind
    exact: dict[str, list[str]] = {}
    any_case: dict[str, list[str]] = {}
    for clause in conditions:
        column = table.columns.get(clause.field)
        wanted = None if column is None else _possible_values(column, clause)
        if column is None or wanted is None:
            continue
        if not wanted:
            return AccessPath([], [], [])  # no value can satisfy the condition
        if clause.mode != "insensitive":
            exact.setdefault(column.attribute, wanted)
        any_case.setdefault(column.attribute, wanted)
    if kind.key in exact:
        return AccessPath(exact[kind.key], [], [])
    for unique in kind.unique:
        # Emails are compared case-insensitively, so a case-insensitive condition can use their claim.
        values_of = any_case if unique.normalize is values.normalize_email else exact
        held = [values_of.get(attribute) for attribute in unique.attributes]
        if None in held or any(len(each or ()) != 1 for each in held[1:]) or not held:
            continue
        rest = tuple(each[0] for each in held[1:] if each)
        return AccessPath([], [(unique, _normalized(unique, (first, *rest))) for first in held[0] or ()], [])
    indexes = {index.attribute: index for index in kind.indexes}
    for attribute, wanted in sorted(any_case.items(), key=lambda named: named[0] in table.indexed):
        index = indexes.get(attribute)
        if index is not None and (attribute in exact or index.normalize is values.normalize_email):
            return AccessPath([], [], [(index, value) for value in wanted])
    return None


def _normalized(unique: Unique, wanted: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(unique.normalize(value) for value in wanted)


def _possible_values(column: Column, clause: Where) -> list[Any] | None:
    """Return all values with which a field can satisfy a condition, or ``None`` if the condition does not list them."""
    if clause.operator == "eq":
        if clause.value is None:
            return [] if column.field == ID else None
        given = [_coerced(column, clause.value)]
    elif clause.operator == "in":
        given = [value for value in _coerced_list(column, clause) if value is not None]
        if len(given) > MAX_LOOKUPS:
            return None
    else:
        return None
    if column.type in TEXT_TYPES:
        return [value for value in given if isinstance(value, str) and values.is_unicode(value)]
    return given if column.type == "number" else None
