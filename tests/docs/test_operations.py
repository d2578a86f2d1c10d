"""docs/reference/operations.md holds: its methods exist as it writes them, none is missing, and calls cost what it says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import allsource_auth
from allsource_auth import AllsourceAuthAdapter, SqliteLog, SqliteStore
from allsource_auth.engine.repository import Repository, RestorableRepository
from tests.support.operations import BEYOND, OPERATIONS, Operation, Scene
from tests.support.wrappers import CountingStore

ROOT = Path(__file__).parents[2]
TEXT = ROOT.joinpath("docs", "reference", "operations.md").read_text(encoding="utf-8")

GROUPS = {
    "User": 7,
    "Session": 8,
    "Account": 5,
    "Verification": 7,
    "Organization": 6,
    "Member": 8,
    "Invitation": 6,
    "TwoFactor": 4,
    "ApiKey": 7,
    "Passkey": 7,
}
MANY = (1, 2, 4)
"""The sizes of lists with which costs are measured."""


NOTHING = ("None", "Generator[None]")
"""What a method returns that has nothing to say; the second one is a context."""


class Row(NamedTuple):
    """A line of a table. ``method`` is the call as it is written, without the name of the repository."""

    name: str
    place: str
    method: str
    reads: str
    events: str
    guarantee: str

    @property
    def attribute(self) -> str:
        return self.method.partition("(")[0]


def _rows(title: str) -> list[Row]:
    section = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert section is not None, f"there is no section {title}"
    found = []
    for line in re.findall(r"^\| (.*) \|$", section[1], re.MULTILINE)[1:]:
        name, method, reads, events, guarantee = (cell.strip() for cell in line.split(" | "))
        place, _, call = method.strip("`").partition(".")
        found.append(Row(name, place, call, reads, events, guarantee))
    return found


NAMED = {group: _rows(f"{group} ({count})") for group, count in GROUPS.items()}
FURTHER = _rows("Beyond the 65")
CALLED = [operation for operations in OPERATIONS.values() for operation in operations] + list(BEYOND)


def _repositories() -> dict[str, Repository[Any]]:
    return {
        name: found for name, found in vars(AllsourceAuthAdapter.embedded()).items() if isinstance(found, Repository)
    }


REPOSITORIES = _repositories()


def _entity(repository: Repository[Any]) -> str:
    return str(repository._collection.kind.entity.__name__)


def _written(method: Callable[..., Any], entity: str = "E") -> str:
    """A method with its parameters, ``=`` after those that may be left out, and what it returns."""
    signature = inspect.signature(method)
    parts: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    returned = re.sub(r"\bE\b", entity, signature.return_annotation.replace(" | ", " or "))
    return f"{method.__name__}({', '.join(parts)})" + ("" if returned in NOTHING else f" -> {returned}")


def test_all_65_operations_are_there_once_in_their_groups() -> None:
    named = {group: [row.name for row in rows] for group, rows in NAMED.items()}
    assert {group: len(names) for group, names in named.items()} == GROUPS
    assert len({name for names in named.values() for name in names}) == 65
    assert named == {group: [operation.name for operation in operations] for group, operations in OPERATIONS.items()}


def test_everything_that_can_be_measured_is_there_beyond_them() -> None:
    assert [row.name for row in FURTHER if row.reads not in ("-", "all")] == [operation.name for operation in BEYOND]


@pytest.mark.parametrize("row", [row for rows in NAMED.values() for row in rows], ids=lambda row: row.name)
def test_method_is_written_as_it_is(row: Row) -> None:
    repository = REPOSITORIES[row.place]
    assert row.method == _written(getattr(repository, row.attribute), _entity(repository))
    assert row.guarantee


@pytest.mark.parametrize("row", FURTHER, ids=lambda row: row.name)
def test_method_beyond_them_is_written_as_it_is(row: Row) -> None:
    places: dict[str, list[Any]] = {
        "repository": list(REPOSITORIES.values()),
        "adapter": [AllsourceAuthAdapter.embedded()],
        "allsource_auth": [allsource_auth],
    }
    owners = places.get(row.place) or [REPOSITORIES[row.place]]
    if row.attribute in ("restore", "revert"):
        owners = [owner for owner in owners if isinstance(owner, RestorableRepository)]
    for owner in owners:
        entity = "E" if row.place == "repository" or not isinstance(owner, Repository) else _entity(owner)
        assert row.method == _written(getattr(owner, row.attribute), entity)
    assert row.guarantee


@pytest.mark.parametrize("place", REPOSITORIES)
def test_no_public_method_is_missing(place: str) -> None:
    repository = type(REPOSITORIES[place])
    public = {name for name in dir(repository) if not name.startswith("_") and callable(getattr(repository, name))}
    rows = [row for rows in NAMED.values() for row in rows] + FURTHER
    written = {row.attribute for row in rows if row.place in (place, "repository")}
    if not issubclass(repository, RestorableRepository):
        written -= {"restore", "revert"}
    assert public == written


class Recorder:
    """An adapter, or a repository of it, that notes what is called."""

    def __init__(self, target: object, called: list[str], path: str = "") -> None:
        self._target, self._called, self._path = target, called, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if isinstance(found, Repository):
            return Recorder(found, self._called, f"{name}.")
        self._called.append(self._path + name)
        return found


class Cost(NamedTuple):
    reads: int
    scans: int
    events: int


async def _cost(operation: Operation, many: int) -> tuple[Cost, str]:
    """What one call costs on SQLite, and which method it calls."""
    counted = CountingStore(SqliteStore(SqliteLog(None)))
    async with AllsourceAuthAdapter.with_store(counted) as adapter:
        await adapter.users.create()  # the first write of an adapter also settles the settings
        given = await operation.given(Scene(adapter, many))
        counted.forget()
        called: list[str] = []
        recorder: Any = Recorder(adapter, called)
        result = await operation.call(recorder, given)
        assert bool(result) is not operation.silent
        events = sum(len(batch) for batch in counted.appends)
        return Cost(len(counted.reads), len(counted.scans), events), called[0]


def _sum(*counts: int) -> str:
    """Counts with lists of the sizes ``MANY``, as a formula in the size ``n``."""
    each = counts[1] - counts[0]
    fixed = counts[0] - each
    assert list(counts) == [fixed + each * many for many in MANY], "the cost is no straight line"
    parts = [str(fixed)] if fixed else []
    if each:
        parts.append("n" if each == 1 else f"{each}n")
    return " + ".join(parts)


@pytest.mark.parametrize("operation", CALLED, ids=str)
async def test_costs_are_those_of_a_counting_store(operation: Operation) -> None:
    rows = [row for rows in (*NAMED.values(), FURTHER) for row in rows if row.name == operation.name]
    assert len(rows) == 1
    (row,) = rows
    costs, methods = zip(*[await _cost(operation, many) for many in MANY], strict=True)
    (place, _, attribute) = methods[0].rpartition(".")
    assert attribute == row.attribute
    assert place == {"repository": place, "adapter": ""}.get(row.place, row.place)
    scans = ["1 scan"] if costs[0].scans else []
    reads = [*scans, *filter(None, [_sum(*(cost.reads for cost in costs))])]
    assert (" + ".join(reads) or "0", _sum(*(cost.events for cost in costs)) or "0") == (row.reads, row.events)
    assert {cost.scans for cost in costs} <= {0, 1}


async def test_sign_up_as_a_transaction_is_one_append() -> None:
    (sign_up,) = [operation for operation in BEYOND if operation.name == "sign-up as a transaction"]
    counted = CountingStore(SqliteStore(SqliteLog(None)))
    async with AllsourceAuthAdapter.with_store(counted) as adapter:
        await adapter.users.create()
        name = await sign_up.given(Scene(adapter))
        counted.forget()
        await sign_up.call(adapter, name)
    assert len(counted.appends) == 1
