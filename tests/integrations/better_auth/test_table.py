"""Each method, operator and value, compared with the framework's SQLite adapter and its in-memory adapter.

Where these two disagree, the table `followed` says which of them our adapter follows, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from better_auth.adapters.base import BaseAdapter, Where

from allsource_auth import InvalidInput
from tests.integrations.better_auth.samples import NOW, ROWS, Adapters, Row, adapters, whole

pytestmark = pytest.mark.integrations

OPERATORS = (
    "eq",
    "ne",
    "in",
    "not_in",
    "contains",
    "starts_with",
    "ends_with",
    "gt",
    "gte",
    "lt",
    "lte",
    "like",
)
PARTS = ("contains", "starts_with", "ends_with")
ORDERS = ("gt", "gte", "lt", "lte")

VALUES: dict[str, list[Any]] = {
    "id": ["1", "9", None, ["1", "3", "9"], 5, ""],
    "text": ["beta", "Alpha", "alpha", "a", "TA", "", None, ["beta", "ALPHA"], [], ["beta", None], 5],
    "note": ["a_b", "", "_", "%", "ä", None, ["", "Ä"], [None], []],
    "code": ["c1", "C1", None, ["c1", "c2", None]],
    "size": [1, 0, 2.5, -3, None, [1, 0], [], [None, 1], "1", "x", True],
    "flag": [True, False, None, [True], [True, None], 1, "true"],
    "when": [NOW, NOW.replace(tzinfo=None), NOW + timedelta(hours=1), None, [NOW], "x"],
    "data": [{"a": 1}, None, [1], "s"],
    "tags": [["x", "y"], ["x"], None, "x", []],
    "ownerId": ["u1", "u3", None, ["u1", "u2"]],
    "missing": ["x", None],
}

REFUSED = "refused"
Answer = list[str] | str

SQL = "as the databases do"
MEMORY = "as in memory"
NEITHER = "as in memory, a null as in the databases"


@pytest.fixture
async def fresh() -> AsyncIterator[Adapters]:
    async with adapters() as found:
        yield found


@pytest.fixture
async def three(fresh: Adapters) -> Adapters:
    await fresh.fill()
    return fresh


async def answer(adapter: BaseAdapter, where: list[Where]) -> Answer:
    try:
        return [row["id"] for row in await adapter.find_many("thing", where, limit=100)]
    except Exception:  # each has its own way to refuse
        return REFUSED


def without_nulls(clause: Where, memory: Answer) -> Answer:
    """Return the result of the memory adapter without the rows that SQL excludes because of nulls."""
    operator, value = clause.operator, clause.value
    if (
        memory == REFUSED
        or value is None
        or operator not in ("ne", "in", "not_in")
        or (operator, value) == ("not_in", [])
    ):
        return memory
    if operator == "not_in" and None in value:
        return []
    nulls = {row["id"] for row in ROWS if row.get(clause.field) is None}
    return [found for found in memory if found not in nulls]


def followed(clause: Where, sql: Answer, memory: Answer) -> tuple[Answer, str]:
    """Return which of two different results our adapter follows."""
    field, operator, value = clause.field, clause.operator, clause.value
    if field == "missing":
        # A condition on a field that does not exist is a mistake; to find nothing, or everything, would hide it.
        return sql, SQL
    if operator in PARTS:
        # SQLite's LIKE ignores the capitals of ASCII where they were to count, and only those where none were to; takes % and _
        # in the value for wildcards; looks into numbers and into the text of JSON. PostgreSQL's does only some of it.
        return memory, MEMORY
    if operator in ORDERS and field in ("data", "tags"):
        # Lists and objects have no order; that of their text, or of their parts, is nobody's wish.
        return REFUSED, SQL if sql == REFUSED else MEMORY
    if operator in ORDERS and (isinstance(value, bool) or value in ("x", "true")):
        # A database has an order of the types themselves; SQLAlchemy refuses flags.
        return memory, MEMORY
    if sql == REFUSED or clause.mode == "insensitive":
        # SQLAlchemy refuses lists and objects, and SQLite knows the capitals of ASCII only.
        return without_nulls(clause, memory), NEITHER
    # A null is not known to differ from anything: the databases' rule. And they bring a value to the type of its column.
    return sql, SQL


async def judged(three: Adapters, clause: Where) -> tuple[Answer, str]:
    """Return the expected rows, and the adapter that is followed."""
    given = clause.value if isinstance(clause.value, list) else [clause.value]
    if clause.field not in ("id", "text", "note", "code", "ownerId") or not any(
        isinstance(value, str) for value in given
    ):
        # Without capitals there is nothing to ignore, where SQLAlchemy fails.
        clause = Where(clause.field, clause.value, clause.operator)
    sql, memory = await answer(three.sql, [clause]), await answer(three.memory, [clause])
    return (sql, "both") if sql == memory else followed(clause, sql, memory)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("field", VALUES)
async def test_find_matches_the_other_adapters(three: Adapters, field: str, operator: str) -> None:
    for mode in ("sensitive", "insensitive"):
        for value in VALUES[field]:
            clause = Where(field, value, operator, mode=mode)
            ours = await answer(three.ours, [clause])
            expected, why = await judged(three, clause)
            assert ours == expected, (field, operator, mode, value, why)
            assert await counted(three.ours, [clause]) == (REFUSED if ours == REFUSED else len(ours))


async def counted(adapter: BaseAdapter, where: list[Where]) -> int | str:
    try:
        found: int = await adapter.count("thing", where)
    except Exception:
        return REFUSED
    return found


async def test_each_rule_is_needed(three: Adapters) -> None:
    """Each rule applies to at least one case."""
    met: Counter[str] = Counter()
    for clause in clauses():
        met[(await judged(three, clause))[1]] += 1
    assert min(met[SQL], met[MEMORY], met[NEITHER]) >= 10, met


def clauses() -> Iterator[Where]:
    for field, values in VALUES.items():
        for operator in OPERATORS:
            for mode in ("sensitive", "insensitive"):
                for value in values:
                    yield Where(field, value, operator, mode=mode)


CONDITIONS = (
    ("text", "beta", "eq"),
    ("ownerId", "u1", "eq"),
    ("ownerId", None, "eq"),
    ("code", "c5", "eq"),
    ("id", ["1", "4"], "in"),
    ("size", 0, "gte"),
    ("flag", True, "ne"),
    ("note", None, "ne"),
)


def combined() -> Iterator[list[Where]]:
    for first in CONDITIONS:
        for second in CONDITIONS:
            for connector in ("AND", "OR"):
                yield [Where(*first), Where(*second, connector=connector)]
                for third in CONDITIONS[::3]:
                    for last in ("AND", "OR"):
                        # The connector of the first condition joins it to nothing.
                        head = Where(*first, connector=last)
                        yield [head, Where(*second, connector=connector), Where(*third, connector=last)]


async def test_conditions_are_joined_from_the_left(three: Adapters) -> None:
    for where in combined():
        clauses = [(clause.connector, clause.field, clause.operator, clause.value) for clause in where]
        # Without a sort a database may give them in the order of an index.
        assert await answer(three.ours, where) == sorted(await answer(three.sql, where)), clauses


@pytest.mark.parametrize("field", ["id", "text", "note", "code", "size", "flag", "when", "ownerId"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_of_sorted_rows(three: Adapters, field: str, direction: str) -> None:
    for where in (None, [], [Where("ownerId", "u1")], [Where("size", -5, "gt")]):
        for limit in (None, 0, 1, 2, 100):
            for offset in (None, 0, 1, 4, 9):
                pages = []
                for adapter in three:
                    sort = {"field": field, "direction": direction}
                    rows = await adapter.find_many("thing", where, sort_by=sort, limit=limit, offset=offset)
                    pages.append([row.get(field) for row in rows])
                assert pages[0] == pages[1] == pages[2], (where, limit, offset)


async def test_nulls_sort_first_and_the_sort_is_stable(three: Adapters) -> None:
    ascending = await three.ours.find_many("thing", sort_by={"field": "ownerId", "direction": "asc"})
    assert [row["id"] for row in ascending] == ["3", "1", "2", "4", "5"]
    descending = await three.ours.find_many("thing", sort_by={"field": "ownerId", "direction": "desc"})
    assert [row["id"] for row in descending] == ["4", "5", "1", "2", "3"]


async def test_rows_have_every_field_unless_some_are_selected(three: Adapters) -> None:
    for row in ROWS:
        where = [Where("id", row["id"])]
        ours, sql, memory = [await adapter.find_one("thing", where) for adapter in three]
        assert ours == sql == whole(memory)
        assert ours is not None
        assert list(ours) == ["id", *list(sql)[1:]]
        for select in (["text"], ["id", "tags"], [], ["missing"]):
            ours, sql, _ = [await adapter.find_one("thing", where, select=select) for adapter in three]
            assert ours == sql
            assert (await three.ours.find_many("thing", where, select=select)) == [sql]


MISTAKES: list[tuple[str, dict[str, Any]]] = [
    *(
        (method, wrong)
        for method in ("find_many", "find_one", "count", "update", "delete_many", "consume_one")
        for wrong in ({"model": "nothing"}, {"where": [Where("nothing", 1)]})
    ),
    ("find_many", {"sort_by": {"field": "nothing"}}),
    ("find_many", {"limit": -1}),
    ("find_many", {"offset": -1}),
    ("update", {"data": {"nothing": 1}}),
]


@pytest.mark.parametrize(
    ("method", "wrong"), MISTAKES, ids=[f"{method}-{next(iter(wrong))}" for method, wrong in MISTAKES]
)
async def test_invalid_arguments_are_refused(three: Adapters, method: str, wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"model": "thing", "where": [Where("id", "1")]}
    if method == "update":
        given["data"] = {"note": "x"}
    with pytest.raises(InvalidInput, match=r"nothing|limit|offset"):
        await getattr(three.ours, method)(**{**given, **wrong})


# Writing

CHANGES: Row = {"note": "new", "size": 77, "flag": None, "tags": ["z"], "data": {"n": None}}

Method = Callable[[BaseAdapter, list[Where]], Awaitable[Any]]


async def _increment(adapter: BaseAdapter, where: list[Where]) -> Any:
    return await adapter.increment_one("thing", where, increment={"size": 2}, set={"note": "grown"})


WRITES: dict[str, Method] = {
    "update": lambda adapter, where: adapter.update("thing", where, dict(CHANGES)),
    "update_many": lambda adapter, where: adapter.update_many("thing", where, dict(CHANGES)),
    "delete": lambda adapter, where: adapter.delete("thing", where),
    "delete_many": lambda adapter, where: adapter.delete_many("thing", where),
    "consume_one": lambda adapter, where: adapter.consume_one("thing", where),
    "increment_one": _increment,
}


async def outcome(adapter: BaseAdapter, write: Method, where: list[Where]) -> tuple[Any, list[Row | None]]:
    """Perform a write. Return its result and all rows after it."""
    try:
        returned = await write(adapter, where)
    except Exception:
        returned = REFUSED
    returned = whole(returned) if isinstance(returned, dict) else returned
    return returned, [whole(row) for row in await adapter.find_many("thing", limit=100)]


def written() -> Iterator[list[Where]]:
    """Yield a ``where`` for each field, operator and kind of value, some with several conditions, and an empty one."""
    yield []
    for clause in clauses():
        if clause.mode == "sensitive" and clause.operator not in PARTS[1:]:
            yield [clause]
    yield from list(combined())[::9]


def done(method: str, found: Answer, where: list[Where]) -> tuple[Any, list[Row | None]]:
    """Return the expected result of a write to the rows ``found``, and the expected rows after it."""
    before = {row["id"]: whole(row) for row in ROWS}
    if found == REFUSED:
        return REFUSED, list(before.values())
    if not where and method in ("update", "delete"):
        found = []  # one row was meant, and nobody said which
    first = found[:1]
    for key in found if method in ("update", "update_many") else ():
        before[key] = whole({"id": key, **(before[key] or {}), **CHANGES})
    if method == "increment_one":
        for key in first:
            row = before[key] or {}
            before[key] = {**row, "size": (row["size"] or 0) + 2, "note": "grown"}
    taken = {"consume_one": first, "delete": first, "delete_many": found}.get(method, [])
    gone = [before.pop(key) for key in taken]
    returned: Any = {
        "update": before[first[0]] if first and first[0] in before else None,
        "increment_one": before[first[0]] if first and first[0] in before else None,
        "update_many": len(found),
        "delete_many": len(found),
        "consume_one": next(iter(gone), None),
        "delete": None,
    }[method]
    return returned, list(before.values())


@pytest.mark.parametrize("method", WRITES)
async def test_writes_match_the_other_adapters(fresh: Adapters, method: str) -> None:
    """Each write changes the rows that `find_many` returns. It matches SQLite if SQLite finds the same rows."""
    write = WRITES[method]
    changed = same = 0
    for where in written():
        await fresh.fill()
        found, theirs = await answer(fresh.ours, where), await answer(fresh.sql, where)
        expected = done(method, found, where)
        ours, sql = await outcome(fresh.ours, write, where), await outcome(fresh.sql, write, where)
        clauses = [(clause.connector, clause.field, clause.operator, clause.value) for clause in where]
        assert ours == expected, clauses
        changed += found not in ([], REFUSED)
        if theirs == found:
            same += 1
            # After an update it looks for a row that matches still, or again, which may be none or another one.
            assert ours[1] == sql[1], clauses
            assert method == "update" or ours[0] == sql[0], clauses
    assert changed > 100
    assert same > 200
